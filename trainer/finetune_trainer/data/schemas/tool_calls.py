"""Converts tools and tool calls from the forms in data sets to the form that chat templates expect.

Data sets have several forms. OpenAI's has the arguments as JSON inside a text. Hugging Face's has objects.
LLaMA-Factory's ShareGPT has a turn of the role `function_call`, and the tools as JSON inside a text.

Templates expect one form: arguments as an object, and each tool under `function`. A template would escape a text of
JSON again, and a model trained on it would call its tools with a text. vLLM converts its requests in the same way, so
training and serving agree.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from finetune_trainer.data.examples import Message
from finetune_trainer.data.formats.json_line import parse_value
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind, shown
from finetune_trainer.data.schemas.text_check import is_clean
from finetune_trainer.data.tool_columns import TOOLS

Tools = list[dict[str, Any]]
_DEEPEST = 100
"""Largest number of nested objects and lists. Templates write them by recursion, whose depth Python limits."""


def read_calls(value: object, path: str) -> tuple[Tools, list[Fault]]:
    """The calls of a turn in the form that templates expect, and their faults.

    Args:
        value: the calls: a list of objects, or one object, or either as JSON in a text.
        path: their key path, for messages.
    """
    objects, faults = _objects(value, path)
    calls = []
    for place, item in objects:
        call, wrong = _call(item, place)
        faults += wrong
        calls.append(call)
    return calls, faults


def read_tools(value: object, path: str) -> tuple[Tools, list[Fault]]:
    """The tools of a row in the form that templates expect, and their faults; see `read_calls`."""
    objects, faults = _objects(value, path)
    tools = []
    for place, item in objects:
        function = _function_of(item)
        if fault := _name_fault(function, place):
            faults.append(fault)
        faults += unclean(item, place)
        tool = _without_padding(item)
        tools.append(tool if function is not item else {"type": "function", "function": tool})
    return tools, faults


def without_padded_arguments(turns: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """The turns without the arguments that are null and that the called tool does not have.

    `datasets` gives all objects of a column the same keys, and `Dataset.to_json` writes the added ones as null. A tool
    that the row does not list keeps its arguments.
    """
    parameters = {}
    for tool in tools:
        function = _function_of(dict(tool))
        properties = (function.get("parameters") or {}).get("properties") if function.get("parameters") else None
        if isinstance(properties, Mapping):
            parameters[function.get("name")] = properties
    if not parameters:
        return tuple(turns)

    def cleaned(call: Mapping[str, Any]) -> dict[str, Any]:
        function = call["function"]
        known = parameters.get(function["name"])
        if known is None:
            return dict(call)
        arguments = {key: value for key, value in function["arguments"].items() if value is not None or key in known}
        return {**call, "function": {**function, "arguments": arguments}}

    return tuple(
        replace(turn, more={**(turn.more or {}), "tool_calls": [cleaned(call) for call in turn.calls]})
        if turn.calls
        else turn
        for turn in turns
    )


def tools_of(row: Mapping[str, object]) -> tuple[Tools, list[Fault]]:
    """The tools in a row's own column, and their faults; see `read_tools`."""
    column = next((name for name in TOOLS if row.get(name)), None)
    return read_tools(row[column], column) if column is not None else ([], [])


def unclean(value: object, path: str) -> list[Fault]:
    """The first fault of a value that a chat template cannot write as JSON; empty if there is none.

    Args:
        value: tools, calls, or a part of them.
        path: its key path, for messages.
    """
    return [] if _is_plain(value) else _unclean(value, path, _DEEPEST)


