"""Types of text and numbers that cross a process boundary, with limits on length and on characters.

File names, keys of user data and messages of libraries may have control characters, which can move a terminal's cursor.
Every text that is shown passes this module, which escapes or refuses them: log, status, events, reports, model card.
The FineTuneJob's status uses the same limits, so a value that fits a record fits the status.
"""

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

MAX_TEXT = 1024
"""Largest number of characters in a name, an address or a short text."""
MAX_MESSAGE = 4096
"""Largest number of characters in a message."""
MAX_INTEGER = 2**63 - 1
"""Largest integer of the API server: signed, 64 bits."""
MAX_MODULES = 256
"""Largest number of module names in a record of an adapter."""
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, marks of writing direction, and surrogates."""
MAX_METRICS = 64
"""Largest number of metrics in a record of an adapter."""


def printable(text: str) -> str:
    """The text with control characters and lone surrogates escaped.

    File names, keys and messages of chat templates are untrusted. A control character could move a terminal's cursor,
    and a lone surrogate cannot be written as JSON.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def readable(text: str) -> str:
    """The text as `printable` returns it, with its line breaks kept, because a message may have several lines."""
    return "\n".join(printable(line) for line in text.replace("\r\n", "\n").split("\n"))


def message_of(text: str) -> str:
    """The text as a message: made `readable`, and cut to `MAX_MESSAGE` characters."""
    text = readable(text)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def _cleaned(clean: Callable[[str], str]) -> BeforeValidator:
    return BeforeValidator(lambda value: clean(value) if isinstance(value, str) else value)


def one_line(value: str) -> str:
    """The text, unchanged. It is refused instead of escaped, because an escaped name would be another name.

    Raises:
        ValueError: the text has a control character, a line break, or a lone surrogate.
    """
    if CONTROL.search(value):
        raise ValueError("must not hold control characters or line breaks")
    return value


def _below(value: str) -> str:
    if "\\" in value or any(part in ("", ".", "..") for part in value.split("/")):
        raise ValueError("must be a path below its place: no '..', no empty part, no backslash")
    return value


Line = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(one_line)]
"""A name or an address on one line, of at most `MAX_TEXT` characters. Others are refused."""
Message = Annotated[str, _cleaned(message_of)]
"""A message. Control characters are escaped, and it is cut to `MAX_MESSAGE` characters."""
Readable = Annotated[str, _cleaned(readable)]
"""A text of any length, with its line breaks. Control characters are escaped."""
Printable = Annotated[str, _cleaned(printable)]
"""A text of any length on one line. Control characters are escaped."""
Words = Annotated[str, _cleaned(lambda text: printable(text)[:MAX_TEXT]), Field(max_length=MAX_TEXT)]
"""A short text on one line. Control characters are escaped, and it is cut to `MAX_TEXT` characters."""
RelativePath = Annotated[Line, AfterValidator(_below)]
"""A relative path with '/', without `..`: it is always below its base."""
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
"""A non-negative number in the range of the API server's integers."""
PositiveCount = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
"""A positive number in the range of the API server's integers."""
