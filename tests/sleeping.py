"""A clock for tests of retries: pauses cost nothing, and nothing depends on how long anything really takes."""

from typing import Any

from finetune_trainer.storage.retry import RetryPolicy


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

    def retry_policy(self, **settings: Any) -> RetryPolicy:
        """A policy with these settings that goes by this clock."""
        return RetryPolicy(clock=lambda: self.now, sleep=self.sleep, **settings)
