"""The pacer: a steady rate for all status writes together, in spite of delays of the event loop."""

from collections.abc import Callable

CATCH_UP_SECONDS = 0.5


class Pacer:
    """Reserves evenly spaced slots.

    A fixed sleep between two writes would add the loop's delay to each gap, which costs a tenth of the rate on a busy
    machine. So slots are points in time, and late slots are caught up on, by at most `CATCH_UP_SECONDS`.

    Args:
        per_second: slots in a second.
        clock: seconds, monotonic.
    """

    def __init__(self, per_second: float, *, clock: Callable[[], float]) -> None:
        self._gap = 1 / per_second
        self._clock = clock
        self._slot = clock() - CATCH_UP_SECONDS

    def reserve(self) -> float:
        """Reserves the next slot and returns the seconds to wait for it; 0 if it is now or in the past."""
        now = self._clock()
        self._slot = max(self._slot + self._gap, now - CATCH_UP_SECONDS)
        return max(0.0, self._slot - now)
