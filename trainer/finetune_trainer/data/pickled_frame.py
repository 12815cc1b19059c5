"""A pickled DataFrame, read without pandas: the values are taken out of the records that the pickle is made of.

A DataFrame pickles as blocks of columns of one type and two axes, the first of which names the columns. Columns that no
row can be made of are not looked at.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import IO, Final

from finetune_trainer.contract.preflight_report import Unit
from finetune_trainer.contract.recipe.dataset import DatasetSpec
from finetune_trainer.data.pickle_guard import Made, read_inert
from finetune_trainer.data.pickled_array import (
    NumpyArray,
    column_of,
    integer,
    is_array,
    kind_of,
    made,
    sequence,
    shape_of,
    state_of,
)
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind, column_twice, shorten, shown
from finetune_trainer.data.records import Record, Row
from finetune_trainer.data.row_schemas import columns_read
from finetune_trainer.data.tool_calls import as_in_json
from finetune_trainer.storage.base import ByteCount

MOST_BYTES: Final = 256 << 20
"""Largest pickle, decompressed: it is held in memory as a whole, which no other format is."""
_MOST_COLUMNS = 100_000
_MOST_LEVELS = 100
_MISSING = frozenset({"NA", "__nat_unpickle", "_nat_unpickle"})
_MOST_UNFOLDED = 2_000_000
"""Values of all rows, besides what is in proportion to the file; some seconds."""
_UNFOLDED_PER_BYTE = 50


class PickledFrameRecords:
    """The rows of a pickled DataFrame.

    Args:
        pieces: the file's bytes, decompressed.
        dataset: columns and limits.
        unpacked: called with the size of every row.
    """

    unit: Final = Unit.ROW
    offset: Final = None

    def __init__(self, pieces: Iterator[bytes], dataset: DatasetSpec, unpacked: ByteCount) -> None:
        self._pieces = pieces
        self._longest = dataset.limits.max_line_bytes
        self._columns = columns_read(dataset.fields)
        self._unpacked = unpacked
        self.number = 0

    def __iter__(self) -> Iterator[Record]:
        """See `Records`."""
        with tempfile.TemporaryFile() as file:
            size = _spool(self._pieces, file)
            if not size:
                return
            root = read_inert(file, size)
        unfolding = _Unfolding(size)
        try:
            frame = _Frame(root, most_rows=8 * size)  # no value takes less than a bit
            others: Row = dict.fromkeys(name for name in frame.names if name not in self._columns)
            read = {name: frame.column(name) for name in frame.names if name in self._columns}
            for index in range(frame.rows):
                self.number = index + 1
                plain = _Plain(self._longest, unfolding)
                try:
                    row: Row = {name: plain(column[index]) for name, column in read.items()}
                except _TooLongError:
                    yield self.number, None, self._too_long()
                    continue
                finally:
                    self._unpacked(plain.size)
                yield self.number, None, others | as_in_json(row)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            # The records are whatever the file says: anything in them may be other than pandas writes it.
            raise FaultError(_unknown(str(error) or type(error).__name__)) from None

    def _too_long(self) -> Fault:
        return Fault(
            kind=ProblemKind.TOO_LONG,
            found=f"a row of more than {self._longest:,} bytes",
            expected="a shorter one",
            remedy="split the row, or raise dataset.limits.maxLineBytes",
        )


class _Frame:
    """A DataFrame's columns.

    Attributes:
        names: of the columns, in order.
        rows: their number.
    """

    def __init__(self, root: object, most_rows: int) -> None:
        if kind_of(root) != "DataFrame":
            raise FaultError(_no_frame(root))
        state = state_of(root)
        manager = made(state.get("_mgr", state.get("_data")))
        if not manager.args:
            raise ValueError("blocks as pandas before 1.3 wrote them")
        blocks, axes = manager.args
        self._blocks: dict[int, tuple[object, int]] = {}
        lengths = {self._note(block) for block in sequence(blocks)}
        if len(lengths) > 1 or max(lengths, default=0) > most_rows:
            raise ValueError("columns of unequal lengths, or longer than the file")
        self.rows = lengths.pop() if lengths else 0
        names = _names(sequence(axes)[0], len(self._blocks))
        self.names = [_name(number, name) for number, name in enumerate(names, 1)]
        if twice := [name for name, often in Counter(self.names).items() if often > 1]:
            raise FaultError(column_twice(twice[0]))
        self._places = {name: place for place, name in enumerate(self.names)}

    def column(self, name: str) -> Sequence[object]:
        """A column's values."""
        values, index = self._blocks[self._places[name]]
        return column_of(values, index, self.rows)

    def _note(self, block: object) -> int:
        """Notes which columns a block holds; how many rows it has."""
        values, placement, *_ = made(block).args
        height, length = shape_of(values)
        if height + len(self._blocks) > _MOST_COLUMNS:
            raise ValueError(f"more than {_MOST_COLUMNS:,} columns")
        places = _placement(placement)
        if len(places) != height or not self._blocks.keys().isdisjoint(places):
            raise ValueError("a block with other columns than it names")
        self._blocks.update((place, (values, index)) for index, place in enumerate(places))
        return length


