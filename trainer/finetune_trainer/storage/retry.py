"""Retries requests to storage: deadline, backoff, the server's Retry-After, and notification of waits.

The client libraries retry a request for seconds. That is too short at the end of a training: an outage of minutes must
not throw away a result of hours. A run that waits without a message looks like a run that hangs. So every pause is
reported to listeners.
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
"""Receives the cause of the current wait, or None when the wait has ended. It must return at once and never raise."""


def log_wait(message: str | None) -> None:
    """Logs the cause of a wait as a warning."""
    if message is not None:
        log.event("waiting", level=logging.WARNING, message=message)


class RetryNotifier:
    """Reports to all listeners what each thread waits for.

    Args:
        listeners: the listeners. Without any, `log_wait` is the only one.
    """

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners or (log_wait,)
        self._changing = threading.Lock()
        self._threads: dict[int, str] = {}

    def begin(self, message: str) -> None:
        """Reports that the calling thread waits. `message` gives the cause. Called before every pause."""
        with self._changing:
            self._threads[threading.get_ident()] = message
        self._tell(message)

    def end(self) -> None:
        """Reports that the calling thread no longer waits, after success or failure.

        Listeners hear of it when no other thread waits.
        """
        with self._changing:
            if self._threads.pop(threading.get_ident(), None) is None:
                return
            left = next(reversed(self._threads.values()), None)
        # While another thread waits, the listeners already have its message.
        if left is None:
            self._tell(None)

    def _tell(self, message: str | None) -> None:
        for listener in self._listeners:
            listener(message)


LOG_ONLY = RetryNotifier()
"""The notifier that only writes to the log."""


class LatePause(Enum):
    """How to treat a pause that would end after the deadline."""

    GIVE_UP = auto()
    """No pause and no further try."""
    SHORTEN = auto()
    """The pause ends at the deadline, and the last try follows."""
    KEEP = auto()
    """The pause has its full length, and the last try follows."""


@dataclass(frozen=True, slots=True)
class Retryable:
    """A failure after which the same request may succeed.

    Attributes:
        message: the cause of the wait, for listeners.
        retry_after: seconds of the server's Retry-After; None without one.
        unreachable: True when no server was reached.
    """

    message: str
    retry_after: float | None = None
    unreachable: bool = False


def storage_unavailable(error: Exception) -> Retryable | None:
    """Returns the failure when its reason is STORAGE_UNAVAILABLE, else None.

    An ObjectReplacedError gives None, because a retry would find the same new object.
    """
    if not isinstance(error, TrainerError) or isinstance(error, ObjectReplacedError):
        return None
    return Retryable(error.message) if error.reason is FailureReason.STORAGE_UNAVAILABLE else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long a request is retried. The pauses grow exponentially.

    Attributes:
        seconds: the deadline, counted from the first try, or from the last progress (see `call`).
        tries: the largest number of tries; None means no limit.
        first_pause: seconds before the second try.
        longest_pause: upper limit of a pause in seconds. A longer Retry-After of the server still counts.
        factor: each pause is this many times as long as the one before.
        jitter: True shortens each pause to a random part of its length, so that many clients do not retry at once.
        late_pause: how to treat a pause that would end after the deadline.
        longest_retry_after: seconds. After a longer Retry-After there is no further try.
        unreachable: the policy for failures in which no server was reached; None means this policy.
        clock: returns seconds that never go back.
        sleep: waits for a number of seconds.
        notifier: is told about every wait.
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
        """Returns the seconds to wait before the next try, or None when there is no further try.

        Args:
            failure: the failure of the last try.
            tries: number of tries so far.
            elapsed: seconds since the first try began, or since the last progress.
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
        return pause * random.random() if self.jitter else pause  # noqa: S311 (not for security)

    def call(
        self,
        action: Callable[[], T],
        *,
        retryable: Callable[[Exception], Retryable | None] = storage_unavailable,
        last_progress: Callable[[], float] | None = None,
    ) -> T:
        """Calls `action` until it succeeds. Returns its result.

        Args:
            action: the request. It may be called several times.
            retryable: returns the failure when an exception of `action` may pass, else None.
            last_progress: returns the time, by `clock`, at which the last bytes came. With None the deadline counts
                from the first try.

        Raises:
            Exception: the exception of `action`, when it may not pass, or when the policy allows no further try.
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
