"""What every format gives: the file's records one after the other, each at its place.

A reader knows its format and nothing of schemas; the pass over the data (`scan`) knows schemas and nothing of formats.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from finetune_trainer.contract.preflight_report import Unit
from finetune_trainer.data.columns import Columns
from finetune_trainer.data.problems import Fault

Row = dict[str, object]
"""The keys of a JSON object, or the columns of a table."""
Record = tuple[int, int | None, Row | Fault | None]
"""Number from 1, in the reader's unit; offset of its first byte, where the format has one; and the row, or what is
wrong with the record, or None when it is blank."""


class Records(Protocol):
    """The records of one file, in order, with memory that does not grow with their number."""

    @property
    def unit(self) -> Unit:
        """What the numbers count."""
        ...

    @property
    def number(self) -> int:
        """The number of the record that came last; 0 before the first."""
        ...

    @property
    def offset(self) -> int | None:
        """Where the next record begins, when reading has stopped; None where the format has no such place."""
        ...

    def __iter__(self) -> Iterator[Record]:
        """The records.

        Raises:
            FaultError: the rest of the file cannot be read.
        """
        ...


@runtime_checkable
class TypedRecords(Records, Protocol):
    """The records of a file that declares its columns."""

    def columns(self) -> Columns:
        """The columns with their types.

        Raises:
            FaultError: the file cannot be read.
        """
        ...
