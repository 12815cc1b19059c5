"""The store of local directories: file:// on a laptop, pvc:// in a pod."""

import contextlib
import errno
import fcntl
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.uri import Scheme, Uri
from finetune_trainer.runtime.machine_errors import DISK_FULL
from finetune_trainer.storage.base import (
    AlreadyExistsError,
    ByteCount,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectReplacedError,
)
from finetune_trainer.storage.partial import beside, partial_file

_CHUNK = 1 << 20


class LocalStore:
    """A store of files, on this machine or on a mounted PersistentVolumeClaim.

    A file's ETag consists of its size and its time of last change. It shows that a file was replaced, but does not
    identify the content. `inputs.sources` computes checksums for that.

    Args:
        pvc_root: the directory where claims are mounted. `pvc://claim/path` is `claim/path` in it.
    """

    def __init__(self, pvc_root: Path) -> None:
        self._pvc_root = pvc_root
        self._made: list[Path] = []

    def stat(self, uri: Uri) -> Sequence[SourceObject]:
        """See `Store.stat`."""
        path = self._path(uri)
        with _reasons("reading", uri):
            if path.is_file() and not uri.path.endswith("/"):
                return [_source(uri, path.stat())]
            files = list(self._files(path, uri)) if path.is_dir() else []
            objects = [_source(uri.child(*file.relative_to(path).parts), file.stat()) for file in files]
        if not objects:
            what = "holds no files" if path.is_dir() else self._absent(uri)
            raise ObjectNotFoundError(f"{uri} {what}")
        return sorted(objects, key=lambda item: item.uri)

    def open(self, source: SourceObject) -> BinaryIO:
        """See `Store.open`."""
        uri = source.location
        with _reasons("reading", uri):
            file = _GuardedFile(self._path(uri), source)
        return cast("BinaryIO", io.BufferedReader(file, _CHUNK))

    def download(
        self,
        source: SourceObject,
        target: Path,
        on_bytes: ByteCount,
        *,
        link: bool = True,  # noqa: ARG002 (the Protocol's)
    ) -> None:
        """See `Store.download`."""
        with self.open(source) as stream, _reasons("copying", source.location), partial_file(target) as partial:
            _copy(stream, partial, on_bytes)

    def upload(self, path: Path, uri: Uri, on_bytes: ByteCount) -> None:
        """See `Store.upload`."""
        with _reasons("writing", uri), path.open("rb") as stream:
            self._make_parents(self._path(uri))
            with partial_file(self._path(uri)) as partial:
                _copy(stream, partial, on_bytes)

    def read(self, uri: Uri) -> bytes | None:
        """See `Store.read`."""
        try:
            with _reasons("reading", uri):
                return self._path(uri).read_bytes()
        except ObjectNotFoundError:
            return None

    def create(self, uri: Uri, content: bytes) -> None:
        """See `Store.create`. A hard link makes the complete file appear at once, and fails where a file exists."""
        target = self._path(uri)
        with _reasons("writing", uri):
            self._make_parents(target)
            with beside(target) as whole:
                _write(whole, content)
                try:
                    os.link(whole, target)
                except FileExistsError:
                    if target.read_bytes() != content:
                        raise AlreadyExistsError(str(uri)) from None

    def replace(self, uri: Uri, content: bytes, expected: bytes | None = None) -> None:
        """See `Store.replace`. The condition holds only between processes that lock the folder, as this method does."""
        target = self._path(uri)
        with _reasons("writing", uri):
            self._make_parents(target)
            with _locked(target.parent):
                if expected is not None and self.read(uri) not in (expected, content):
                    raise ObjectChangedError(str(uri))
                with partial_file(target) as partial:
                    _write(partial, content)

    def delete(self, uri: Uri) -> None:
        """See `Store.delete`. Also removes the empty directories that this store created for the object."""
        path = self._path(uri)
        with _reasons("deleting", uri):
            path.unlink(missing_ok=True)
            for directory in reversed(self._made):
                if path.is_relative_to(directory) and directory.is_dir() and not any(directory.iterdir()):
                    directory.rmdir()
                    self._made.remove(directory)

    def delete_folder(self, uri: Uri) -> None:
        """See `Store.delete_folder`."""
        path = self._path(uri)
        with _reasons("deleting", uri):
            if path.is_dir():
                shutil.rmtree(path)

    def _path(self, uri: Uri) -> Path:
        if uri.scheme is Scheme.FILE:
            return Path(uri.path)
        path = self._pvc_root / uri.authority / uri.path.lstrip("/")
        self._require_inside(path, uri)
        return path

    def _require_inside(self, path: Path, uri: Uri) -> None:
        """Checks that `path`, with all symbolic links resolved, is in its claim.

        Raises:
            TrainerError: STORAGE_ACCESS_DENIED. A symbolic link leads out of the claim.
        """
        if uri.scheme is Scheme.PVC and not path.resolve().is_relative_to((self._pvc_root / uri.authority).resolve()):
            raise TrainerError(
                FailureReason.STORAGE_ACCESS_DENIED, f"{uri} leads out of its claim through a symbolic link"
            )

    def _files(self, folder: Path, uri: Uri, parents: frozenset[str] = frozenset()) -> Iterator[Path]:
        """Yields the files in a folder and its subfolders.

        Symbolic links are followed, because data often lies on another disk and is linked. A broken link whose name
        begins with a dot is skipped: editors leave such links as locks.

        Args:
            folder: the folder.
            uri: the folder's URI.
            parents: real paths of the parent folders. A link to one of them is not followed, because it makes a loop.

        Raises:
            ObjectNotFoundError: a link is broken.
            TrainerError: STORAGE_ACCESS_DENIED. A link leads out of the claim.
        """
        parents |= {os.path.realpath(folder)}
        with os.scandir(folder) as scan:
            entries = list(scan)
        for entry in entries:
            path, place = folder / entry.name, uri.child(entry.name)
            if entry.is_symlink():
                self._require_inside(path, place)
            if entry.is_dir():
                if not entry.is_symlink() or os.path.realpath(path) not in parents:
                    yield from self._files(path, place, parents)
            elif entry.is_file():
                yield path
            elif entry.is_symlink() and not entry.name.startswith("."):
                raise ObjectNotFoundError(
                    f"{place} is a symbolic link that leads nowhere: put the file there, or remove the link"
                )

    def _absent(self, uri: Uri) -> str:
        if uri.scheme is Scheme.PVC and not (self._pvc_root / uri.authority).is_dir():
            return f"is not there: claim {uri.authority} is not mounted"
        return "is not there"

    def _make_parents(self, path: Path) -> None:
        missing = [parent for parent in path.parents if not parent.exists()]
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            self._made.append(directory)


