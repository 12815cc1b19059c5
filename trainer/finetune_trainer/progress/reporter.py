"""Progress reports of a run, for the operator and for the terminal of a local run.

A report never blocks the training. The reporting thread calls the sinks, which return at once. Another thread uses the
network. When the server does not answer, only reports are lost.
"""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from finetune_trainer.contract.progress import Progress, Stage

Sink = Callable[[Progress], None]
"""Receives a record. It must return at once and never raise."""

Clock = Callable[[], float]
"""Returns seconds that never go back, such as `time.monotonic`."""


class Reporter:
    """Holds the latest progress record and passes every change to the sinks. Its methods are thread-safe.

    Args:
        sinks: called with every new record.
        clock: returns the current time.

    Attributes:
        progress: the latest record.
    """

    def __init__(self, sinks: Sequence[Sink] = (), clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._sinks = tuple(sinks)
        self._clock = clock
        self._changing = threading.RLock()
        self.progress = Progress(heartbeat_time=clock())
        self._stages: list[tuple[Stage, datetime]] = [(self.progress.stage, clock())]

    def stage(self, stage: Stage) -> None:
        """Reports that the run has entered a stage."""
        self.update(stage=stage)

    def downloaded(self, count: int) -> None:
        """Adds `count` bytes to the bytes downloaded."""
        with self._changing:
            self.update(bytes_downloaded=(self.progress.bytes_downloaded or 0) + count)

    def uploaded(self, count: int) -> None:
        """Adds `count` bytes to the bytes uploaded."""
        with self._changing:
            self.update(bytes_uploaded=(self.progress.bytes_uploaded or 0) + count)

    def checkpoint(self, step: int) -> None:
        """Reports that the checkpoint of a step is in storage."""
        self.update(checkpoint_step=step, checkpoint_time=self._clock())

    def waiting(self, message: str | None) -> None:
        """Reports that the run waits for storage. `message` gives the cause. None means that the wait has ended."""
        self.update(waiting_for=message)

    def update(self, **fields: object) -> None:
        """Changes fields of the record. A number that is infinite or not a number becomes None.

        Raises:
            pydantic.ValidationError: a field has a value of another type.
        """
        with self._changing:
            now = self._clock()
            self.progress = Progress.model_validate({**self.progress.model_dump(), **fields, "heartbeat_time": now})
            if self.progress.stage is not self._stages[-1][0]:
                self._stages.append((self.progress.stage, now))
            for sink in self._sinks:
                sink(self.progress)

    def take(self, progress: Progress) -> None:
        """Replaces the record by that of a worker process."""
        with self._changing:
            self.progress = progress
            for sink in self._sinks:
                sink(progress)

    def stage_seconds(self) -> dict[str, float]:
        """Returns the seconds in each stage so far, ordered by the first entry into a stage."""
        with self._changing:
            ends = [*(began for _, began in self._stages[1:]), self._clock()]
            seconds: dict[str, float] = {}
            for (stage, began), end in zip(self._stages, ends, strict=True):
                seconds[stage] = seconds.get(stage, 0.0) + (end - began).total_seconds()
            return seconds
