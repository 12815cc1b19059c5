"""Publishes the adapter: its files in a folder of this writer's own, then the manifest, which is the commit.

Readers start from the manifest, so they never see a partial adapter. Two pods of one attempt may both get this far (a
lost node comes back). The manifest is created only if none exists, so exactly one of them wins.

A request may succeed although its answer was lost. So after the manifest was requested, files are removed only when the
storage says that the manifest is another writer's. In doubt they stay.
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
    """The place of a run in the output, and this writer's folder in it.

    Attributes:
        store: where the output is.
        run: the run's place; the manifest stands directly in it.
    """

    store: Store
    run: Uri

    @property
    def manifest(self) -> Uri:
        """The manifest's place."""
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

    Args:
        place: where to.
        folders: this writer's folders: name under the run's place -> what goes into it.
        describe: makes the manifest from the files with their checksums.
        on_existing: with Replace, a manifest that is there gives way.
        on_bytes: called with bytes transferred.
        retry: how requests to storage that does not answer are retried.

    Raises:
        TrainerError: SUPERSEDED when another writer has committed first (its adapter is as good as this one);
            else the storage's reason. This writer's files are then removed as far as the store lets it, unless the
            manifest may be there.
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
    """Writes the manifest. An error does not count if the manifest exists afterwards.

    Replace overwrites the manifest that was read before. One that another pod of the same job has written meanwhile
    stays, because its attempt may have been reported already. After any other change the manifest is read again.
    """
    current = place.store.read(place.manifest) if on_existing is OnExisting.REPLACE else None
    if _same_jobs(current, content, place):
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


def _same_jobs(current: bytes | None, content: bytes, place: RunLocation) -> bool:
    """Whether another manifest of the same job is there, and its adapter with it.

    Anybody who sees the job knows its UID: what only claims to be of it must not keep its adapter from being put.
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
    """Whether the store says that the manifest is not this one: absent, or another writer's."""
    try:
        return place.store.read(place.manifest) != content
    except TrainerError:
        return False


def _remove(place: RunLocation, entries: Sequence[ManifestFile]) -> None:
    """Removes this writer's files, which no reader uses; it stops when storage does not answer."""
    for entry in entries:
        try:
            place.store.delete(place.run.child(*entry.path.split("/")))
        except TrainerError as error:
            if error.reason is FailureReason.STORAGE_UNAVAILABLE:
                return
