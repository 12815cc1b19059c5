"""Finds the input objects of a run: the files of the data and of the base model.

Preflight and the trainer both use this module, so both compute the same fingerprint.
"""

import hashlib
import json
from collections.abc import Sequence

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe import DatasetSpec, Recipe
from finetune_trainer.contract.recipe.dataset import TRAIN_SPLIT, VALIDATION_SPLIT
from finetune_trainer.contract.text import printable
from finetune_trainer.contract.uri import Scheme, Uri
from finetune_trainer.inputs.data_folder import data_files
from finetune_trainer.inputs.dataset_card import LONGEST_CARD, CardError
from finetune_trainer.inputs.hub_dataset import HubDataset, Wanted
from finetune_trainer.storage.base import ObjectNotFoundError, OpenStore

WEIGHTS_SUFFIX = ".safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
_HASHED_WEIGHTS_BYTES = 64 << 20
_MODEL_SUFFIXES = (".json", ".safetensors", ".model", ".jinja", ".txt", ".tiktoken")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf")
_CHUNK = 1 << 20


def dataset_objects(dataset: DatasetSpec, open_store: OpenStore) -> list[SourceObject]:
    """Returns the objects of the training data in reading order: URIs as listed, the objects of each sorted by name.

    Under a prefix, files that hold no rows are left out: see `data_files`. Of a Hub data set, the files of one split
    are read: see `HubDataset`.

    Raises:
        TrainerError: DATASET_NOT_FOUND. DATASET_INVALID, a file's name is unusable, splits stand side by side, or a Hub
            data set does not say which files are meant. Else the store's error.
    """
    split = dataset.split or TRAIN_SPLIT
    chosen = dataset.split is not None
    wanted = Wanted(split=split, chosen=chosen, field="dataset.split", format=dataset.format)
    return _data_objects(dataset.places, wanted, dataset, open_store)


def validation_objects(dataset: DatasetSpec, open_store: OpenStore) -> list[SourceObject]:
    """Returns the objects of validation rows of their own.

    Empty when the validation rows are split from the training rows, or when there are no validation rows.

    Raises:
        TrainerError: see `dataset_objects`.
    """
    place = dataset.validation_place
    if place is None or dataset.validation is None:
        return []
    split = dataset.validation.split
    wanted = Wanted(
        split=split or VALIDATION_SPLIT,
        chosen=split is not None,
        field="dataset.validation.split",
        format=dataset.format,
    )
    return _data_objects([place], wanted, dataset, open_store)


def model_objects(recipe: Recipe, open_store: OpenStore) -> list[SourceObject]:
    """Returns the files of the base model that a trainer needs.

    They are directly in the model's folder, not in subfolders. Pickled weights are left out.

    Raises:
        TrainerError: MODEL_NOT_FOUND, or the store's error.
    """
    return model_files(recipe, model_folder(recipe, open_store))


def model_files(recipe: Recipe, folder: Sequence[SourceObject]) -> list[SourceObject]:
    """Returns the files of a model's folder that a trainer needs. Python files only with model.trustRemoteCode."""
    suffixes = (*_MODEL_SUFFIXES, ".py") if recipe.model.trust_remote_code else _MODEL_SUFFIXES
    return [item for item in folder if item.uri.endswith(suffixes)]


def model_folder(recipe: Recipe, open_store: OpenStore) -> list[SourceObject]:
    """Returns every file directly in the base model's folder, without subfolders.

    Raises:
        TrainerError: MODEL_NOT_FOUND, or the store's error.
    """
    uri = recipe.model.uri
    try:
        listed = open_store(uri).stat(uri)
    except ObjectNotFoundError as error:
        raise error.meant(FailureReason.MODEL_NOT_FOUND) from error
    top = str(uri).rstrip("/") + "/"
    files = [item for item in listed if item.uri.startswith(top) and "/" not in item.uri[len(top) :]]
    if not files:
        raise TrainerError(
            FailureReason.MODEL_NOT_FOUND, f"{uri} is no folder with model files: model.uri must name the folder itself"
        )
    return [with_content(item, open_store) for item in files]


def pickled_weights(objects: Sequence[SourceObject]) -> list[str]:
    """Returns the names of weight files in formats that are never loaded. To unpickle a file runs code in it."""
    names = [item.uri.rsplit("/", 1)[-1] for item in objects]
    return [name for name in names if name.endswith(_PICKLED) and not name.startswith(("optimizer", "training_args"))]


