"""A new adapter made ready to be trained: in float32, folded where that is faster, and with its initial weights."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.memory.step_plan import StepPlan
from finetune_trainer.model.adapter import keep_in_float32, take_weights
from finetune_trainer.model.base import Weights, trained_base_weights
from finetune_trainer.model.folded_lora import FoldedLora


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedAdapter:
    """What a prepared PEFT model offers.

    Attributes:
        base_weights: the base model's own weights that are trained in place, as they were.
        cached_weights: makes a context within which the adapter does not change, so folded weights are computed once.
    """

    base_weights: Weights
    cached_weights: Callable[[], AbstractContextManager[None]]


def prepare_adapter(model: Any, plan: StepPlan, initial_weights: Path | None) -> PreparedAdapter:
    """Prepares the adapter of a PEFT model, before its first step.

    Args:
        model: the PEFT model, as the trainer's constructor has made it.
        plan: how steps are run.
        initial_weights: weights of the adapter to continue from; None for a new one.

    Raises:
        TrainerError: see `take_weights`.
    """
    keep_in_float32(model)
    folded = FoldedLora(model, kept=plan.keep_dequantized)
    # Without gradient checkpointing they are all in memory at the end of every forward pass anyway.
    cache = plan.keep_dequantized and not plan.gradient_checkpointing
    base_weights = trained_base_weights(model)
    if initial_weights is not None:
        take_weights(model, initial_weights)
    return PreparedAdapter(base_weights=base_weights, cached_weights=folded.unchanged if cache else nullcontext)
