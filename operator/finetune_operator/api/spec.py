"""The spec of a FineTuneJob: the contract's sections, and what Kubernetes needs beside them.

This is the only source of the CRD. CEL rules make the sections immutable that shape the result. Fields that only decide
where and when the work runs may change; a change takes effect at the next attempt.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from finetune_operator.api.gpumemory import gpu_memory_bytes
from finetune_operator.api.kueue import QueueName
from finetune_operator.api.resources import PreflightResources, Resources
from finetune_operator.api.scheduling import Scheduling
from finetune_operator.api.supplied import SUPPLIED
from finetune_trainer.contract.recipe import JobIdentity, ModelSpec, Recipe
from finetune_trainer.contract.recipe.machine import MachineSpec
from finetune_trainer.contract.recipe.recipe import RecipeSections, RunToken
from finetune_trainer.contract.rule import with_rules
from finetune_trainer.contract.rules import CLUSTER_RULES, RULES
from finetune_trainer.contract.scalar import PLAIN, ObjectName
from finetune_trainer.contract.wire import Wire


class PreflightScheduling(StrEnum):
    """Where the preflight pod runs."""

    INHERIT = "inherit"
    NONE = "none"


class Preflight(Wire):
    """The checks before the job asks for a GPU."""

    enabled: bool = Field(
        default=True, description="Check storage, data and model on a CPU pod before the training pod. Default: true."
    )
    resources: PreflightResources = Field(
        default_factory=PreflightResources, description="What the preflight pod asks for."
    )
    scheduling: PreflightScheduling = Field(
        PreflightScheduling.INHERIT,
        description="Where the preflight pod runs. inherit: with nodeSelector, tolerations, affinity, "
        "runtimeClassName and priorityClassName of the training pods, but without a GPU. none: anywhere, for clusters "
        "whose GPU nodes are only for GPU pods. Default: inherit.",
    )
    queue_name: QueueName | None = Field(
        None,
        description="Kueue LocalQueue in which preflight waits for its CPU and memory. Default: none, so preflight "
        "takes no quota. Example: checks.",
    )


class Retry(Wire):
    """What follows a failed attempt."""

    limit: int = Field(
        3,
        ge=0,
        le=100,
        description="Further attempts after failures that may pass. Preemption does not count. Default: 3.",
    )
    backoff_seconds: int = Field(
        10,
        ge=0,
        le=3600,
        description="Seconds before the second attempt. They double each time, up to an hour. Default: 10.",
    )


class Retention(Wire):
    """What is kept after the end."""

    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        le=31_536_000,
        description="Seconds after the end until the Jobs and pods are removed. The FineTuneJob and the adapter "
        "stay. Default: never.",
    )


class ProfileKind(StrEnum):
    """The kinds of profiles."""

    NAMESPACED = "FineTuneProfile"
    CLUSTER = "ClusterFineTuneProfile"


class ProfileRef(Wire):
    """A profile that the job uses beside the default profiles of its namespace and of the cluster."""

    kind: ProfileKind = Field(
        ProfileKind.NAMESPACED,
        description="FineTuneProfile (of the job's namespace) or ClusterFineTuneProfile. Default: FineTuneProfile.",
    )
    name: ObjectName = Field(description="Name of the profile. Example: llama2-2023.")


IMMUTABLE = ("method", "dataset", "lora", "training", "dpo", "evaluation", "output", "profileRef")
"""Sections that shape the result. storage and checkpoint do not."""

MUTABLE_OF_MODEL = ("token_secret_ref", "cache")
"""Fields of the model that only decide how it is fetched."""


def _immutable(path: str, *, optional: bool = False) -> dict[str, str]:
    same = f"self.{path} == oldSelf.{path}"
    if optional:
        same = f"has(self.{path}) == has(oldSelf.{path}) && (!has(self.{path}) || {same})"
    return {
        "rule": same,
        "message": f"{path} is immutable, since it shapes the result: create a FineTuneJob with another name",
        "fieldPath": f".{path}",
    }


def _immutables() -> Iterator[dict[str, str]]:
    for name, field in ModelSpec.model_fields.items():
        if name not in MUTABLE_OF_MODEL:
            supplied = field.alias in (SUPPLIED["model"] or ()) and field.default_factory is None
            absent = not field.is_required() and field.default is None
            yield _immutable(f"model.{field.alias}", optional=absent or supplied)
    for section in IMMUTABLE:
        yield _immutable(section, optional=section == "profileRef")


_MANAGED_BY = {
    "rule": "has(self.managedBy) == has(oldSelf.managedBy) && "
    "(!has(self.managedBy) || self.managedBy == oldSelf.managedBy)",
    "message": "managedBy is immutable: create a FineTuneJob with another name",
}


def _with_rules(schema: dict[str, Any]) -> None:
    """Adds the rules of the contract, and those between old and new values, which only the API server can check."""
    changes = [*_immutables(), _MANAGED_BY]
    schema.update(with_rules({**schema, "x-kubernetes-validations": changes}, (*RULES, *CLUSTER_RULES)))


class FineTuneJobSpec(RecipeSections):
    """What the user asks for. Model, dataset and output are enough."""

    model_config = ConfigDict(json_schema_extra=_with_rules)

    profile_ref: ProfileRef | None = Field(
        None,
        description="A profile with defaults for what this job leaves out (docs/profiles.md). It wins over the default "
        "profiles of the namespace and of the cluster. Default: none. Example: {kind: ClusterFineTuneProfile, name: "
        "llama2-2023}.",
    )
    resources: Resources = Field(default_factory=Resources, description="What one training pod asks for.")
    scheduling: Scheduling = Field(default_factory=Scheduling, description="Where the pods run.")
    preflight: Preflight = Field(default_factory=Preflight, description="The checks before the job asks for a GPU.")
    retry: Retry = Field(default_factory=Retry, description="What follows a failed attempt.")
    retention: Retention = Field(default_factory=Retention, description="What is kept after the end.")
    suspend: bool = Field(
        default=False,
        description="Stop the pods and wait. false starts a new attempt. Default: false.",
    )
    run_token: RunToken | None = Field(
        None,
        description="Any text. Another text runs the finished job once more; the adapter goes to a new place. "
        "Default: none. Example: 2026-11-24.",
    )
    start_deadline_seconds: int = Field(
        86_400,
        ge=1,
        le=31_536_000,
        description="Seconds a pod may wait for its node and image before the job fails, or Kubernetes may refuse to "
        "create it (a quota, a policy). The time in a queue does not count. Default: 86400, a day.",
    )
    active_deadline_seconds: int | None = Field(
        None, ge=1, le=31_536_000, description="Seconds the whole job may take. Default: no limit. Example: 86400."
    )
    stall_timeout_seconds: int | None = Field(
        None,
        ge=60,
        le=86_400,
        description="Seconds without progress after which an attempt counts as stalled. Default: no limit.",
    )
    managed_by: Annotated[str, Field(min_length=1, max_length=63), PLAIN] | None = Field(
        None,
        description="Controller that manages this job. With another value than finetune.dev/operator this operator "
        "ignores the job. Default: finetune.dev/operator.",
    )

    def recipe(self, job: JobIdentity) -> Recipe:
        """The part of the spec that shapes the result, with the identity of the job and the attempt."""
        return Recipe(
            job=job,
            **{name: getattr(self, name) for name in RecipeSections.model_fields},
            run_token=self.run_token,
            machine=MachineSpec(
                gpus=self.resources.gpus,
                nodes=self.resources.nodes,
                gpu_memory_bytes=gpu_memory_bytes(self.resources, self.scheduling),
            ),
        )
