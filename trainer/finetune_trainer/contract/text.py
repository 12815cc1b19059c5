"""Text that crosses a process boundary: how long it may be, and that it holds nothing but letters.

A file name, a key of somebody's JSON, what a library says of it: all of it may hold control characters, which move a
terminal's cursor, and reach a log, a status and an event from here. This module is where they end. The limits are those
of the FineTuneJob's status, which takes its own from here: what fits a record fits the status.
"""

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


def _message(value: Any) -> Any:
    return readable(value)[:MAX_MESSAGE] if isinstance(value, str) else value


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must not hold control characters or line breaks")
    return value


def _below(value: str) -> str:
    if "\\" in value or any(part in ("", ".", "..") for part in value.split("/")):
        raise ValueError("must be a path below its place: no '..', no empty part, no backslash")
    return value


Line = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_one_line)]
"""A name or an address: printable, and within the status' limit."""
Message = Annotated[str, BeforeValidator(_message)]
"""A text for people: whatever is said, it is made readable and cut to the status' limit."""
RelativePath = Annotated[Line, AfterValidator(_below)]
"""A path, with '/', that stays below the place it is relative to."""
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
"""A number of things that the API server can hold."""
