"""The validation loss: every row once, in micro-batches as the training makes them, without a trace in the training.

The mode and all random generators are restored, so evaluation does not change the adapter's bytes. Nothing is saved for
a backward pass, so a micro-batch takes less memory than in training.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch

from finetune_trainer.train.micro_batches import ModelInputs, collate_rows
from finetune_trainer.train.rng import RngState
from finetune_trainer.train.token_dataset import row_lengths, trained_token_count

_ROWS_AT_ONCE = 512
"""Rows that are split into micro-batches together."""


class EvaluatedTrainer(Protocol):
    """What evaluation needs of a trainer. See `trainer.StepTrainer`."""

    model: Any
    args: Any
    state: Any

    def local_micro_batches(self, step: ModelInputs) -> Iterator[ModelInputs]:
        """The micro-batches that this process runs."""
        ...

    def sum_over_processes(self, compute: Callable[[], float]) -> float:
        """The sum of what all processes compute."""
        ...

    def raise_if_stopping(self) -> None:
        """Raises StopRequested when a stop is requested."""
        ...

    def heartbeat(self) -> object:
        """Says that the evaluation goes on."""
        ...

    def cached_lora_weights(self) -> AbstractContextManager[None]:
        """A context within which the adapter does not change."""
        ...

    def compute_loss_context_manager(self) -> Any:
        """Transformers' context of a forward pass: autocast."""
        ...

    def log(self, logs: dict[str, float]) -> None:
        """Adds an entry to the training's history."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Evaluates the adapter as it is now."""
        ...

    def _prepare_inputs(self, inputs: ModelInputs) -> ModelInputs: ...


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

    def groups(self) -> Iterator[ModelInputs]:
        """All rows, some hundreds at a time."""
        for begin in range(0, len(self._order), _ROWS_AT_ONCE):
            yield collate_rows([self._rows[int(row)] for row in self._order[begin : begin + _ROWS_AT_ONCE]])


def mean_loss(trainer: EvaluatedTrainer, rows: ValidationRows) -> float:
    """The loss of the trainer's model, as it is now, in nats per trained token over all rows.

    Raises:
        StopRequested: before a micro-batch.
    """
    return trainer.sum_over_processes(lambda: _own_loss(trainer, rows)) / rows.trained_tokens


def _own_loss(trainer: EvaluatedTrainer, rows: ValidationRows) -> float:
    """The sum over the tokens of the micro-batches that this process runs."""
    model = trainer.model
    before, was_training = RngState.capture(), model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=trainer.args.device)
    try:
        with torch.no_grad(), trainer.cached_lora_weights(), trainer.compute_loss_context_manager():
            for group in rows.groups():
                for micro_batch in trainer.local_micro_batches(group):
                    trainer.raise_if_stopping()
                    trainer.heartbeat()
                    # What the loss of training is made of (StepTrainer.compute_loss), without a router's loss.
                    output = model(**trainer._prepare_inputs(micro_batch), use_cache=False, fused_lm_head=True)  # noqa: SLF001
                    total -= output.log_probs.sum(dtype=torch.float64).to(total.device)
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
