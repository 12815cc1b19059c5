"""The checkpoints of one run in storage."""

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from finetune_trainer.contract.checkpoint import CheckpointManifest
from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.layout import CHECKPOINT_MANIFEST_NAME, checkpoint_folder
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.uri import Uri
from finetune_trainer.runtime.log import event
from finetune_trainer.storage.base import ByteCount, ObjectNotFoundError, ObjectReplacedError, Store
from finetune_trainer.storage.content import files_under, manifest_entry, sha256_of
from finetune_trainer.storage.retry import RetryPolicy


class _DamagedError(Exception):
    """A checkpoint is incomplete or invalid. The message gives the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedCheckpoint:
    """A complete checkpoint on this machine.

    Attributes:
        folder: the checkpoint's files.
        manifest: the checkpoint's manifest.
        uri: the checkpoint's folder in storage.
    """

    folder: Path
    manifest: CheckpointManifest
    uri: Uri


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointStore:
    """The checkpoints of one run in storage, for one writer.

    Attributes:
        store: the store of `uri`.
        uri: the folder of the run's checkpoints.
        fingerprint: fingerprint of the run.
        keep: number of newest checkpoints to keep.
        attempt: number of the writing attempt.
        writer: UID of the writing pod, or any unique token.
        versions: versions of the packages that influence the result.
        now: returns the current time.
        retry: the retry policy while storage does not answer.
    """

    store: Store
    uri: Uri
    fingerprint: str
    keep: int
    attempt: int
    writer: str
    versions: Mapping[str, str]
    now: Callable[[], datetime]
    retry: RetryPolicy

    def upload(self, folder: Path, step: int, total_steps: int, on_bytes: ByteCount, measured: int = 0) -> Uri:
        """Uploads the files of `folder` and then their manifest. Then removes the oldest checkpoints.

        Args:
            folder: the checkpoint's files.
            step: optimizer steps done.
            total_steps: optimizer steps in all.
            on_bytes: called with the number of bytes transferred.
            measured: before the first step, the pairs that were measured.

        Returns:
            The checkpoint's folder in storage.

        Raises:
            TrainerError: the store's error. Readers then ignore the uploaded files, because their manifest is missing.
        """
        uri = self.uri.child(checkpoint_folder(step, self.writer, measured))
        files = files_under(folder)
        entries = [manifest_entry(file.relative_to(folder).as_posix(), file) for file in files]
        for file, entry in zip(files, entries, strict=True):
            self.retry.call(partial(self.store.upload, file, uri.child(*entry.path.split("/")), on_bytes))
        manifest = CheckpointManifest(
            fingerprint=self.fingerprint,
            step=step,
            total_steps=total_steps,
            files=entries,
            versions=dict(self.versions),
            attempt=self.attempt,
            writer=self.writer,
            created=self.now(),
        )
        content = (manifest.to_json() + "\n").encode()
        # No other writer uses this folder, so no conditional write is needed.
        self.retry.call(partial(self.store.replace, uri.child(CHECKPOINT_MANIFEST_NAME), content))
        with contextlib.suppress(TrainerError):  # A checkpoint that stays costs only space. The next upload retries.
            self._prune()
        return uri

    def fetch_newest(self, target: Path, on_bytes: ByteCount, *, only: Uri | None = None) -> FetchedCheckpoint | None:
        """Downloads the newest complete checkpoint. Logs and skips every damaged one. Returns None without any.

        Args:
            target: an absent or empty folder for the files.
            on_bytes: called with the number of bytes transferred.
            only: the folder of the only checkpoint to consider; None considers all.

        Raises:
            TrainerError: the store's error. When storage does not answer, no older checkpoint is used instead.
        """
        for folder in self._folders():
            if not folder.committed or (only is not None and folder.uri != only):
                continue
            try:
                manifest = self._checked_manifest(folder)
                self._fetch(folder, manifest, target, on_bytes)
            except (_DamagedError, ObjectNotFoundError, ObjectReplacedError) as error:
                event("checkpoint", level=logging.WARNING, uri=folder.uri, message=f"skipped: {error}")
                continue
            return FetchedCheckpoint(folder=target, manifest=manifest, uri=folder.uri)
        return None

    def delete_all(self) -> None:
        """Removes all checkpoints of the run, which nobody needs once the adapter is committed.

        Raises:
            TrainerError: the store's error.
        """
        self.retry.call(partial(self.store.delete_folder, self.uri))

    def _prune(self) -> None:
        """Removes all but the `keep` newest complete checkpoints.

        Also removes incomplete folders, left by a killed writer, that are older than these.
        """
        kept = 0
        for folder in self._folders():
            if kept >= self.keep:
                # The manifest goes first, so that no reader takes a half-removed checkpoint for a complete one.
                self.store.delete(folder.uri.child(CHECKPOINT_MANIFEST_NAME))
                self.store.delete_folder(folder.uri)
            kept += folder.committed

    def _folders(self) -> list["_CheckpointFolder"]:
        """Returns the run's checkpoint folders, newest first. Some may be incomplete."""
        try:
            objects = self.retry.call(partial(self.store.stat, self.uri))
        except ObjectNotFoundError:
            return []
        top = str(self.uri).rstrip("/") + "/"
        folders: dict[str, dict[str, SourceObject]] = {}
        for item in objects:
            name, _, path = item.uri.removeprefix(top).partition("/")
            folders.setdefault(name, {})[path] = item
        return [
            _CheckpointFolder(uri=self.uri.child(name), objects=folders[name]) for name in sorted(folders, reverse=True)
        ]

    def _checked_manifest(self, folder: "_CheckpointFolder") -> CheckpointManifest:
        content = self.retry.call(partial(self.store.read, folder.uri.child(CHECKPOINT_MANIFEST_NAME)))
        manifest = CheckpointManifest.read(content or b"")
        if manifest is None:
            raise _DamagedError("its manifest cannot be read, or is of another version")
        if manifest.fingerprint != self.fingerprint:
            raise _DamagedError("it is of another run")
        for file in manifest.files:
            if ".." in file.path.split("/") or file.path.startswith("/"):
                raise _DamagedError(f"{file.path} leads out of it")
            there = folder.objects.get(file.path)
            if there is None or there.size != file.size:
                raise _DamagedError(f"{file.path} is missing or of another size")
        return manifest

    def _fetch(
        self, folder: "_CheckpointFolder", manifest: CheckpointManifest, target: Path, on_bytes: ByteCount
    ) -> None:
        for file in manifest.files:
            path = target / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            self.retry.call(partial(self.store.download, folder.objects[file.path], path, on_bytes))
            if sha256_of(path) != file.sha256:
                raise _DamagedError(f"{file.path} has other bytes than its checksum says")


@dataclass(frozen=True, slots=True, kw_only=True)
class _CheckpointFolder:
    """The folder of one checkpoint in storage, and its objects by path."""

    uri: Uri
    objects: Mapping[str, SourceObject]

    @property
    def committed(self) -> bool:
        """True when the folder has a manifest."""
        return CHECKPOINT_MANIFEST_NAME in self.objects
