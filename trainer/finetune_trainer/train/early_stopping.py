"""Whether the validation loss still falls: a pure function of the losses so far.

They stand in transformers' `log_history`, which a checkpoint keeps, so a resumed run decides as the first one would
have. transformers' own EarlyStoppingCallback counts in itself and forgets.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from finetune_trainer.contract.recipe.training import EarlyStopping

EVAL_LOSS = "eval_loss"
"""The key of a validation loss in a log entry."""


def validation_losses(log: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """The validation loss after each step that it was measured after, in the order of steps."""
    return {int(entry["step"]): float(entry[EVAL_LOSS]) for entry in log if EVAL_LOSS in entry}


def has_stopped_improving(losses: Iterable[float], spec: EarlyStopping) -> bool:
    """Whether the last `patience` losses all failed to improve.

    A loss improves when it is below the last one that did by more than `min_improvement`.
    """
    least = float(spec.min_improvement)
    lowest, waited = math.inf, 0
    for loss in losses:
        if lowest - loss > least:
            lowest, waited = loss, 0
        else:
            waited += 1
    return waited >= spec.patience