class _TooLongError(Exception):
    """A row is larger than allowed."""


class _Unfolding:
    """How many values the rows of one file may come to.

    A list that many rows share counts in each of them. That is as it should be, within what a file of its size can
    mean; else each of thousands of rows could unfold to the longest row there may be.
    """

    def __init__(self, size: int) -> None:
        self._left = _MOST_UNFOLDED + _UNFOLDED_PER_BYTE * size

    def count(self) -> None:
        """Takes one value more.

        Raises:
            FaultError: it is one too many.
        """
        self._left -= 1
        if self._left < 0:
            raise FaultError(
                Fault(
                    kind=ProblemKind.LIMIT,
                    found="rows that share lists, level upon level, and unfold to far more than the file",
                    expected="rows of a size that is in proportion to the file",
                    remedy="write Parquet instead: DataFrame.to_parquet",
                )
            )


class _Plain:
    """Makes the values of one row what JSON would have: what is missing is None, arrays and tuples are lists.

    Args:
        longest: most bytes of the row. Every value counts as one besides its text: a list may hold one list many
            times over, level upon level, so that a small file unfolds without end.
        unfolding: what all rows of the file may come to.

    Attributes:
        size: what was made so far.
    """

    def __init__(self, longest: int, unfolding: _Unfolding) -> None:
        self._longest = longest
        self._unfolding = unfolding
        self.size = 0

    def __call__(self, value: object, levels: int = _MOST_LEVELS) -> object:
        """The plain value, of at most so many levels.

        Raises:
            _TooLongError: the row becomes larger than allowed.
            ValueError: it has more levels; a list may even hold itself.
        """
        if not levels:
            raise ValueError("values nested too deeply")
        self.size += 1
        self._unfolding.count()
        if isinstance(value, str):
            self.size += len(value) if value.isascii() else len(value.encode(errors="surrogatepass"))
        if self.size > self._longest:
            raise _TooLongError
        if is_array(value) and len(array := NumpyArray(value).values()) <= self._longest:
            value = array
        match value:
            case float():
                return None if math.isnan(value) else value
            case list() | tuple() | memoryview():
                return [self(inner, levels - 1) for inner in value]
            case dict():
                items = value.items()
                return {key if isinstance(key, str) else shown(key): self(inner, levels - 1) for key, inner in items}
        return None if kind_of(value) in _MISSING else value


def _spool(pieces: Iterator[bytes], file: IO[bytes]) -> int:
    """Puts the pickle into a file, since it is read twice; its size.

    Raises:
        FaultError: it is too large.
    """
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MOST_BYTES:
            raise FaultError(
                Fault(
                    kind=ProblemKind.LIMIT,
                    found=f"a pickle of more than {MOST_BYTES:,} bytes",
                    expected="a smaller one: it is held in memory as a whole",
                    remedy="write Parquet, which is streamed: DataFrame.to_parquet",
                )
            )
        file.write(piece)
    file.flush()
    return size


def _placement(value: object) -> Sequence[int]:
    """The places of a block's columns among those of the frame."""
    record = made(value)
    if record.kind == "slice":
        start, stop, step = record.args
        return range(integer(start), integer(stop), integer(step if step is not None else 1))
    return [integer(place) for place in NumpyArray(record).values()]


def _names(index: object, count: int) -> Sequence[object]:
    """The columns' names.

    Args:
        index: the axis.
        count: how many there must be: a range may claim any number.
    """
    record = made(index)
    data = record.args[1] if record.kind == "_new_Index" else None
    if not isinstance(data, dict):
        raise TypeError("no names of the columns")
    if kind_of(record) == "RangeIndex":
        names: Sequence[object] = range(integer(data["start"]), integer(data["stop"]), integer(data["step"]))
    elif "data" in data:
        names = column_of(data["data"], 0, count)
    else:
        raise ValueError(f"columns that are named by a {kind_of(record)}")
    if len(names) != count:
        raise ValueError("more or fewer names than columns")
    return names


def _name(number: int, name: object) -> str:
    """A column's name; pandas takes anything for one, and only texts and numbers say something to a reader."""
    return str(name) if isinstance(name, str | int | float) else f"column {number}, named by {type(name).__name__}"


def _no_frame(root: object) -> Fault:
    return Fault(
        kind=ProblemKind.FILE,
        found=f"a pickle of {kind_of(root) if isinstance(root, Made) else shown(root)}",
        expected="a pickled DataFrame",
        remedy="write the rows as jsonl, or as a DataFrame to Parquet",
    )


def _unknown(said: str) -> Fault:
    return Fault(
        kind=ProblemKind.FILE,
        found=f"a DataFrame in a form that is not known ({shorten(said, 120)})",
        expected="a DataFrame as pandas 1.3 to 3 pickle it",
        remedy="write Parquet instead: DataFrame.to_parquet",
    )
