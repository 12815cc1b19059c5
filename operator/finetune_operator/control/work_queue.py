"""The work queue: deduplicated keys, one worker per key, first in first out, with delays and back-off.

It does what client-go's workqueue does: kopf calls a handler once per watch event and never retries it. A key is
absent, delayed, ready or running. A key that is added while it runs becomes ready again as soon as it is done, so no
event is lost and no key is reconciled twice at the same time.

Keys with high priority go first, three in a row at most. The fourth is one of the others, so these never starve.
"""

import asyncio
import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 300.0
HIGH_PRIORITY_IN_A_ROW = 3


class QueueClosed(Exception):  # noqa: N818 (an end, not an error)
    """The queue hands out no more keys."""


class QueueObserver(Protocol):
    """Is told what happens in a queue, for metrics."""

    def key_added(self) -> None:
        """A key became ready."""

    def key_taken(self, waited: float) -> None:
        """A worker took a key, which had been ready for that many seconds."""

    def key_released(self, worked: float, *, retry: bool) -> None:
        """A worker had the key for that many seconds; `retry` if the reconcile failed."""


class WorkQueue(Generic[K]):
    """A queue of keys for one event loop.

    Args:
        clock: seconds, monotonic: the event loop's time, or a test's.
        random: uniform in [0, 1), for the jitter of back-offs.
        observer: is told what happens.
    """

    def __init__(
        self, *, clock: Callable[[], float], random: Callable[[], float], observer: QueueObserver | None = None
    ) -> None:
        self._clock = clock
        self._observer = observer
        self._random = random
        self._ready: OrderedDict[K, float] = OrderedDict()  # key -> time it became ready
        self._high_priority: OrderedDict[K, float] = OrderedDict()  # the same, with high priority
        self._high_priority_in_a_row = 0
        self._running: dict[K, float] = {}  # key -> start time
        self._added_while_running: set[K] = set()
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []  # may hold outdated entries; `_due` decides
        self._sequence = itertools.count()
        self._failures: dict[K, int] = {}
        self._last_taken = clock()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def add(self, key: K, *, high_priority: bool = False) -> None:
        """Makes the key ready now, also if it is delayed.

        Args:
            key: the key.
            high_priority: whether it goes before keys without. A key that is ready already keeps its place.
        """
        if key in self._running:
            self._added_while_running.add(key)
            return
        self._due.pop(key, None)
        if not self._is_ready(key):
            (self._high_priority if high_priority else self._ready)[key] = self._clock()
            if self._observer is not None:
                self._observer.key_added()
            self._wake_one()

    def add_after(self, key: K, delay: float) -> None:
        """Makes the key ready after `delay` seconds. The earliest of several delays counts."""
        if self._is_ready(key):
            return
        due = self._clock() + delay
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, next(self._sequence), key))
            self._arm_timer()

    def get_nowait(self) -> K | None:
        """Takes the next key, which is running from now on; None if no key is ready."""
        self._promote()
        if self._high_priority and (not self._ready or self._high_priority_in_a_row < HIGH_PRIORITY_IN_A_ROW):
            self._high_priority_in_a_row += 1
            key, since = self._high_priority.popitem(last=False)
        elif self._ready:
            self._high_priority_in_a_row = 0
            key, since = self._ready.popitem(last=False)
        else:
            return None
        now = self._clock()
        self._running[key] = self._last_taken = now
        if self._observer is not None:
            self._observer.key_taken(now - since)
        return key

    async def get(self) -> K:
        """Waits for a key and takes it, which is running from now on.

        Raises:
            QueueClosed: after `close`.
        """
        while not self._closed:
            if (key := self.get_nowait()) is not None:
                return key
            await self._wait()
        raise QueueClosed

    def done(self, key: K, requeue_after: float | None = None) -> None:
        """The key was reconciled: resets its back-off, and requeues it after `requeue_after` seconds."""
        self._failures.pop(key, None)
        self._release(key, requeue_after, retry=False)

    def retry(self, key: K, at_least: float = 0.0) -> float:
        """The reconcile failed: requeues the key after a back-off that doubles with each failure.

        Returns:
            The back-off in seconds: from 1 to 300, up to half longer by jitter, and at least `at_least`.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        backoff = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 30))
        delay = max(at_least, min(MAX_BACKOFF_SECONDS, backoff * (1 + self._random() / 2)))
        self._release(key, delay, retry=True)
        return delay

    def close(self) -> None:
        """Shuts the queue down: `get` raises QueueClosed from now on."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            self._wake_one()

    def __len__(self) -> int:
        """Keys that are ready or running."""
        return len(self._ready) + len(self._high_priority) + len(self._running)

    @property
    def depth(self) -> int:
        """Keys that are ready."""
        return len(self._ready) + len(self._high_priority)

    def running_seconds(self) -> tuple[float, ...]:
        """Seconds that each running key has been running."""
        now = self._clock()
        return tuple(now - since for since in self._running.values())

    def stuck_seconds(self) -> float:
        """Seconds without progress: the longest that a key has been running, or ready while no key was taken."""
        now = self._clock()
        longest = max((now - since for since in self._running.values()), default=0.0)
        for ready in (self._ready, self._high_priority):
            if ready:
                oldest = next(iter(ready.values()))
                longest = max(longest, now - max(oldest, self._last_taken))
        return longest

    def _is_ready(self, key: K) -> bool:
        return key in self._ready or key in self._high_priority

    def _release(self, key: K, delay: float | None, *, retry: bool) -> None:
        started = self._running.pop(key)
        if self._observer is not None:
            self._observer.key_released(self._clock() - started, retry=retry)
        if key in self._added_while_running:
            self._added_while_running.discard(key)
            self.add(key)
        elif delay is not None:
            self.add_after(key, delay)

    def _promote(self) -> None:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                self.add(key)

    def _next_due(self) -> float | None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._arm_timer()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._wake_one()  # this waiter cannot use its wake-up: pass it to the next one
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _arm_timer(self) -> None:
        if not self._waiters or self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._next_due()
        if due is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, due - self._clock()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._promote()
        self._arm_timer()
