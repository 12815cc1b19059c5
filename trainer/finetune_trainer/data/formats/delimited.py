r"""The reader of CSV and TSV: the first line names the columns, and every further record is a row of texts.

The parser is the standard library's in strict mode: fields may be quoted with `"`, a quote inside is doubled, and a
quoted field may have line breaks. This module adds the physical line on which a record begins, and faults for the usual
mistakes (another delimiter, a repeated header, a quote that is not closed).
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from finetune_trainer.contract.preflight_report import Unit
from finetune_trainer.data.formats.columns import Columns, ColumnType
from finetune_trainer.data.formats.json_line import not_utf8
from finetune_trainer.data.formats.lines import LineSplitter, line_too_long
from finetune_trainer.data.formats.records import Record
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind, shorten

_NAMES = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}
_NOT_CLOSED = "a quoted field of this row is never closed"


class DelimitedRecords:
    """The records of a CSV or TSV file after its header.

    Args:
        pieces: the file's bytes, decompressed, without a byte order mark.
        longest: most bytes of a record, line breaks in quoted fields included.
        delimiter: a comma or a tab.
    """

    unit: Final = Unit.LINE

    def __init__(self, pieces: Iterable[bytes], longest: int, delimiter: str) -> None:
        self._lines = _Lines(pieces, longest)
        self._delimiter = delimiter
        # The parser's own limit is 128 KiB and global for the process. `_Lines` enforces ours.
        csv.field_size_limit(max(csv.field_size_limit(), longest))
        self._parser = csv.reader(iter(self._lines), delimiter=delimiter, strict=True)
        self._parsed = self._records()
        self._names: list[str] | None = None
        self._blank = 0  # lines before the header

    @property
    def number(self) -> int:
        """See `Records`."""
        return self._lines.number

    @property
    def offset(self) -> int:
        """See `Records`."""
        return self._lines.offset

    def __iter__(self) -> Iterator[Record]:
        """See `Records`."""
        header = self._header()
        yield from ((number, None, None) for number in range(1, self._blank + 1))
        count = len(header)
        # pandas writes its index as a first column without a name.
        skipped = int(header[:1] == [""])
        for number, offset, cells in self._parsed:
            if isinstance(cells, Fault):
                yield number, offset, cells
            elif not cells:
                yield number, offset, None
            elif len(cells) != count:
                yield number, offset, self._wrong_count(cells, count)
            elif cells == header:
                yield number, offset, _header_again()
            else:
                yield number, offset, dict(zip(header[skipped:], cells[skipped:], strict=True))

    def columns(self) -> Columns:
        """See `TypedRecords`."""
        return {name: ColumnType(name="text", text=True) for name in self._header() if name}

    def _header(self) -> list[str]:
        """The columns' names; empty for a file without a line.

        Raises:
            FaultError: the header cannot be read.
        """
        if self._names is None:
            for number, offset, cells in self._parsed:
                if isinstance(cells, Fault):
                    raise FaultError(cells, number, offset)
                if cells:
                    self._names = self._names_of(cells, number, offset)
                    break
                self._blank += 1
        return self._names or []

    def _records(self) -> Iterator[tuple[int, int, list[str] | Fault]]:
        """The parser's records: line, offset, and the fields or the record's fault."""
        lines = self._lines
        while True:
            lines.begin()
            record: list[str] | Fault
            try:
                record = next(self._parser)
            except StopIteration:
                return
            except csv.Error as error:
                record = self._fault(str(error))
            yield lines.first_number, lines.first_offset, lines.fault or record

    def _names_of(self, cells: list[str], number: int, offset: int) -> list[str]:
        """The columns' names from the first record.

        Raises:
            FaultError: the record is not a valid header.
        """
        names = [cell.strip() for cell in cells]
        fault: Fault | None = None
        other = next((mark for mark in _NAMES if mark != self._delimiter and mark in names[0]), None)
        if names[0].startswith(("{", "[")):
            fault = _header_fault("JSON", "set dataset.format: jsonl or json, or auto")
        elif len(names) == 1 and other is not None:
            fault = self._other_delimiter(names[0], other)
        elif empty := [index for index, name in enumerate(names, 1) if not name and index > 1]:
            fault = _header_fault(f"no name for column {empty[0]}", "give every column a name")
        elif twice := [name for name, count in Counter(names).items() if count > 1]:
            fault = _header_fault(f"the column {shorten(twice[0])!r} twice", "rename or remove one of the two")
        elif names == [""]:
            fault = _header_fault("an empty name", "the first line must name the columns")
        if fault is not None:
            raise FaultError(fault, number, offset)
        return names

    def _other_delimiter(self, name: str, other: str) -> Fault:
        remedy = "write the file anew with commas between the columns"
        if other == "\t":
            remedy = "set dataset.format: tsv, or call the file .tsv"
        elif other == ",":
            remedy = "set dataset.format: csv, or call the file .csv"
        return _header_fault(
            f"one column {shorten(name)!r} with {_NAMES[other]} in its name",
            remedy,
            expected=f"columns with {_NAMES[self._delimiter]} between them",
        )

    def _wrong_count(self, cells: list[str], count: int) -> Fault:
        return Fault(
            kind=ProblemKind.CSV,
            found=f"{len(cells)} field{'s' if len(cells) > 1 else ''}, the last {shorten(cells[-1], 30)!r}",
            expected=f"{count}, as many as the header names",
            remedy="remove the blank before the quote"
            if any(cell.startswith(' "') for cell in cells)
            else f'quote fields that hold {_NAMES[self._delimiter]}, a line break or a quote: "…"',
        )

    def _fault(self, said: str) -> Fault:
        """The parser's error as a fault. The parser's messages may change; an unknown one is used as it is."""
        expected, remedy = "CSV", "write the file with a CSV library"
        if "end of data" in said:
            said, expected, remedy = _NOT_CLOSED, "a closing quote", 'close it; write a quote inside a field as ""'
        elif "expected after" in said:
            said = "a quote in the middle of a quoted field"
            expected, remedy = "a delimiter or the line's end after the closing quote", 'write a quote inside as ""'
        elif "new-line character" in said:
            said, expected, remedy = "a bare CR outside of quotes", "LF at the end of lines", "tr '\\r' '\\n'"
        return Fault(kind=ProblemKind.CSV, found=said, expected=expected, remedy=remedy)


class _Lines:
    """The lines of text for the parser. It also records the place of the current record.

    A line that is too long or not UTF-8 is replaced by one that parses, and `fault` is set for its record.

    Attributes:
        first_number: number of the record's first line.
        first_offset: byte offset of the record's first line.
        fault: the fault of the record; None if there is none.
    """

    def __init__(self, pieces: Iterable[bytes], longest: int) -> None:
        self._lines = LineSplitter(pieces, longest)
        self._longest = longest
        self._size = 0
        self.first_number = self.first_offset = 0
        self.fault: Fault | None = None

    @property
    def number(self) -> int:
        """Number of the last physical line."""
        return self._lines.number

    @property
    def offset(self) -> int:
        """Byte offset of the next line."""
        return self._lines.offset

    def begin(self) -> None:
        """Begins a record: its first line is the next one."""
        self._size = 0
        self.fault = None

    def __iter__(self) -> Iterator[str]:
        for number, offset, content in self._lines:
            if not self._size:
                self.first_number, self.first_offset = number, offset
            if content is None:
                self.fault = line_too_long(self._longest)
            line = content or b""
            self._size += len(line) + 1
            if self._size > self._longest + 1:
                fault = Fault(
                    kind=ProblemKind.TOO_LONG,
                    found=f"a record of more than {self._longest:,} bytes; perhaps {_NOT_CLOSED}",
                    expected="a shorter one",
                    remedy="close the quote, or raise dataset.limits.maxLineBytes",
                )
                raise FaultError(fault, self.first_number, self.first_offset)
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                self.fault = not_utf8(error).fault
                text = line.decode(errors="replace")
            yield text + "\n"


def _header_fault(found: str, remedy: str, expected: str = "a header with a name for each column, each once") -> Fault:
    return Fault(kind=ProblemKind.CSV, found=found, expected=expected, remedy=remedy)


def _header_again() -> Fault:
    return Fault(
        kind=ProblemKind.CSV,
        found="the header again",
        expected="a row",
        remedy="files were joined: remove the line, or upload the files apart under one prefix",
    )
