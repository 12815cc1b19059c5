"""Reads the values of a pickled column from inert records (`pickle_guard.Made`): numpy, pandas and Arrow arrays.

The records are untrusted. Inconsistent ones raise TypeError, ValueError or LookupError, which `pickled_frame` turns
into a fault. Values are views of the file's own bytes or decoded once, so memory stays in proportion to the file even
when the file refers to one part many times.
"""

import math
from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Final

from finetune_trainer.data.formats.pickle_guard import Made

_FORMATS: Final = {
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
    "f4": "f",
    "f8": "d",
    "b1": "?",
}
"""numpy's name of a type -> the format character of `memoryview`."""
_OFFSETS: Final = {"string": "i", "large_string": "q"}
"""Arrow's name of a type -> the format character of its offsets."""
_STANDS_FOR_ITS_CLASS = frozenset({"_reconstructor", "_reconstruct", "__pyx_unpickle_NDArrayBacked", "_new_Index"})
_NDARRAY = frozenset({"ndarray", "_frombuffer"})


def kind_of(value: object) -> str:
    """The name of the class or function that a record stands for; empty for plain values.

    Some constructors take the class as their first argument. For these it is that class.
    """
    if isinstance(value, Made) and value.kind in _STANDS_FOR_ITS_CLASS:
        value = value.args[0]
    if isinstance(value, Made) or (isinstance(value, type) and issubclass(value, Made)):
        return value.kind
    return ""


def column_of(values: object, index: int, count: int) -> Sequence[object]:
    """One column of a block.

    Args:
        values: the record of the block's values.
        index: the column's index in the block.
        count: number of values that the column must have.

    Raises:
        TypeError: a record is not of the expected kind.
        ValueError: the column has another number of values, or the data do not fit its shape.
        LookupError: a record lacks a part.
    """
    items = _column(values, index, count)
    if len(items) != count:
        raise ValueError(f"a column of {len(items):,} values that should have {count:,}")
    return items


def shape_of(values: object) -> tuple[int, int]:
    """The shape that a block declares: number of columns, and number of values in each.

    Only `column_of` checks that the values are there.
    """
    kind = kind_of(values)
    if kind.startswith("Arrow"):
        return 1, sum(integer(sequence(chunk.args[0])[1]) for chunk in _chunks(values))
    shape = NumpyArray(values if kind in _NDARRAY else _held(values)).shape
    return (shape[0], shape[1]) if len(shape) == 2 else (1, shape[0])


def is_array(value: object) -> bool:
    """Whether a value is the record of a numpy array."""
    return kind_of(value) in _NDARRAY


def made(value: object) -> Made:
    """The value, which must be a record; raises TypeError for any other."""
    if not isinstance(value, Made):
        raise TypeError("no object where one should be")
    return value


def state_of(value: object) -> dict[str, object]:
    """The state of a record, which must be a dictionary; raises TypeError for any other."""
    state = made(value).state
    if not isinstance(state, dict):
        raise TypeError(f"no state of a {kind_of(value)}")
    return state


def sequence(value: object) -> Sequence[object]:
    """The value, which must be a list or tuple; raises TypeError for any other."""
    if not isinstance(value, list | tuple):
        raise TypeError("no list where one should be")
    return value


def integer(value: object) -> int:
    """The value, which must be an integer of at most 64 bits with its sign; raises TypeError for any other."""
    if not isinstance(value, int) or value.bit_length() > 63:
        raise TypeError("no number where one should be")
    return value


class NumpyArray:
    """A numpy array of one or two dimensions.

    Args:
        value: its record.

    Attributes:
        shape: the shape that the record declares.

    Raises:
        TypeError: the value is not the record of an array.
        ValueError: the shape has another number of dimensions, or a negative one.
    """

    def __init__(self, value: object) -> None:
        record = made(value)
        if record.kind == "_frombuffer":
            self._data, self._dtype, shape, order = record.args
            self._fortran = order == "F"
        elif kind_of(record) == "ndarray":
            _, shape, self._dtype, fortran, self._data = sequence(record.state)
            self._fortran = bool(fortran)
        else:
            raise TypeError(f"a {kind_of(record)} where an array should be")
        self.shape = tuple(map(integer, sequence(shape)))
        if len(self.shape) not in (1, 2) or min(self.shape) < 0:
            raise ValueError(f"an array of the shape {self.shape}")

    def values(self) -> Sequence[object]:
        """All values in memory order; `Opaque` for types that are never text.

        Raises:
            TypeError: the record has no data type or no data.
            ValueError: the data have another size than the shape.
        """
        dtype, count = made(self._dtype), math.prod(self.shape)
        if dtype.kind != "dtype":
            raise TypeError("an array without a type")
        name, order = str(dtype.args[0]), sequence(dtype.state)[1]
        if name.startswith("O"):
            items = sequence(self._data)
        elif name in _FORMATS and order != ">":
            items = memoryview(_bytes(self._data)).cast(_FORMATS[name])  # type: ignore[call-overload]
        else:
            return Opaque(f"numpy {name}", count)
        if len(items) != count:
            raise ValueError(f"an array of {len(items):,} values that should have {count:,}")
        return items

    def column(self, index: int) -> Sequence[object]:
        """The values of one column of the DataFrame: a block keeps each column as a row of its array."""
        values = self.values()
        if len(self.shape) == 1:
            return values
        height, length = self.shape
        return values[index::height] if self._fortran else values[index * length : (index + 1) * length]


