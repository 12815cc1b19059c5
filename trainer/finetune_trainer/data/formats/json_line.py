"""Parses a line of jsonl to a row. It is stricter than `json.loads`, and its messages say what to change.

`json.loads` accepts NaN, UTF-16, and the last of two equal keys. It raises RecursionError for deep nesting, and a bare
ValueError for an integer of 5,000 digits. Here each of these is a fault.

Lines are parsed by jiter, pydantic's parser. It is several times as fast, and it accepts no line that the careful
parser would refuse. A line that jiter refuses is parsed again by the careful parser. That gives the message, and it
accepts lines that jiter alone refuses: with a lone surrogate, or with more than 200 levels.
"""

import json
from collections.abc import Callable
from json.scanner import make_scanner
from typing import Any, NoReturn

from jiter import from_json

from finetune_trainer.data.problems import Fault, FaultError, ProblemKind, shorten, shown

_BLANKS = b" \t\r"
_ONE_OBJECT = "one JSON object"
_REWRITE = "write it with a JSON library: json.dumps"


def parse_row(line: bytes) -> dict[str, object] | None:
    """The JSON object on a line; None for a blank line.

    Raises:
        FaultError: the line is not one JSON object.
    """
    try:
        row = from_json(line, allow_inf_nan=False, cache_mode="keys", catch_duplicate_keys=True)
    except ValueError:
        return parse_carefully(line)
    return row if row.__class__ is dict else parse_carefully(line)


def parse_carefully(line: bytes) -> dict[str, object] | None:
    """The same as `parse_row`, by the careful parser only.

    Raises:
        FaultError: the line is not one JSON object.
    """
    content = line.strip(_BLANKS)
    if not content:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(error) from None
    row = parse_value(text)
    if row.__class__ is not dict:
        raise FaultError(not_object(row))
    return row


def parse_value(text: str) -> Any:
    """The value of a text of JSON, parsed as strictly as rows.

    Raises:
        FaultError: the text is not one JSON value.
    """
    try:
        value, end = scan_value(text, 0)
    except StopIteration as stop:  # the scanner raises it where no value begins
        raise not_json(text, int(stop.value)) from None
    except json.JSONDecodeError as error:
        raise not_json(text, error.pos, error.msg) from None
    except (RecursionError, ValueError) as error:
        raise too_much(error) from None
    if end != len(text) and (rest := text[end:].lstrip(" \t\r")):
        raise _more_than_one(text, rest)
    return value


def is_cut_short(line: bytes) -> bool:
    """Whether a line is the beginning of a JSON object that does not end on it."""
    text = line.strip(_BLANKS).decode(errors="replace")
    if not text.startswith("{"):
        return False
    try:
        scan_value(text, 0)
    except StopIteration as stop:
        return int(stop.value) >= len(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text) or error.msg.startswith("Unterminated string")
    except (ValueError, RecursionError, FaultError):
        return False
    return False


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise FaultError(
                    Fault(
                        kind=ProblemKind.DUPLICATE_KEY,
                        path=shorten(key, 60),
                        found="the same key twice in one object",
                        expected="each key once",
                        remedy="which of the two counts is not defined: remove one",
                    )
                )
            seen.add(key)
    return row


def _constant(name: str) -> NoReturn:
    raise _json(name, "a JSON value", f"JSON has no {name}: write null or leave the key out")


# The decoder's own C scanner is used, because `decode` searches for blanks in Python, twice a line.
_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant)
scan_value: Callable[[str, int], tuple[Any, int]] = make_scanner(_decoder)  # type: ignore[arg-type]  # typeshed's slip
"""The value at an index of a text, and the index of its end.

Raises StopIteration with an index at which no value begins, and JSONDecodeError, RecursionError, ValueError or
FaultError for errors inside a value.
"""


def not_object(value: object) -> Fault:
    """The fault of a JSON value that is not an object."""
    turns = isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)
    return Fault(
        kind=ProblemKind.NOT_OBJECT,
        found=shown(value),
        expected="a JSON object {…}",
        remedy='put the list of turns under a key: {"messages": […]}'
        if turns
        else 'give every value its column\'s name: {"text": …}',
    )


def too_much(error: RecursionError | ValueError) -> FaultError:
    """The fault of nesting that is too deep, or of an integer that is too long for Python.

    Args:
        error: Python's error. A ValueError is that of sys.set_int_max_str_digits.
    """
    if isinstance(error, RecursionError):
        return _json("objects or lists nested too deeply", "less than about 900 levels", "leave that key out")
    remedy = "write it as text, or leave that key out"
    return _json(f"an integer that is too long ({shorten(str(error), 50)})", "less than 4,300 digits", remedy)


def not_utf8(error: UnicodeDecodeError) -> FaultError:
    """The fault of a line with bytes that are not UTF-8."""
    byte = error.object[error.start]
    return FaultError(
        Fault(
            kind=ProblemKind.ENCODING,
            found=f"the byte 0x{byte:02x} at byte {error.start + 1} of the line, which is not UTF-8",
            expected="UTF-8",
            remedy="if Windows or Excel wrote the file, or it is Latin-1: iconv -f WINDOWS-1252 -t UTF-8",
        )
    )


def not_json(text: str, position: int, said: str = "Expecting value", place: str | None = None) -> FaultError:
    """The fault of text that is not JSON. It quotes the text, and has the remedy for the usual causes.

    Args:
        text: a line, or a part of a document.
        position: index in the text at which the parser stopped.
        said: the parser's message.
        place: the position as the message shows it; the column by default.
    """
    rest = text[position : position + 100]
    before = text[:position].rstrip()
    at = place or f"column {position + 1}"
    found, remedy = f"{shorten(rest, 30)!r} at {at}", _REWRITE
    if said.startswith("Invalid control character"):
        found, remedy = f"a raw control character {rest[:1]!r} at {at}", "escape it (\\n, \\t)"
    elif said.startswith("Invalid \\"):
        remedy = "write a backslash as \\\\"
    elif said.startswith("Unterminated string") or not rest:
        found, remedy = f"the end of the line after {text[-30:]!r}", "the object is not complete: one object, one line"
    elif rest.startswith("'"):
        remedy = "use double quotes: this looks like a printed Python object, write it with json.dumps"
    elif rest[:1] in "}]" and before.endswith(","):
        found, remedy = f"a comma before {rest[0]!r} at {at}", "remove the comma"
    elif rest.startswith(("//", "#", "/*")) or text.startswith(("//", "#", "/*")):
        remedy = "JSON has no comments: remove it"
    elif rest.startswith("\0"):
        found, remedy = f"NUL bytes at {at}", "the file was padded or not written to its end: tr -d '\\0'"
    elif rest.startswith("\ufeff"):
        found, remedy = "a byte order mark (U+FEFF) inside the file", "files were joined: remove the mark"
    elif rest.startswith(("None", "True", "False", "undefined")):
        remedy = "JSON writes null, true and false"
    return _json(found, _ONE_OBJECT, remedy)


def _more_than_one(text: str, rest: str) -> FaultError:
    if "\r" in text and rest.startswith("{"):
        return _json("several objects with a bare CR between them", _ONE_OBJECT, "use LF line ends: tr '\\r' '\\n'")
    remedy = "put each object on a line of its own" if rest.startswith("{") else _REWRITE
    if rest.startswith(","):
        remedy = "remove the comma after the object"
    return _json(f"{shorten(rest, 30)!r} after the first value", _ONE_OBJECT, remedy)


def _json(found: str, expected: str, remedy: str) -> FaultError:
    return FaultError(Fault(kind=ProblemKind.JSON, found=found, expected=expected, remedy=remedy))
