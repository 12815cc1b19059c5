"""A clock for tests of retries. Pauses cost no time, and nothing depends on real durations."""

from typing import Any

from finetune_trainer.storage.retry import RetryPolicy


class SleepingClock:
    """A clock that only `sleep` advances.

    Attributes:
        now: seconds slept so far.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        """Advances the clock."""
        self.now += seconds

    def retry_policy(self, **settings: Any) -> RetryPolicy:
        """Returns a policy with these settings that uses this clock."""
        return RetryPolicy(clock=lambda: self.now, sleep=self.sleep, **settings)
