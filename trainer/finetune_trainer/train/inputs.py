"""The run's inputs: what they are, and getting the model's files to the disk."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.fingerprint import fingerprint
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.uri import Scheme, parse_uri
from finetune_trainer.initial_adapter import ADAPTER_WEIGHTS, initial_adapter_objects, require_agreement
from finetune_trainer.model.files import needed, require_complete
from finetune_trainer.sources import dataset_objects, model_objects, validation_objects
from finetune_trainer.storage.base import OpenStore
from finetune_trainer.train.context import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What goes in, by content.

    Attributes:
        dataset: the data's objects, in reading order.
        model: the model's files.
        adapter: the files of the adapter that is continued from; empty when there is none.
        fingerprint: the name of the run that they and the recipe make.
    """

    dataset: list[SourceObject]
    model: list[SourceObject]
    adapter: list[SourceObject]
    fingerprint: str

    @property
    def model_revision(self) -> str | None:
        """The commit of a Hub model; None for a model from elsewhere."""
        return self.model[0].revision


def find_inputs(recipe: Recipe, open_store: OpenStore) -> Inputs:
    """Looks up the dataset's and the model's objects.

    Raises:
        TrainerError: something is missing, may not be read, is no complete model, or no adapter for this recipe.
    """
    dataset = dataset_objects(recipe.dataset, open_store)
    model = model_objects(recipe, open_store)
    require_complete(recipe.model.uri, model)
    adapter = initial_adapter_objects(recipe, open_store)
    require_agreement(recipe, adapter, open_store)
    identity = fingerprint(recipe, [*dataset, *validation_objects(recipe.dataset, open_store)], model, adapter)
    return Inputs(dataset=dataset, model=model, adapter=adapter, fingerprint=identity)


def fetch_model(recipe: Recipe, inputs: Inputs, context: Context) -> Path:
    """The model's folder on this machine: in place where it is mounted, else downloaded."""
    place = parse_uri(recipe.model.uri)
    match place.scheme:
        case Scheme.FILE:
            return Path(place.path)
        case Scheme.PVC:
            return context.pvc_root / place.authority / place.path
        case Scheme.HF | Scheme.S3:
            return _download(recipe, inputs, context)


def fetch_adapter(recipe: Recipe, inputs: Inputs, context: Context) -> Path | None:
    """The weights of the adapter that is continued from, on this machine and checked; None when there is none.

    Raises:
        TrainerError: MODEL_INVALID, they are others than those that were found; or the storage's reason.
    """
    if recipe.lora.initial_adapter_uri is None:
        return None
    store = context.open_store(parse_uri(recipe.lora.initial_adapter_uri))
    folder = context.work / "initial-adapter"
    folder.mkdir(parents=True, exist_ok=True)
    for item in inputs.adapter:
        file = folder / item.uri.rsplit("/", 1)[-1]
        store.download(item, file, context.downloaded)
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if item.sha256 not in (None, found):
            raise TrainerError(
                FailureReason.MODEL_INVALID,
                f"spec.lora.initialAdapterUri: {item.uri} has the SHA-256 {found}, expected {item.sha256}: it is "
                "damaged or was replaced",
            )
    return folder / ADAPTER_WEIGHTS


def _download(recipe: Recipe, inputs: Inputs, context: Context) -> Path:
    store, folder = context.open_store(parse_uri(recipe.model.uri)), context.work / "model"
    folder.mkdir(parents=True, exist_ok=True)
    for item in needed(inputs.model):
        store.download(item, folder / item.uri.rsplit("/", 1)[-1], context.downloaded)
    return folder
