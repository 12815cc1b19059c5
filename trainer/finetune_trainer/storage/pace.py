"""Answers that come too slowly are given up.

The time limit of an HTTP client holds for the wait for the next bytes: a body of which one byte comes a second never
reaches it and would hold a pod for ever. Here the waiting is added up, and when next to nothing came in it, it ends as
that limit does. Only waiting counts: a reader that takes its time is not the server's fault.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The slowest answer that is waited for.

    Attributes:
        seconds: of waiting in which at least `least` bytes must come. The wait for the first ones does not count.
        least: bytes.
    """

    seconds: float = 30.0
    least: int = 30 << 10

    def watch(self, clock: Callable[[], float] = time.monotonic) -> "Watch":
        """Watches one answer."""
        return Watch(self, clock)


class Watch:
    """One answer."""

    def __init__(self, pace: Pace, clock: Callable[[], float]) -> None:
        self._pace, self._clock = pace, clock
        self._begun = False
        self._waited, self._came = 0.0, 0

    def wait(self, receive: Callable[[], int]) -> int:
        """What `receive` returns: the number of bytes that it has waited for.

        Raises:
            TimeoutError: the answer comes too slowly.
        """
        began = self._clock()
        count = receive()
        if self._begun:
            self._waited += self._clock() - began
            self._came += count
        self._begun = True
        if self._came >= self._pace.least:
            self._waited, self._came = 0.0, 0
        elif self._waited >= self._pace.seconds:
            raise TimeoutError(f"too slow: {self._came} bytes came in {self._waited:.0f} s")
        return count
