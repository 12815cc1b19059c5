"""Prints what each long step does, its progress, and how long it took.

All goes to standard error. Standard output has only what a shell evaluates (the `export` lines) or a program reads.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_QUIET_SECONDS = 10.0
"""A step that runs longer than this reports how far it is."""


def say(line: str) -> None:
    """Prints one line for the user."""
    print(line, file=sys.stderr, flush=True)


@dataclass
class Step:
    """One running step."""

    title: str
    began: float = field(default_factory=time.monotonic)
    outcome: str = ""
    """The result, which the last line prints beside the time."""
    _last_note: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.began

    def note(self, how_far: str) -> None:
        """Reports the step's progress at most every 10 s."""
        if time.monotonic() - self._last_note >= _QUIET_SECONDS:
            self._last_note = time.monotonic()
            say(f"  … {self.title}: {how_far} ({self.seconds:.0f} s)")


@contextmanager
def step(title: str) -> Iterator[Step]:
    """Runs one step and prints how long it took, also after an error."""
    running = Step(title)
    try:
        yield running
    except BaseException:
        say(f"  ✗ {title} ({running.seconds:.1f} s)")
        raise
    detail = f": {running.outcome}" if running.outcome else ""
    say(f"  ✓ {title}{detail} ({running.seconds:.1f} s)")
