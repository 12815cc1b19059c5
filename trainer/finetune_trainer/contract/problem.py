"""What is wrong with a document that a user wrote: one type and one printed form, wherever it is found.

For what a schema can say (bounds, types, required and unknown fields) the message is the API server's own, so that the
server, the operator and the command line answer in the same words. What to write instead follows as the remedy.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MAX_SHOWN = 80
"""Most characters of a value in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong.

    Attributes:
        path: the field to change, for example `spec.training.microBatchSize`.
        message: what is wrong; the same text for every spec that breaks the same rule.
        value: what stands there, as it is shown; empty when nothing does.
        remedy: what to write instead, where that depends on the value.
    """

    path: str
    message: str
    value: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        shown_value = f" (found {self.value})" if self.value else ""
        return f"{self.path}: {self.message}{remedy}{shown_value}"


def shown(value: object) -> str:
    """A value in a message: short, and without a character that a terminal would obey."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True, exclude_none=True)
    # str() of an enumeration's member is its value.
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


Remedy = Callable[[ErrorDetails], str]
"""What to write instead, by the error; empty when there is nothing to add."""


def problems_of(error: ValidationError, root: str, remedy: Remedy = lambda _: "") -> list[Problem]:
    """Pydantic's errors as problems.

    Args:
        error: what a model said.
        root: the path of what was validated.
        remedy: asked for what the message does not say itself.
    """
    problems = []
    for item in error.errors(include_url=False):
        path = path_of(root, item["loc"])
        value = "" if item["type"] == "missing" else shown(item["input"])
        problem = Problem(path=path, value=value, message=_message(item, path))
        problems.append(replace(problem, remedy=remedy(item) or _REMEDIES.get(item["type"], "")))
    return problems


def path_of(root: str, location: Sequence[str | int]) -> str:
    """A place below a root, as Kubernetes writes it: `spec.scheduling.env[0].name`."""
    path = root
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


_TYPES = {
    "string_type": "string",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "integer"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "boolean"),
    "list_type": "array",
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "object"),
}
"""JSON schema's word for the type that pydantic missed, by pydantic's type of error."""

_WORDS = {
    "missing": "Required value",
    "greater_than_equal": "should be greater than or equal to {ge}",
    "less_than_equal": "should be less than or equal to {le}",
    "string_too_short": "should be at least {min_length} chars long",
    "string_too_long": "may not be more than {max_length} bytes",
    "too_short": "should have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
}
"""The API server's words, by pydantic's type of error."""

_REMEDIES = {
    "string_type": 'write it in quotes, for example "2e-4"',
    "int_type": "write a whole number without quotes",
    "bool_type": "write true or false without quotes",
    "duplicate": "remove one of the two",
    "list_type": "write a list, for example [a, b]",
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "write a section with fields of its own"),
}


def _message(item: ErrorDetails, path: str) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        return f'unknown field "{path}"'
    if kind == "enum":
        if not isinstance(item["input"], str):
            return _of_type("string", item["input"])
        return f"supported values: {', '.join(map(json.dumps, choices(context)))}"
    if kind in _TYPES:
        return _of_type(_TYPES[kind], item["input"])
    words = _WORDS.get(kind)
    return words.format(**context) if words else item["msg"].removeprefix("Value error, ")


def choices(context: Mapping[str, Any]) -> list[str]:
    """The values that an enumeration has, from pydantic's words `'a', 'b' or 'c'`."""
    return str(context["expected"]).split("'")[1::2]


def _of_type(expected: str, value: object) -> str:
    return f'must be of type {expected}: "{json_type(value)}"'


def json_type(value: object) -> str:
    """JSON schema's name for a value's type."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list() | tuple():
            return "array"
        case _:
            return "object"
