"""What the trainer asks of a place that holds objects. One Protocol; S3, local directories and the Hub fit it.

Errors are `TrainerError`s with the reason that the user needs (missing bucket, denied key, server not answering), so
that callers handle none of a client library's.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.uri import Uri

ByteCount = Callable[[int], None]
"""Called with the number of bytes transferred since the last call."""


class AlreadyExistsError(Exception):
    """A conditional write found the object there: another writer was first."""


class ObjectNotFoundError(TrainerError):
    """The store answers, but the object does not exist.

    A store does not know what an object is for. A caller that knows raises `meant(reason)` instead. Without that, the
    error still ends the run with a reason.
    """

    def __init__(self, message: str) -> None:
        super().__init__(FailureReason.STORAGE_NOT_FOUND, message)

    def meant(self, reason: FailureReason) -> TrainerError:
        """The same facts under the reason that the user needs, DATASET_NOT_FOUND for example."""
        return TrainerError(reason, self.message)


class ObjectReplacedError(TrainerError):
    """The object changed while it was read. The next attempt reads the new one, so the reason is retried."""

    def __init__(self, uri: str) -> None:
        super().__init__(
            FailureReason.STORAGE_UNAVAILABLE,
            f"{uri} was replaced while it was read: the bytes no longer belong together. Upload under a new name "
            "instead of overwriting",
        )


class ObjectChangedError(TrainerError):
    """A conditional write found another object, or none: another writer was faster. The caller reads again."""

    def __init__(self, uri: str) -> None:
        super().__init__(
            FailureReason.STORAGE_UNAVAILABLE, f"{uri} was changed or removed by another writer at the same moment"
        )


class Store(Protocol):
    """A place that holds objects."""

    def stat(self, uri: Uri) -> Sequence[SourceObject]:
        """The object at `uri`, or all objects under it when it is a prefix, sorted by URI.

        Raises:
            ObjectNotFoundError: there is neither an object nor anything under the prefix.
            TrainerError: the place is missing, does not answer, or may not be read.
        """
        ...

    def open(self, source: SourceObject) -> BinaryIO:
        """A stream of the object's bytes, from the start; a broken connection is resumed at the same byte.

        Raises:
            ObjectNotFoundError: it is gone.
            ObjectReplacedError: while reading too: it is not the object that `stat` saw.
            TrainerError: while reading too.
        """
        ...

    def download(self, source: SourceObject, target: Path, on_bytes: ByteCount, *, link: bool = True) -> None:
        """Puts the object into the file `target`, which appears only when it is whole.

        Args:
            source: what `stat` found.
            target: the file.
            on_bytes: called with bytes received.
            link: whether the target may be a link to a file that lies on this machine already, in a cache for example.
        """
        ...

    def upload(self, path: Path, uri: Uri, on_bytes: ByteCount) -> None:
        """Puts the file at `uri`, replacing what is there."""
        ...

    def read(self, uri: Uri) -> bytes | None:
        """A small object's bytes, or None when it is not there."""
        ...

    def create(self, uri: Uri, content: bytes) -> None:
        """Puts a small object that must not be there yet; of several writers exactly one wins.

        Content should name its writer. An object that holds exactly these bytes counts as this call's own: the answer
        to an earlier try may have been lost.

        Raises:
            AlreadyExistsError: it is there, with other content.
        """
        ...

    def replace(self, uri: Uri, content: bytes, expected: bytes | None = None) -> None:
        """Puts a small object, replacing what is there.

        With `expected`, the write happens only when the object holds exactly these bytes. A store without conditional
        writes may lose a write that comes in between. As with `create`, an object that already holds `content` counts
        as this call's own.

        Raises:
            ObjectChangedError: there is something else, or nothing.
        """
        ...

    def delete(self, uri: Uri) -> None:
        """Removes an object; a missing one is fine."""
        ...

    def delete_folder(self, uri: Uri) -> None:
        """Removes all objects under a prefix, which this trainer must have made; a missing one is fine."""
        ...


OpenStore = Callable[[Uri], Store]
"""Gives the store of a URI; `registry.StoreRegistry` is one."""
