"""The jsonl reader: one JSON object a line."""

from collections.abc import Iterable, Iterator
from typing import Final

from finetune_trainer.contract.preflight_report import Unit
from finetune_trainer.data.formats.json_line import is_cut_short, parse_row
from finetune_trainer.data.formats.lines import LineSplitter, line_too_long
from finetune_trainer.data.formats.records import Record, Row
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind


class JsonlRecords:
    """The objects of a jsonl file.

    Args:
        pieces: the file's bytes, decompressed, without a byte order mark.
        longest: most bytes of a line.
    """

    unit: Final = Unit.LINE

    def __init__(self, pieces: Iterable[bytes], longest: int) -> None:
        self._lines = LineSplitter(pieces, longest)
        self._longest = longest

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
        only_blanks = True
        for number, offset, lines in self._lines.blocks():
            if lines is None:
                yield number, offset, line_too_long(self._longest)
                only_blanks = False
                continue
            for line in lines:
                row: Row | Fault | None
                try:
                    row = parse_row(line)
                except FaultError as error:
                    row = self._line_fault(error.fault, line, (number, offset), first=only_blanks)
                if row is not None:
                    only_blanks = False
                yield number, offset, row
                number += 1  # noqa: PLW2901 (the places of the block's further lines)
                offset += len(line) + 1  # noqa: PLW2901

    def _line_fault(self, fault: Fault, line: bytes, place: tuple[int, int], *, first: bool) -> Fault:
        """The fault of a line that is not a JSON object.

        A line that ends in the middle of an object has a cause that depends on its place: the last line was cut short
        in the upload, the first one is the start of a pretty-printed file.

        Args:
            fault: what parsing the line has found.
            line: the line.
            place: its number and byte offset.
            first: whether all lines before it are blank.

        Raises:
            FaultError: the file is pretty-printed. It ends the reading, because every line would be a problem.
        """
        if fault.kind is ProblemKind.JSON and is_cut_short(line):
            if not self._lines.terminated:
                return _cut_short(line)
            if first and line.rstrip().endswith((b"{", b"[", b",", b":")):
                raise FaultError(_pretty_printed(), *place)
        return fault


def _pretty_printed() -> Fault:
    return Fault(
        kind=ProblemKind.FILE,
        found="an object that goes on in the next line",
        expected="jsonl: one JSON object a line",
        remedy="the JSON is pretty-printed: jq -c . FILE",
    )


def _cut_short(line: bytes) -> Fault:
    return Fault(
        kind=ProblemKind.JSON,
        found=f"the end of the file after {line[-30:].decode(errors='replace')!r}",
        expected="a whole object",
        remedy="the file is cut short: upload it again",
    )
