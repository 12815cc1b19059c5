"""Prepares a new adapter for training: casts it to float32, folds it where that is faster, loads initial weights."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.memory.step_plan import StepPlan
from finetune_trainer.model.adapter import keep_in_float32, load_adapter_weights
from finetune_trainer.model.base import Weights, trained_base_weights
from finetune_trainer.model.float32_parts import separate_float32_parts
from finetune_trainer.model.folded_lora import FoldedLora
from finetune_trainer.model.fused_lora import fuse_lora


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedAdapter:
    """The prepared adapter of a PEFT model.

    Attributes:
        base_weights: copies of the base weights that are trained in place, from before training.
        cached_weights: creates a context in which the adapter must not change, so folded weights are computed only
            once.
    """

    base_weights: Weights
    cached_weights: Callable[[], AbstractContextManager[None]]


def prepare_adapter(model: Any, plan: StepPlan, initial_weights: Path | None) -> PreparedAdapter:
    """Prepares the adapter of a PEFT model, before its first step.

    Args:
        model: the PEFT model after the trainer's constructor.
        plan: the plan of a step.
        initial_weights: file with the weights of the initial adapter; None if there is none.

    Raises:
        TrainerError: see `load_adapter_weights`.
    """
    keep_in_float32(model)
    separate_float32_parts(model)
    fuse_lora(model)
    folded = FoldedLora(model, kept=plan.keep_dequantized)
    # Without gradient checkpointing all kept weights are in memory at the end of a forward pass, so a cache costs none.
    cache = plan.keep_dequantized and not plan.gradient_checkpointing
    base_weights = trained_base_weights(model)
    if initial_weights is not None:
        load_adapter_weights(model, initial_weights)
    return PreparedAdapter(base_weights=base_weights, cached_weights=folded.cached_weights if cache else nullcontext)
