"""Whether the base model's folder holds a whole model that loads without running code.

File names are not enough: a Git LFS pointer is called model.safetensors too, and so is a truncated upload. The header
of a safetensors file says how long the file must be and how many parameters it holds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.uri import Scheme, Uri
from finetune_trainer.inputs.sources import WEIGHTS_INDEX, WEIGHTS_SUFFIX, pickled_weights, read_json
from finetune_trainer.memory.shape import TensorShapes
from finetune_trainer.model.files import has_weights, needed_files, require_complete, require_unquantised
from finetune_trainer.model.hub_kernels import require_no_hub_kernels
from finetune_trainer.model.layers import require_layers_of_config
from finetune_trainer.model.model_types import require_language_model
from finetune_trainer.storage.base import OpenStore

_LONGEST_HEADER = 100_000_000
"""The format's own limit (safetensors, MAX_HEADER_SIZE)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known of a model without loading it.

    Attributes:
        size: bytes of the files that a trainer reads.
        weights_size: bytes of the weights among them.
        config: what config.json holds.
        tensors: the shapes of the weights by name; None where the headers were not read (Hub models).
    """

    size: int
    weights_size: int
    config: Mapping[str, Any]
    tensors: TensorShapes | None

    @property
    def parameters(self) -> int | None:
        """Numbers in the weights; None where the headers were not read."""
        return None if self.tensors is None else sum(map(prod, self.tensors.values()))


def check_model(place: Uri, folder: Sequence[SourceObject], open_store: OpenStore, *, remote_code: bool) -> ModelFacts:
    """Checks a model's files.

    Args:
        place: model.uri, for messages.
        folder: all files of the model's folder (`inputs.sources.model_folder`).
        open_store: where they are opened.
        remote_code: whether code of the model's repository may run (model.trustRemoteCode).

    Raises:
        TrainerError: MODEL_INVALID, NOT_SUPPORTED, or the storage's reason.
    """
    files = {item.uri.rsplit("/", 1)[-1]: item for item in folder}
    pickled = pickled_weights(folder)
    if pickled and not has_weights(files):
        raise TrainerError(
            FailureReason.MODEL_INVALID,
            f"{place} has its weights as {', '.join(pickled[:3])} only: such files can run code when they are loaded "
            "and are not read. Convert them: load the model with transformers and call save_pretrained, which writes "
            "safetensors",
        )
    require_complete(place, folder)
    config = read_json(files["config.json"], open_store)
    if not isinstance(config, dict) or not config.get("model_type"):
        raise _invalid(f"{place}/config.json", "names no model_type")
    require_unquantised(place, config)
    require_no_hub_kernels(place, config)
    require_language_model(place, config, remote_code=remote_code)
    if WEIGHTS_INDEX in files:
        _check_index(place, files, open_store)
    used = needed_files(folder)
    weights = [item for item in used if item.uri.endswith(WEIGHTS_SUFFIX)]
    tensors: dict[str, tuple[int, ...]] | None = None
    if place.scheme is not Scheme.HF:  # the Hub's client would fetch every file whole
        tensors = {name: shape for item in weights for name, shape in _tensors(item, open_store).items()}
        require_layers_of_config(place, config, tensors)
    return ModelFacts(
        size=sum(item.size for item in used),
        weights_size=sum(item.size for item in weights),
        config=config,
        tensors=tensors,
    )


def _check_index(place: Uri, files: dict[str, SourceObject], open_store: OpenStore) -> None:
    index = read_json(files[WEIGHTS_INDEX], open_store)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        raise _invalid(f"{place}/{WEIGHTS_INDEX}", "has no weight_map")
    if missing := sorted({str(name) for name in shards.values()} - set(files)):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise _invalid(
            place, f"lacks {', '.join(missing[:3])}{more}, which {WEIGHTS_INDEX} names: upload the missing shards"
        )


def _tensors(source: SourceObject, open_store: OpenStore) -> dict[str, tuple[int, ...]]:
    """The shapes in a safetensors file: 8 bytes with the header's length, the header as JSON, the tensors."""
    with open_store(source.location).open(source) as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = _header(stream, length, source) if 0 < length <= _LONGEST_HEADER else None
    if header is None:
        raise _invalid(source.uri, "is no safetensors file (a Git LFS pointer, or an error page?): upload it again")
    try:
        tensors = {name: value for name, value in header.items() if name != "__metadata__"}
        end = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
        shapes = {name: tuple(map(int, tensor["shape"])) for name, tensor in tensors.items()}
        float8 = next((name for name, tensor in tensors.items() if str(tensor["dtype"]).startswith("F8")), None)
    except (TypeError, KeyError, IndexError, ValueError, OverflowError):
        raise _invalid(source.uri, "has a damaged safetensors header: upload it again") from None
    # No element of a tensor takes less than a bit.
    if any(min(shape, default=1) < 0 or prod(shape) > 8 * source.size for shape in shapes.values()):
        raise _invalid(source.uri, "has a damaged safetensors header: upload it again")
    if float8 is not None:
        raise TrainerError(
            FailureReason.NOT_SUPPORTED,
            f"{source.uri} holds {float8} in 8 bits ({tensors[float8]['dtype']}), and only plain weights can be "
            "quantised as the recipe says; use the model's repository in bfloat16",
        )
    if source.size != 8 + length + end:
        raise _invalid(
            source.uri,
            f"has {source.size:,} bytes, its header says {8 + length + end:,}: upload it again, it is damaged",
        )
    return shapes


def _header(stream: BinaryIO, length: int, source: SourceObject) -> "dict[str, dict[str, list[int]]] | None":
    if length + 8 > source.size:
        return None
    try:
        header = json.loads(stream.read(length))
    except (ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None


def _invalid(what: object, why: str) -> TrainerError:
    return TrainerError(FailureReason.MODEL_INVALID, f"{what} {why}")
