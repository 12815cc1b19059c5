"""Text that crosses a process boundary: how long it may be, and that it holds nothing but letters.

A file name, a key of somebody's JSON, what a library says of it: all of it may hold control characters, which move a
terminal's cursor, and reach a log, a status and an event from here. This module is where they end. The limits are those
of the FineTuneJob's status, which takes its own from here: what fits a record fits the status.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

MAX_TEXT = 1024
"""Characters of a name, an address, a word."""
MAX_MESSAGE = 4096
"""Characters of a message to people."""
MAX_INTEGER = 2**63 - 1
"""The API server's integers have 64 bits, and a sign."""
MAX_MODULES = 256
"""Modules that a record of the adapter names."""
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves a terminal's cursor, breaks a line, turns its direction, or is no letter at all."""
MAX_METRICS = 64
"""Metrics of an adapter that a record has."""


def printable(text: str) -> str:
    """The text with control characters and lone surrogates escaped.

    File names, keys and what a chat template says are a stranger's: they could move a terminal's cursor, and half a
    surrogate pair cannot be written as JSON at all.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def readable(text: str) -> str:
    """The text as `printable` has it, but with its line breaks: a message may have several lines."""
    return "\n".join(printable(line) for line in text.replace("\r\n", "\n").split("\n"))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _message(value: Any) -> Any:
    return _cut(readable(value), MAX_MESSAGE) if isinstance(value, str) else value


def _words(value: Any) -> Any:
    return printable(value)[:MAX_TEXT] if isinstance(value, str) else value


def one_line(value: str) -> str:
    """The text itself, which names a thing and so cannot be escaped.

    Raises:
        ValueError: it holds a control character, a line break, or half a surrogate pair.
    """
    if CONTROL.search(value):
        raise ValueError("must not hold control characters or line breaks")
    return value


def _below(value: str) -> str:
    if "\\" in value or any(part in ("", ".", "..") for part in value.split("/")):
        raise ValueError("must be a path below its place: no '..', no empty part, no backslash")
    return value


Line = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(one_line)]
"""A name or an address: printable, and within the status' limit."""
Message = Annotated[str, BeforeValidator(_message)]
"""A text for people: whatever is said, it is made readable and cut to the status' limit."""
Words = Annotated[str, BeforeValidator(_words), Field(max_length=MAX_TEXT)]
"""A short text for people, on one line."""
RelativePath = Annotated[Line, AfterValidator(_below)]
"""A path, with '/', that stays below the place it is relative to."""
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
"""A number of things that the API server can hold."""
PositiveCount = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
"""As `Count`, where there is at least one."""
