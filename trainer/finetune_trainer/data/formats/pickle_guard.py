"""Reads a pickle without running it.

A pickle is a program: it imports objects by name and calls them. A list of allowed constructors is not enough: a file
could call them with hostile arguments, and reading would need the pandas version that wrote the file. So no object is
constructed here. Every name on the list is replaced by an inert record (`Made`), which keeps its arguments and its
state. `pickled_frame` takes the values from the records. Names that are not on the list are refused.

Before that, a check of the opcodes limits memory and time. Python's unpickler allocates memory by lengths and memo
indices in the file, so these are compared with the file's size. The work of hashing is counted (`pickle_hashing`).
"""

import pickle
import pickletools
import warnings
from collections.abc import Iterator
from typing import IO, ClassVar, Self

from finetune_trainer.data.formats.pickle_hashing import HashCost
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind, shorten

_PARQUET = "write Parquet instead: DataFrame.to_parquet"
_FORBIDDEN = frozenset({"PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "INST", "OBJ"})
"""Opcodes for objects outside the pickle (persistent ids, the extension registry, out-of-band buffers), and calls of
protocol 0 that pandas and numpy never write."""
_MEMO = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
# The errors that the C unpickler raises for invalid files.
_ERRORS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class Made:
    """The inert record of an object in a pickle, which would be constructed by `kind(*args)` and then get `state`.

    The class itself is the record of a class to which a pickle refers.

    Attributes:
        kind: the name of the class or function.
        args: the arguments.
        state: the state; None if the pickle sets none.
    """

    __slots__ = ("args", "state")
    kind: ClassVar[str] = ""

    args: tuple[object, ...]
    state: object

    def __new__(cls, *args: object) -> Self:
        """Makes the record. The unpickler calls this in place of a constructor."""
        made = super().__new__(cls)
        made.args = args
        made.state = None
        return made

    def __setstate__(self, state: object) -> None:
        self.state = state


def read_inert(file: IO[bytes], size: int) -> object:
    """The content of a pickle, with `Made` records in the place of objects.

    Args:
        file: a file on disk. It is read twice from its start.
        size: size of the file in bytes.

    Raises:
        FaultError: the file is not a pickle, is damaged, or uses a name or an opcode that no DataFrame needs.
    """
    try:
        with warnings.catch_warnings():
            # Damaged texts may have invalid escapes, for which Python warns. The error below reports the damage.
            warnings.simplefilter("ignore", DeprecationWarning)
            file.seek(0)
            _check_opcodes(_Bounded(file, size), size)
            file.seek(0)
            return _InertUnpickler(file).load()
    except _ERRORS as error:
        raise FaultError(_damaged(str(error) or type(error).__name__)) from None


class _InertUnpickler(pickle.Unpickler):  # the C unpickler; all that it may call is `Made`
    def find_class(self, module_name: str, global_name: str, /) -> type[Made]:
        made = _ALLOWED.get((module_name, global_name))
        if made is None:
            raise FaultError(_refused(f"{module_name}.{global_name}"))
        return made


class _Bounded:
    """The file for `genops`, which reads as many bytes as an opcode declares. Here it reads at most the file's size."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size
        self.readline = file.readline
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._size))


def _check_opcodes(file: _Bounded, size: int) -> None:
    """Checks the opcodes. It raises FaultError, or one of `_ERRORS`, which `read_inert` turns into a fault."""
    hashing = HashCost(size)
    opcodes = pickletools.genops(file)  # type: ignore[arg-type]  # read, readline and tell are all it asks for
    for count, (opcode, argument, place) in enumerate(opcodes):
        if opcode.name in _FORBIDDEN:
            raise FaultError(_refused(f"the opcode {opcode.name} at byte {place:,}"))
        # The unpickler allocates a memo up to the index: 2 GiB for one opcode of five bytes.
        if opcode.name in _MEMO and (not isinstance(argument, int) or argument > count):
            raise FaultError(_damaged(f"memo index {argument} at byte {place:,}"))
        hashing.follow(opcode, argument)
    if (end := file.tell()) != size:
        raise FaultError(_damaged(f"{size - end:,} bytes after its end"))


def _refused(what: str) -> Fault:
    return Fault(
        kind=ProblemKind.FILE,
        found=f"a pickle that asks for {shorten(what, 120)!r}",
        expected="a pickled DataFrame: pickles can run code, so only what pandas and numpy need for one is read",
        remedy=_PARQUET,
    )


def _damaged(said: str) -> Fault:
    return Fault(
        kind=ProblemKind.FILE,
        found=f"a damaged pickle, or none ({shorten(said, 120)})",
        expected="a pickled DataFrame",
        remedy=f"upload the file again, or {_PARQUET}",
    )


def _names() -> Iterator[tuple[str, str]]:
    """Module and name of all classes and functions in the pickles of DataFrames, for pandas 1.3 to 3 and numpy 1 and 2.

    The list was made by pickling DataFrames with every kind of column with these versions, in protocols 0 to 5.
    """
    for module in ("builtins", "__builtin__"):
        yield from ((module, name) for name in ("slice", "bytes", "bytearray", "object"))
    for module in ("copyreg", "copy_reg"):
        yield module, "_reconstructor"
    yield "_codecs", "encode"
    yield from (("datetime", name) for name in ("datetime", "date", "time", "timedelta", "timezone"))
    yield "decimal", "Decimal"
    yield from (("pytz", name) for name in ("_UTC", "_p"))
    yield from (("numpy", name) for name in ("ndarray", "dtype"))
    for core in ("numpy.core", "numpy._core"):
        yield from ((f"{core}.multiarray", name) for name in ("_reconstruct", "scalar"))
        yield f"{core}.numeric", "_frombuffer"
    yield from (("pyarrow.lib", name) for name in ("_restore_array", "chunked_array", "py_buffer", "type_for_alias"))
    libs = "pandas._libs"
    yield f"{libs}.internals", "_unpickle_block"
    yield f"{libs}.internals", "BlockManager"
    yield f"{libs}.arrays", "__pyx_unpickle_NDArrayBacked"
    yield f"{libs}.missing", "NA"
    yield from ((f"{libs}.tslibs.nattype", name) for name in ("__nat_unpickle", "_nat_unpickle"))
    yield f"{libs}.tslibs.timestamps", "_unpickle_timestamp"
    yield f"{libs}.tslibs.timedeltas", "_timedelta_unpickle"
    core = "pandas.core"
    yield f"{core}.frame", "DataFrame"
    yield f"{core}.internals.managers", "BlockManager"
    yield f"{core}.indexes.base", "_new_Index"
    yield f"{core}.indexes.datetimes", "_new_DatetimeIndex"
    numeric = ("Int64Index", "UInt64Index", "Float64Index")
    indexes = {
        "base": ("Index",),
        "range": ("RangeIndex",),
        "numeric": numeric,
        "datetimes": ("DatetimeIndex",),
        "timedeltas": ("TimedeltaIndex",),
        "category": ("CategoricalIndex",),
        "multi": ("MultiIndex",),
    }
    yield from ((f"{core}.indexes.{module}", name) for module, names in indexes.items() for name in names)
    integers = tuple(f"{sign}Int{bits}Dtype" for sign in ("", "U") for bits in (8, 16, 32, 64))
    floats = ("Float32Dtype", "Float64Dtype")
    arrays = {
        "string_": ("StringArray", "StringDtype"),
        "string_arrow": ("ArrowStringArray", "ArrowStringArrayNumpySemantics"),
        "arrow.array": ("ArrowExtensionArray",),
        "arrow.dtype": ("ArrowDtype",),
        "categorical": ("Categorical",),
        "datetimes": ("DatetimeArray",),
        "timedeltas": ("TimedeltaArray",),
        "integer": ("IntegerArray", *integers),
        "floating": ("FloatingArray", *floats),
        "boolean": ("BooleanArray", "BooleanDtype"),
    }
    yield from ((f"{core}.arrays.{module}", name) for module, names in arrays.items() for name in names)
    dtypes = ("CategoricalDtype", "DatetimeTZDtype", "ArrowDtype")
    yield from ((f"{core}.dtypes.dtypes", name) for name in dtypes)
    # pandas 3 writes the public names of most of them.
    public = [name for names in indexes.values() for name in names if name not in numeric]
    public += ["DataFrame", "NA", "Categorical", "StringDtype", "BooleanDtype", *integers, *floats, *dtypes]
    yield from (("pandas", name) for name in public)
    yield from (("pandas.arrays", name) for names in arrays.values() for name in names if name.endswith("Array"))
    yield "pandas.arrays", "NumpyExtensionArray"


_ALLOWED = {
    (module, name): type(name, (Made,), {"kind": name, "__slots__": (), "__module__": __name__})
    for module, name in _names()
}
