"""How fast all writes together may go: at a steady rate, whatever the event loop's delays."""

from collections.abc import Callable

CATCH_UP_SECONDS = 0.5


class Pacer:
    """Slots for deeds, evenly spaced.

    A sleep between two deeds would make each slot longer by what the loop is late; on a busy machine that is a tenth of
    the rate. So slots are moments, and what came late is made up for, by `CATCH_UP_SECONDS` at most.

    Args:
        per_second: slots in a second.
        clock: seconds, monotonic.
    """

    def __init__(self, per_second: float, *, clock: Callable[[], float]) -> None:
        self._gap = 1 / per_second
        self._clock = clock
        self._slot = clock() - CATCH_UP_SECONDS

    def reserve(self) -> float:
        """Takes the next slot and returns the seconds until it comes; 0 when it is there already."""
        now = self._clock()
        self._slot = max(self._slot + self._gap, now - CATCH_UP_SECONDS)
        return max(0.0, self._slot - now)
