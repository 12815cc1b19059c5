"""Tells a training that destroys its model from one that fits its data badly.

A loss that rises proves little: rows differ, and validation rows are what judges an adapter. The measure here is that
of a guess among all V tokens of the vocabulary, ln V nats. A language model that reads is far below it; one that knows
no more than how often each word is used is at about two thirds. A model that was below 0.4 of it and then stays above
0.6 has forgotten its language. No further step brings that back, and the adapter is worthless.
"""

import math
from dataclasses import dataclass

PATIENCE = 10
"""Steps in a row that settle it."""
_READS, _LOST = 0.4, 0.6
"""Loss as a part of a guess's: below the first a model reads its rows, above the second it is lost on them."""


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

    def take(self, loss: float, vocabulary: int) -> None:
        """Takes the loss of a step, in nats per trained token, of a model with a vocabulary of so many tokens."""
        part = loss / math.log(vocabulary)
        self.has_read = self.has_read or part < _READS
        self.steps = self.steps + 1 if self.has_read and part > _LOST else 0

    @property
    def suspected(self) -> bool:
        """Whether the last step was such a one: a checkpoint of it is worth nothing."""
        return self.steps > 0

    @property
    def certain(self) -> bool:
        """Whether the model is destroyed."""
        return self.steps >= PATIENCE
