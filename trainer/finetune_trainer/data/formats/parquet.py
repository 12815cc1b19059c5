"""The reader of Parquet. It streams row groups, and reads only the columns that a row schema can read.

Reading begins at the file's end and then needs several columns at the same time. So the stored object is read with
random access (`StoredBytes.random_access`), and no copy is written to disk.
"""

import io
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from finetune_trainer.contract.preflight_report import Unit
from finetune_trainer.contract.recipe.dataset import Limits
from finetune_trainer.data.formats.arrow import pyarrow
from finetune_trainer.data.formats.columns import Columns, ColumnType
from finetune_trainer.data.formats.ratio import require_ratio
from finetune_trainer.data.formats.records import ExpectedRows, Record, Row
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind, column_twice, shorten
from finetune_trainer.data.tool_columns import as_in_json
from finetune_trainer.storage.base import ByteCount

_ROWS_A_BATCH = 64
_BUFFER_BYTES = 4 << 20
"""Bytes that are read at once of a column. Without this setting Arrow holds whole row groups in memory."""


class ParquetRecords:
    """The rows of a Parquet file.

    Args:
        file: the file, with random access.
        size: size of the file in bytes.
        limits: the limits of the data.
        expected: what is known of rows.
        unpacked: called with the number of decompressed bytes of the columns as they are read.
    """

    unit: Final = Unit.ROW
    offset: Final = None

    def __init__(self, file: BinaryIO, size: int, limits: Limits, expected: ExpectedRows, unpacked: ByteCount) -> None:
        self._file = file
        self._size = size
        self._limits = limits
        self._columns = expected.columns
        self._unpacked = unpacked
        self._opened: Any = None
        self.number = 0

    def __iter__(self) -> Iterator[Record]:
        """See `Records`."""
        pa = pyarrow("Parquet")
        try:
            yield from self._rows(self._parquet(pa))
        except (pa.ArrowException, OSError) as error:
            raise FaultError(_unreadable(str(error))) from None

    def columns(self) -> Columns:
        """See `TypedRecords`."""
        pa = pyarrow("Parquet")
        try:
            schema = self._parquet(pa).schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise FaultError(_unreadable(str(error))) from None
        return {field.name: _type_of(field.type, pa.types) for field in schema}

    def _parquet(self, pa: Any) -> Any:
        if self._opened is None:
            self._opened = pa.parquet.ParquetFile(
                self._file, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
            )
        return self._opened

    def _rows(self, file: Any) -> Iterator[Record]:
        names: list[str] = file.schema_arrow.names
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise FaultError(column_twice(twice[0]))
        self._require_ratio(file.metadata)
        # Columns that no schema reads are in the row as names without values, because messages list them.
        others: Row = dict.fromkeys(name for name in names if name not in self._columns)
        read = [name for name in names if name in self._columns]
        for batch in file.iter_batches(_ROWS_A_BATCH, columns=read):
            self._unpacked(batch.nbytes)
            large = batch.nbytes > self._limits.max_line_bytes
            for row in self._converted(batch):
                self.number += 1
                if isinstance(row, Fault):
                    yield self.number, None, row
                elif large and (size := _text_bytes(row)) > self._limits.max_line_bytes:
                    yield self.number, None, self._too_long(size)
                else:
                    yield self.number, None, others | as_in_json(row)
        # The store reports a file that was replaced during the reading only when its end is read.
        self._file.seek(0, io.SEEK_END)
        self._file.read(1)

    def _converted(self, batch: Any) -> Iterator[Row | Fault]:
        try:
            rows = batch.to_pylist(maps_as_pydicts="strict")
        except UnicodeDecodeError:
            # Some text in the batch is not UTF-8. Reading row by row finds it.
            yield from (_one_row(batch.slice(index, 1)) for index in range(batch.num_rows))
        except ValueError as error:
            raise FaultError(_unreadable(str(error)), self.number + 1) from None
        else:
            # For a batch without columns to_pylist returns no dictionaries, but the batch has the number of rows.
            yield from rows or ({} for _ in range(batch.num_rows))

    def _require_ratio(self, metadata: Any) -> None:
        """Checks the ratio by the sizes that the file declares. `dataset.limits.maxBytes` limits the real size."""
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        require_ratio(sum(group.total_byte_size for group in groups), self._size, self._limits.max_compression_ratio)

    def _too_long(self, size: int) -> Fault:
        return Fault(
            kind=ProblemKind.TOO_LONG,
            found=f"a row of {size:,} bytes",
            expected=f"at most {self._limits.max_line_bytes:,}",
            remedy="split the row, or raise dataset.limits.maxLineBytes",
        )


def _type_of(declared: Any, types: Any) -> ColumnType:
    """The column type of an Arrow type.

    Args:
        declared: the Arrow type.
        types: the module `pyarrow.types`.
    """
    kind = getattr(declared, "storage_type", declared)  # of an extension type
    if types.is_dictionary(kind):
        kind = kind.value_type
    name = shorten(str(declared))
    if any(is_text(kind) for is_text in (types.is_string, types.is_large_string, types.is_string_view)):
        return ColumnType(name=name, text=True)
    if any(is_list(kind) for is_list in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        turn = kind.value_type
        if types.is_struct(turn):
            return ColumnType(name=name, turns=True, keys={field.name: _type_of(field.type, types) for field in turn})
        # Elements that are maps, and lists without elements, are checked row by row.
        return ColumnType(name=name, turns=types.is_map(turn) or types.is_null(turn))
    return ColumnType(name=name, empty=types.is_null(kind))


def _one_row(batch: Any) -> Row | Fault:
    row: Row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            [row[name]] = column.to_pylist(maps_as_pydicts="strict")
        except UnicodeDecodeError as error:
            return Fault(
                kind=ProblemKind.ENCODING,
                path=name,
                found=f"the byte 0x{error.object[error.start]:02x}, which is not UTF-8",
                expected="UTF-8",
                remedy="the column is declared as text but holds other bytes: write the file again",
            )
    return row


def _text_bytes(value: object) -> int:
    """Size of all texts in a row, in bytes."""
    match value:
        case str():
            return len(value) if value.isascii() else len(value.encode(errors="surrogatepass"))
        case dict():
            return sum(map(_text_bytes, value.values()))
        case list():
            return sum(map(_text_bytes, value))
    return 0


def _unreadable(said: str) -> Fault:
    """Arrow's error as a fault. Arrow's messages may change; an unknown one is used as it is."""
    found, remedy = f"damaged Parquet data ({shorten(said, 120)})", "write or upload the file again"
    if "magic bytes not found" in said or "footer" in said:
        found, remedy = "no Parquet footer at the end of the file", "the file is cut short: upload it again"
    elif "crypt" in said:
        found, remedy = "encrypted Parquet columns", "write the file without encryption"
    elif "duplicate field names" in said:
        found, remedy = "a nested column with two fields of one name", "rename one of the two"
    return Fault(kind=ProblemKind.FILE, found=found, expected="a Parquet file", remedy=remedy)
