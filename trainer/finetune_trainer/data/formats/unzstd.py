"""Decompresses Zstandard data as a stream, in pieces of bounded size.

The decoder is Arrow's, which also reads Parquet; Python has one only from 3.14 on. Arrow's decoder reads the bytes that
it needs, and reports data that end inside a frame. The compression ratio is limited as for gzip.
"""

import io
from collections.abc import Iterator

from finetune_trainer.data.formats.arrow import pyarrow
from finetune_trainer.data.formats.ratio import require_ratio
from finetune_trainer.data.problems import Fault, FaultError, ProblemKind

MAGIC = (b"\x28\xb5\x2f\xfd", *(bytes((byte,)) + b"\x2a\x4d\x18" for byte in range(0x50, 0x60)))
"""The first bytes of a file: those of a data frame, or of a skippable frame as pzstd and the seekable format write."""
_PIECE = 1 << 20


def unzstd(stored: Iterator[bytes], max_ratio: int) -> Iterator[bytes]:
    """The decompressed bytes, in pieces of at most 1 MiB. Several frames are one file.

    Args:
        stored: the stored bytes, from the first.
        max_ratio: largest number of decompressed bytes per stored byte.

    Raises:
        FaultError: the data are damaged, cut short, followed by other bytes, or over the ratio.
        TrainerError: NOT_SUPPORTED, Arrow is not installed; or the storage's reason.
    """
    pa = pyarrow("zstd data")
    source = _Pieces(stored)
    produced = 0
    with pa.CompressedInputStream(pa.PythonFile(source, mode="r"), "zstd") as stream:
        while True:
            try:
                piece = stream.read(_PIECE)
            except (pa.ArrowException, OSError) as error:
                raise _damaged(str(error), source.given) from None
            if not piece:
                return
            produced += len(piece)
            require_ratio(produced, source.given, max_ratio)
            yield piece


class _Pieces(io.RawIOBase):
    """The pieces as a file object for Arrow.

    Attributes:
        given: number of bytes that Arrow has read.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._held = memoryview(b"")
        self.given = 0

    def readable(self) -> bool:
        """Whether the file can be read: always."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes. The result is empty only at the end."""
        if not self._held:
            self._held = memoryview(next(self._pieces, b""))
        end = len(self._held) if size < 0 else size
        given, self._held = bytes(self._held[:end]), self._held[end:]
        self.given += len(given)
        return given


def _damaged(said: str, given: int) -> FaultError:
    if "runcated" in said:
        found, remedy = f"the end of the file, after byte {given:,}, inside the zstd data", "it was cut short"
    else:
        found, remedy = f"damaged zstd data before byte {given:,} ({said})", "it was changed after it was compressed"
    return FaultError(
        Fault(kind=ProblemKind.FILE, found=found, expected="whole data", remedy=f"upload the file again: {remedy}")
    )
