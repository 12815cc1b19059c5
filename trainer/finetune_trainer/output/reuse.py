"""An adapter of this run that exists already: whether it is valid, and whether it is reused.

A manifest is a file in a bucket that others may write to. It is accepted if it describes what this run would make
(fingerprint, base model, rank), if everything that it names is below the run's prefix, and if the adapter's bytes have
the checksums that it names. Any other manifest is never reported as this run's adapter. The check finds what does not
fit together. It is not a signature: whoever may write to the bucket can write another adapter with a matching manifest.

Preflight and the trainer use the same check.
"""

import hashlib
from dataclasses import dataclass

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import MANIFEST_NAME, merged_folder, run_prefix
from finetune_trainer.contract.manifest import Manifest, SourceObject
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.output import OnExisting
from finetune_trainer.contract.termination import OutputRecord
from finetune_trainer.contract.text import MAX_METRICS, MAX_MODULES, MAX_TEXT
from finetune_trainer.contract.uri import Uri
from finetune_trainer.export.base_model import model_id
from finetune_trainer.storage.base import ObjectNotFoundError, OpenStore, Store

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the manifest of a run says when it is that run's.

    Attributes:
        fingerprint: of the run.
        base_model: as a server should name it. The fingerprint is of its content, so the same model at another
            address has the same one; a server would look for it at the old address, though.
        rank: of the adapter.
    """

    fingerprint: str
    base_model: str
    rank: int

    def differences(self, manifest: Manifest) -> list[str]:
        """What the manifest says instead, a clause each."""
        fields = (
            ("fingerprint", manifest.fingerprint, self.fingerprint),
            ("base model", manifest.base_model.rstrip("/"), self.base_model.rstrip("/")),
            ("rank", manifest.rank, self.rank),
        )
        return [f"its {name} is {there}, and this run's is {own}" for name, there, own in fields if there != own]


def expected_of(recipe: Recipe, fingerprint: str) -> Expected:
    """What a manifest of this run must say."""
    return Expected(fingerprint=fingerprint, base_model=model_id(recipe.model.uri), rank=recipe.lora.rank)


def reusable_output(recipe: Recipe, fingerprint: str, open_store: OpenStore) -> OutputRecord | None:
    """The adapter of this run if it exists and is reused; None if it must be trained.

    What is there and fits this run:

    - is taken with Reuse, whoever made it: the FineTuneJob of another cluster, or of the same name before this one;
    - is taken whatever `output.onExisting` says when this job itself has committed it: the pod that made it went before
      it could say so, and the job asks for one adapter, not for one an attempt;
    - else is a conflict with Fail, and gives way with Replace.

    What is there and does not fit is nobody's adapter. With Reuse and Fail the run ends: the manifest's place is taken,
    the trained adapter could not be committed, and nothing of another's is removed unasked. With Replace, which asks
    for just that, the run trains and puts its manifest there.

    Raises:
        TrainerError: OUTPUT_CONFLICT, as above; else the storage's reason.
    """
    mode, place = recipe.output.on_existing, _run(recipe, fingerprint)
    uri = place.child(MANIFEST_NAME)
    content = open_store(uri).read(uri)
    if content is None:
        return None
    manifest = Manifest.read(content)
    own = manifest is not None and manifest.belongs_to(recipe.job.uid)
    if not own and mode is OnExisting.REPLACE:
        return None
    if not own and manifest is not None and mode is OnExisting.FAIL:
        raise TrainerError(
            FailureReason.OUTPUT_CONFLICT, f"{uri} is there already: an adapter of the same recipe, data and model"
        )
    expected = expected_of(recipe, fingerprint)
    try:
        return _record(content, expected, place, open_store(uri), hashed=True)
    except ValueError as error:
        if mode is OnExisting.REPLACE:
            return None
        raise _unfit(uri, error) from error


def committed_output(recipe: Recipe, fingerprint: str, open_store: OpenStore) -> OutputRecord | None:
    """The adapter that this pod has just committed, as a reader finds it; None when it is not there.

    Its files are compared by their sizes: the upload has compared the bytes.

    Raises:
        TrainerError: OUTPUT_CONFLICT, another manifest is there; else the storage's reason.
    """
    place = _run(recipe, fingerprint)
    uri = place.child(MANIFEST_NAME)
    store = open_store(uri)
    content = store.read(uri)
    if content is None:
        return None
    try:
        return _record(content, expected_of(recipe, fingerprint), place, store, hashed=False)
    except ValueError as error:
        raise _unfit(uri, error) from error


def require_fit(manifest: Manifest, expected: Expected, place: Uri, store: Store, *, hashed: bool) -> None:
    """Checks that the manifest is the one of a run, and that its files are there.

    Args:
        manifest: the manifest.
        expected: what it says when it is that run's.
        place: the run's place.
        store: where it is.
        hashed: whether the adapter's files are read and their SHA-256 compared. A merged model's, which may have a
            hundred gigabytes, are compared by their sizes.

    Raises:
        ValueError: it is not; the message says why, in one line.
        TrainerError: the storage's reason.
    """
    if wrong := expected.differences(manifest):
        raise ValueError("; ".join(wrong))
    folder = f"{manifest.adapter}/"
    adapter = [file for file in manifest.files if file.path.startswith(folder)]
    if not adapter:
        raise ValueError(f"it names no file of the adapter's folder {manifest.adapter}")
    if len({file.path for file in manifest.files}) < len(manifest.files):
        raise ValueError("it names a file twice")
    if manifest.merged is not None and not any(file.path.startswith(f"{manifest.merged}/") for file in manifest.files):
        raise ValueError(f"it names no file of the merged model's folder {manifest.merged}")
    try:
        stored = {item.uri: item for item in store.stat(place)}
    except ObjectNotFoundError:
        stored = {}
    there = {file.path: stored.get(str(place.child(file.path))) for file in manifest.files}
    lost = [file.path for file in manifest.files if (item := there[file.path]) is None or item.size != file.size]
    if lost:
        raise ValueError(f"{len(lost)} of its files are missing or of another size, {lost[0]} for one")
    for file in adapter if hashed else ():
        item = there[file.path]
        assert item is not None, "it is none of the lost ones"
        if (digest := _digest(item, store)) != file.sha256:
            raise ValueError(f"{file.path} has the SHA-256 {digest}, and the manifest says {file.sha256}")


def _run(recipe: Recipe, fingerprint: str) -> Uri:
    """The run's place.

    Raises:
        TrainerError: INVALID_RECIPE, an address in it would be longer than a status holds: nothing is trained that
            could not be reported.
    """
    place = run_prefix(recipe.output.uri, recipe.job.name, fingerprint)
    longest = len(str(place.child(merged_folder(recipe.job.attempt, "x" * MAX_TEXT))))
    if longest > MAX_TEXT:
        raise TrainerError(
            FailureReason.INVALID_RECIPE,
            f"spec.output.uri: with the folders of the run below it an address has {longest:,} characters, at most "
            f"{MAX_TEXT:,} are possible: shorten it",
        )
    return place


def _record(content: bytes, expected: Expected, place: Uri, store: Store, *, hashed: bool) -> OutputRecord:
    """The record of the manifest's adapter; see `require_fit` for what is raised."""
    manifest = Manifest.parse(content)
    require_fit(manifest, expected, place, store, hashed=hashed)
    return OutputRecord(
        uri=str(place.child(manifest.adapter)),
        merged_uri=str(place.child(manifest.merged)) if manifest.merged else None,
        manifest_uri=str(place.child(MANIFEST_NAME)),
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        size_bytes=manifest.size,
        base_model=manifest.base_model,
        rank=manifest.rank,
        target_modules=manifest.target_modules[:MAX_MODULES],
        metrics=dict(list(manifest.metrics.items())[:MAX_METRICS]),
    )


def _digest(item: SourceObject, store: Store) -> str:
    digest = hashlib.sha256()
    with store.open(item) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _unfit(uri: Uri, why: ValueError) -> TrainerError:
    return TrainerError(
        FailureReason.OUTPUT_CONFLICT,
        f"{uri} is there, but it is not the manifest of this run: {why}. Nothing was taken from it and nothing "
        "removed: delete that folder, or set output.onExisting to Replace",
    )
