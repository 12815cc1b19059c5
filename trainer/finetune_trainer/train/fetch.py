"""Fetches to this machine what a run needs: the model, Hub data, an adapter to continue from, a checkpoint."""

import logging
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from finetune_trainer.checkpoints import FetchedCheckpoint
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.uri import Scheme, Uri
from finetune_trainer.export.base_model import base_licence
from finetune_trainer.inputs.initial_adapter import ADAPTER_WEIGHTS
from finetune_trainer.model.files import needed_files
from finetune_trainer.runtime.log import event
from finetune_trainer.storage.content import sha256_of
from finetune_trainer.storage.model_cache import CacheUnusableError, ModelCache
from finetune_trainer.storage.parallel import download_all
from finetune_trainer.train.context import Context
from finetune_trainer.train.inputs import Inputs
from finetune_trainer.train.resume import newest_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedInputs:
    """What was fetched.

    Attributes:
        model: the base model's folder.
        licence: of the base model, where its card names one.
        initial_adapter: the weights of the adapter that is continued from.
        checkpoint: of this run, to resume from.
    """

    model: Path
    licence: str | None
    initial_adapter: Path | None
    checkpoint: FetchedCheckpoint | None


def fetch_inputs(recipe: Recipe, inputs: Inputs, context: Context) -> FetchedInputs:
    """Fetches all of it.

    Raises:
        TrainerError: the storage's reason; what was found is damaged; or the process was asked to stop.
    """
    fetch_hub_data(inputs, context)
    return FetchedInputs(
        model=fetch_model(recipe, inputs, context),
        licence=base_licence(recipe.model.uri, context.open_store),
        initial_adapter=fetch_adapter(recipe, inputs, context),
        checkpoint=newest_checkpoint(recipe, inputs, context),
    )


def fetch_inputs_without_checkpoint(recipe: Recipe, inputs: Inputs, context: Context) -> FetchedInputs:
    """Fetches what no earlier pod has left; see `fetch_inputs`."""
    fetch_hub_data(inputs, context)
    return FetchedInputs(
        model=fetch_model(recipe, inputs, context),
        licence=None,
        initial_adapter=fetch_adapter(recipe, inputs, context),
        checkpoint=None,
    )


def fetch_hub_data(inputs: Inputs, context: Context) -> None:
    """Fetches the data that is on the Hub into the Hub's cache, from where it is read.

    Other data is read from its storage row by row. Hub data is not: its files have checksums, and a training sends the
    Hub no request once it has begun (`runtime.log.go_offline`).

    Raises:
        TrainerError: the Hub's reason, or the process was asked to stop.
    """
    repositories: dict[str, list[SourceObject]] = {}
    for item in (*inputs.dataset, *inputs.validation):
        if item.location.scheme is Scheme.HF:
            repositories.setdefault(item.location.authority, []).append(item)
    for number, objects in enumerate(repositories.values()):
        store, folder = context.open_store(objects[0].location), context.work / "hub-data" / str(number)
        names = {item.uri: f"{place:06}" for place, item in enumerate(objects)}
        download_all(store, objects, folder, context.downloaded, name=partial(_named, names))


def _named(names: dict[str, str], item: SourceObject) -> str:
    return names[item.uri]


def fetch_model(recipe: Recipe, inputs: Inputs, context: Context) -> Path:
    """The model's folder on this machine: in place where it is mounted, else from the cache, else downloaded."""
    uri = recipe.model.uri
    match uri.scheme:
        case Scheme.FILE:
            return Path(uri.path)
        case Scheme.PVC:
            return context.pvc_root / uri.authority / uri.path
        case Scheme.HF | Scheme.S3:
            return _download(recipe, inputs, context)
        case Scheme.HTTPS:
            raise AssertionError(uri)


def fetch_adapter(recipe: Recipe, inputs: Inputs, context: Context) -> Path | None:
    """The weights of the adapter that is continued from, on this machine and checked; None when there is none.

    Raises:
        TrainerError: MODEL_INVALID, they are others than those that were found; or the storage's reason.
    """
    if recipe.lora.initial_adapter_uri is None:
        return None
    store = context.open_store(recipe.lora.initial_adapter_uri)
    folder = context.work / "initial-adapter"
    folder.mkdir(parents=True, exist_ok=True)
    for item in inputs.adapter:
        file = folder / item.uri.rsplit("/", 1)[-1]
        store.download(item, file, context.downloaded)
        digest = sha256_of(file)
        if item.sha256 not in (None, digest):
            raise TrainerError(
                FailureReason.MODEL_INVALID,
                f"spec.lora.initialAdapterUri: {item.uri} has the SHA-256 {digest}, expected {item.sha256}: it is "
                "damaged or was replaced",
            )
    return folder / ADAPTER_WEIGHTS


def _download(recipe: Recipe, inputs: Inputs, context: Context) -> Path:
    uri, objects = recipe.model.uri, needed_files(inputs.model)
    store, folder = context.open_store(uri), context.work / "model"
    if recipe.model.cache is not None:

        def fill(part: Path) -> None:
            download_all(store, objects, part, context.downloaded, link=False)

        try:
            root = _cache_root(recipe.model.cache, context)
            cache = ModelCache(root=root, now=context.now, raise_if_stopping=context.raise_if_stopping)
            return cache.view(uri, objects, fill, folder)
        except CacheUnusableError as error:
            message = f"{error}; the model is fetched to the pod's own disk"
            event("cache", level=logging.WARNING, place=recipe.model.cache, message=message)
    shutil.rmtree(folder, ignore_errors=True)  # half of a cache's files
    download_all(store, objects, folder, context.downloaded)
    return folder


def _cache_root(place: Uri, context: Context) -> Path:
    if place.scheme is Scheme.FILE:
        return Path(place.path)
    if not context.cache_root.is_dir():
        raise CacheUnusableError(f"claim {place.authority} is not mounted here")
    return context.cache_root / place.path.lstrip("/")