class _GuardedFile(io.FileIO):
    """A file that is compared with `stat`'s ETag when it is opened and when its end is read.

    Raises:
        ObjectReplacedError: the file is not the one that `stat` saw.
    """

    def __init__(self, path: Path, source: SourceObject) -> None:
        super().__init__(path, "rb")
        self._source = source
        try:
            self._check()
        except ObjectReplacedError:
            self.close()
            raise

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        count = super().readinto(buffer)
        if not count:
            self._check()
        return count or 0

    def readall(self) -> bytes:
        content = super().readall()
        self._check()
        return content

    def _check(self) -> None:
        if self._source.etag not in (None, _etag(os.fstat(self.fileno()))):
            raise ObjectReplacedError(self._source.uri)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds an exclusive lock of the folder. On a file system without locks, does nothing."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _reasons(operation: str, uri: Uri) -> Iterator[None]:
    """Raises a TrainerError with a reason in place of an OSError."""
    try:
        yield
    except OSError as error:
        said = f"{operation} {uri}: {os.strerror(error.errno or errno.EIO)}"
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise ObjectNotFoundError(said) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise TrainerError(FailureReason.STORAGE_ACCESS_DENIED, f"{said} (user id {os.getuid()})") from error
        if error.errno in DISK_FULL:
            raise TrainerError(FailureReason.DISK_FULL, said) from error
        raise TrainerError(FailureReason.STORAGE_UNAVAILABLE, said) from error


def _source(uri: Uri, status: os.stat_result) -> SourceObject:
    return SourceObject(uri=str(uri), size=status.st_size, etag=_etag(status))


def _etag(status: os.stat_result) -> str:
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


def _copy(stream: BinaryIO, target: Path, on_bytes: ByteCount) -> None:
    with target.open("wb") as file:
        while chunk := stream.read(_CHUNK):
            file.write(chunk)
            on_bytes(len(chunk))
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
