"""A clock for tests of patience: pauses cost nothing, and nothing depends on how long anything really takes."""

from typing import Any

from finetune_trainer.storage.patience import Patience


class SleepingClock:
    """A clock that only sleeping moves.

    Attributes:
        now: seconds slept so far.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        """Moves the clock."""
        self.now += seconds

    def patience(self, **settings: Any) -> Patience:
        """Patience with these settings that goes by this clock."""
        return Patience(clock=lambda: self.now, sleep=self.sleep, **settings)
