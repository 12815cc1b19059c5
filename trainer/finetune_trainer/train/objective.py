"""What a step minimises: the loss of answers, or of pairs of answers.

A step's loss is a sum over its micro-batches, each divided by what the whole step has. So it does not depend on how the
step is split.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch

from finetune_trainer.contract.recipe import DpoSpec, Method, Recipe
from finetune_trainer.train.micro_batches import IGNORED, ModelInputs, PairRows
from finetune_trainer.train.preference_loss import MEASURES, PairLogProbs, pair_losses


class StepTotals(NamedTuple):
    """What a step has in all, whoever computes it.

    Attributes:
        rows: rows, or pairs.
        trained_tokens: tokens that count in the loss.
        chosen_tokens: those of the chosen answers; of rows that are no pairs, all.
    """

    rows: int
    trained_tokens: float
    chosen_tokens: float


class MicroBatchLoss(NamedTuple):
    """What a micro-batch gives.

    Attributes:
        loss: its part of the step's loss.
        measures: sums of the objective's measures over its rows, shape (measures,), without a gradient.
    """

    loss: torch.Tensor
    measures: torch.Tensor


class Objective(Protocol):
    """What a step minimises.

    Attributes:
        measures: names of what is measured beside the loss, each a mean over rows.
        is_language_loss: whether the loss is in nats per token, and so says whether the model still reads.
    """

    measures: tuple[str, ...]
    is_language_loss: bool

    def totals(self, step: ModelInputs) -> StepTotals:
        """The totals of a step, or of the rows of a measurement."""
        ...

    def loss(self, output: Any, labels: torch.Tensor, pairs: PairRows | None, totals: StepTotals) -> MicroBatchLoss:
        """The loss of a micro-batch.

        Args:
            output: of the fused LM head: `log_probs` of shape (rows, tokens - 1).
            labels: the micro-batch's, of shape (rows, tokens).
            pairs: which pairs it holds; None of rows that are no pairs.
            totals: of the step.
        """
        ...


class SupervisedObjective:
    """The mean loss of the trained tokens, in nats."""

    measures: tuple[str, ...] = ()
    is_language_loss = True

    def totals(self, step: ModelInputs) -> StepTotals:
        """See `Objective`."""
        trained = float((step["labels"] != IGNORED).sum())
        return StepTotals(len(step["lengths"]), trained, trained)

    def loss(self, output: Any, labels: torch.Tensor, pairs: PairRows | None, totals: StepTotals) -> MicroBatchLoss:
        """See `Objective`."""
        del labels, pairs
        total = -output.log_probs.sum()
        return MicroBatchLoss(total / max(totals.trained_tokens, 1.0), total.new_zeros(0))


class PreferenceObjective:
    """The mean loss of pairs, with the supervised loss of the chosen answers where `dpo.sftWeight` asks for it.

    Args:
        spec: the section `dpo`.
    """

    measures: tuple[str, ...] = MEASURES
    is_language_loss = False

    def __init__(self, spec: DpoSpec) -> None:
        self._spec = spec
        self._sft_weight = float(spec.sft_weight)

    def totals(self, step: ModelInputs) -> StepTotals:
        """See `Objective`."""
        lengths, trained = step["lengths"].tolist(), step["labels"][0] != IGNORED
        tokens = torch.stack([part.sum() for part in trained.split(lengths)]).view(-1, 2)
        return StepTotals(len(tokens), float(tokens.sum()), float(tokens[:, 0].sum()))

    def loss(self, output: Any, labels: torch.Tensor, pairs: PairRows | None, totals: StepTotals) -> MicroBatchLoss:
        """See `Objective`."""
        assert pairs is not None, "an objective of pairs gets pairs"
        policy = PairLogProbs.of(output.log_probs, labels[:, 1:] != IGNORED, pairs.lengths)
        losses, measures = pair_losses(self._spec, policy, None if self._spec.reference_free else pairs.reference)
        loss = losses.sum() / totals.rows
        if self._sft_weight:
            loss = loss - self._sft_weight * policy.log_probs[:, 0].sum() / max(totals.chosen_tokens, 1.0)
        return MicroBatchLoss(loss, measures)


class StepMeasures:
    """Collects the measures of steps until they are logged.

    Args:
        names: what is measured.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._sums = [0.0] * len(names)
        self._rows = 0

    def add(self, sums: Sequence[float], rows: int) -> None:
        """Adds a step's sums over its rows."""
        self._sums = [before + more for before, more in zip(self._sums, sums, strict=True)]
        self._rows += rows

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        means = {name: value / max(1, self._rows) for name, value in zip(self._names, self._sums, strict=True)}
        self._sums, self._rows = [0.0] * len(self._names), 0
        return means


def objective_of(recipe: Recipe) -> Objective:
    """The objective of the recipe's method."""
    return SupervisedObjective() if recipe.method is Method.SFT else PreferenceObjective(recipe.dpo)
