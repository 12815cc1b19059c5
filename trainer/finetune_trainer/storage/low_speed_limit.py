"""Aborts answers that come too slowly.

An HTTP client's time limit is for the wait for the next bytes. A body of one byte a second never reaches it and would
hold a pod for ever. Here the waiting times are added up. When too few bytes came in that time, the answer is aborted as
by a timeout. Only waiting counts: a slow reader is not the server's fault.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LowSpeedLimit:
    """The slowest answer that is waited for.

    Attributes:
        seconds: of waiting in which at least `least` bytes must come. The wait for the first ones does not count.
        least: bytes.
    """

    seconds: float = 30.0
    least: int = 30 << 10

    def watch(self, clock: Callable[[], float] = time.monotonic) -> "SpeedWatch":
        """Watches one answer."""
        return SpeedWatch(self, clock)


class SpeedWatch:
    """One answer."""

    def __init__(self, low_speed_limit: LowSpeedLimit, clock: Callable[[], float]) -> None:
        self._limit, self._clock = low_speed_limit, clock
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
        if self._came >= self._limit.least:
            self._waited, self._came = 0.0, 0
        elif self._waited >= self._limit.seconds:
            raise TimeoutError(f"too slow: {self._came} bytes came in {self._waited:.0f} s")
        return count
