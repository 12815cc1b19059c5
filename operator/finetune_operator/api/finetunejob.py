"""A FineTuneJob as read from the API server."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from finetune_operator.api import suggestion
from finetune_operator.api.reasons import Reason
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.status import FineTuneJobStatus, ProfileStatus
from finetune_trainer.contract.problem import Problem, choices, problems_of
from finetune_trainer.contract.recipe import JobIdentity
from finetune_trainer.contract.rule import OWN_VALUES
from finetune_trainer.contract.rules import cluster_problems, problems

MAX_SPEC_BYTES = 65_536
"""Limit for a spec as compact JSON. The schema limits each field, but all together could fill the operator's memory."""


class SpecError(Exception):
    """A spec that is not valid.

    Attributes:
        problems: every problem.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


class UnknownFieldError(SpecError):
    """A spec with fields that this version does not know.

    The API server stores only fields that are in the CRD. So where it has stored such a spec, the CRD is newer than
    this version.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneJobRef:
    """A reference to one FineTuneJob. A later one with the same name has another UID."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Why a run cannot begin yet."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneJob:
    """One FineTuneJob: identity, spec and the last written status.

    Attributes:
        spec: what the job itself says, with the values of its profiles where it says nothing, and the defaults.
        profile: the profiles of the run, of the one that is under way or of the one that begins; None without any.
        excess: a problem for each field above a ceiling of its profiles.
        held: why the run cannot begin; `spec` is then without the profiles.
    """

    name: str
    namespace: str
    uid: str
    generation: int
    creation_time: datetime
    deleting: bool
    spec: FineTuneJobSpec
    status: FineTuneJobStatus
    profile: ProfileStatus | None = None
    excess: tuple[Problem, ...] = ()
    held: Held | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name


def parse_spec(raw: Mapping[str, Any] | bytes, *, local: bool = False, own_values: bool = False) -> FineTuneJobSpec:
    """Parses a spec as strictly as the API server does.

    Args:
        raw: the spec, or its JSON.
        local: whether it is for a run on one machine, where file:// URIs are allowed.
        own_values: whether it is what the user wrote, and profiles may supply more. As on the API server, a rule over
            several fields then counts only if the spec itself has those that a profile may supply.

    Raises:
        SpecError: has every problem, each with path, value and remedy.
        UnknownFieldError: the same, and at least one field is unknown.
    """
    # As JSON, for which pydantic's strict mode takes dates and enumerations as strings. Only by alias, as the API
    # server does: a file must mean the same in both places.
    text = raw if isinstance(raw, bytes) else compact_json(raw)
    if len(text) > MAX_SPEC_BYTES:
        raise too_large(len(text))
    try:
        context = OWN_VALUES if own_values else None
        spec = FineTuneJobSpec.model_validate_json(text, strict=True, by_alias=True, by_name=False, context=context)
    except ValidationError as error:
        found = problems_of(error, "spec", _remedy)
        unknown = any(item["type"] == "extra_forbidden" for item in error.errors(include_url=False))
        raise (UnknownFieldError if unknown else SpecError)(found) from None
    recipe = spec.recipe(JobIdentity(name=""))
    own = json.loads(text) if own_values else None
    if broken := [*problems(recipe, own), *(() if local else cluster_problems(recipe))]:
        raise SpecError(broken)
    return spec


def compact_json(value: object) -> bytes:
    """A value as JSON without spaces. The size of a spec is counted in this form."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")


def too_large(size: int) -> SpecError:
    """The error for a spec of `size` bytes."""
    message = f"must have at most {MAX_SPEC_BYTES} bytes as JSON"
    return SpecError([Problem(path="spec", message=message, value=f"{size} bytes", remedy="make its texts shorter")])


def _remedy(error: ErrorDetails) -> str:
    """A suggestion for a field or a value that does not exist."""
    match error["type"]:
        case "extra_forbidden":
            return suggestion.for_field(error["loc"])
        case "enum":
            return suggestion.for_value(error["input"], choices(error["ctx"]))
        case _:
            return ""


def parse_job(raw: Mapping[str, Any]) -> FineTuneJob:
    """Parses an object of the API server by itself, without profiles.

    Raises:
        SpecError: the spec is not valid for this version.
    """
    metadata = raw["metadata"]
    return FineTuneJob(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        creation_time=datetime.fromisoformat(metadata["creationTimestamp"]),
        deleting="deletionTimestamp" in metadata,
        spec=parse_spec(raw.get("spec") or {}),
        status=FineTuneJobStatus.model_validate(raw.get("status") or {}),
    )