def _is_plain(value: object) -> bool:
    """Whether a fast check finds no fault. Every row is checked, so the slower `_unclean` runs only after this one."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return "\\u0000" not in text and text.count("{") + text.count("[") <= _DEEPEST


def _unclean(value: object, path: str, levels: int) -> list[Fault]:
    """See `unclean`; the value may have at most `levels` nested levels."""
    match value:
        case dict() | list() if not levels:
            return [_too_deep(path)]
        case dict():
            parts = ((name, f"{path}.{key}") for key, inner in value.items() for name in (key, inner))
        case list():
            parts = ((inner, f"{path}[{number}]") for number, inner in enumerate(value))
        case str():
            return [] if is_clean(value) else [_no_text(path)]
        case None | bool() | int():
            return []
        case float() if math.isfinite(value):
            return []
        case _:
            return [_no_json(value, path)]
    for inner, place in parts:
        if faults := _unclean(inner, place, levels - 1):
            return faults
    return []


def _objects(value: object, path: str) -> tuple[list[tuple[str, dict[str, Any]]], list[Fault]]:
    """The objects of a list, or the single object, each with its key path, and the faults. null has no objects."""
    try:
        value = _parsed(value, path, _LIST)
    except FaultError as error:
        return [], [error.fault]
    if value is None:
        return [], []
    if isinstance(value, dict):
        return [(path, value)], []
    if not isinstance(value, list):
        return [], [_wrong_type(value, path, _LIST, "write such a list, or remove the key")]
    objects: list[tuple[str, dict[str, Any]]] = []
    faults = []
    for number, item in enumerate(value):
        place = f"{path}[{number}]"
        if isinstance(item, dict):
            objects.append((place, item))
        else:
            faults.append(_wrong_type(item, place, f"an object, {_FUNCTION}", "write it as an object, or remove it"))
    return objects, faults


def _function_of(item: dict[str, Any]) -> dict[str, Any]:
    """The function of a tool or a call: the value of its key `function`, or else the object itself."""
    inner = item.get("function")
    return inner if isinstance(inner, dict) else item


def _call(item: dict[str, Any], path: str) -> tuple[dict[str, Any], list[Fault]]:
    function = _function_of(item)
    faults = [fault] if (fault := _name_fault(function, path)) else []
    place = f"{path}.arguments" if function is item else f"{path}.function.arguments"
    arguments = function.get("arguments", function.get("parameters"))
    try:
        arguments = _parsed(arguments, place, _ARGUMENTS)
    except FaultError as error:
        return {}, [*faults, error.fault]
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        twice = isinstance(arguments, str)
        remedy = "they are encoded twice: decode them once, json.loads" if twice else "write {} where there are none"
        faults.append(_wrong_type(arguments, place, _ARGUMENTS, remedy))
    faults += unclean(item, path) or unclean(arguments, place)
    named = {"name": function.get("name"), "arguments": arguments}
    return {**({"id": item["id"]} if item.get("id") else {}), "type": "function", "function": named}, faults


def _parsed(value: object, path: str, expected: str) -> object:
    """The parsed value of a text of JSON, None for a blank text. Any other value is returned unchanged.

    Raises:
        FaultError: the text is not JSON.
    """
    if not isinstance(value, str):
        return value
    if not (text := value.strip(" \t\r\n")):
        return None
    try:
        parsed: object = parse_value(text)
    except FaultError as error:
        fault = error.fault
        if fault.path:
            raise FaultError(replace(fault, path=f"{path}.{fault.path}")) from None
        remedy = "write the value itself, or the text with json.dumps"
        found = f"{shown(value)}, no JSON: {fault.found}" if fault.kind is ProblemKind.JSON else fault.found
        raise FaultError(replace(fault, path=path, found=found, expected=expected, remedy=remedy)) from None
    return parsed


def _name_fault(function: Mapping[str, Any], path: str) -> Fault | None:
    name = function.get("name")
    if isinstance(name, str) and name.strip():
        return None
    return Fault(
        kind=ProblemKind.TYPE if "name" in function else ProblemKind.SCHEMA,
        path=path,
        found=shown(name) if "name" in function else shown(dict(function)),
        expected=f"the name of a function: {_FUNCTION}",
        remedy="name it, or remove the row",
    )


def _wrong_type(value: object, path: str, expected: str, remedy: str) -> Fault:
    return Fault(kind=ProblemKind.TYPE, path=path, found=shown(value), expected=expected, remedy=remedy)


def _no_text(path: str) -> Fault:
    return Fault(
        kind=ProblemKind.CHARACTER,
        path=path,
        found="the character U+0000 or a lone surrogate",
        expected="Unicode text",
        remedy="a character was cut in half or binary data was stored: remove it",
    )


def _no_json(value: object, path: str) -> Fault:
    return Fault(
        kind=ProblemKind.TYPE,
        path=path,
        found=shown(value) if isinstance(value, float | bytes) else f"a value of the type {type(value).__name__}",
        expected="what JSON can say: a text, a number, true, false, null, a list or an object",
        remedy="write it as text",
    )


def _too_deep(path: str) -> Fault:
    return Fault(
        kind=ProblemKind.TYPE,
        path=f"{path[:60]}…",
        found="objects or lists nested too deeply",
        expected=f"less than {_DEEPEST} levels",
        remedy="write that part as text, or leave it out",
    )


_FUNCTION = '{"type": "function", "function": {"name": …}}'
_LIST = f"a list of objects, [{_FUNCTION}]"
_ARGUMENTS = "an object of arguments by name, or such an object as JSON in a text"


def _without_padding(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool's schema without its nulls; a null is only a value where JSON Schema takes any value."""
    return {
        key: inner if key in _ANY_VALUE else _part_without_padding(inner)
        for key, inner in tool.items()
        if inner is not None or key in _ANY_VALUE
    }


def _part_without_padding(value: Any) -> Any:
    match value:
        case dict():
            return _without_padding(value)
        case list():
            return [_part_without_padding(inner) for inner in value if inner is not None]
    return value


_ANY_VALUE: Final = ("default", "const", "enum", "examples")
