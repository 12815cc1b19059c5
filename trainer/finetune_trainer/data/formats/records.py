"""The protocol of all format readers: a file's records in order, each with its place.

A reader knows its format but no schemas. The pass over the data (`scan`) knows schemas but no formats.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from finetune_trainer.contract.preflight_report import Unit
from finetune_trainer.data.formats.columns import Columns
from finetune_trainer.data.problems import Fault

Row = dict[str, object]
"""The keys of a JSON object, or the columns of a table."""
Record = tuple[int, int | None, Row | Fault | None]
"""Number, offset and content of a record.

The number counts from 1 in the reader's unit. The offset is that of the record's first byte, None where the format has
none. The content is the row, or the record's fault, or None when the record is blank.
"""


@dataclass(frozen=True, slots=True)
class ExpectedRows:
    """What the readers of formats know of rows.

    Attributes:
        columns: the columns whose values are looked at. Typed formats read only these.
        is_row: whether an object has the columns of a row.
    """

    columns: frozenset[str]
    is_row: Callable[[Row], bool]


class Records(Protocol):
    """The records of one file, in order. Except for pickles, memory does not grow with their number."""

    @property
    def unit(self) -> Unit:
        """What the records' numbers count."""
        ...

    @property
    def number(self) -> int:
        """Number of the last record; 0 before the first."""
        ...

    @property
    def offset(self) -> int | None:
        """Byte offset of the next record after reading has stopped; None where the format has no offsets."""
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
