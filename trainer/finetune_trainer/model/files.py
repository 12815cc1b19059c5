"""Whether a model folder is complete, by the names in it; a message then says all that is missing."""

from collections.abc import Sequence

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.sources import WEIGHTS_SUFFIX

_TOKENIZERS = frozenset({"tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model"})
_DUPLICATE_WEIGHTS = "consolidated"
"""Mistral's folders hold the same weights twice, once under this name."""


def require_complete(place: str, objects: Sequence[SourceObject]) -> None:
    """Checks that a model's files are all there.

    Raises:
        TrainerError: MODEL_INVALID; the message lists what is missing.
    """
    names = {_name(item) for item in objects}
    missing = []
    if "config.json" not in names:
        missing.append("config.json" + (" (this is an adapter)" if "adapter_config.json" in names else ""))
    if not any(name.endswith(WEIGHTS_SUFFIX) for name in names):
        missing.append("weights in *.safetensors (pickled weights are never read: convert them)")
    if not names & _TOKENIZERS:
        missing.append("a tokenizer (tokenizer.json or tokenizer.model)")
    if missing:
        raise TrainerError(FailureReason.MODEL_INVALID, f"{place} has no {', no '.join(missing)}")


def needed(objects: Sequence[SourceObject]) -> list[SourceObject]:
    """The files that loading reads: no second copy of the weights in another layout."""
    kept = [item for item in objects if not _name(item).startswith(_DUPLICATE_WEIGHTS)]
    return kept if any(item.uri.endswith(WEIGHTS_SUFFIX) for item in kept) else list(objects)


def _name(item: SourceObject) -> str:
    return item.uri.rsplit("/", 1)[-1]