def read_json(source: SourceObject, open_store: OpenStore, longest: int = 64 << 20) -> object:
    """Reads a small JSON file of a model or adapter. Returns the parsed value.

    Args:
        source: the file.
        open_store: opens the file's store.
        longest: largest size of the file in bytes.

    Raises:
        TrainerError: MODEL_INVALID, the file is too large or not JSON. Else the store's error.
    """
    with open_store(source.location).open(source) as stream:
        content = stream.read(longest + 1)
    if len(content) > longest:
        raise TrainerError(FailureReason.MODEL_INVALID, f"{source.uri} has more than {longest} bytes")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise TrainerError(FailureReason.MODEL_INVALID, f"{source.uri} is not JSON: {error}") from error


def _data_objects(
    places: Sequence[Uri], wanted: Wanted, dataset: DatasetSpec, open_store: OpenStore
) -> list[SourceObject]:
    objects: list[SourceObject] = []
    for uri in places:
        from_hub = uri.scheme is Scheme.HF
        top = Uri(scheme=Scheme.HF, authority=uri.authority, path="") if from_hub else uri
        try:
            listed = open_store(top).stat(top)
            if from_hub:
                listed = HubDataset.of(top, listed, lambda card: _card(card, open_store)).select(uri, wanted)
        except ObjectNotFoundError as error:
            raise error.meant(FailureReason.DATASET_NOT_FOUND) from error
        if not from_hub and (len(listed) > 1 or listed[0].uri != str(uri)):
            listed = data_files(uri, listed)
        objects += [with_content(_nameable(item), open_store, whole=True) for item in listed]
    _require_downloadable(objects, dataset.limits.max_bytes)
    return objects


def _card(card: SourceObject, open_store: OpenStore) -> bytes:
    """Returns the content of a data set's card.

    Raises:
        CardError: the card is too long.
        TrainerError: the store's error.
    """
    if card.size > LONGEST_CARD:
        raise CardError(f"found {card.size:,} bytes, expected at most {LONGEST_CARD:,}")
    with open_store(card.location).open(card) as stream:
        return stream.read()


def _require_downloadable(objects: Sequence[SourceObject], most: int) -> None:
    """Checks the size of what is downloaded as a whole, before it is.

    Raises:
        TrainerError: DATASET_INVALID. The files are larger than `dataset.limits.maxBytes`.
    """
    size = sum(item.size for item in objects if item.location.scheme is Scheme.HF)
    if size > most:
        raise TrainerError(
            FailureReason.DATASET_INVALID,
            f"found {size:,} bytes to download from the Hub, expected at most {most:,}; raise dataset.limits.maxBytes "
            "if that many are meant",
        )


def _nameable(item: SourceObject) -> SourceObject:
    """Returns the object unchanged when its name is a valid URI.

    Raises:
        TrainerError: DATASET_INVALID. The name has a '..' segment or control characters, or its bytes are not UTF-8.
    """
    try:
        _ = item.location
        item.uri.encode()
    except ValueError as error:
        raise TrainerError(
            FailureReason.DATASET_INVALID,
            f"{printable(item.uri)}: found a name that holds '..' or control characters, or is not UTF-8, expected "
            "another; rename the file",
        ) from error
    return item


def with_content(item: SourceObject, open_store: OpenStore, *, whole: bool = False) -> SourceObject:
    """Returns the object with the SHA-256 of its content, for `file://` and `pvc://`.

    An ETag of a local file does not identify the content. Objects of S3 and the Hub are returned unchanged, because
    their ETag or SHA-256 does.

    Args:
        item: the object.
        open_store: opens the object's store.
        whole: True reads an object of any size. With False, an object above 64 MiB is returned unchanged: to hash 140
            GB of weights takes minutes. Without the hash, a copy with a new time of change has another fingerprint, and
            the cost of that is at worst one unnecessary training.

    Raises:
        TrainerError: the store's error.
    """
    uri = item.location
    if uri.scheme not in (Scheme.FILE, Scheme.PVC) or item.sha256 is not None:
        return item
    if not whole and item.size > _HASHED_WEIGHTS_BYTES:
        return item
    digest = hashlib.sha256()
    with open_store(uri).open(item) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return item.model_copy(update={"sha256": digest.hexdigest()})
