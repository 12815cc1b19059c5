"""What the trainer asks of a place that holds objects. One Protocol; S3, local directories and the Hub fit it.

Errors are `TrainerError`s with the reason that the user needs (missing bucket, denied key, server not answering), so
that callers handle none of a client library's.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.uri import Uri

ByteCount = Callable[[int], None]
"""Called with the number of bytes moved since the last call."""


class AlreadyExistsError(Exception):
    """A conditional write found the object there: another writer was first."""


class Store(Protocol):
    """A place that holds objects."""

    def stat(self, uri: Uri) -> Sequence[SourceObject]:
        """The object at `uri`, or all objects under it when it is a prefix, sorted by URI.

        Raises:
            TrainerError: the place or the object is missing, or may not be read.
        """
        ...

    def open(self, source: SourceObject) -> BinaryIO:
        """A stream of the object's bytes, from the start; a failing connection is resumed where it broke.

        Raises:
            TrainerError: while reading too, also when the object is replaced meanwhile.
        """
        ...

    def download(self, source: SourceObject, target: Path, moved: ByteCount) -> None:
        """Puts the object into the file `target`, which appears only when it is whole."""
        ...

    def upload(self, path: Path, uri: Uri, moved: ByteCount) -> None:
        """Puts the file at `uri`, replacing what is there."""
        ...

    def read(self, uri: Uri) -> bytes | None:
        """A small object's bytes, or None when it is not there."""
        ...

    def create(self, uri: Uri, content: bytes) -> None:
        """Puts a small object that must not be there yet.

        Raises:
            AlreadyExistsError: it is there.
        """
        ...

    def replace(self, uri: Uri, content: bytes) -> None:
        """Puts a small object, replacing what is there."""
        ...

    def delete(self, uri: Uri) -> None:
        """Removes an object; a missing one is fine."""
        ...
