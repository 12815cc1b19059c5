"""The reader of a JSON document: an array of rows, one row, or an object with an array of rows under one of its keys.

`json.load` needs several times the file's size in memory. This reader reads the text in pieces. It parses each element
with the scanner of jsonl lines, so both formats are equally strict.
"""

import codecs
import json
from collections.abc import Callable, Iterable, Iterator
from json.scanner import make_scanner
from typing import Any, Final

from finetune_trainer.contract.preflight_report import Unit
from finetune_trainer.data.formats.json_line import not_json, not_object, scan_value, too_much
from finetune_trainer.data.formats.records import ExpectedRows, Record, Row
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind, shorten

_BLANKS = " \t\r\n"
_LONGEST_TOKEN = len("-Infinity")
_scan_leniently: Callable[[str, int], tuple[Any, int]] = make_scanner(json.JSONDecoder())  # type: ignore[arg-type]


class JsonRecords:
    """The rows of a JSON document.

    Args:
        pieces: the file's bytes, decompressed, without a byte order mark.
        longest: most bytes of a row, or of any other value in the document.
        expected: what is known of rows.
    """

    unit: Final = Unit.ROW

    def __init__(self, pieces: Iterable[bytes], longest: int, expected: ExpectedRows) -> None:
        self._text = _Text(pieces, longest)
        self._longest = longest
        self._expected = expected
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

    def _rows(self, first: Record | None = None) -> Iterator[Record]:
        """The rows of a list; `first` is the first one if it was read already."""
        text = self._text
        if first is None:
            text.take("[")
            if text.peek() == "]":
                text.take("]")
                return
        else:
            yield first
            if not self._goes_on():
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
            if not self._goes_on():
                return

    def _goes_on(self) -> bool:
        """Moves behind the comma after an element, or behind the array's end; whether there is another element."""
        text = self._text
        if text.peek() == "]":
            text.take("]")
            return False
        text.take(",", "a comma or the array's end after a row")
        if text.peek() == "]":
            raise text.fault("a row after the comma", "remove the comma")
        return True

    def _members(self) -> Iterator[Record]:
        """The row that the object is, or the rows in it: the elements of the only list of objects among its values.

        A list of turns, or of tools, is a list of objects too. It belongs to the object when its key is a column of
        rows and its first element is no row.
        """
        text = self._text
        offset = text.offset
        text.take("{")
        list_key: str | None = None
        members: Row = {}
        while text.peek() != "}":
            if members or list_key is not None:
                text.take(",", "a comma or the object's end after a value")
            if text.peek() != '"':
                raise text.fault("a key in double quotes")
            key = text.value()
            if key in members or key == list_key:
                raise _document_fault(f"the key {shorten(key)!r} twice", "write each key once")
            text.peek()
            text.take(":", "a colon after a key")
            if text.peek() != "[" or not text.begins_list_of_objects():
                value = text.value()
                # An object of many long values is no row. It is read on for the list of rows, and not kept.
                members[key] = value if text.offset - offset <= self._longest else None
                continue
            first_offset, first = self._first_element()
            if key in self._expected.columns and isinstance(first, dict) and not self._expected.is_row(first):
                members[key] = [first, *self._elements(offset)] if self._goes_on() else [first]
                continue
            if list_key is not None:
                names = f"{shorten(list_key)!r} and {shorten(key)!r}"
                raise _document_fault(f"two lists of rows, {names}", "write each list to a file of its own")
            list_key = key
            self.number += 1
            content = first if isinstance(first, dict | Fault) else not_object(first)
            yield from self._rows((self.number, first_offset, content))
        text.take("}")
        if list_key is None and self._expected.is_row(members):
            self.number = 1
            yield 1, offset, members
        elif list_key is None:
            names = ", ".join(shorten(key, 24) for key in [*members][:8]) or "none"
            remedy = "write an array [{…}, …], or one object a line: jq -c . FILE"
            raise _document_fault(f"one object without a list of objects; its keys: {names}", remedy)

    def _first_element(self) -> tuple[int, object]:
        """The offset and the first element of a list that is not empty; its fault if reading can go on behind it.

        Raises:
            FaultError: it cannot.
        """
        text = self._text
        text.take("[")
        text.peek()
        offset = text.offset
        try:
            return offset, text.value()
        except FaultError as error:
            if not text.passed:
                raise
            return offset, error.fault

    def _elements(self, begin: int) -> Iterator[object]:
        """The further elements of a list that belongs to a row.

        Args:
            begin: offset of the row.

        Raises:
            FaultError: an element cannot be read, or the row is too long.
        """
        text = self._text
        while True:
            text.peek()
            yield text.value()
            if text.offset - begin > self._longest:
                raise text.too_long()
            if not self._goes_on():
                return


