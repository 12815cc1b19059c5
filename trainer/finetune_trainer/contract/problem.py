"""Problems of a user's document: one type and one printed form for server, operator and command line.

For problems that a schema can express (bounds, types, required and unknown fields) the message is the API server's own,
so all three report the same text. The remedy, what to write instead, follows the message.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MAX_SHOWN = 80
"""Largest number of characters of a value in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem.

    Attributes:
        path: path of the field to change, for example `spec.training.microBatchSize`.
        message: what is wrong; the same text for every spec that breaks the same rule.
        value: the field's value as messages show it; empty if the field is absent.
        remedy: what to write instead, if that depends on the value; else empty.
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
    """A value as a message shows it: shortened, with control characters escaped."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True, exclude_none=True)
    # str() of an enumeration's member is its value.
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


Remedy = Callable[[ErrorDetails], str]
"""A function that gives the remedy of an error, what to write instead; empty if there is nothing to add."""


def problems_of(error: ValidationError, root: str, remedy: Remedy = lambda _: "") -> list[Problem]:
    """Pydantic's errors as problems.

    Args:
        error: the error of a model's validation.
        root: path of the validated value.
        remedy: gives the remedy of an error. If it gives none, a general remedy for the type of error is used.
    """
    problems = []
    for item in error.errors(include_url=False):
        path = path_of(root, item["loc"])
        value = "" if item["type"] == "missing" else shown(item["input"])
        problem = Problem(path=path, value=value, message=_message(item, path))
        problems.append(replace(problem, remedy=remedy(item) or _REMEDIES.get(item["type"], "")))
    return problems


def path_of(root: str, location: Sequence[str | int]) -> str:
    """The path of a field in Kubernetes' form, for example `spec.scheduling.env[0].name`.

    Args:
        root: path of the outermost value; may be empty.
        location: keys and list indices from there to the field.
    """
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
"""Pydantic's type of error -> JSON schema's name of the expected type."""

_WORDS = {
    "missing": "Required value",
    "greater_than_equal": "should be greater than or equal to {ge}",
    "less_than_equal": "should be less than or equal to {le}",
    "string_too_short": "should be at least {min_length} chars long",
    "string_too_long": "may not be more than {max_length} bytes",
    "too_short": "should have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
}
"""Pydantic's type of error -> the API server's message."""

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
    """The values of an enumeration, parsed from pydantic's text `'a', 'b' or 'c'`."""
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
