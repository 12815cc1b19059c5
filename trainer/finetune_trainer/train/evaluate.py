"""The validation loss: every row once, in passes as the training makes them, and not a trace of it in the training.

The mode and every random generator are put back, so a training that is measured makes the bytes of one that is not.
Nothing is kept for a backward pass, so a pass takes less memory than the training's.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from finetune_trainer.train.batch import Tensors, flat_step
from finetune_trainer.train.rng import RngState
from finetune_trainer.train.rows import row_lengths, trained_token_count

if TYPE_CHECKING:
    from finetune_trainer.train.trainer import StepTrainer

_ROWS_AT_ONCE = 512
"""Rows that are divided into passes together."""


class ValidationRows:
    """The rows to measure with.

    Args:
        rows: dataset of `input_ids` and `labels`.

    Attributes:
        trained_tokens: tokens that count in the loss.
    """

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        # The longest first: neighbours are of one length, so padding is little, and what does not fit shows at once.
        self._order = np.argsort(-row_lengths(rows), kind="stable")
        self.trained_tokens = trained_token_count(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def groups(self) -> Iterator[Tensors]:
        """All rows, some hundreds at a time."""
        for begin in range(0, len(self._order), _ROWS_AT_ONCE):
            yield flat_step([self._rows[int(row)] for row in self._order[begin : begin + _ROWS_AT_ONCE]])


def mean_loss(trainer: "StepTrainer", rows: ValidationRows) -> float:
    """The loss of the trainer's model, as it is now, in nats per trained token over all rows.

    Raises:
        StopRequested: before a pass.
    """
    return trainer.summed(lambda: _own_loss(trainer, rows)) / rows.trained_tokens


def _own_loss(trainer: "StepTrainer", rows: ValidationRows) -> float:
    """The sum over the tokens of the passes that this process runs."""
    model = trainer.model
    before, was_training = RngState.capture(), model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=trainer.args.device)
    try:
        with torch.no_grad(), trainer.adapter_unchanged(), trainer.compute_loss_context_manager():
            for group in rows.groups():
                for part in trainer.own_passes(group):
                    trainer.raise_if_stopping()
                    trainer.heartbeat()
                    # What the loss of training is made of (StepTrainer.compute_loss), without a router's loss.
                    found = model(**trainer._prepare_inputs(part), use_cache=False, fused_lm_head=True)  # noqa: SLF001
                    total -= found.log_probs.sum(dtype=torch.float64).to(total.device)
    finally:
        model.train(was_training)
        before.restore()
    return float(total.item())


def perplexity(loss: float) -> float:
    """E to the loss; infinite where a float has no number for it."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
