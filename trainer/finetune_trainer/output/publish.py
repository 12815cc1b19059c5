"""Publishes the adapter: uploads the files into this writer's own folder, then writes the manifest, the commit.

Readers start from the manifest, so they never see a partial adapter. Two pods of one attempt may both publish, when a
lost node comes back. The manifest is created only if none exists, so exactly one pod commits.

A request may succeed although its answer is lost. So after the manifest was sent, this writer removes its files only
when the store says that the manifest is another one. When the store does not answer, the files stay.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import MANIFEST_NAME
from finetune_trainer.contract.manifest import Manifest, ManifestFile
from finetune_trainer.contract.recipe.output import OnExisting
from finetune_trainer.contract.uri import Uri
from finetune_trainer.output.reuse import Expected, require_fit
from finetune_trainer.storage.base import AlreadyExistsError, ByteCount, ObjectChangedError, Store
from finetune_trainer.storage.content import files_under, manifest_entry
from finetune_trainer.storage.retry import RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLocation:
    """The location of a run in the output.

    Attributes:
        store: the output's store.
        run: the run's prefix. The manifest is directly under it.
    """

    store: Store
    run: Uri

    @property
    def manifest(self) -> Uri:
        """URI of the manifest."""
        return self.run.child(MANIFEST_NAME)


def publish(
    place: RunLocation,
    folders: Mapping[str, Path],
    describe: Callable[[list[ManifestFile]], Manifest],
    on_existing: OnExisting,
    on_bytes: ByteCount,
    retry: RetryPolicy,
) -> None:
    """Uploads this writer's files and commits them.

    After an error, this writer's files are removed where the store allows it. They stay when the manifest may have been
    written.

    Args:
        place: the run's location.
        folders: maps the name of a folder under the run's prefix to the local folder with its files.
        describe: returns the manifest for the files with their checksums.
        on_existing: with Replace, an existing manifest is replaced.
        on_bytes: called with the number of bytes transferred.
        retry: the retry policy while storage does not answer.

    Raises:
        TrainerError: SUPERSEDED when another writer committed first. Its adapter is of the same run, and stays. Else
            the store's error.
    """
    files = [(name, folder, file) for name, folder in folders.items() for file in files_under(folder)]
    entries = [manifest_entry(f"{name}/{file.relative_to(folder).as_posix()}", file) for name, folder, file in files]
    try:
        for (_, _, file), entry in zip(files, entries, strict=True):
            target = place.run.child(*entry.path.split("/"))
            retry.call(partial(place.store.upload, file, target, on_bytes))
        content = (describe(entries).to_json() + "\n").encode()
    except TrainerError:
        _remove(place, entries)
        raise
    try:
        retry.call(partial(_commit, place, content, on_existing))
    except AlreadyExistsError:
        _remove(place, entries)
        raise TrainerError(
            FailureReason.SUPERSEDED, f"another writer committed {place.manifest} first; its adapter stands"
        ) from None
    except TrainerError:
        if _surely_another(place, content):
            _remove(place, entries)
        raise


def _commit(place: RunLocation, content: bytes, on_existing: OnExisting) -> None:
    """Writes the manifest. An error is ignored if the store holds this manifest afterwards.

    Replace overwrites the manifest that was read just before. A manifest that another pod of the same job has committed
    stays, because its attempt may have been reported already.

    Raises:
        AlreadyExistsError: another writer's manifest stays.
        ObjectChangedError: with Replace, the manifest changed between the read and the write. The retry policy calls
            again, and the manifest is read again.
        TrainerError: the store's error.
    """
    current = place.store.read(place.manifest) if on_existing is OnExisting.REPLACE else None
    if _job_has_committed(current, content, place):
        raise AlreadyExistsError(str(place.manifest))
    try:
        if current is None:
            place.store.create(place.manifest, content)
        else:
            place.store.replace(place.manifest, content, current)
    except AlreadyExistsError:
        if on_existing is OnExisting.REPLACE:
            raise ObjectChangedError(str(place.manifest)) from None
        raise
    except TrainerError:
        with contextlib.suppress(TrainerError):
            if place.store.read(place.manifest) == content:
                return
        raise


def _job_has_committed(current: bytes | None, content: bytes, place: RunLocation) -> bool:
    """Returns True when the store has another manifest of the same job, with its adapter.

    Everybody who can read the job knows its UID and can write it into a manifest. Such a forged manifest must not stop
    the job from publishing. So the manifest counts only if it fits this run and its files have their checksums.

    Raises:
        TrainerError: the store's error.
    """
    if current is None or current == content:
        return False
    there, own = Manifest.read(current), Manifest.read(content)
    if there is None or own is None or not there.belongs_to(own.job_uid or ""):
        return False
    expected = Expected(fingerprint=own.fingerprint, base_model=own.base_model, rank=own.rank)
    try:
        require_fit(there, expected, place.run, place.store, hashed=True)
    except ValueError:
        return False
    return True


def _surely_another(place: RunLocation, content: bytes) -> bool:
    """Returns True when the store answers that the manifest is absent or another one.

    False also when the store does not answer.
    """
    try:
        return place.store.read(place.manifest) != content
    except TrainerError:
        return False


def _remove(place: RunLocation, entries: Sequence[ManifestFile]) -> None:
    """Removes this writer's files, which no reader uses. Stops when storage does not answer. Raises nothing."""
    for entry in entries:
        try:
            place.store.delete(place.run.child(*entry.path.split("/")))
        except TrainerError as error:
            if error.reason is FailureReason.STORAGE_UNAVAILABLE:
                return
