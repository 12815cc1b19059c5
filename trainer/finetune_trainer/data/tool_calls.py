"""Tools and the calls of them, as they stand in the data, and as chat templates expect them.

Data sets write them in several ways: OpenAI's, with the arguments as JSON inside a text; Hugging Face's, with objects;
LLaMA-Factory's ShareGPT, with a turn of the role `function_call` and the tools as JSON inside a text. Templates expect
one: arguments as an object, each tool under `function`. A text of JSON would be escaped again, and a model
trained on that calls its tools with a text. vLLM does the same to what it is sent, so training and serving agree.
"""

import json
from collections.abc import Mapping
from typing import Any

from finetune_trainer.data.problems import Fault, ProblemKind, shown
from finetune_trainer.data.text_check import is_clean

Tools = list[dict[str, Any]]


def read_calls(value: object, path: str) -> tuple[Tools, list[Fault]]:
    """The calls of a turn, as templates expect them, and what is wrong with them.

    Args:
        value: the calls: a list of objects, or one object, or either as JSON in a text.
        path: key path of them, for messages.
    """
    found, faults = _objects(value, path)
    calls = []
    for number, item in found:
        place = f"{path}[{number}]" if number is not None else path
        call, wrong = _call(item, place)
        faults += wrong
        calls.append(call)
    return calls, faults


def read_tools(value: object, path: str) -> tuple[Tools, list[Fault]]:
    """The tools of a row, as templates expect them, and what is wrong with them; see `read_calls`."""
    found, faults = _objects(value, path)
    tools = []
    for number, item in found:
        place = f"{path}[{number}]" if number is not None else path
        inner = item.get("function")
        function = inner if isinstance(inner, dict) else item
        if fault := _name_fault(function, place):
            faults.append(fault)
        faults += unclean(item, place)
        tools.append(item if function is not item else {"type": "function", "function": item})
    return tools, faults


def as_in_json(row: dict[str, object]) -> dict[str, object]:
    """The row of a format whose columns have types, with tools and calls as JSON would have them.

    Objects of a typed column all have the same keys; what one of them lacks is null there. In JSON a null is a value.
    """
    if row.get("tools"):
        row["tools"] = _without_nulls(row["tools"])
    for turns in row.values():
        for turn in turns if isinstance(turns, list) else ():
            if isinstance(turn, dict) and turn.get("tool_calls"):
                turn["tool_calls"] = _without_nulls(turn["tool_calls"])
    return row


def unclean(value: object, path: str) -> list[Fault]:
    """A fault where a text inside the value cannot be trained."""
    match value:
        case str():
            clean = is_clean(value)
        case dict():
            return [fault for key, inner in value.items() for fault in (*unclean(key, path), *unclean(inner, path))][:1]
        case list():
            return [fault for inner in value for fault in unclean(inner, path)][:1]
        case _:
            clean = True
    if clean:
        return []
    return [
        Fault(
            kind=ProblemKind.CHARACTER,
            path=path,
            found="the character U+0000 or a lone surrogate",
            expected="Unicode text",
            remedy="a character was cut in half or binary data was stored: remove it",
        )
    ]


def _objects(value: object, path: str) -> tuple[list[tuple[int | None, dict[str, Any]]], list[Fault]]:
    """The objects of a list, with their numbers, or the one object."""
    value = _parsed(value)
    if isinstance(value, dict):
        return [(None, value)], []
    if not isinstance(value, list):
        return [], [_no_list(value, path)]
    found: list[tuple[int | None, dict[str, Any]]] = []
    faults = []
    for number, item in enumerate(value):
        if isinstance(item, dict):
            found.append((number, item))
        else:
            faults.append(_no_object(item, f"{path}[{number}]"))
    return found, faults


def _call(item: dict[str, Any], path: str) -> tuple[dict[str, Any], list[Fault]]:
    inner = item.get("function")
    function = inner if isinstance(inner, dict) else item
    faults = [fault] if (fault := _name_fault(function, path)) else []
    place = f"{path}.function.arguments" if function is inner else f"{path}.arguments"
    arguments = function.get("arguments", function.get("parameters"))
    none = arguments is None or (isinstance(arguments, str) and not arguments.strip())
    arguments = {} if none else _parsed(arguments)
    if not isinstance(arguments, dict):
        faults.append(_no_arguments(arguments, place))
    faults += unclean(item, path) or unclean(arguments, place)
    named = {"name": function.get("name"), "arguments": arguments}
    return {**({"id": item["id"]} if item.get("id") else {}), "type": "function", "function": named}, faults


def _parsed(value: object) -> object:
    """What a text of JSON stands for; any other value, and a text of something else, as it is."""
    if not isinstance(value, str):
        return value
    try:
        parsed: object = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return parsed


def _name_fault(function: Mapping[str, Any], path: str) -> Fault | None:
    name = function.get("name")
    if isinstance(name, str) and name.strip():
        return None
    return Fault(
        kind=ProblemKind.TYPE if "name" in function else ProblemKind.SCHEMA,
        path=path,
        found=shown(name) if "name" in function else shown(dict(function)),
        expected='the name of a function: {"type": "function", "function": {"name": …}}',
        remedy="name it, or remove the row",
    )


def _no_list(value: object, path: str) -> Fault:
    return Fault(
        kind=ProblemKind.TYPE,
        path=path,
        found=shown(value),
        expected='a list of objects, [{"type": "function", "function": {"name": …}}]',
        remedy="write such a list, or remove the key",
    )


def _no_object(value: object, path: str) -> Fault:
    return Fault(
        kind=ProblemKind.TYPE,
        path=path,
        found=shown(value),
        expected='an object, {"type": "function", "function": {"name": …}}',
        remedy="write it as an object, or remove it",
    )


def _no_arguments(value: object, path: str) -> Fault:
    return Fault(
        kind=ProblemKind.TYPE,
        path=path,
        found=shown(value),
        expected="an object of arguments by name, or such an object as JSON in a text",
        remedy="write {} where there are none",
    )


def _without_nulls(value: object) -> object:
    match value:
        case dict():
            return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [_without_nulls(inner) for inner in value]
    return value
