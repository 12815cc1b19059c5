"""Whether a model's files have the layers that its config.json says."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.uri import Uri
from finetune_trainer.memory.shape import text_config

_LAYER = re.compile(
    r"(?:model\.|language_model\.|transformer\.|backbone\.|gpt_neox\.|text_model\.)*(?:layers|h)\.(\d+)\."
)
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
    text = text_config(config)
    stated = next((count for name in _COUNTS if isinstance(count := text.get(name), int)), None)
    if stated is None:
        return
    # Layers that predict further tokens stand behind the others, and are not loaded (DeepSeek V3, GLM 4.5).
    predicting = text.get("num_nextn_predict_layers")
    most = stated + (predicting if isinstance(predicting, int) else 0)
    found = max((int(match[1]) + 1 for name in tensors if (match := _LAYER.match(name))), default=0)
    if found > most:
        raise TrainerError(
            FailureReason.MODEL_INVALID,
            f"{place}: the files have {found} layers, and config.json says {stated}: it belongs to another model",
        )