class Opaque(Sequence[object]):
    """Placeholders for values of a type that is never text. The type of each placeholder has the name, for messages.

    Args:
        name: the name of the type.
        count: the number of values.
    """

    def __init__(self, name: str, count: int) -> None:
        self._value = type(name, (), {})()
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: object) -> object:  # type: ignore[override]
        if isinstance(index, slice):
            return Opaque(type(self._value).__name__, len(range(*index.indices(self._count))))
        if not 0 <= integer(index) < self._count:
            raise IndexError(index)  # iteration ends with it
        return self._value


class _Chosen(Sequence[object]):
    """The values of a categorical column: `codes` index `categories`, and a negative code is a null."""

    def __init__(self, codes: Sequence[object], categories: Sequence[object]) -> None:
        self._codes = codes
        self._categories = categories

    def __len__(self) -> int:
        return len(self._codes)

    def __getitem__(self, index: object) -> object:  # type: ignore[override]
        code = integer(self._codes[integer(index)])
        return self._categories[code] if code >= 0 else None


class _ArrowTexts(Sequence[object]):
    """The texts of an Arrow array.

    Arrow keeps them in three buffers: validity bits, offsets, and the UTF-8 bytes of all texts joined.
    """

    def __init__(self, chunk: Made) -> None:
        alias, length, _, offset, buffers, *_ = sequence(chunk.args[0])
        valid, places, characters = sequence(buffers)
        self._count, self._first = integer(length), integer(offset)
        self._valid = _bytes(valid) if valid is not None else None
        ends = memoryview(_bytes(places) if places is not None else b"")
        self._ends = ends.cast(_OFFSETS[str(made(alias).args[0])])  # type: ignore[call-overload]
        self._text = memoryview(_bytes(characters) if characters is not None else b"")
        if self._count and not 0 <= self._first < len(self._ends) - self._count:
            raise ValueError("fewer texts than an array should have")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: object) -> object:  # type: ignore[override]
        number = integer(index)
        if not 0 <= number < self._count:
            raise IndexError(index)
        place = self._first + number
        if self._valid is not None and not self._valid[place // 8] >> place % 8 & 1:
            return None
        start, end = self._ends[place], self._ends[place + 1]
        if not 0 <= start <= end <= len(self._text):
            raise ValueError("a text outside of its buffer")
        return str(self._text[start:end], "utf-8")


class _Joined(Sequence[object]):
    """Several sequences, concatenated without a copy."""

    def __init__(self, parts: Sequence[Sequence[object]]) -> None:
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: object) -> object:  # type: ignore[override]
        place = integer(index)
        part = bisect_right(self._ends, place)
        return self._parts[part][place - (self._ends[part - 1] if part else 0)]


def _column(values: object, index: int, count: int) -> Sequence[object]:
    kind = kind_of(values)
    if kind in _NDARRAY:
        return NumpyArray(values).column(index)
    if kind.startswith("Arrow"):
        parts: dict[int, Sequence[object]] = {}  # a chunk that the file refers to many times is decoded once
        chunks = _chunks(values)
        for chunk in chunks:
            if id(chunk) not in parts:
                parts[id(chunk)] = _chunk(chunk)
        return _Joined([parts[id(chunk)] for chunk in chunks])
    if kind == "Categorical":
        _, data = made(state_of(_part(values, {"CategoricalDtype"}))["categories"]).args
        if not isinstance(data, dict):
            raise TypeError("no categories")
        return _Chosen(NumpyArray(_held(values)).values(), _column(data["data"], 0, shape_of(data["data"])[1]))
    if kind in ("StringArray", "NumpyExtensionArray"):
        return NumpyArray(_held(values)).column(index)
    return Opaque(kind, count)


def _chunk(chunk: Made) -> Sequence[object]:
    alias, length, *_ = sequence(chunk.args[0])
    name = made(alias).args[0] if made(alias).args else made(alias).kind
    return _ArrowTexts(chunk) if name in _OFFSETS else Opaque(f"arrow {name}", integer(length))


def _chunks(values: object) -> list[Made]:
    """The chunks of an Arrow column."""
    held = made(_part(values, {"chunked_array", "_restore_array"}))
    return [made(part) for part in sequence(held.args[0])] if held.kind == "chunked_array" else [held]


def _held(values: object) -> object:
    """The numpy array with the values of an extension array."""
    return _part(values, _NDARRAY)


def _part(values: object, kinds: Collection[str]) -> object:
    """The first part of an extension array that is of one of these kinds; raises TypeError when there is none."""
    state = made(values).state
    parts = state.values() if isinstance(state, dict) else sequence(state)
    for part in parts:
        if kind_of(part) in kinds:
            return part
    raise TypeError(f"a {kind_of(values)} without {' or '.join(sorted(kinds))}")


def _bytes(value: object, levels: int = 3) -> bytes | bytearray:
    """Bytes in any form that a pickle protocol writes.

    Protocol 3 and later write bytes, alone or as the argument of up to three nested calls. Protocols 0 to 2 write text
    in Latin-1.
    """
    if isinstance(value, bytes | bytearray):
        return value
    record = made(value)
    if record.kind not in ("encode", "bytes", "bytearray", "py_buffer") or not levels:
        raise TypeError("no bytes where some should be")
    if not isinstance(record.state, bytes | bytearray):
        content = record.args[0] if record.args else b""
        # Kept in the record, because a file may refer to the same bytes many times.
        record.state = content.encode("latin-1") if isinstance(content, str) else _bytes(content, levels - 1)
    return record.state
