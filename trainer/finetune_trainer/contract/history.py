"""The loss history: the values that the trainer has logged at each step.

It is read from transformers' `trainer_state.log_history`. Every checkpoint has that log, so a resumed run has the whole
history.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from finetune_trainer.contract.progress import Number
from finetune_trainer.contract.wire import TolerantWire

_NAMES = {
    "epoch": "epoch",
    "loss": "loss",
    "eval_loss": "eval_loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "reward_accuracy",
    "eval_rewards/margins": "eval_reward_margin",
    "eval_rewards/accuracies": "eval_reward_accuracy",
    "tokens": "tokens",
    "tokens_per_second": "tokens_per_second",
    "seconds": "seconds",
    "wall_time": "wall_time",
}
"""Key of a log entry -> field of `HistoryEntry`."""


class HistoryEntry(TolerantWire):
    """The logged values of one step. Values that were not logged at this step are absent."""

    step: int = Field(ge=0, description="Optimizer steps done.")
    epoch: Number = None
    loss: Number = Field(
        None, description="Training loss, mean since the previous entry: nats per token; of method dpo, by pair."
    )
    eval_loss: Number = Field(None, description="Validation loss, in the same unit.")
    reward_margin: Number = Field(None, description="Reward of the chosen answer over that of the rejected one, mean.")
    reward_accuracy: Number = Field(None, description="Share of the pairs whose chosen answer has the higher reward.")
    eval_reward_margin: Number = Field(None, description="The margin on the validation pairs.")
    eval_reward_accuracy: Number = Field(None, description="The accuracy on the validation pairs.")
    learning_rate: Number = None
    grad_norm: Number = Field(None, description="Norm of the gradient before it is clipped.")
    tokens: int | None = Field(None, ge=0, description="Tokens that the model has processed so far.")
    tokens_per_second: Number = Field(None, description="Tokens per second since the previous entry.")
    seconds: Number = Field(None, description="Seconds of training so far, with those of the attempts before a resume.")
    wall_time: Number = Field(None, description="Time of the log entry, in seconds since 1970.")


def history_of(log: Iterable[Mapping[str, Any]]) -> list[HistoryEntry]:
    """The history in transformers' `log_history`.

    Entries of the same step are merged, entries without a training or validation loss are left out. The result is
    sorted by step.
    """
    steps: dict[int, dict[str, Any]] = {}
    for item in log:
        if "loss" in item or "eval_loss" in item:
            known = {field: item[key] for key, field in _NAMES.items() if item.get(key) is not None}
            steps.setdefault(int(item["step"]), {}).update(known)
    return [HistoryEntry(step=step, **steps[step]) for step in sorted(steps)]


class LossSummary(TolerantWire):
    """A summary of a history. Losses are in nats per token; of method dpo, by pair."""

    entries: int = Field(0, ge=0, description="Number of entries in the history.")
    first_loss: Number = Field(None, description="Training loss of the first entry.")
    last_loss: Number = Field(None, description="Training loss of the last entry.")
    lowest_loss: Number = Field(None, description="Lowest training loss of an entry.")
    lowest_loss_step: int | None = Field(None, description="Step of the entry with the lowest training loss.")
    last_eval_loss: Number = Field(None, description="Last validation loss.")
    lowest_eval_loss: Number = Field(None, description="Lowest validation loss.")
    lowest_eval_loss_step: int | None = Field(None, description="Step of the lowest validation loss.")

    @classmethod
    def of(cls, history: Sequence[HistoryEntry]) -> "LossSummary":
        """The summary of a history."""
        losses = [(item.loss, item.step) for item in history if item.loss is not None]
        evals = [(item.eval_loss, item.step) for item in history if item.eval_loss is not None]
        lowest, lowest_eval = min(losses, default=(None, None)), min(evals, default=(None, None))
        return cls(
            entries=len(history),
            first_loss=losses[0][0] if losses else None,
            last_loss=losses[-1][0] if losses else None,
            lowest_loss=lowest[0],
            lowest_loss_step=lowest[1],
            last_eval_loss=evals[-1][0] if evals else None,
            lowest_eval_loss=lowest_eval[0],
            lowest_eval_loss_step=lowest_eval[1],
        )
