"""The reader of plain text: every line that is not blank is a row with the one column `text`.

Text data sets have one row a line by custom. Rows of several paragraphs need jsonl, where a row may hold line breaks.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from finetune_trainer.contract.preflight_report import Unit
from finetune_trainer.data.formats.json_line import not_utf8
from finetune_trainer.data.formats.lines import LineSplitter, line_too_long
from finetune_trainer.data.formats.records import Record


class TextRecords:
    """The lines of a text file.

    Args:
        pieces: the file's bytes, decompressed, without a byte order mark.
        longest: most bytes of a line.
        column: name of the rows' only column.
    """

    unit: Final = Unit.LINE

    def __init__(self, pieces: Iterable[bytes], longest: int, column: str) -> None:
        self._lines = LineSplitter(pieces, longest)
        self._longest = longest
        self._column = column

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
        column = self._column
        for number, offset, line in self._lines:
            if line is None:
                yield number, offset, line_too_long(self._longest)
                continue
            try:
                text = line.removesuffix(b"\r").decode()
            except UnicodeDecodeError as error:
                yield number, offset, not_utf8(error).fault
                continue
            yield number, offset, {column: text} if text and not text.isspace() else None
