"""The Protocol of a store: a place that holds objects. S3, local directories and the Hub implement it.

A store raises `TrainerError` with a reason for the user: a missing bucket, a denied key, a server that does not answer.
So a caller never handles an exception of a client library.
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
    """A conditional write found that the object exists: another writer was first."""


class ObjectNotFoundError(TrainerError):
    """The store answers, but the object does not exist.

    A store does not know what an object is for. A caller that knows it raises `meant(reason)` instead. An error that
    nobody converts ends the run with STORAGE_NOT_FOUND.
    """

    def __init__(self, message: str) -> None:
        super().__init__(FailureReason.STORAGE_NOT_FOUND, message)

    def meant(self, reason: FailureReason) -> TrainerError:
        """Returns an error with the same message and another reason, DATASET_NOT_FOUND for example."""
        return TrainerError(reason, self.message)


class ObjectReplacedError(TrainerError):
    """The object changed while a caller read it.

    The operator retries the reason, STORAGE_UNAVAILABLE: the next attempt reads the new object.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(
            FailureReason.STORAGE_UNAVAILABLE,
            f"{uri} was replaced while it was read: the bytes no longer belong together. Upload under a new name "
            "instead of overwriting",
        )


class ObjectChangedError(TrainerError):
    """A conditional write found other content, or no object: another writer was faster.

    The caller reads the object again.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(
            FailureReason.STORAGE_UNAVAILABLE, f"{uri} was changed or removed by another writer at the same moment"
        )


class Store(Protocol):
    """A place that holds objects."""

    def stat(self, uri: Uri) -> Sequence[SourceObject]:
        """Returns the object at `uri`. For a prefix, returns all objects under it, sorted by URI.

        Raises:
            ObjectNotFoundError: there is no object at `uri` and no object under the prefix.
            TrainerError: the bucket or claim is missing, does not answer, or denies reading.
        """
        ...

    def open(self, source: SourceObject) -> BinaryIO:
        """Returns a stream of the object's bytes, from the first byte on.

        When a connection breaks, the stream continues at the same byte. `open` and every read of the stream raise the
        same errors.

        Raises:
            ObjectNotFoundError: the object was removed.
            ObjectReplacedError: the object is not the one that `stat` saw.
            TrainerError: the store does not answer, or denies reading.
        """
        ...

    def download(self, source: SourceObject, target: Path, on_bytes: ByteCount, *, link: bool = True) -> None:
        """Writes the object to the file `target`. The file appears only when it is complete.

        Args:
            source: the object, as `stat` returned it.
            target: the file to create or replace.
            on_bytes: called with the number of bytes received.
            link: True when `target` may be a symbolic link to a file on this machine, in a cache for example.
        """
        ...

    def upload(self, path: Path, uri: Uri, on_bytes: ByteCount) -> None:
        """Uploads the file `path` to `uri` and replaces an object that is there."""
        ...

    def read(self, uri: Uri) -> bytes | None:
        """Returns the bytes of a small object, or None when there is no object."""
        ...

    def create(self, uri: Uri, content: bytes) -> None:
        """Creates a small object that must not exist yet. Of several writers exactly one succeeds.

        An object that holds exactly these bytes counts as written by this call, because the answer to an earlier try
        may have been lost. So the content should name its writer.

        Raises:
            AlreadyExistsError: the object exists with other content.
        """
        ...

    def replace(self, uri: Uri, content: bytes, expected: bytes | None = None) -> None:
        """Writes a small object and replaces an object that is there.

        With `expected`, the write happens only when the object holds exactly these bytes. A store without conditional
        writes may overwrite another writer's content between the comparison and the write. As with `create`, an object
        that already holds `content` counts as written by this call.

        Raises:
            ObjectChangedError: the object has other content, or there is none. Only with `expected`.
        """
        ...

    def delete(self, uri: Uri) -> None:
        """Removes an object. A missing object is no error."""
        ...

    def delete_folder(self, uri: Uri) -> None:
        """Removes all objects under a prefix that this trainer created. A missing prefix is no error."""
        ...


OpenStore = Callable[[Uri], Store]
"""Returns the store of a URI. `registry.StoreRegistry` has this type."""
