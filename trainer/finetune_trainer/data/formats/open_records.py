"""Opens a stored object as records: it is decompressed by its content, and read by its format."""

import hashlib
import io
import posixpath
from collections.abc import Callable, Iterator
from itertools import chain
from typing import BinaryIO, cast

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe.dataset import DatasetFormat, DatasetSpec
from finetune_trainer.data.formats import gunzip, unzstd
from finetune_trainer.data.formats.delimited import DelimitedRecords
from finetune_trainer.data.formats.json_document import JsonRecords
from finetune_trainer.data.formats.jsonl import JsonlRecords
from finetune_trainer.data.formats.parquet import ParquetRecords
from finetune_trainer.data.formats.pickled_frame import PickledFrameRecords
from finetune_trainer.data.formats.plain_text import TextRecords
from finetune_trainer.data.formats.records import ExpectedRows, Records
from finetune_trainer.data.formats.sniff import UTF8_BOM, format_of, sniff
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind
from finetune_trainer.storage.base import ByteCount

PIECE_BYTES = 1 << 20


def open_records(
    stored: "StoredBytes", source: SourceObject, dataset: DatasetSpec, expected: ExpectedRows, unpacked: ByteCount
) -> Records:
    """The object's records.

    Args:
        stored: the stored bytes of the object.
        source: the object. Its name is used to find the format.
        dataset: format and limits.
        expected: what is known of rows.
        unpacked: called with the number of decompressed bytes as they are read. An error that it raises ends the
            reading.

    Raises:
        FaultError: the object is a file of another kind, or cannot be decompressed.
        TrainerError: NOT_SUPPORTED, a package that reads the format is not installed; or the storage's reason.
    """
    pieces, packed = _unpack(stored, dataset.limits.max_compression_ratio)
    first = next(pieces, b"")
    format_ = format_of(dataset, posixpath.basename(source.uri), first, expected)
    if fault := sniff(first, format_):
        raise FaultError(fault)
    longest = dataset.limits.max_line_bytes
    stored.mark_bytes = len(UTF8_BOM) if first.startswith(UTF8_BOM) else 0
    content = _counted(chain((first[stored.mark_bytes :],), pieces), unpacked)
    match format_:
        case DatasetFormat.JSON:
            return JsonRecords(content, longest, expected)
        case DatasetFormat.CSV:
            return DelimitedRecords(content, longest, ",")
        case DatasetFormat.TSV:
            return DelimitedRecords(content, longest, "\t")
        case DatasetFormat.TEXT:
            column = dataset.fields.text if dataset.fields is not None else None
            return TextRecords(content, longest, column or "text")
        case DatasetFormat.PARQUET:
            if packed:
                raise FaultError(_packed_parquet())
            return ParquetRecords(stored.random_access(), source.size, dataset.limits, expected, unpacked)
        case DatasetFormat.PANDAS:
            return PickledFrameRecords(chain((first,), pieces), dataset.limits, expected, unpacked)
        case _:
            return JsonlRecords(content, longest)


class StoredBytes:
    """The stored bytes of an object in pieces. They are counted and, if requested, hashed.

    Args:
        stream: the object's stream.
        on_bytes: called with the number of bytes as they are read.
        hashed: whether to compute the SHA-256.

    Attributes:
        mark_bytes: bytes of the byte order mark at the start of the content. Offsets of records do not count them.
    """

    def __init__(self, stream: BinaryIO, on_bytes: ByteCount, *, hashed: bool) -> None:
        self.mark_bytes = 0
        self._stream = stream
        self._on_bytes = on_bytes
        self._hash = hashlib.sha256() if hashed else None
        self._at_random = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = self._stream.read(PIECE_BYTES)
        if not piece:
            raise StopIteration
        self._on_bytes(len(piece))
        if self._hash is not None:
            self._hash.update(piece)
        return piece

    def digest(self) -> str | None:
        """The SHA-256 of the whole object in hexadecimal; None if it is not hashed. The unread rest is read first."""
        if self._hash is None:
            return None
        if self._at_random:
            self._hash = hashlib.sha256()
            self._stream.seek(0)
        for _ in self:
            pass
        return self._hash.hexdigest()

    def random_access(self) -> BinaryIO:
        """The stored object as a file with random access. After this call the iteration must not be used."""
        self._at_random = True
        return cast("BinaryIO", _CountedFile(self._stream, self._on_bytes))


class _CountedFile(io.RawIOBase):
    """The stored object as a file with random access. Its bytes are counted as they are read."""

    def __init__(self, stream: BinaryIO, on_bytes: ByteCount) -> None:
        super().__init__()
        self._stream = stream
        self._on_bytes = on_bytes

    def readable(self) -> bool:
        """Whether the file can be read: always."""
        return True

    def seekable(self) -> bool:
        """Whether the file has random access: always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Moves to an offset; returns the offset from the start."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """The current offset."""
        return self._stream.tell()

    def read(self, size: int = -1, /) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        content = self._stream.read(size)
        self._on_bytes(len(content))
        return content


def _unpack(stored: "StoredBytes", max_ratio: int) -> tuple[Iterator[bytes], bool]:
    """The decompressed bytes, and whether the stored ones were compressed. That is recognised by the content only."""
    first = next(stored, b"")
    pieces = chain((first,), stored)
    if first.startswith(gunzip.MAGIC):
        return gunzip.gunzip(pieces, max_ratio), True
    if first.startswith(unzstd.MAGIC):
        return unzstd.unzstd(pieces, max_ratio), True
    return pieces, False


def _packed_parquet() -> Fault:
    return Fault(
        kind=ProblemKind.FILE,
        found="a Parquet file that is compressed as a whole",
        expected="a Parquet file",
        remedy="unpack it: Parquet compresses its columns itself, and is read at random",
    )


def _counted(pieces: Iterator[bytes], unpacked: Callable[[int], None]) -> Iterator[bytes]:
    for piece in pieces:
        unpacked(len(piece))
        yield piece
