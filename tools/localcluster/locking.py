"""A lock for one builder or one starter at a time. The kernel releases it when the process ends."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from localcluster.progress import say


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Holds the lock inside the block. Prints a line when it has to wait for another process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  … somebody else is {what}: waiting for them")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
