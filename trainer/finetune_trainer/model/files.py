"""Checks by file names that a model folder is complete; the message lists all that is missing."""

from collections.abc import Collection, Mapping, Sequence

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.uri import Uri
from finetune_trainer.inputs.sources import WEIGHTS_INDEX, WEIGHTS_SUFFIX

_TOKENIZERS = frozenset({"tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model"})
_WEIGHTS = frozenset({"model.safetensors", WEIGHTS_INDEX})
_DUPLICATE_WEIGHTS = "consolidated"
"""Mistral's folders hold the same weights twice, once under this name."""


def require_complete(place: Uri, objects: Sequence[SourceObject]) -> None:
    """Checks that a model's files are all there.

    Raises:
        TrainerError: MODEL_INVALID; the message lists what is missing.
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
    """Whether weights are among the files under the names that are loaded; an adapter's, say, do not count."""
    return not _WEIGHTS.isdisjoint(names)


def require_unquantised(place: Uri, config: Mapping[str, object]) -> None:
    """Checks by its config.json that a model's weights are plain numbers.

    Weights that are quantised already would be trained on as they are, whatever model.quantization says.

    Raises:
        TrainerError: NOT_SUPPORTED.
    """
    quantization = config.get("quantization_config") or config.get("compression_config")
    if not quantization:
        return
    method = quantization.get("quant_method", "unknown") if isinstance(quantization, Mapping) else "unknown"
    raise TrainerError(
        FailureReason.NOT_SUPPORTED,
        f"spec.model.quantization: the weights of {place} are quantised already ({method}), and only plain ones can be "
        "quantised as the recipe says; use the model's unquantised repository",
    )


def needed_files(objects: Sequence[SourceObject]) -> list[SourceObject]:
    """The files that loading reads: no second copy of the weights in another layout."""
    kept = [item for item in objects if not _name(item).startswith(_DUPLICATE_WEIGHTS)]
    return kept if any(item.uri.endswith(WEIGHTS_SUFFIX) for item in kept) else list(objects)


def _name(item: SourceObject) -> str:
    return item.uri.rsplit("/", 1)[-1]
