"""Access to the base model inside a PEFT model, so that both can be compared without loading the base model twice."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

Weights = Mapping[str, torch.Tensor]


def trained_base_weights(model: Any) -> dict[str, torch.Tensor]:
    """Copies of the base weights that a PEFT model trains in place, on the CPU: name -> weight.

    These are the biases (`lora.bias`). Modules that are trained whole (`modules_to_save`) are not among them, because
    PEFT trains copies of those. Call this before the first step.
    """
    return {
        name: weight.detach().to("cpu", copy=True)
        for name, weight in model.named_parameters()
        if weight.requires_grad and "lora_" not in name and "modules_to_save" not in name
    }


@contextmanager
def without_adapter(model: Any, trained: Weights) -> Iterator[None]:
    """A context in which the PEFT model computes what its base model computes.

    PEFT disables its adapter, but not the trained biases. So the original biases are copied back for the duration of
    the context.

    Args:
        model: the PEFT model.
        trained: the result of `trained_base_weights`.
    """
    own = {name: weight for name, weight in model.named_parameters() if name in trained}
    tuned = {name: weight.detach().clone() for name, weight in own.items()}
    with torch.no_grad():
        for name, weight in own.items():
            weight.copy_(trained[name])
    try:
        with model.disable_adapter():
            yield
    finally:
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(tuned[name])
