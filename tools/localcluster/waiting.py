"""Waits for a fact with a limit, and says what it last saw when the fact never came."""

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
    """Calls `probe` until it answers something true, and returns that.

    A `ClusterError` of the probe ends the wait at once: it means that the fact cannot come
    any more (a component has died). `seen` describes the state for the message of a timeout.
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
