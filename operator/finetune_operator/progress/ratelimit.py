"""How often one job may report: twice a second on average, twenty at once."""

from collections.abc import Callable

PER_SECOND = 2.0
AT_ONCE = 20
_SWEEP_AT = 10_000


class RateLimit:
    """The generic cell rate algorithm, one cell per job: the time up to which its allowance is used.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._used_up_to: dict[str, float] = {}

    def seconds_to_wait(self, key: str) -> float:
        """0 when one more is allowed now, which then counts; else the seconds until it will be."""
        now = self._clock()
        used = max(now, self._used_up_to.get(key, now)) + 1 / PER_SECOND
        wait = used - now - AT_ONCE / PER_SECOND
        if wait > 0:
            return wait
        self._used_up_to[key] = used
        if len(self._used_up_to) > _SWEEP_AT:
            self._used_up_to = {name: until for name, until in self._used_up_to.items() if until > now}
        return 0.0
