"""TRL's SFTTrainer, taught that a batch is one optimizer step which is divided into forward passes.

transformers divides by a fixed number of rows; rows differ in length, so passes differ in work and memory. Here a pass
is filled by tokens (data/pack.py) and every token of the step weighs the same in the loss however the step is divided.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback
from trl import SFTTrainer

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.recipe.dataset import Switch
from finetune_trainer.contract.recipe.model import Attention
from finetune_trainer.model.adapter import (
    keep_in_float32,
    lora_config,
    require_saveable,
    require_targets,
    take_weights,
)
from finetune_trainer.model.attention import is_varlen
from finetune_trainer.train.batch import IGNORED, Passes, Tensors, flat_step
from finetune_trainer.train.isolation import rows_are_isolated
from finetune_trainer.train.neftune import Neftune
from finetune_trainer.train.settings import pass_tokens, trainer_settings


class StepTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose batch is a whole optimizer step.

    Attributes:
        passes: how a step is divided; set before training.
        last_loss: loss of the last step, nats per trained token.
    """

    passes: Passes
    last_loss: float = math.nan

    def training_step(self, model: Any, inputs: Tensors, num_items_in_batch: Any = None) -> torch.Tensor:  # noqa: ARG002
        """Runs forward and backward of every pass of the step; returns the step's loss, nats per trained token.

        Raises:
            TrainerError: the loss is no number any more.
        """
        # transformers counts only for models whose forward takes keyword arguments; the weight of a token must not
        # depend on that.
        trained = (inputs["labels"] != IGNORED).sum()
        losses = [super(StepTrainer, self).training_step(model, part, trained) for part in self.passes.of(inputs)]
        total = torch.stack(losses).sum()
        self.last_loss = total.item()
        if not math.isfinite(self.last_loss):
            step, rate = self.state.global_step + 1, self._get_learning_rate()
            message = f"the loss is {self.last_loss} at step {step} (learning rate {rate:.3g})"
            raise TrainerError(FailureReason.LOSS_DIVERGED, message)
        # Kept in the trainer's state, which a checkpoint holds; transformers' own count knows only rectangular batches.
        self.state.num_input_tokens_seen += inputs["input_ids"].numel()
        return total


def make_trainer(
    recipe: Recipe,
    model: Any,
    tokenizer: Any,
    rows: Any,
    dtype: torch.dtype,
    folder: Path,
    callbacks: Sequence[TrainerCallback],
    start: Path | None = None,
) -> StepTrainer:
    """The trainer, with the adapter put on the model and in float32, ready to train.

    Args:
        recipe: the recipe.
        model: the base model.
        tokenizer: its tokenizer.
        rows: dataset of `input_ids` and `labels`.
        dtype: number type of the products.
        folder: where transformers may write.
        callbacks: called by transformers' rules.
        start: weights of the adapter to continue from; None for a new one.

    Raises:
        TrainerError: lora.targetModules name what is not in this model, or rows of a pack would see each other.
    """
    settings = trainer_settings(recipe.training, dtype, folder)
    passes = choose_passes(recipe, model, tokenizer)
    require_targets(model, recipe.lora)
    require_saveable(model, recipe.lora)
    noise = Neftune.of(recipe.training)
    trainer = StepTrainer(
        model=model,
        args=settings,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=lora_config(recipe.lora, model),
        data_collator=flat_step,
        callbacks=[*callbacks, *([noise] if noise else [])],
    )
    trainer.passes = passes
    # It prints every log entry to standard output.
    trainer.remove_callback(PrinterCallback)
    keep_in_float32(trainer.model)
    if start is not None:
        take_weights(trainer.model, start)
    return trainer


def choose_passes(recipe: Recipe, model: Any, tokenizer: Any) -> Passes:
    """How steps are divided: packed where the model keeps rows apart.

    Raises:
        TrainerError: dataset.packing is enabled, or varlen attention asked for, and the model does not keep rows apart.
    """
    packing, micro = recipe.dataset.packing, recipe.training.micro_batch_size
    packed = packing is not Switch.DISABLED and _keeps_rows_apart(model, recipe.model.attention)
    if packing is Switch.ENABLED and not packed:
        raise TrainerError(
            FailureReason.NOT_SUPPORTED,
            "spec.dataset.packing: enabled: with this model, quantisation and attention, packed rows would see each "
            "other; use auto or disabled",
        )
    if recipe.model.attention is Attention.VARLEN and not packed:
        raise TrainerError(
            FailureReason.NOT_SUPPORTED,
            "spec.model.attention: varlen: with this model and quantisation, packed rows would see each other, and "
            "varlen is for packed rows; use auto",
        )
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return Passes(
        packed=packed,
        varlen=packed and is_varlen(model),
        max_tokens=micro * recipe.dataset.max_length if micro else pass_tokens(cuda=torch.cuda.is_available()),
        max_rows=micro or recipe.training.batch_size,
        pad_id=pad if pad is not None else 0,
    )


def _keeps_rows_apart(model: Any, asked: Attention) -> bool:
    """Whether packs are right; where auto's first choice fails, SDPA, which has a mask, gets a chance."""
    vocabulary = model.config.get_text_config().vocab_size
    if rows_are_isolated(model, vocabulary):
        return True
    if asked is Attention.AUTO and is_varlen(model):
        model.set_attn_implementation("sdpa")
        return rows_are_isolated(model, vocabulary)
    return False
