"""Progress reports: what the run is doing, for the operator and for the terminal of a local run.

A report never blocks the training. Sinks are called on the training thread and return at once; another thread uses the
network. A server that does not answer loses reports and nothing else.
"""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from finetune_trainer.contract.progress import Progress, Stage

Sink = Callable[[Progress], None]
"""Takes a record; must return at once and never raise."""

Clock = Callable[[], float]
"""Seconds from any fixed moment, never going back, such as `time.monotonic`."""


class Reporter:
    """Holds the latest record and hands every change to the sinks; any thread may call it."""

    def __init__(self, sinks: Sequence[Sink] = (), clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._sinks = tuple(sinks)
        self._clock = clock
        self._changing = threading.RLock()
        self.progress = Progress(heartbeat_time=clock())
        self._stages: list[tuple[Stage, datetime]] = [(self.progress.stage, clock())]

    def stage(self, stage: Stage) -> None:
        """Enters a stage."""
        self.update(stage=stage)

    def downloaded(self, count: int) -> None:
        """Notes that `count` more bytes have come."""
        with self._changing:
            self.update(bytes_downloaded=(self.progress.bytes_downloaded or 0) + count)

    def uploaded(self, count: int) -> None:
        """Notes that `count` more bytes have gone."""
        with self._changing:
            self.update(bytes_uploaded=(self.progress.bytes_uploaded or 0) + count)

    def waiting(self, message: str | None) -> None:
        """Notes what is waited for, None for nothing any more."""
        self.update(waiting_for=message)

    def update(self, **fields: object) -> None:
        """Changes fields of the record; numbers that JSON has no word for become absent."""
        with self._changing:
            now = self._clock()
            self.progress = Progress.model_validate({**self.progress.model_dump(), **fields, "heartbeat_time": now})
            if self.progress.stage is not self._stages[-1][0]:
                self._stages.append((self.progress.stage, now))
            for sink in self._sinks:
                sink(self.progress)

    def take(self, progress: Progress) -> None:
        """Takes the record of another process that does the work."""
        with self._changing:
            self.progress = progress
            for sink in self._sinks:
                sink(progress)

    def stage_seconds(self) -> dict[str, float]:
        """Seconds in each stage so far, in the order they were first entered."""
        with self._changing:
            ends = [*(began for _, began in self._stages[1:]), self._clock()]
            seconds: dict[str, float] = {}
            for (stage, began), end in zip(self._stages, ends, strict=True):
                seconds[stage] = seconds.get(stage, 0.0) + (end - began).total_seconds()
            return seconds
