"""A FineTuneJob as read from the API server."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from finetune_operator.api import suggestion
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.status import FineTuneJobStatus
from finetune_trainer.contract.consistency import inconsistencies
from finetune_trainer.contract.recipe import JobIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecProblem:
    """One thing wrong with a spec: where, which value, and what would be right."""

    path: str
    value: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message} (found {self.value})"


class SpecError(Exception):
    """A spec that the models refuse.

    Attributes:
        problems: every problem.
    """

    def __init__(self, problems: tuple[SpecProblem, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneJob:
    """One job: identity, spec and the status that was last written."""

    name: str
    namespace: str
    uid: str
    generation: int
    creation_time: datetime
    deleting: bool
    spec: FineTuneJobSpec
    status: FineTuneJobStatus

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name


def parse_spec(raw: Mapping[str, Any], root: str = "spec") -> FineTuneJobSpec:
    """Parses a spec.

    Raises:
        SpecError: with every problem, each with its path, value and remedy.
    """
    try:
        # The API server knows no other names than those on the wire, and a file must mean the same in both places.
        spec = FineTuneJobSpec.model_validate(raw, by_alias=True, by_name=False)
    except ValidationError as error:
        raise SpecError(_problems(error, root)) from None
    if broken := inconsistencies(spec.recipe(JobIdentity(name=""))):
        raise SpecError(
            tuple(
                SpecProblem(path=root + item.path.removeprefix("spec"), value=item.value, message=item.message)
                for item in broken
            )
        )
    return spec


def parse_job(raw: Mapping[str, Any]) -> FineTuneJob:
    """Parses an object of the API server.

    Raises:
        SpecError: the spec is none that this version understands.
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


_REMEDIES = {
    "string_type": 'must be a string: write it in quotes, for example "2e-4"',
    "missing": "is required",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    "list_type": "must be a list, for example [a, b]",
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "must be a section with fields of its own"),
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} character(s)",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entry",
}
"""What to tell the user instead of pydantic's words, by its type of error."""


def _problems(error: ValidationError, root: str) -> tuple[SpecProblem, ...]:
    found = []
    for item in error.errors(include_url=False):
        path = root
        for part in item["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
        match item["type"]:
            case "extra_forbidden":
                message = suggestion.for_field(item["loc"])
            case "enum":
                message = suggestion.for_value(item["input"], suggestion.choices(item["ctx"]["expected"]))
            case kind:
                words = _REMEDIES.get(kind)
                message = words.format(**item.get("ctx", {})) if words else item["msg"].removeprefix("Value error, ")
        value = "nothing" if item["type"] == "missing" else repr(item["input"])[:80]
        found.append(SpecProblem(path=path, value=value, message=message))
    return tuple(found)
