"""Waiting for storage that is away: what took hours to make is not thrown away for an outage of minutes.

The client libraries repeat a request for seconds; that is right for a look-up and too short for the end of a training.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.storage.base import ObjectReplacedError
from finetune_trainer.storage.waiting import IN_THE_LOG, Waiting

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long storage that does not answer is asked again.

    Attributes:
        seconds: no further try begins later than this after the first.
        first_pause: seconds before the second try; each pause is twice the one before.
        longest_pause: the longest pause, in seconds.
        clock: seconds from any fixed moment, never going back.
        sleep: waits that many seconds.
        waiting: is told what is waited for.
    """

    seconds: float = 300.0
    first_pause: float = 1.0
    longest_pause: float = 30.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    waiting: Waiting = IN_THE_LOG

    def call(self, action: Callable[[], T]) -> T:
        """What `action` returns, which may be called several times.

        Raises:
            TrainerError: what it raises; what may pass only when the patience is at an end.
        """
        end, pause = self.clock() + self.seconds, self.first_pause
        try:
            while True:
                try:
                    return action()
                except TrainerError as error:
                    if not _may_pass(error) or self.clock() + pause > end:
                        raise
                    self.waiting.begin(error.message)
                self.sleep(pause)
                pause = min(2 * pause, self.longest_pause)
        finally:
            self.waiting.end()


def _may_pass(error: TrainerError) -> bool:
    """Whether the same question may get another answer. What was replaced stays replaced."""
    return error.reason is FailureReason.STORAGE_UNAVAILABLE and not isinstance(error, ObjectReplacedError)
