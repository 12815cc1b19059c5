"""The base model inside a PEFT model, to compare the two without loading it twice."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

Weights = Mapping[str, torch.Tensor]


def trained_base_weights(model: Any) -> dict[str, torch.Tensor]:
    """Copies of the base model's own weights that a new PEFT model trains in place: biases (`lora.bias`).

    Call it before the first step. Modules that are trained whole are copies already (`modules_to_save`).
    """
    return {
        name: weight.detach().to("cpu", copy=True)
        for name, weight in model.named_parameters()
        if weight.requires_grad and "lora_" not in name and "modules_to_save" not in name
    }


@contextmanager
def without_adapter(model: Any, trained: Weights) -> Iterator[None]:
    """The PEFT model as its base model.

    PEFT leaves out what it has added, and trained biases are not among that: they are put back for the time.

    Args:
        model: the PEFT model.
        trained: what `trained_base_weights` has copied.
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
