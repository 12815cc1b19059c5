"""The validation loss: every row once, in micro-batches as the training makes them, without a trace in the training.

The mode and all random generators are restored, so evaluation does not change the adapter's bytes. Nothing is saved for
a backward pass, so a micro-batch takes less memory than in training.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import torch

from finetune_trainer.train.early_stopping import EVAL_LOSS
from finetune_trainer.train.micro_batches import ModelInputs, PairRows, collate_rows
from finetune_trainer.train.objective import Objective, StepTotals
from finetune_trainer.train.rng import RngState
from finetune_trainer.train.token_dataset import row_lengths

_ROWS_AT_ONCE = 512
"""Rows that are split into micro-batches together."""


class EvaluatedTrainer(Protocol):
    """What evaluation needs of a trainer. See `trainer.StepTrainer`."""

    model: Any
    args: Any
    state: Any
    objective: Objective

    def local_micro_batches(self, step: ModelInputs) -> Iterator[ModelInputs]:
        """The micro-batches that this process runs."""
        ...

    def sum_over_processes(self, compute: Callable[[], torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
        """The sum of what all processes compute, in float64."""
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

    def run_model(self, micro_batch: ModelInputs) -> tuple[Any, torch.Tensor, PairRows | None]:
        """The fused LM head's output for a micro-batch, its labels, and its pairs."""
        ...


class OrderedRows:
    """Rows to measure with, from the longest to the shortest.

    Neighbours are then of one length, so padding is little, and what does not fit shows at once.

    Args:
        rows: dataset of `input_ids` and `labels`.
    """

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self._order = np.argsort(-row_lengths(rows), kind="stable")

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> Any:
        """The dataset."""
        return self._rows

    def groups(self) -> Iterator[tuple[list[int], ModelInputs]]:
        """All rows, some hundreds at a time: their places in the dataset, and the rows as one step."""
        for begin in range(0, len(self._order), _ROWS_AT_ONCE):
            places = self._order[begin : begin + _ROWS_AT_ONCE].tolist()
            yield places, collate_rows([self._rows[place] for place in places])


class ValidationRows(OrderedRows):
    """The validation rows, whose totals are counted once.

    Args:
        rows: dataset of `input_ids` and `labels`.
    """

    def __init__(self, rows: Any) -> None:
        super().__init__(rows)
        self._totals: StepTotals | None = None

    def use(self, rows: Any) -> None:
        """Takes the same rows with more columns."""
        self._rows = rows

    def totals(self, objective: Objective) -> StepTotals:
        """What all rows have together."""
        if self._totals is None:
            parts = [objective.totals(group) for _, group in self.groups()]
            self._totals = StepTotals(*(sum(values) for values in zip(*parts, strict=True)))
        return self._totals


def validation_metrics(trainer: EvaluatedTrainer, rows: ValidationRows) -> dict[str, float]:
    """The loss of the trainer's model over all rows, as it is now, and the means of its objective's measures.

    Returns:
        By transformers' and TRL's names: `eval_loss`, of pairs also `eval_rewards/accuracies` and the like.

    Raises:
        StopRequested: before a micro-batch.
    """
    measures = trainer.objective.measures
    sums = trainer.sum_over_processes(lambda: _own_sums(trainer, rows), (1 + len(measures),)).tolist()
    named = {f"eval_{name}": value / len(rows) for name, value in zip(measures, sums[1:], strict=True)}
    return {EVAL_LOSS: sums[0], **named}


def _own_sums(trainer: EvaluatedTrainer, rows: ValidationRows) -> torch.Tensor:
    """Loss and measures of the micro-batches that this process runs, in float64."""
    objective, totals = trainer.objective, rows.totals(trainer.objective)
    sums = torch.zeros(1 + len(objective.measures), dtype=torch.float64, device=trainer.args.device)
    with evaluating(trainer):
        for _, group in rows.groups():
            for micro_batch in trainer.local_micro_batches(group):
                trainer.raise_if_stopping()
                trainer.heartbeat()
                # As in training, but without a router's loss.
                loss, measured = objective.loss(*trainer.run_model(micro_batch), totals)
                sums += torch.cat([loss[None], measured]).to(sums)
    return sums


@contextmanager
def evaluating(trainer: EvaluatedTrainer) -> Iterator[None]:
    """A context in which the model is evaluated and nothing of the training changes."""
    model = trainer.model
    before, was_training = RngState.capture(), model.training
    model.eval()
    try:
        with torch.no_grad(), trainer.cached_lora_weights(), trainer.compute_loss_context_manager():
            yield
    finally:
        model.train(was_training)
        before.restore()


def perplexity(loss: float) -> float:
    """E to the loss; infinite where a float has no number for it."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
