"""When a request to storage is retried: deadline, growing pauses, the server's Retry-After, and who is notified.

The client libraries repeat a request for seconds. That is right for a look-up and too short for the end of a training:
what took hours to make is not thrown away for an outage of minutes. A run that stands still in silence looks like one
that hangs, so every pause is told.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.runtime import log
from finetune_trainer.storage.base import ObjectReplacedError

T = TypeVar("T")
_MOST_DOUBLINGS = 64

Listener = Callable[[str | None], object]
"""Takes what is waited for now, None when for nothing any more; must return at once and never raise."""


def log_wait(message: str | None) -> None:
    """Writes what is waited for into the process's log."""
    if message is not None:
        log.event("waiting", level=logging.WARNING, message=message)


class RetryNotifier:
    """Tells all listeners what each thread waits for.

    Args:
        listeners: by default the log alone.
    """

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners or (log_wait,)
        self._changing = threading.Lock()
        self._threads: dict[int, str] = {}

    def begin(self, message: str) -> None:
        """The calling thread waits, for what the message says; called for every pause."""
        with self._changing:
            self._threads[threading.get_ident()] = message
        self._tell(message)

    def end(self) -> None:
        """The calling thread waits no more, whether or not it got what it waited for."""
        with self._changing:
            if self._threads.pop(threading.get_ident(), None) is None:
                return
            left = next(reversed(self._threads.values()), None)
        # Another thread's wait was told before.
        if left is None:
            self._tell(None)

    def _tell(self, message: str | None) -> None:
        for listener in self._listeners:
            listener(message)


LOG_ONLY = RetryNotifier()
"""Writes to the log only."""


class LatePause(Enum):
    """What becomes of a pause that would end after the deadline."""

    GIVE_UP = auto()
    SHORTEN = auto()
    KEEP = auto()
    """It is made in full, and is the last one."""


@dataclass(frozen=True, slots=True)
class Retryable:
    """A failure after which the same request may succeed.

    Attributes:
        message: what is waited for.
        retry_after: seconds that the server asks to wait.
        unreachable: no server was reached.
    """

    message: str
    retry_after: float | None = None
    unreachable: bool = False


def storage_unavailable(error: Exception) -> Retryable | None:
    """The failure, where storage does not answer; None for any other. What was replaced stays replaced."""
    if not isinstance(error, TrainerError) or isinstance(error, ObjectReplacedError):
        return None
    return Retryable(error.message) if error.reason is FailureReason.STORAGE_UNAVAILABLE else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long the same request is tried again.

    Attributes:
        seconds: the deadline, from the first try on, or from the last progress (`call`).
        tries: most tries; None is any number.
        first_pause: seconds before the second try.
        longest_pause: the longest pause, in seconds, that is not the server's wish.
        factor: how many times as long each pause is as the one before.
        jitter: a pause is a random part of its length, so that many clients do not ask at the same moment.
        late_pause: what becomes of a pause that would end after the deadline.
        longest_retry_after: a server that asks for a longer pause, in seconds, is not asked again.
        unreachable: the policy where no server was reached; None is this one.
        clock: seconds from any fixed moment, never going back.
        sleep: waits that many seconds.
        notifier: reports what is being waited for.
    """

    seconds: float = 300.0
    tries: int | None = None
    first_pause: float = 1.0
    longest_pause: float = 30.0
    factor: float = 2.0
    jitter: bool = False
    late_pause: LatePause = LatePause.GIVE_UP
    longest_retry_after: float = 60.0
    unreachable: "RetryPolicy | None" = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    notifier: RetryNotifier = LOG_ONLY

    def pause(self, failure: Retryable, tries: int, elapsed: float) -> float | None:
        """Seconds before the next try; None when there is none.

        Args:
            failure: of the last try.
            tries: how many there were.
            elapsed: seconds since the first one began, or since the last progress.
        """
        if failure.unreachable and self.unreachable is not None:
            return self.unreachable.pause(Retryable(failure.message, failure.retry_after), tries, elapsed)
        asked, left = failure.retry_after or 0.0, self.seconds - elapsed
        if (self.tries is not None and tries >= self.tries) or asked > self.longest_retry_after:
            return None
        pause = max(asked, min(self.longest_pause, self.first_pause * self.factor ** min(tries - 1, _MOST_DOUBLINGS)))
        match self.late_pause:
            case LatePause.GIVE_UP if pause > left:
                return None
            case LatePause.KEEP if left < 0:
                return None
            case LatePause.SHORTEN if left <= 0:
                return None
            case LatePause.SHORTEN:
                pause = min(pause, left)
        return pause * random.random() if self.jitter else pause  # noqa: S311 (spreads load)

    def call(
        self,
        action: Callable[[], T],
        *,
        retryable: Callable[[Exception], Retryable | None] = storage_unavailable,
        last_progress: Callable[[], float] | None = None,
    ) -> T:
        """What `action` returns, which may be called several times.

        Args:
            action: the request.
            retryable: which of its failures may pass.
            last_progress: when, by the clock, something last came of it. By default nothing does before the whole.

        Raises:
            Exception: what `action` raises; what may pass only when the policy allows no further try.
        """
        began, tries = self.clock(), 0
        try:
            while True:
                try:
                    return action()
                except Exception as error:
                    tries += 1
                    elapsed = self.clock() - (last_progress() if last_progress is not None else began)
                    failure = retryable(error)
                    pause = self.pause(failure, tries, elapsed) if failure is not None else None
                    if failure is None or pause is None:
                        raise
                    self.notifier.begin(failure.message)
                self.sleep(pause)
        finally:
            self.notifier.end()
