"""Checks the files of a model folder before they are loaded."""

from collections.abc import Collection, Mapping, Sequence

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.uri import Uri
from finetune_trainer.inputs.sources import WEIGHTS_INDEX, WEIGHTS_SUFFIX

_TOKENIZERS = frozenset({"tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model"})
_WEIGHTS = frozenset({"model.safetensors", WEIGHTS_INDEX})
DUPLICATE_WEIGHTS = "consolidated"
"""Prefix of a second copy of the weights in Mistral's model folders."""


def require_complete(place: Uri, objects: Sequence[SourceObject]) -> None:
    """Requires config.json, weights and a tokenizer in a model folder. Only file names are checked.

    Args:
        place: the model's URI, for the message.
        objects: the files of the folder.

    Raises:
        TrainerError: MODEL_INVALID; the message lists all missing files.
    """
    names = {_name(item) for item in objects}
    missing = []
    if "config.json" not in names:
        missing.append("config.json" + (" (this is an adapter)" if "adapter_config.json" in names else ""))
    if not has_weights(names):
        missing.append(
            f"weights in model.safetensors, or in parts with {WEIGHTS_INDEX} (pickled weights are never read: convert "
            "them)"
        )
    if not names & _TOKENIZERS:
        missing.append("tokenizer (tokenizer.json or tokenizer.model)")
    if missing:
        raise TrainerError(FailureReason.MODEL_INVALID, f"{place} has no {', no '.join(missing)}")


def has_weights(names: Collection[str]) -> bool:
    """Whether the files include weights under the names that transformers loads. An adapter's weights do not count."""
    return not _WEIGHTS.isdisjoint(names)


def require_unquantised(place: Uri, config: Mapping[str, object]) -> None:
    """Requires by config.json that a model's weights are not quantised.

    transformers would load weights that are already quantised without change, and ignore model.quantization.

    Args:
        place: the model's URI, for the message.
        config: the model's config.json.

    Raises:
        TrainerError: NOT_SUPPORTED, the weights are quantised.
    """
    quantization = _quantization(config)
    if not quantization:
        return
    method = quantization.get("quant_method", "unknown") if isinstance(quantization, Mapping) else "unknown"
    raise TrainerError(
        FailureReason.NOT_SUPPORTED,
        f"spec.model.quantization: the weights of {place} are quantised already ({method}), and only plain ones can be "
        "quantised as the recipe says; use the model's unquantised repository",
    )


def _quantization(config: Mapping[str, object]) -> object:
    """What a config.json says of quantised weights, at its top or in the config of a part (`text_config`)."""
    own = config.get("quantization_config") or config.get("compression_config")
    parts = (part for name, part in config.items() if isinstance(part, Mapping) and name.endswith("_config"))
    return own or next((found for part in parts if (found := _quantization(part))), None)


def needed_files(objects: Sequence[SourceObject]) -> list[SourceObject]:
    """The files that loading reads: all files without a second copy of the weights in another layout."""
    kept = [item for item in objects if not _name(item).startswith(DUPLICATE_WEIGHTS)]
    return kept if any(item.uri.endswith(WEIGHTS_SUFFIX) for item in kept) else list(objects)


def _name(item: SourceObject) -> str:
    return item.uri.rsplit("/", 1)[-1]
