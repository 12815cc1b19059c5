"""The spec of a FineTuneJob: the contract's sections, and what Kubernetes needs beside them.

This is the only source of the CRD. Sections that shape the result are immutable by CEL; what only says where and when
the work runs may change and takes effect at the next attempt.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from finetune_trainer.contract.recipe import (
    CheckpointSpec,
    DatasetSpec,
    EvaluationSpec,
    LoraSpec,
    ModelSpec,
    OutputSpec,
    StorageSpec,
    TrainingSpec,
)
from finetune_trainer.contract.recipe.recipe import Profile, RunToken
from finetune_trainer.contract.wire import DnsLabel, Matching, ObjectName, Rule, Wire, matches

_QUANTITY = "^[0-9]+([.][0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"


@dataclass(frozen=True, slots=True)
class _QuantityRule(Rule):
    """A Kubernetes quantity; CEL also sees a plain number as it was written."""

    @property
    def expression(self) -> str:
        return f"type(self) == int ? self >= 0 : self.matches('{_QUANTITY}')"

    def holds(self, value: Any) -> bool:
        return matches(_QUANTITY, value)


Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    Field(max_length=24),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 24}),
    _QuantityRule("must be a Kubernetes quantity, for example 2, 500m or 16Gi"),
]
"""A number, or a string with a suffix; always a string here."""

MapKey = Annotated[str, Field(min_length=1, max_length=317)]
MapValue = Annotated[str, Field(max_length=253)]


class Resources(Wire):
    """What one training pod asks for."""

    gpus: int = Field(1, ge=0, le=16, description="GPUs of one pod; 0 trains on the CPU. Default: 1.")
    gpu_resource: Annotated[
        str,
        Matching("^[a-z0-9.-]+/[a-zA-Z0-9._-]+$", "must be an extended resource such as nvidia.com/gpu"),
        Field(max_length=128),
    ] = Field("nvidia.com/gpu", description="Extended resource that stands for a GPU. Default: nvidia.com/gpu.")
    nodes: int = Field(1, ge=1, le=64, description="Pods that train together, one a node. Default: 1.")
    cpu: Quantity = Field("1", description='CPU request of the training pod, in cores. Default: "1". Example: "4".')
    memory: Quantity | None = Field(
        None,
        description="Memory request and limit of the training pod. Default: a request of 4Gi without limit. "
        "Example: 32Gi.",
    )
    ephemeral_storage: Quantity | None = Field(
        None,
        description="Disk for model, data and checkpoints: request and limit. Default: none. Example: 50Gi.",
    )
    shared_memory: Quantity = Field("1Gi", description="Size of /dev/shm. Default: 1Gi.")


class TolerationOperator(StrEnum):
    """How a toleration's value is compared."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """Which effect of a taint is tolerated."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Wire):
    """A toleration, as in a pod."""

    key: MapKey | None = Field(None, description="Taint key. Default: every key. Example: nvidia.com/gpu.")
    operator: TolerationOperator = Field(TolerationOperator.EQUAL, description="Exists or Equal. Default: Equal.")
    value: MapValue | None = Field(None, description="Taint value, for Equal. Example: present.")
    effect: TaintEffect | None = Field(None, description="Taint effect. Default: every effect. Example: NoSchedule.")
    toleration_seconds: int | None = Field(
        None, ge=0, le=2_592_000, description="Seconds a NoExecute taint is tolerated. Default: for ever."
    )


class NodeSelectorOperator(StrEnum):
    """How a node label is compared."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


class NodeRequirement(Wire):
    """One requirement on a node's labels."""

    key: MapKey = Field(description="Node label. Example: nvidia.com/gpu.memory.")
    operator: NodeSelectorOperator = Field(description="In, NotIn, Exists, DoesNotExist, Gt or Lt. Example: Gt.")
    values: Annotated[list[MapValue], Field(max_length=32)] = Field(
        default_factory=list, description='Values to compare with. Default: none. Example: ["40000"].'
    )


class Affinity(Wire):
    """Required node affinity, the part of a pod's affinity that training needs."""

    required_node_labels: Annotated[list[NodeRequirement], Field(min_length=1, max_length=16)] = Field(
        description="Requirements that a node must meet, all of them."
    )


