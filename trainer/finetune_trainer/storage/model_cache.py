"""Base models on a volume that jobs share: one folder for each model and revision, which pods fill and use at once.

A folder is filled under a temporary name and renamed when it is complete, so a partial one is never used. There is no
lock, which a dead pod could hold for ever. When two pods fill the same folder, the second replaces files with equal
ones. Before use, files are compared with what the source says about them, and fetched again when they differ.

Other files in a folder are never loaded: `model_view` makes the folder that a loader sees.

A volume that is full, read-only or missing fails no job: the model is then fetched as if there were no cache.
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
"""Fetches the model's files into a folder that is there and empty."""
_PART = ".part-"
_LEFT_BEHIND = timedelta(days=1)
_LABEL_LETTERS = 120
_DIGITS = 16


class CacheUnusableError(Exception):
    """The volume cannot be written, or not be read; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCache:
    """The models in one folder.

    Attributes:
        root: the folder; it is made when it is missing.
        now: the time of day, by which leftovers are old.
        leave: called between files; raises when the process must stop.
    """

    root: Path
    now: Callable[[], datetime]
    leave: Callable[[], object]

    def view(self, uri: Uri, objects: Sequence[SourceObject], fill: Fill, folder: Path) -> Path:
        """Makes `folder`, on this pod's own disk, the model's: of the files that its source names, and no others.

        Raises:
            CacheUnusableError: see `entry`; or the files have changed since they were checked.
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
        """The cache's folder of a model, whole: as it was found, or filled now. Others may have added files to it.

        Raises:
            CacheUnusableError: it can neither be used nor be filled here.
            TrainerError: the source's reason, from `fill`; or the process must stop.
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
        """Whether all the objects are in the folder, undamaged."""
        if entry.is_symlink() or not entry.is_dir():
            return False

        def wrong(item: SourceObject) -> str | None:
            self.leave()
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
        """Makes a whole folder the entry. One that is there, damaged or another pod's, gets its files one by one.

        An entry never goes away: a pod that has found it whole may be about to open its files, and a file that is
        replaced stays whole for whoever has opened it.
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
        """A free name beside the entries; whatever has it at the end goes."""
        path = self.root / f"{_PART}{secrets.token_hex(8)}"
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        """Removes what dead pods have left: folders that nothing was written to for a day."""
        oldest = (self.now() - _LEFT_BEHIND).timestamp()
        for path in self.root.glob(f"{_PART}*"):
            with contextlib.suppress(OSError):
                if max(item.stat().st_mtime for item in (path, *path.rglob("*"))) < oldest:
                    event("leftover", folder=path, message="removed")
                    shutil.rmtree(path, ignore_errors=True)


def entry_name(uri: Uri, objects: Sequence[SourceObject]) -> str:
    """The name of a model's folder: readable words, the Hub's commit, and a digest of the files' identities."""
    revision = objects[0].revision if objects else None
    words = "--".join(part for part in (uri.authority, uri.path.strip("/"), (revision or "")[:12]) if part)
    label = re.sub("[^A-Za-z0-9._-]+", "--", words)[-_LABEL_LETTERS:].lstrip(".")
    lines = sorted(f"{_name(item)}\0{item.size}\0{item.sha256 or item.etag}\0{item.revision}" for item in objects)
    return f"{label}-{hashlib.sha256(chr(0).join(lines).encode()).hexdigest()[:_DIGITS]}"


def _name(item: SourceObject) -> str:
    return item.uri.rsplit("/", 1)[-1]


def _to_disk(folder: Path) -> None:
    """Flushes before the rename, so that no crash leaves a file with a name and a length but without its bytes."""
    for path in (*folder.iterdir(), folder):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
            os.fsync(descriptor)  # network file systems may know it for files only
    finally:
        os.close(descriptor)
