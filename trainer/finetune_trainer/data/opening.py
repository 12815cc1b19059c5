"""From a stored object to pieces of decompressed bytes that look like jsonl, counted and hashed on the way."""

import hashlib
import posixpath
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe.dataset import DatasetSpec
from finetune_trainer.data.gunzip import MAGIC, gunzip
from finetune_trainer.data.problems import FaultError
from finetune_trainer.data.sniff import HEAD_BYTES, UTF8_BOM, require_jsonl, sniff
from finetune_trainer.storage.base import ByteCount

PIECE_BYTES = 1 << 20


def jsonl_pieces(stored: Iterator[bytes], source: SourceObject, dataset: DatasetSpec) -> Iterator[bytes]:
    """The object's decompressed bytes, without a byte order mark.

    Args:
        stored: its stored bytes (`StoredBytes`).
        source: the object; its name helps to tell the format.
        dataset: format and limits.

    Raises:
        FaultError: it is something else than it should be, or cannot be decompressed.
        TrainerError: NOT_SUPPORTED, a format that is not read.
    """
    first = next(stored, b"")
    pieces = stored
    if first.startswith(MAGIC):
        pieces = gunzip(chain((first,), stored), dataset.limits.max_compression_ratio)
        first = next(pieces, b"")
    head = first[:HEAD_BYTES]
    require_jsonl(dataset.format, posixpath.basename(source.uri), head)
    if fault := sniff(head):
        raise FaultError(fault)
    yield first.removeprefix(UTF8_BOM)
    yield from pieces


class StoredBytes:
    """The stored bytes in pieces, counted and, if asked, hashed."""

    def __init__(self, stream: BinaryIO, moved: ByteCount, *, hashed: bool) -> None:
        self._stream = stream
        self._moved = moved
        self._hash = hashlib.sha256() if hashed else None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = self._stream.read(PIECE_BYTES)
        if not piece:
            raise StopIteration
        self._moved(len(piece))
        if self._hash is not None:
            self._hash.update(piece)
        return piece

    def digest(self) -> str | None:
        """The SHA-256 of the whole object, whether or not all of it was asked for; None when not hashed."""
        if self._hash is None:
            return None
        for _ in self:
            pass
        return self._hash.hexdigest()
