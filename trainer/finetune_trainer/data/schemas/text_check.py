"""Checks whether a JSON value is text that can be trained."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeGuard

from finetune_trainer.data.problems import Fault, ProblemKind, absent_key, shown

_TEXT_PARTS: Final = ("text", "input_text", "output_text")
"""The types of a part that is a text: that of chat completions, and those of OpenAI's Responses API."""


def text_key(value: object) -> str | bytes | None:
    """The key of a valid text: equal for equal texts. None for any other value.

    A text is valid if it has a character that is not blank, no NUL and no lone surrogate. The key of ASCII text is the
    text. The key of other text is its UTF-8 encoding: encoding finds lone surrogates, and the bytes are shorter than
    the text in memory, so they are hashed faster. Every row is checked by this function, so it must be fast.
    """
    # One function and no `isinstance`: three more calls for each text would take a fifth of the pass's time.
    if value.__class__ is not str or not value or value.isspace() or "\0" in value:
        return None
    if value.isascii():
        return value
    try:
        return value.encode()
    except UnicodeEncodeError:
        return None


def is_clean(text: str) -> bool:
    """Whether the text has no NUL and no lone surrogate. JSON can escape these, but no tokenizer can encode them."""
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def joined_parts(value: object) -> object:
    """The text of a content that is a list of text parts, joined by line breaks as vLLM does.

    Any other value is returned unchanged, also a list with parts of other types.
    """
    if not _is_parts(value):
        return value
    texts = [
        text for part in value if part.get("type", "text") in _TEXT_PARTS and isinstance(text := part.get("text"), str)
    ]
    return "\n".join(texts) if len(texts) == len(value) else value


def text_fault(value: object, path: str, *, may_be_empty: bool = False) -> Fault | None:
    """The fault of a value that is not a valid text (see `text_key`), or None.

    Args:
        value: the value.
        path: its key path, for messages.
        may_be_empty: whether empty or blank text is valid.
    """
    if not isinstance(value, str):
        return Fault(kind=ProblemKind.TYPE, path=path, found=shown(value), expected="text", remedy=_remedy(value))
    if not value.strip() and not may_be_empty:
        return Fault(
            kind=ProblemKind.EMPTY,
            path=path,
            found=shown(value),
            expected="text that is not empty",
            remedy="remove the row, or fill it in",
        )
    if not is_clean(value):
        what = "the character U+0000" if "\0" in value else f"a lone surrogate ({_surrogate(value)})"
        return Fault(
            kind=ProblemKind.CHARACTER,
            path=path,
            found=what,
            expected="Unicode text",
            remedy="a character was cut in half or binary data was stored: remove it",
        )
    return None


def column_faults(row: Mapping[str, object], columns: Sequence[str]) -> list[Fault]:
    """The faults of required columns of text."""
    faults = []
    for column in columns:
        if column not in row:
            faults.append(absent_key(row, column))
        elif fault := text_fault(row[column], column):
            faults.append(fault)
    return faults


def as_text(value: object) -> str:
    """The value as `str`; it was checked before."""
    assert isinstance(value, str)
    return value


_REASONING = ("thinking", "reasoning")
"""Types of parts that hold the assistant's reasoning."""


def _remedy(value: object) -> str:
    if isinstance(value, dict) and "0" in value:
        return "the table is written column by column: DataFrame.to_json(path, orient='records', lines=True)"
    if _is_parts(value):
        if any(part["type"] in _REASONING for part in value if isinstance(part, dict) and "type" in part):
            return "write the reasoning under reasoning_content, beside content, and the other parts as text"
        return "parts other than text (images, audio) are not trained: remove them, or the row"
    if value is None:
        return "remove the row, or fill it in"
    if isinstance(value, list | dict):
        return "write its text as one string, or name another column in dataset.fields"
    return "write it in quotes, or name another column in dataset.fields"


def _surrogate(text: str) -> str:
    return next(f"\\u{ord(letter):04x}" for letter in text if 0xD800 <= ord(letter) <= 0xDFFF)


def _is_parts(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(_is_part(part) for part in value)


def _is_part(value: object) -> bool:
    """Whether it is a part of a content. Bedrock's and Gemini's parts say their type by their only key."""
    return isinstance(value, dict) and ("type" in value or value.keys() == {"text"})
