"""The sizes of a loaded model, for the estimate of memory (memory/estimate.py)."""

from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from finetune_trainer.memory.shape import ModelShape, model_shape
from finetune_trainer.model.lora_targets import layers_never_quantised


def loaded_shape(model: Any) -> ModelShape | None:
    """The sizes of a base model; None if its config has other names for them.

    The shape of a packed 4-bit weight is not that of its layer. So linear layers give their own shapes.

    Args:
        model: the base model, before PEFT has changed it.
    """
    tensors: dict[str, tuple[int, ...]] = {}
    plain = frozenset(layers_never_quantised(model))
    for name, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            whole = own == "weight" and isinstance(module, torch.nn.Linear)
            shape = (module.out_features, module.in_features) if whole else tuple(parameter.shape)
            if own == "weight" and isinstance(module, Conv1D):
                shape = (parameter.shape[1], parameter.shape[0])
            tensors[f"{name}.{own}"] = shape
    return model_shape(model.config.get_text_config().to_dict(), tensors, plain)
