"""Whether a model's files have the layers and weights that its config.json says, and no others."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.uri import Uri
from finetune_trainer.memory.shape import text_config

_LAYER = re.compile(
    r"(?:model\.|language_model\.|transformer\.|backbone\.|gpt_neox\.|text_model\.)*(?:layers|h)\.(\d+)\."
)
_LEFT_OUT = re.compile(
    r"inv_freq|rotary|masked_bias|attn\.bias$|attention\.bias$|position_ids|num_batches_tracked|_extra_state"
    r"|lm_head|embed_out|\bmtp|nextn|eagle|medusa|vision|visual|image|audio|speech|multi_modal|mm_projector"
)
"""Finds what a language model rightly leaves out: buffers of older checkpoints, a tied head, heads that predict further
tokens, and parts for images and sound."""
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def require_layers_of_config(place: Uri, config: Mapping[str, Any], tensors: Iterable[str]) -> None:
    """Requires that config.json counts the decoder layers that the files have.

    transformers would leave the surplus layers out, and train another model.

    Args:
        place: the model's URI, for the message.
        config: the model's config.json.
        tensors: names of the model's tensors.

    Raises:
        TrainerError: MODEL_INVALID, the files have more layers.
    """
    stated = _stated_layers(config)
    if stated is None:
        return
    found = max((layer + 1 for name in tensors if (layer := _layer_of(name)) is not None), default=0)
    if found > stated + _predicting_layers(config):
        raise TrainerError(
            FailureReason.MODEL_INVALID,
            f"{place}: the files have {found} layers, and config.json says {stated}: it belongs to another model",
        )


def require_no_surplus(config: Mapping[str, Any], tensors: Iterable[str]) -> None:
    """Requires that the loaded model has taken every weight of its files.

    transformers only logs what it leaves out. A model without its biases or norms is another model.

    Args:
        config: the model's config.json.
        tensors: names of the weights in the files that no module has taken.

    Raises:
        TrainerError: MODEL_INVALID, weights were left out.
    """
    stated = _stated_layers(config) or 0
    predicting = range(stated, stated + _predicting_layers(config))
    if surplus := sorted(name for name in tensors if not _LEFT_OUT.search(name) and _layer_of(name) not in predicting):
        raise TrainerError(
            FailureReason.MODEL_INVALID,
            f"the base model's files have {len(surplus)} weights that no layer of config.json takes, {surplus[0]} for "
            "one: config.json belongs to another model, or lacks a setting",
        )


def _stated_layers(config: Mapping[str, Any]) -> int | None:
    text = text_config(config)
    return next((count for name in _COUNTS if isinstance(count := text.get(name), int)), None)


def _predicting_layers(config: Mapping[str, Any]) -> int:
    """Layers that predict further tokens: they stand behind the others, and are not loaded (DeepSeek V3, GLM 4.5)."""
    predicting = text_config(config).get("num_nextn_predict_layers")
    return predicting if isinstance(predicting, int) else 0


def _layer_of(tensor: str) -> int | None:
    match = _LAYER.match(tensor)
    return int(match[1]) if match else None