class _Text:
    """A document's text and a position in it. Only the text after the position is in memory, as far as it was read.

    Args:
        pieces: the document's bytes.
        longest: most bytes of a value.

    Attributes:
        offset: byte offset of the position.
        passed: whether the position is after the value for which `value` has raised an error, so that reading can
            continue.
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
        """Moves to the next character that is not blank, and returns it; empty at the end."""
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
        """Moves behind the next character.

        Args:
            character: the expected character.
            expected: what is expected, for the message; the character by default.

        Raises:
            FaultError: the next character is another one.
        """
        if not self._text.startswith(character, self._at):
            raise self.fault(expected or repr(character))
        self._go(self._at + 1)

    def begins_list_of_objects(self) -> bool:
        """Whether the list at the position has an object as its first element."""
        while True:
            rest = self._text[self._at + 1 :].lstrip(_BLANKS)
            if rest or not self._more():
                return rest.startswith("{")

    def value(self) -> Any:
        """Reads the value at the position, and moves behind it.

        Raises:
            FaultError: the text is not a JSON value, or the value is refused, cut short or too long.
        """
        self.passed = False
        try:
            value, end = self._scanned(scan_value)
        except FaultError as error:
            if error.fault.kind in (ProblemKind.DUPLICATE_KEY, ProblemKind.JSON) and not self.passed:
                # A well-formed value that is refused (a repeated key, NaN): reading can continue behind it.
                self._go(self._scanned(_scan_leniently)[1])
                self.passed = True
            raise
        start = self.offset
        self._go(end)
        if self.offset - start > self._longest:
            self.passed = True
            raise self.too_long()
        return value

    def fault(self, expected: str, remedy: str = "write the document with a JSON library: json.dump") -> FaultError:
        """The fault of unexpected text at the position."""
        if self._at >= len(self._text) and not self._more():
            return self._cut_short()
        found = f"{shorten(self._text[self._at : self._at + 100], 30)!r} at byte {self.offset + 1:,}"
        return FaultError(Fault(kind=ProblemKind.JSON, found=found, expected=expected, remedy=remedy))

    def _scanned(self, scan: Callable[[str, int], tuple[Any, int]]) -> tuple[Any, int]:
        """The value at the position, and the index of its end. More text is read until the value is complete."""
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
                    return value, end  # a number at the end of the text in memory may be incomplete
                continue
            stopped = position - self._at
            open_string = said.startswith("Unterminated string")
            # An error near the end of the text in memory may only mean that more text must be read.
            if open_string or position >= len(self._text) - _LONGEST_TOKEN:
                if len(self._text) - self._at > self._longest:
                    raise self.too_long()
                if self._more():
                    continue
                if open_string or self._at + stopped >= len(self._text):
                    raise self._cut_short()
            place = f"byte {self._offset_at(self._at + stopped) + 1:,}"
            raise not_json(self._text[self._at :], stopped, said, place)

    def _more(self) -> bool:
        """Reads more text; returns whether there was any.

        It reads at least as much as is in memory. So the number of scans of a long value grows only with the logarithm
        of its length.
        """
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

    def too_long(self) -> FaultError:
        """The fault of a value, or a row, that is too long."""
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
