"""Decides whether an existing adapter of this run is valid, and whether the job reuses it.

A manifest is a file in a bucket that others may write to. It is accepted under three conditions. It has the run's
fingerprint, base model and rank. All its files are under the run's prefix. The adapter's files have its checksums.
A manifest that fails a condition is never reported as this run's adapter.

The check finds contradictions. It is no signature: whoever may write to the bucket can write another adapter with a
matching manifest.

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
    """The values that the manifest of a run must have.

    Attributes:
        fingerprint: fingerprint of the run.
        base_model: name of the base model for a server. The fingerprint covers the model's content and not its URI, so
            the same model at another URI has the same fingerprint. A server would look for it at the old URI.
        rank: rank of the adapter.
    """

    fingerprint: str
    base_model: str
    rank: int

    def differences(self, manifest: Manifest) -> list[str]:
        """Returns one clause for each field in which the manifest differs."""
        fields = (
            ("fingerprint", manifest.fingerprint, self.fingerprint),
            ("base model", manifest.base_model.rstrip("/"), self.base_model.rstrip("/")),
            ("rank", manifest.rank, self.rank),
        )
        return [f"its {name} is {there}, and this run's is {own}" for name, there, own in fields if there != own]


def expected_of(recipe: Recipe, fingerprint: str) -> Expected:
    """Returns the values that a manifest of this run must have."""
    return Expected(fingerprint=fingerprint, base_model=model_id(recipe.model.uri), rank=recipe.lora.rank)


def reusable_output(recipe: Recipe, fingerprint: str, open_store: OpenStore) -> OutputRecord | None:
    """Returns the adapter of this run if it exists and is reused. Returns None if the run must train.

    A manifest that fits this run:

    - With Reuse, the adapter is reused. Another cluster's job, or an earlier job of the same name, may have made it.
    - When this job itself has committed it, the adapter is reused whatever `output.onExisting` says. The pod was lost
      before it could report the commit. A job asks for one adapter, not for one per attempt.
    - Otherwise Fail ends the run with OUTPUT_CONFLICT, and Replace trains and replaces the manifest.

    A manifest that does not fit this run:

    - With Reuse or Fail the run ends with OUTPUT_CONFLICT. The run could not commit its adapter, because the manifest's
      name is taken, and a file of somebody else is never removed without being asked for.
    - Replace asks for that: the run trains and replaces the manifest.

    Raises:
        TrainerError: OUTPUT_CONFLICT, as above. Else the store's error.
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
    """Reads the adapter that this pod has just committed. Returns None when there is no manifest.

    Only the sizes of the files are compared, because the upload has compared the bytes.

    Raises:
        TrainerError: OUTPUT_CONFLICT, the manifest does not fit this run. Else the store's error.
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
    """Checks that a manifest fits a run, and that the files of the manifest exist with their sizes.

    Args:
        manifest: the manifest.
        expected: the values that a manifest of the run must have.
        place: the run's prefix.
        store: the store of `place`.
        hashed: True also reads the adapter's files and compares their SHA-256. The files of a merged model, which may
            have a hundred gigabytes, are only compared by size.

    Raises:
        ValueError: the manifest does not fit. The message gives the cause in one line.
        TrainerError: the store's error.
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
        assert item is not None, "missing files have raised above"
        if (digest := _digest(item, store)) != file.sha256:
            raise ValueError(f"{file.path} has the SHA-256 {digest}, and the manifest says {file.sha256}")


def _run(recipe: Recipe, fingerprint: str) -> Uri:
    """Returns the run's prefix.

    Raises:
        TrainerError: INVALID_SPEC. A URI of the result would be longer than the status allows, so the run could not
            report its result.
    """
    place = run_prefix(recipe.output.uri, recipe.job.name, fingerprint)
    longest = len(str(place.child(merged_folder(recipe.job.attempt, "x" * MAX_TEXT))))
    if longest > MAX_TEXT:
        raise TrainerError(
            FailureReason.INVALID_SPEC,
            f"spec.output.uri: with the folders of the run below it an address has {longest:,} characters, at most "
            f"{MAX_TEXT:,} are possible: shorten it",
        )
    return place


def _record(content: bytes, expected: Expected, place: Uri, store: Store, *, hashed: bool) -> OutputRecord:
    """Parses and checks a manifest. Returns the record of its adapter. Raises the errors of `require_fit`.

    Raises:
        ValueError: the manifest cannot be parsed.
    """
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
