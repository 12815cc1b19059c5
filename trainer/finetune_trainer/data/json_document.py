"""A JSON document: an array of rows, or one object that holds such an array under one of its keys.

`json.load` needs several times the file's size in memory. Here the text is read in pieces, and each element is parsed
by the scanner for jsonl lines, so both are equally strict.
"""

import codecs
import json
from collections.abc import Callable, Iterable, Iterator
from json.scanner import make_scanner
from typing import Any, Final

from finetune_trainer.contract.preflight_report import Unit
from finetune_trainer.data.json_line import not_json, not_object, scan_value, too_much
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind, shorten
from finetune_trainer.data.records import Record

_BLANKS = " \t\r\n"
_LONGEST_TOKEN = len("-Infinity")
_scan_leniently: Callable[[str, int], tuple[Any, int]] = make_scanner(json.JSONDecoder())  # type: ignore[arg-type]


class JsonRecords:
    """The rows of a JSON document.

    Args:
        pieces: the file's bytes, decompressed, without a byte order mark.
        longest: most bytes of a row, or of any other value in the document.
    """

    unit: Final = Unit.ROW

    def __init__(self, pieces: Iterable[bytes], longest: int) -> None:
        self._text = _Text(pieces, longest)
        self.number = 0

    @property
    def offset(self) -> int:
        """See `Records`."""
        return self._text.offset

    def __iter__(self) -> Iterator[Record]:
        """See `Records`."""
        text = self._text
        first = text.peek()
        if not first:
            return
        if first == "[":
            yield from self._rows()
        elif first == "{":
            yield from self._members()
        else:
            raise text.fault("a JSON array of rows, or an object that holds one")
        if text.peek():
            raise text.fault("nothing after the end of the document", "one object a line is jsonl: dataset.format")

    def _rows(self) -> Iterator[Record]:
        text = self._text
        text.take("[")
        if text.peek() == "]":
            text.take("]")
            return
        while True:
            text.peek()
            offset = text.offset
            self.number += 1
            try:
                value = text.value()
            except FaultError as error:
                if not text.passed:
                    raise FaultError(error.fault, self.number, offset) from None
                yield self.number, offset, error.fault
            else:
                yield self.number, offset, value if isinstance(value, dict) else not_object(value)
            if text.peek() == "]":
                text.take("]")
                return
            text.take(",", "a comma or the array's end after a row")
            if text.peek() == "]":
                raise text.fault("a row after the comma", "remove the comma")

    def _members(self) -> Iterator[Record]:
        """The rows in an object: the one list of objects among its values."""
        text = self._text
        text.take("{")
        list_key: str | None = None
        keys: list[str] = []
        while text.peek() != "}":
            if keys:
                text.take(",", "a comma or the object's end after a value")
            if text.peek() != '"':
                raise text.fault("a key in double quotes")
            key = text.value()
            keys.append(key)
            text.peek()
            text.take(":", "a colon after a key")
            if text.peek() != "[" or not text.begins_list_of_objects():
                text.value()
                continue
            if list_key is not None:
                names = f"{shorten(list_key)!r} and {shorten(key)!r}"
                raise _document_fault(f"two lists of rows, {names}", "write each list to a file of its own")
            list_key = key
            yield from self._rows()
        text.take("}")
        if list_key is None:
            names = ", ".join(shorten(key, 24) for key in keys[:8]) or "none"
            remedy = "write an array [{…}, …], or one object a line: jq -c . FILE"
            raise _document_fault(f"one object without a list of objects; its keys: {names}", remedy)