class LocalObject(Wire):
    """An object of the job's namespace."""

    name: ObjectName = Field(description="Name of the object. Example: registry-credentials.")


_RESERVED_ENV = (
    "^(AWS_|HF_|HUGGING|TRANSFORMERS_|KUBEFLOW_|KUBERNETES_|PYTHON|LD_|NVIDIA_|CUDA_VISIBLE|"
    "FINETUNE_(RECIPE|WORK|TERMINATION|STORAGE|HUB|POD)|(PATH|HOME|TMPDIR|USER)$)"
)


class EnvVar(Wire):
    """One environment variable; values come from the spec alone, never from a Secret."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": f"!self.name.matches('{_RESERVED_ENV}')",
                    "message": "this variable belongs to the trainer; use the field of the spec that sets it",
                    "fieldPath": ".name",
                }
            ]
        }
    )

    name: Annotated[
        str, Matching("^[A-Za-z_][A-Za-z0-9_]*$", "must be an environment variable's name"), Field(max_length=128)
    ] = Field(description="Name; reserved names are refused. Example: NCCL_DEBUG.")
    value: Annotated[str, Field(max_length=4096)] = Field("", description="Value. Default: empty. Example: WARN.")


class Scheduling(Wire):
    """Where the pods run, and what is added to them."""

    queue_name: DnsLabel | None = Field(None, description="Kueue LocalQueue. Default: none. Example: team-a.")
    priority_class_name: ObjectName | None = Field(
        None, description="PriorityClass of the training pods. Default: none. Example: batch-low."
    )
    node_selector: Annotated[dict[MapKey, MapValue], Field(max_length=32)] | None = Field(
        None, description="Node labels that the training pods need. Example: {gpu: h100}."
    )
    tolerations: Annotated[list[Toleration], Field(max_length=32)] | None = Field(
        None, description="Taints that the training pods tolerate. Default: none."
    )
    affinity: Affinity | None = Field(None, description="Node affinity of the training pods. Default: none.")
    runtime_class_name: ObjectName | None = Field(
        None, description="RuntimeClass of the training pods. Default: none. Example: nvidia."
    )
    service_account_name: ObjectName | None = Field(
        None,
        description="ServiceAccount of the pods, for IRSA or workload identity; must be one that the operator's "
        "administrator allows. Default: default. Example: trainer.",
    )
    image_pull_secrets: Annotated[list[LocalObject], Field(max_length=8)] | None = Field(
        None, description="Secrets of this namespace with registry credentials. Default: none."
    )
    labels: Annotated[dict[MapKey, MapValue], Field(max_length=32)] | None = Field(
        None, description="Labels added to the pods; those of the operator and of GitOps tools are refused."
    )
    annotations: Annotated[dict[MapKey, Annotated[str, Field(max_length=4096)]], Field(max_length=32)] | None = Field(
        None, description="Annotations added to the pods."
    )
    env: Annotated[list[EnvVar], Field(max_length=64)] | None = Field(
        None, description="Environment variables added to the training container. Default: none."
    )


class Preflight(Wire):
    """The checks before a GPU is asked for."""

    enabled: bool = Field(
        default=True, description="Check storage, data and model on a CPU pod before the training pod. Default: true."
    )


class Retry(Wire):
    """What follows a failed attempt."""

    limit: int = Field(
        3,
        ge=0,
        le=100,
        description="Further attempts after failures that may pass; preemption is not counted. Default: 3.",
    )
    backoff_seconds: int = Field(
        10,
        ge=0,
        le=3600,
        description="Seconds before the second attempt; doubled each time, at most an hour. Default: 10.",
    )


class Retention(Wire):
    """What is kept after the end."""

    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        le=31_536_000,
        description="Seconds after the end when the Jobs and pods are removed; the FineTuneJob and the adapter stay. "
        "Default: they stay too.",
    )


IMMUTABLE = ("model", "dataset", "lora", "training", "evaluation", "checkpoint", "output", "storage", "profile")
"""Sections that shape the result."""


def _immutable(section: str) -> dict[str, str]:
    return {
        "rule": f"self.{section} == oldSelf.{section}",
        "message": f"{section} is immutable, since it shapes the result: create a FineTuneJob with another name",
        "fieldPath": f".{section}",
    }


def _not_in_cluster(condition: str, field: str, instead: str) -> dict[str, str]:
    return {
        "rule": condition,
        "message": f"file:// works only in a local run (finetune run): use {instead}",
        "fieldPath": field,
    }


_RULES: list[dict[str, str]] = [
    *(_immutable(section) for section in IMMUTABLE),
    {
        "rule": "has(self.managedBy) == has(oldSelf.managedBy) && "
        "(!has(self.managedBy) || self.managedBy == oldSelf.managedBy)",
        "message": "managedBy is immutable: create a FineTuneJob with another name",
    },
    _not_in_cluster("!self.model.uri.startsWith('file://')", ".model.uri", "hf://, s3:// or pvc://"),
    _not_in_cluster(
        "!has(self.dataset.uri) || !self.dataset.uri.startsWith('file://')", ".dataset.uri", "s3:// or pvc://"
    ),
    _not_in_cluster("!self.output.uri.startsWith('file://')", ".output.uri", "s3://"),
]


def _one_micro_batch(spec: "FineTuneJobSpec") -> None:
    micro = spec.training.micro_batch_size
    if micro is not None and spec.training.batch_size % micro:
        raise ValueError(f"training.microBatchSize {micro} must divide training.batchSize {spec.training.batch_size}")


class FineTuneJobSpec(Wire):
    """What the user asks for: model, dataset and output are enough."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": _RULES})  # type: ignore[dict-item]

    model: ModelSpec = Field(description="The base model.")
    dataset: DatasetSpec = Field(description="The training data.")
    lora: LoraSpec = Field(default_factory=LoraSpec, description="The adapter that is trained.")
    training: TrainingSpec = Field(
        default_factory=TrainingSpec, description="Length, learning rate, batch and optimizer."
    )
    evaluation: EvaluationSpec = Field(
        default_factory=EvaluationSpec, description="When the adapter is measured against the base model."
    )
    checkpoint: CheckpointSpec = Field(
        default_factory=CheckpointSpec, description="How often the training state is saved."
    )
    output: OutputSpec = Field(description="Where the adapter goes.")
    storage: StorageSpec = Field(default_factory=StorageSpec, description="How object storage is reached.")
    profile: Profile = Field(
        Profile.NONE,
        description="A well-known set of settings: llama2-2023 (rank 64, alpha 16, dropout 0.1, batch 4 x "
        "accumulation 4, 2e-4, 500 steps, length 1024) or none. Default: none.",
    )
    resources: Resources = Field(default_factory=Resources, description="What one training pod asks for.")
    scheduling: Scheduling = Field(default_factory=Scheduling, description="Where the pods run.")
    preflight: Preflight = Field(default_factory=Preflight, description="The checks before a GPU is asked for.")
    retry: Retry = Field(default_factory=Retry, description="What follows a failed attempt.")
    retention: Retention = Field(default_factory=Retention, description="What is kept after the end.")
    suspend: bool = Field(
        default=False,
        description="Stop the pods and wait; false again starts a new attempt. Default: false.",
    )
    run_token: RunToken | None = Field(
        None,
        description="Any text; another text runs the finished job once more, into a place of its own. Default: none. "
        "Example: 2026-11-24.",
    )
    start_deadline_seconds: int | None = Field(
        None,
        ge=1,
        le=31_536_000,
        description="Seconds a pod may wait for its node and image before the job fails. Default: no limit.",
    )
    active_deadline_seconds: int | None = Field(
        None, ge=1, le=31_536_000, description="Seconds the job may take in all. Default: no limit. Example: 86400."
    )
    stall_timeout_seconds: int | None = Field(
        None,
        ge=60,
        le=86_400,
        description="Seconds without progress after which an attempt counts as stalled. Default: no limit.",
    )
    managed_by: Annotated[str, Field(min_length=1, max_length=63)] | None = Field(
        None,
        description="Controller that manages this job; another value than finetune.dev/operator leaves it alone. "
        "Default: finetune.dev/operator.",
    )

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> Self:
        _one_micro_batch(self)
        return self

