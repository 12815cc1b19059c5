"""What goes in: the objects of data and model.

Preflight and the trainer both use this module, so both compute the same fingerprint.
"""

import hashlib
import json
from collections.abc import Sequence

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.recipe import DatasetSpec, Recipe
from finetune_trainer.contract.text import printable
from finetune_trainer.contract.uri import Scheme, Uri
from finetune_trainer.storage.base import ObjectNotFoundError, OpenStore

WEIGHTS_SUFFIX = ".safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
_HASHED_WEIGHTS_BYTES = 64 << 20
_MODEL_SUFFIXES = (".json", ".safetensors", ".model", ".jinja", ".txt", ".tiktoken")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf")
_CHUNK = 1 << 20


def dataset_objects(dataset: DatasetSpec, open_store: OpenStore) -> list[SourceObject]:
    """The training data's objects in reading order: places as listed, each place sorted by name.

    Under a prefix, names that begin with '.' or '_' (`_SUCCESS`, `.DS_Store`), and all in folders of such names
    (`_temporary`, `.ipynb_checkpoints`), are markers and leftovers of tools and left out.

    Raises:
        TrainerError: DATASET_NOT_FOUND, or the storage's reason.
    """
    return _data_objects([dataset.uri] if dataset.uri else list(dataset.uris or []), open_store)


def validation_objects(dataset: DatasetSpec, open_store: OpenStore) -> list[SourceObject]:
    """The validation rows' own objects; empty when they are part of the training rows, or none.

    Raises:
        TrainerError: DATASET_NOT_FOUND, or the storage's reason.
    """
    own = dataset.validation.uri if dataset.validation else None
    return _data_objects([own] if own else [], open_store)


def model_objects(recipe: Recipe, open_store: OpenStore) -> list[SourceObject]:
    """The base model's files that a trainer needs: those at the top of its folder, without pickled weights.

    Raises:
        TrainerError: MODEL_NOT_FOUND, or the storage's reason.
    """
    return model_files(recipe, model_folder(recipe, open_store))


def model_files(recipe: Recipe, folder: Sequence[SourceObject]) -> list[SourceObject]:
    """Those files of a model's folder that a trainer needs; Python code only where it may run."""
    suffixes = (*_MODEL_SUFFIXES, ".py") if recipe.model.trust_remote_code else _MODEL_SUFFIXES
    return [item for item in folder if item.uri.endswith(suffixes)]


def model_folder(recipe: Recipe, open_store: OpenStore) -> list[SourceObject]:
    """Every file at the top of the base model's folder.

    Raises:
        TrainerError: MODEL_NOT_FOUND, or the storage's reason.
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
    """Names of weight files in formats that are not loaded, because unpickling runs code."""
    names = [item.uri.rsplit("/", 1)[-1] for item in objects]
    return [name for name in names if name.endswith(_PICKLED) and not name.startswith(("optimizer", "training_args"))]


def read_json(source: SourceObject, open_store: OpenStore, longest: int = 64 << 20) -> object:
    """A small JSON file of the base model.

    Raises:
        TrainerError: MODEL_INVALID when it is none, or the storage's reason.
    """
    with open_store(source.location).open(source) as stream:
        content = stream.read(longest + 1)
    if len(content) > longest:
        raise TrainerError(FailureReason.MODEL_INVALID, f"{source.uri} has more than {longest} bytes")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise TrainerError(FailureReason.MODEL_INVALID, f"{source.uri} is not JSON: {error}") from error


def _data_objects(uris: Sequence[Uri], open_store: OpenStore) -> list[SourceObject]:
    objects: list[SourceObject] = []
    for uri in uris:
        try:
            listed = open_store(uri).stat(uri)
        except ObjectNotFoundError as error:
            raise error.meant(FailureReason.DATASET_NOT_FOUND) from error
        if len(listed) > 1 or listed[0].uri != str(uri):
            top = str(uri).rstrip("/") + "/"
            listed = [item for item in listed if not _hidden(item.uri.removeprefix(top))]
        if not listed:
            raise TrainerError(FailureReason.DATASET_NOT_FOUND, f"{uri} holds only marker files, no data")
        objects += [with_content(_nameable(item), open_store, whole=True) for item in listed]
    return objects


def _nameable(item: SourceObject) -> SourceObject:
    """The object, whose name a recipe could hold.

    Raises:
        TrainerError: DATASET_INVALID, it could not: the name climbs, or is a file's whose bytes are no text.
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


def _hidden(path: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.split("/"))


def with_content(item: SourceObject, open_store: OpenStore, *, whole: bool = False) -> SourceObject:
    """The object with a SHA-256 where its ETag is none of its content: files. `whole`: however large it is.

    Large weights keep size and time of change: hashing 140 GB would cost minutes, and the worst that a copy's
    new time can do is a training that need not have been.
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
