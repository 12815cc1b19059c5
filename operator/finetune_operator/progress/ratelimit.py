"""The rate limit for each key: an average rate, and a burst."""

from collections.abc import Callable
from dataclasses import dataclass

_SWEEP_AT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """An average rate and a burst.

    Attributes:
        per_second: events in a second, on average.
        burst: events that are allowed at once.
    """

    per_second: float
    burst: int


class RateLimit:
    """The generic cell rate algorithm. For each key it stores the time up to which the allowance is used.

    Args:
        rate: the rate for each key.
        clock: seconds, monotonic.
    """

    def __init__(self, rate: Rate, *, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._used_up_to: dict[str, float] = {}

    def seconds_to_wait(self, key: str) -> float:
        """Counts one event and returns 0 if it is allowed now; otherwise returns the seconds until it is."""
        now = self._clock()
        used = max(now, self._used_up_to.get(key, now)) + 1 / self._rate.per_second
        wait = used - now - self._rate.burst / self._rate.per_second
        if wait > 0:
            return wait
        self._used_up_to[key] = used
        if len(self._used_up_to) > _SWEEP_AT:
            self._used_up_to = {name: until for name, until in self._used_up_to.items() if until > now}
        return 0.0
