"""A cache of base models on a volume that jobs share. It has one folder for each model and revision.

Several pods may fill and use the same folder at once. A pod fills a folder under a temporary name and renames it when
it is complete, so no pod uses a partial folder. There is no lock, because a dead pod could hold a lock for ever. When
two pods fill the same folder, the second replaces files with equal files. Before use, every file is compared with the
size and checksum of its source. A folder with a damaged file is downloaded again.

A folder may contain files that its source does not have. They are never loaded: `model_view` makes the folder that a
loader sees.

A volume that is full, read-only or missing fails no job. The pod then downloads the model as if there were no cache.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.uri import Uri
from finetune_trainer.runtime.log import event
from finetune_trainer.storage.content import damage
from finetune_trainer.storage.model_view import ChangedError, model_view
from finetune_trainer.storage.parallel import FILES_AT_A_TIME

Fill = Callable[[Path], object]
"""Downloads the model's files into an existing, empty folder."""
_PART = ".part-"
_LEFT_BEHIND = timedelta(days=1)
_LABEL_LETTERS = 120
_DIGITS = 16


class CacheUnusableError(Exception):
    """The volume cannot be read or written. The message gives the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCache:
    """The cache in one folder.

    Attributes:
        root: the folder. It is created when it is missing.
        now: returns the current time, which is compared with the age of abandoned folders.
        raise_if_stopping: called between files. Raises when the process must stop.
    """

    root: Path
    now: Callable[[], datetime]
    raise_if_stopping: Callable[[], object]

    def view(self, uri: Uri, objects: Sequence[SourceObject], fill: Fill, folder: Path) -> Path:
        """Makes `folder`, on this pod's own disk, a view of the model: the files that its source has, and no others.

        Raises:
            CacheUnusableError: see `entry`. Also raised when a file has changed since it was checked.
            TrainerError: see `entry`.
        """
        entry = self.entry(uri, objects, fill)
        try:
            return model_view(entry, objects, folder)
        except ChangedError as error:
            raise CacheUnusableError(str(error)) from error
        except OSError as error:
            raise CacheUnusableError(f"{entry}: {os.strerror(error.errno or errno.EIO)}") from error

    def entry(self, uri: Uri, objects: Sequence[SourceObject], fill: Fill) -> Path:
        """Returns the cache's folder of a model with all its files, and fills the folder first when it has to.

        Other pods may have added files to the folder.

        Raises:
            CacheUnusableError: this pod can neither use nor fill the folder.
            TrainerError: `fill` failed with the source's reason, or the process must stop.
        """
        entry = self.root / entry_name(uri, objects)
        try:
            if self._holds(entry, objects):
                event("cached", model=uri, folder=entry)
                return entry
            self._fill(entry, objects, fill)
        except OSError as error:
            raise CacheUnusableError(f"{self.root}: {os.strerror(error.errno or errno.EIO)}") from error
        except TrainerError as error:
            if error.reason is not FailureReason.DISK_FULL:
                raise
            raise CacheUnusableError(f"{self.root}: {error.message}") from error
        event("caching", model=uri, folder=entry)
        return entry

    def _holds(self, entry: Path, objects: Sequence[SourceObject]) -> bool:
        """Returns True when the folder has all the objects and none is damaged."""
        if entry.is_symlink() or not entry.is_dir():
            return False

        def wrong(item: SourceObject) -> str | None:
            self.raise_if_stopping()
            file = entry / _name(item)
            return damage(file, item) if file.is_file() and not file.is_symlink() else "is missing"

        with ThreadPoolExecutor(FILES_AT_A_TIME, thread_name_prefix="verify") as pool:
            problems = {_name(item): said for item, said in zip(objects, pool.map(wrong, objects), strict=True) if said}
        for name, said in problems.items():
            event("damaged", level=logging.WARNING, message=f"{entry / name} {said}; it is fetched anew")
        return not problems

    def _fill(self, entry: Path, objects: Sequence[SourceObject], fill: Fill) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._remove_leftovers()
        disk = shutil.disk_usage(self.root)
        if disk.total and disk.free < sum(item.size for item in objects):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with self._part() as part:
            part.mkdir()
            fill(part)
            _to_disk(part)
            self._into_place(part, entry)

    def _into_place(self, part: Path, entry: Path) -> None:
        """Renames a complete folder to the entry's name. An entry that exists gets the files one by one instead.

        An existing entry is damaged, or another pod has just filled it. It is never removed, because another pod may be
        about to open its files. A pod that has opened a replaced file still reads the old, complete file.
        """
        try:
            part.rename(entry)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            for path in part.iterdir():
                path.replace(entry / path.name)
            _sync(entry)
        _sync(self.root)

    @contextmanager
    def _part(self) -> Iterator[Path]:
        """Yields an unused path in the cache's folder. At the end, removes a folder that is at this path."""
        path = self.root / f"{_PART}{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Removes the partial folders of dead pods: those in which nothing was written for a day."""
        oldest = (self.now() - _LEFT_BEHIND).timestamp()
        for path in self.root.glob(f"{_PART}*"):
            with contextlib.suppress(OSError):
                if max(item.stat().st_mtime for item in (path, *path.rglob("*"))) < oldest:
                    event("leftover", folder=path, message="removed")
                    shutil.rmtree(path, ignore_errors=True)


def entry_name(uri: Uri, objects: Sequence[SourceObject]) -> str:
    """Returns the name of a model's folder: its URI, the start of the Hub's commit, and a digest.

    The digest covers every file's name, size, checksum or ETag, and revision.
    """
    revision = objects[0].revision if objects else None
    words = "--".join(part for part in (uri.authority, uri.path.strip("/"), (revision or "")[:12]) if part)
    label = re.sub("[^A-Za-z0-9._-]+", "--", words)[-_LABEL_LETTERS:].lstrip(".")
    lines = sorted(f"{_name(item)}\0{item.size}\0{item.sha256 or item.etag}\0{item.revision}" for item in objects)
    return f"{label}-{hashlib.sha256(chr(0).join(lines).encode()).hexdigest()[:_DIGITS]}"


def _name(item: SourceObject) -> str:
    return item.uri.rsplit("/", 1)[-1]


def _to_disk(folder: Path) -> None:
    """Flushes the files to disk before the rename. Otherwise a crash could leave files with a length but no bytes."""
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(descriptor)  # some network file systems support fsync of files only
    finally:
        os.close(descriptor)
