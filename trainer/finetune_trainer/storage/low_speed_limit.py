"""Aborts answers that come too slowly.

An HTTP client limits the wait for the next bytes. A body of one byte a second never reaches that limit, and the pod
would wait for ever. Here the waiting times are added up. When too few bytes come in that time, the answer ends with a
timeout. Only the wait for the server counts, not the time that the reader of the body takes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LowSpeedLimit:
    """The lowest speed of an answer: `least` bytes in `seconds`.

    Attributes:
        seconds: the waiting time in which at least `least` bytes must come. The wait for the first bytes does not
            count.
        least: number of bytes.
    """

    seconds: float = 30.0
    least: int = 30 << 10

    def watch(self, clock: Callable[[], float] = time.monotonic) -> "SpeedWatch":
        """Returns a watch for one answer. `clock` gives seconds that never go back."""
        return SpeedWatch(self, clock)


class SpeedWatch:
    """Measures the speed of one answer."""

    def __init__(self, low_speed_limit: LowSpeedLimit, clock: Callable[[], float]) -> None:
        self._limit, self._clock = low_speed_limit, clock
        self._begun = False
        self._waited, self._came = 0.0, 0

    def wait(self, receive: Callable[[], int]) -> int:
        """Calls `receive`, which waits for bytes and returns their number. Returns that number.

        Raises:
            TimeoutError: the answer is below the low speed limit.
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