class _Text:
    """The document's text from where it has been read to, in memory only as far as it is needed.

    Attributes:
        offset: bytes before the place that has been read to.
        passed: whether the last `value` that raised stands behind that place, so that reading can go on.
    """

    def __init__(self, pieces: Iterable[bytes], longest: int) -> None:
        self._pieces = iter(pieces)
        self._longest = longest
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._ended = False
        self._decoded_bytes = 0
        self.offset = 0
        self.passed = False

    def peek(self) -> str:
        """The next character that is no blank, and goes there; empty at the end."""
        while True:
            text, at = self._text, self._at
            while at < len(text) and text[at] in _BLANKS:
                at += 1
            self._go(at)
            if at < len(text):
                return text[at]
            if not self._more():
                return ""

    def take(self, character: str, expected: str | None = None) -> None:
        """Goes behind the character, which must be the next one.

        Raises:
            FaultError: another one stands there.
        """
        if not self._text.startswith(character, self._at):
            raise self.fault(expected or repr(character))
        self._go(self._at + 1)

    def begins_list_of_objects(self) -> bool:
        """Whether a list begins here whose first element is an object."""
        while True:
            rest = self._text[self._at + 1 :].lstrip(_BLANKS)
            if rest or not self._more():
                return rest.startswith("{")

    def value(self) -> Any:
        """The value that begins here, and goes behind it.

        Raises:
            FaultError: it is none, or is cut short, or too long.
        """
        self.passed = False
        try:
            value, end = self._scanned(scan_value)
        except FaultError as error:
            if error.fault.kind in (ProblemKind.DUPLICATE_KEY, ProblemKind.JSON) and not self.passed:
                # Well-formed but refused (a repeated key, NaN): the next value can be found.
                self._go(self._scanned(_scan_leniently)[1])
                self.passed = True
            raise
        start = self.offset
        self._go(end)
        if self.offset - start > self._longest:
            self.passed = True
            raise self._too_long()
        return value

    def fault(self, expected: str, remedy: str = "write the document with a JSON library: json.dump") -> FaultError:
        """The fault of what stands here."""
        if self._at >= len(self._text) and not self._more():
            return self._cut_short()
        found = f"{shorten(self._text[self._at : self._at + 100], 30)!r} at byte {self.offset + 1:,}"
        return FaultError(Fault(kind=ProblemKind.JSON, found=found, expected=expected, remedy=remedy))

    def _scanned(self, scan: Callable[[str, int], tuple[Any, int]]) -> tuple[Any, int]:
        """The value that begins here, and where it ends; reads on until it is whole."""
        while True:
            try:
                value, end = scan(self._text, self._at)
            except StopIteration as stop:
                position, said = int(stop.value), "Expecting value"
            except json.JSONDecodeError as error:
                position, said = error.pos, error.msg
            except (RecursionError, ValueError) as error:
                raise too_much(error) from None
            else:
                if end < len(self._text) or isinstance(value, dict | list | str) or not self._more():
                    return value, end  # a number at the end of what is there may go on
                continue
            stopped = position - self._at
            open_string = said.startswith("Unterminated string")
            if open_string or position >= len(self._text) - _LONGEST_TOKEN:  # perhaps only the end of what is there
                if len(self._text) - self._at > self._longest:
                    raise self._too_long()
                if self._more():
                    continue
                if open_string or self._at + stopped >= len(self._text):
                    raise self._cut_short()
            place = f"byte {self._offset_at(self._at + stopped) + 1:,}"
            raise not_json(self._text[self._at :], stopped, said, place)

    def _more(self) -> bool:
        """Reads on, at least as much as is held, so that a long value is not scanned once a piece."""
        held = self._text[self._at :]
        self._at = 0
        parts, wanted, got = [held], max(len(held), 1), 0
        while got < wanted and not self._ended:
            piece = next(self._pieces, b"")
            self._ended = not piece
            pending = len(self._decoder.getstate()[0])
            try:
                part = self._decoder.decode(piece, final=self._ended)
            except UnicodeDecodeError as error:
                raise self._not_utf8(error, self._decoded_bytes - pending) from None
            self._decoded_bytes += len(piece)
            parts.append(part)
            got += len(part)
        self._text = "".join(parts)
        return got > 0

    def _go(self, position: int) -> None:
        self.offset = self._offset_at(position)
        self._at = position

    def _offset_at(self, position: int) -> int:
        passed = self._text[self._at : position]
        return self.offset + (len(passed) if passed.isascii() else len(passed.encode()))

    def _cut_short(self) -> FaultError:
        return FaultError(
            Fault(
                kind=ProblemKind.JSON,
                found=f"the end of the file after {self._text[-30:]!r}",
                expected="a whole JSON document",
                remedy="the file is cut short: upload it again",
            )
        )

    def _too_long(self) -> FaultError:
        return FaultError(
            Fault(
                kind=ProblemKind.TOO_LONG,
                found=f"a value of more than {self._longest:,} bytes at byte {self.offset + 1:,}",
                expected="a shorter one",
                remedy="split the row, or raise dataset.limits.maxLineBytes",
            )
        )

    def _not_utf8(self, error: UnicodeDecodeError, before: int) -> FaultError:
        return FaultError(
            Fault(
                kind=ProblemKind.ENCODING,
                found=f"the byte 0x{error.object[error.start]:02x} at byte {before + error.start + 1:,} of the file",
                expected="UTF-8",
                remedy="if Windows or Excel wrote the file, or it is Latin-1: iconv -f WINDOWS-1252 -t UTF-8",
            )
        )


def _document_fault(found: str, remedy: str) -> FaultError:
    return FaultError(
        Fault(
            kind=ProblemKind.FILE,
            found=found,
            expected="an array of rows, or one object with a list of rows under one key",
            remedy=remedy,
        )
    )
