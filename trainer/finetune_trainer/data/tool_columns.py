"""Names of the columns and keys that hold tools and calls of them, and what a typed column makes of their objects."""

from typing import Final

CALLS: Final = ("tool_calls", "function_call")
"""The keys of a turn's calls; the second is OpenAI's key of 2023."""
TOOLS: Final = ("tools", "functions")
"""The columns of a row's tools; the second is OpenAI's name of 2023."""


def as_in_json(row: dict[str, object]) -> dict[str, object]:
    """A row of a format with typed columns, without the nulls in its tools and calls.

    All objects of a typed column have the same keys, and a key that an object lacks is null. In JSON such a null would
    be a value.
    """
    for column in TOOLS:
        if row.get(column):
            row[column] = _without_nulls(row[column])
    for turns in row.values():
        for turn in turns if isinstance(turns, list) else ():
            for key in CALLS:
                if isinstance(turn, dict) and turn.get(key):
                    turn[key] = _without_nulls(turn[key])
    return row


def _without_nulls(value: object) -> object:
    match value:
        case dict():
            return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [_without_nulls(inner) for inner in value]
    return value
