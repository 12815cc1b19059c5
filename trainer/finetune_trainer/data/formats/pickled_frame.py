"""The reader of a pickled DataFrame. It takes the values from inert records (`pickle_guard`) and needs no pandas.

pandas pickles a DataFrame as blocks and two axes. A block has columns of one type, and the first axis has the names of
the columns. Columns that no row schema reads are not decoded.
"""

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import IO, Final

from finetune_trainer.contract.preflight_report import Unit
from finetune_trainer.contract.recipe.dataset import Limits
from finetune_trainer.data.formats.pickle_guard import Made, read_inert
from finetune_trainer.data.formats.pickled_array import (
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
from finetune_trainer.data.formats.records import ExpectedRows, Record, Row
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind, column_twice, shorten, shown
from finetune_trainer.data.tool_columns import as_in_json
from finetune_trainer.storage.base import ByteCount

MOST_BYTES: Final = 256 << 20
"""Largest pickle in bytes, decompressed. No other format is held in memory as a whole."""
_MOST_COLUMNS = 100_000
_MOST_LEVELS = 100
_MISSING = frozenset({"NA", "__nat_unpickle", "_nat_unpickle"})
_MOST_UNFOLDED = 2_000_000
"""Values that all rows together may have, besides `_UNFOLDED_PER_BYTE` for each byte of the file; some seconds."""
_UNFOLDED_PER_BYTE = 50


class PickledFrameRecords:
    """The rows of a pickled DataFrame.

    Args:
        pieces: the file's bytes, decompressed.
        limits: the limits of the data.
        expected: what is known of rows.
        unpacked: called with the size of every row in bytes.
    """

    unit: Final = Unit.ROW
    offset: Final = None

    def __init__(self, pieces: Iterator[bytes], limits: Limits, expected: ExpectedRows, unpacked: ByteCount) -> None:
        self._pieces = pieces
        self._longest = limits.max_line_bytes
        self._columns = expected.columns
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
            # The records are untrusted: anything in them may differ from what pandas writes.
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

    Args:
        root: the record of the DataFrame.
        most_rows: largest number of rows that a file of this size can hold.

    Attributes:
        names: names of the columns, in order.
        rows: number of rows.

    Raises:
        FaultError: the pickle holds something other than a DataFrame, or two columns of one name.
        TypeError: a record is not of the expected kind.
        ValueError: the blocks are inconsistent or in the form of pandas before 1.3.
        LookupError: a record lacks a part.
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
        """Adds a block's columns; returns its number of rows."""
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
    """A row is larger than the limit."""


class _Unfolding:
    """Limits the number of values in all rows of one file.

    Rows may share a list, and the list counts in each of them. Without a limit in proportion to the file, each of
    thousands of rows could expand to the longest row that is allowed.

    Args:
        size: the file's bytes.
    """

    def __init__(self, size: int) -> None:
        self._left = _MOST_UNFOLDED + _UNFOLDED_PER_BYTE * size

    def count(self) -> None:
        """Counts one value.

        Raises:
            FaultError: the values exceed the limit.
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
    """Converts the values of one row to JSON's types: missing values to None, arrays and tuples to lists.

    Args:
        longest: largest size of the row in bytes. Every value counts one byte besides its text: a list may hold one
            list many times, on many levels, so that a small file would expand without end.
        unfolding: the limit for all rows of the file.

    Attributes:
        size: size of the values converted so far, in bytes.
    """

    def __init__(self, longest: int, unfolding: _Unfolding) -> None:
        self._longest = longest
        self._unfolding = unfolding
        self.size = 0

    def __call__(self, value: object, levels: int = _MOST_LEVELS) -> object:
        """The converted value.

        Args:
            value: the value.
            levels: largest number of nested levels.

        Raises:
            FaultError: the rows of the file have too many values.
            _TooLongError: the row is larger than the limit.
            ValueError: the value has more levels; a list may even hold itself.
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
    """Writes the pickle to a file, because it is read twice; returns its size in bytes.

    Raises:
        FaultError: the pickle is larger than `MOST_BYTES`.
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
    """The indices in the DataFrame of a block's columns."""
    record = made(value)
    if record.kind == "slice":
        start, stop, step = record.args
        return range(integer(start), integer(stop), integer(step if step is not None else 1))
    return [integer(place) for place in NumpyArray(record).values()]


def _names(index: object, count: int) -> Sequence[object]:
    """The columns' names.

    Args:
        index: the record of the axis.
        count: number of columns. It is checked because a range may declare any length.

    Raises:
        TypeError: the axis is not an index.
        ValueError: the index has another length, or is of a kind that does not name columns.
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
    """A column's name as text.

    pandas allows any object as a name. One that is neither text nor a number is replaced by the column's number.
    """
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
