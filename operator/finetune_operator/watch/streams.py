"""Which watches are open now, by kind. kopf does not say: it opens a refused watch again and again, and goes on."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Streams:
    """The open watches. Thread-safe: the kopf that ends and the one that starts have threads of their own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    @contextmanager
    def open(self, plural: str) -> Iterator[None]:
        """A watch of that kind is open inside the block."""
        with self._lock:
            self._open[plural] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[plural] -= 1

    def kinds(self) -> frozenset[str]:
        """The plurals of the kinds that are watched now."""
        with self._lock:
            return frozenset(plural for plural, count in self._open.items() if count > 0)
