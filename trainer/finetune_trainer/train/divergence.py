"""When a training is lost: a loss or gradient norm that is NaN or infinite, or a model that has forgotten its language.

A loss that rises proves little. Rows differ, and validation rows are what judges an adapter. The measure here is the
loss of a guess among all V tokens of the vocabulary, ln V nats. A language model that reads is far below it. One that
knows no more than how often each word is used is at about two thirds. A model that was below 0.4 of it and then stays
above 0.6 has forgotten its language. No further step brings that back, and the adapter is worthless.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from finetune_trainer.contract.failure import FailureReason, TrainerError

PATIENCE = 10
"""Steps in a row that settle it."""
_READS, _LOST = 0.4, 0.6
"""Loss as a part of a guess's: below the first a model reads its rows, above the second it is lost on them."""


def require_finite(what: str, value: float, where: Callable[[], str]) -> None:
    """Checks a loss or a gradient norm.

    Args:
        what: its name, for the message.
        value: the number.
        where: gives the step, for the message.

    Raises:
        TrainerError: LOSS_DIVERGED, it is NaN or infinite.
    """
    if not math.isfinite(value):
        raise TrainerError(FailureReason.LOSS_DIVERGED, f"{what} is {value} {where()}")


def with_advice(failure: TrainerError, compute_dtype: str) -> TrainerError:
    """The failure of a training; a lost one in float16 says that float16 itself may be the cause.

    float16 ends at 65,504. Most models of today are trained in bfloat16, which ends where float32 does, and some of
    them have larger activations.

    Args:
        failure: how the training ended.
        compute_dtype: number type of the products, by torch's name.
    """
    if failure.reason is not FailureReason.LOSS_DIVERGED or compute_dtype != "float16":
        return failure
    return TrainerError(
        failure.reason,
        f"{failure.message}; the products are in float16, as the GPU has no bfloat16 or the job asks for it, and a "
        "model that was trained in bfloat16 can leave float16's range: use a GPU with compute capability 8.0 or more, "
        "or model.quantization.computeDtype: float32, which is slow",
    )


@dataclass(slots=True, kw_only=True)
class Divergence:
    """Watches the losses of a training's steps.

    Attributes:
        has_read: whether there was a step on whose rows the model was no worse than a model is that reads.
        steps: how many of the last steps, one after the other, it was lost on.
    """

    has_read: bool = False
    steps: int = 0

    def restore(self, other: "Divergence") -> None:
        """Goes on from what a checkpoint holds."""
        self.has_read, self.steps = other.has_read, other.steps

    def take(self, loss: float, vocabulary: int, where: Callable[[], str]) -> None:
        """Takes the loss of a step.

        Args:
            loss: nats per trained token.
            vocabulary: tokens that the model knows.
            where: gives the step, for messages.

        Raises:
            TrainerError: LOSS_DIVERGED, the loss is NaN or infinite, or the model is destroyed.
        """
        require_finite("the loss", loss, where)
        part = loss / math.log(vocabulary)
        self.has_read = self.has_read or part < _READS
        self.steps = self.steps + 1 if self.has_read and part > _LOST else 0
        if self.steps >= PATIENCE:
            raise TrainerError(
                FailureReason.LOSS_DIVERGED,
                f"the loss is {loss:.4g} {where()}, and has been so high for {self.steps} steps: the training "
                f"has destroyed what the model knew (a guess among all {vocabulary:,} tokens has "
                f"{math.log(vocabulary):.4g})",
            )

    @property
    def suspected(self) -> bool:
        """Whether the last step was such a one: a checkpoint of it is worth nothing."""
        return self.steps > 0
