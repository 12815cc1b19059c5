"""FineTuneProfile and ClusterFineTuneProfile: defaults and ceilings that many jobs share.

Both have the same spec: what a FineTuneJob may leave out (`supplied`), and ceilings. The models are the source of both
CRDs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import Field, ValidationError, create_model

from finetune_operator.api import names, suggestion
from finetune_operator.api.finetunejob import SpecError, compact_json
from finetune_operator.api.quantity import Cores, Memory, Quantity
from finetune_operator.api.spec import FineTuneJobSpec, ProfileKind
from finetune_operator.api.supplied import SUPPLIED, partial
from finetune_trainer.contract.problem import Problem, choices, problems_of
from finetune_trainer.contract.recipe.profile import ProfileSource
from finetune_trainer.contract.wire import Wire

MAX_PROFILE_BYTES = 49_152
"""Limit for a profile's spec as compact JSON: every job of a namespace may carry its values."""


class ResourceCeilings(Wire):
    """Ceilings of one training pod, and of the number of pods."""

    gpus: int | None = Field(None, ge=0, le=16, description="GPUs of one pod. Default: no ceiling. Example: 2.")
    nodes: int | None = Field(None, ge=1, le=64, description="Pods that train together. Default: no ceiling.")
    cpu: Cores | None = Field(
        None,
        description="Cores: of cpu and of cpuLimit, which becomes this ceiling where it is absent. Default: no "
        'ceiling. Example: "16".',
    )
    memory: Memory | None = Field(
        None,
        description="Memory, which becomes this ceiling where it is absent. Default: no ceiling. Example: 128Gi.",
    )
    ephemeral_storage: Quantity | None = Field(
        None,
        description="Disk, which becomes this ceiling where it is absent. Default: no ceiling. Example: 200Gi.",
    )
    claims: int | None = Field(
        None,
        ge=0,
        le=8,
        description="Number of ResourceClaims, which may bring GPUs that gpus does not count. Default: 0 where a "
        "profile has a ceiling for gpus, otherwise no ceiling.",
    )


class PreflightResourceCeilings(Wire):
    """Ceilings of the preflight pod."""

    cpu: Cores | None = Field(
        None,
        description="Cores: of cpu and of cpuLimit, which becomes this ceiling where it is absent. Default: no "
        'ceiling. Example: "2".',
    )
    memory: Memory | None = Field(None, description="Memory. Default: no ceiling. Example: 4Gi.")


class PreflightCeilings(Wire):
    """Ceilings of preflight."""

    resources: PreflightResourceCeilings | None = Field(None, description="Ceilings of the preflight pod.")


class RetryCeilings(Wire):
    """Ceilings of retries."""

    limit: int | None = Field(None, ge=0, le=100, description="Further attempts. Default: no ceiling. Example: 3.")


class Ceilings(Wire):
    """Highest values that a job may have, whoever has set them. Of several profiles the lowest ceiling counts."""

    resources: ResourceCeilings | None = Field(None, description="Ceilings of the training pods.")
    preflight: PreflightCeilings | None = Field(None, description="Ceilings of the preflight pod.")
    retry: RetryCeilings | None = Field(None, description="Ceilings of retries.")
    active_deadline_seconds: int | None = Field(
        None,
        ge=1,
        le=31_536_000,
        description="Seconds the whole job may take; the job's limit becomes this ceiling where it has none. Default: "
        "no ceiling. Example: 172800.",
    )


def _profile_spec() -> type[Wire]:
    return create_model(
        "ProfileSpec",
        __base__=partial(FineTuneJobSpec, "ProfileValues", SUPPLIED),
        __doc__="Values for what a job leaves out, in the form of a job's spec, and ceilings.",
        ceilings=(Ceilings | None, Field(None, description="Highest values that the jobs may have. Default: none.")),
    )


PROFILE_SPEC = _profile_spec()
"""The spec of both kinds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A profile as read from the API server or from a file.

    Attributes:
        namespace: its namespace; empty for a ClusterFineTuneProfile.
        created: its creation time as text in RFC 3339, which sorts; empty for one from a file.
        is_default: whether it is annotated as the default of its namespace or of the cluster.
        spec: its spec as JSON; empty if it is too large to be used.
    """

    kind: ProfileKind
    namespace: str
    name: str
    uid: str
    generation: int
    created: str
    is_default: bool
    spec: bytes

    @property
    def source(self) -> ProfileSource:
        """What status and manifest record."""
        return ProfileSource(kind=str(self.kind), name=self.name, generation=self.generation)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def values(self) -> Mapping[str, Any]:
        """What it supplies: a partial spec of a job.

        Raises:
            SpecError: it is not valid for this version.
        """
        return _parsed(self.spec)[0]

    def ceilings(self) -> Mapping[str, Any]:
        """Path of a field -> its ceiling.

        Raises:
            SpecError: it is not valid for this version.
        """
        return _parsed(self.spec)[1]


def profile_of(raw: Mapping[str, Any], kind: ProfileKind) -> Profile:
    """The profile of an object, valid or not."""
    metadata: Mapping[str, Any] = raw["metadata"]
    spec = compact_json(raw.get("spec") or {})
    return Profile(
        kind=kind,
        namespace=metadata.get("namespace", "") if kind is ProfileKind.NAMESPACED else "",
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        created=metadata.get("creationTimestamp") or "",
        is_default=(metadata.get("annotations") or {}).get(names.DEFAULT_PROFILE_ANNOTATION) == "true",
        spec=spec if len(spec) <= MAX_PROFILE_BYTES else b"",
    )


@lru_cache(maxsize=256)
def _parsed(spec: bytes) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Values and ceilings of a profile. Cached: a profile is used by many jobs."""
    if not spec:
        message = f"must have at most {MAX_PROFILE_BYTES} bytes as JSON"
        raise SpecError([Problem(path="spec", message=message, remedy="make its texts shorter")])
    try:
        parsed = PROFILE_SPEC.model_validate_json(spec, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise SpecError(problems_of(error, "spec", _remedy)) from None
    values = parsed.to_dict()
    return values, dict(_flat(values.pop("ceilings", {}), ""))


def _remedy(error: Any) -> str:
    if error["type"] == "enum":
        return suggestion.for_value(error["input"], choices(error["ctx"]))
    if error["type"] == "extra_forbidden":
        return "a profile has no such field: see docs/profiles.md, or upgrade the operator"
    return ""


def _flat(section: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
