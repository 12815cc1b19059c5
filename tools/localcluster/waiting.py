"""Waits for a condition with a time limit. The error says what was last seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from localcluster.errors import ClusterError

T = TypeVar("T")


def wait_for(
    what: str,
    probe: Callable[[], T | None],
    *,
    timeout: float,
    interval: float = 0.1,
    seen: Callable[[], str] | None = None,
) -> T:
    """Calls `probe` until it returns a true value. Returns that value.

    A `ClusterError` of the probe ends the wait at once: the condition can no longer come true, because a component has
    ended for example.

    Args:
        what: the condition, for the message.
        probe: returns a true value when the condition holds.
        timeout: time limit in seconds.
        interval: seconds between two calls.
        seen: returns the current state, for the message.

    Raises:
        ClusterError: the time limit has passed, or the probe raised it.
    """
    end = time.monotonic() + timeout
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() >= end:
            detail = f"; {seen()}" if seen else ""
            raise ClusterError(f"waited {timeout:.0f} s for {what}{detail}")
        time.sleep(interval)
