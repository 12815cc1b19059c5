"""Whether the validation loss, or the accuracy, still improves: a pure function of the measurements so far.

They stand in transformers' `log_history`, which a checkpoint keeps, so a resumed run decides as the first one would
have. transformers' own EarlyStoppingCallback counts in itself and forgets.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from finetune_trainer.contract.recipe.training import EarlyStopping, EvaluationMetric

EVAL_LOSS = "eval_loss"
"""The key of a validation loss in a log entry."""
EVAL_ACCURACY = "eval_rewards/accuracies"
"""The key of the accuracy on the validation pairs, by TRL's name."""


def score(entry: Mapping[str, Any], metric: EvaluationMetric) -> float:
    """What a measurement is judged by; lower is better."""
    return -float(entry[EVAL_ACCURACY]) if metric is EvaluationMetric.ACCURACY else float(entry[EVAL_LOSS])


def validation_scores(log: Iterable[Mapping[str, Any]], metric: EvaluationMetric) -> dict[int, float]:
    """The score after each step that was measured, in the order of steps; lower is better."""
    return {int(entry["step"]): score(entry, metric) for entry in log if EVAL_LOSS in entry}


def validation_losses(log: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """The validation loss after each step that it was measured after, in the order of steps."""
    return {int(entry["step"]): float(entry[EVAL_LOSS]) for entry in log if EVAL_LOSS in entry}


def has_stopped_improving(scores: Iterable[float], spec: EarlyStopping) -> bool:
    """Whether the last `patience` scores all failed to improve; lower is better.

    A score improves when it is below the last one that did by more than `min_improvement`.
    """
    least = float(spec.min_improvement)
    lowest, waited = math.inf, 0
    for value in scores:
        if lowest - value > least:
            lowest, waited = value, 0
        else:
            waited += 1
    return waited >= spec.patience
