"""The coalescer: at most one status write for each job in ten seconds. The first is immediate, the last is never lost.

A status write is an event for every watcher (Argo CD, Flux, dashboards). After a change of stage the next write comes
earlier, after two seconds.
"""

import heapq
import itertools
from dataclasses import dataclass

from finetune_operator.api.finetunejob import FineTuneJobRef
from finetune_trainer.contract.progress import Progress, Stage

INTERVAL_SECONDS = 10.0
STAGE_INTERVAL_SECONDS = 2.0
FORGET_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A progress record of one attempt of a FineTuneJob.

    Attributes:
        yielded: whether it has waited already because another replica had just written a record.
    """

    ref: FineTuneJobRef
    attempt: int
    record: Progress
    yielded: bool = False


@dataclass(slots=True)
class _JobTimes:
    written: float | None = None
    stage: Stage | None = None
    pending: Report | None = None
    due: float = 0.0


class Coalescer:
    """Decides when each report is written. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._jobs: dict[str, _JobTimes] = {}
        self._heap: list[tuple[float, int, str]] = []  # may hold outdated entries; `due` decides
        self._sequence = itertools.count()

    def add(self, report: Report, now: float) -> None:
        """Adds a report. It replaces the job's waiting report, unless that belongs to a later attempt."""
        job = self._jobs.setdefault(report.ref.uid, _JobTimes())
        waiting = job.pending
        if waiting is not None and waiting.attempt > report.attempt:
            return
        due = now
        if job.written is not None:
            interval = INTERVAL_SECONDS if report.record.stage is job.stage else STAGE_INTERVAL_SECONDS
            due = max(now, job.written + interval)
        job.pending = report
        if waiting is None or due < job.due:
            self._schedule(report.ref.uid, job, due)

    def pop_due(self, now: float) -> Report | None:
        """Removes and returns the report that has been due longest. Its job counts as written from now on."""
        due = self.next_due()
        if due is None or due > now:
            return None
        uid = heapq.heappop(self._heap)[2]
        job = self._jobs[uid]
        report, job.pending = job.pending, None
        assert report is not None
        job.written, job.stage = now, report.record.stage
        return report

    def requeue(self, report: Report, now: float, delay: float) -> None:
        """Requeues a report whose write failed, for `delay` seconds, unless a newer report waits."""
        job = self._jobs.setdefault(report.ref.uid, _JobTimes())
        if job.pending is None:
            job.pending = report
            self._schedule(report.ref.uid, job, now + delay)

    def next_due(self) -> float | None:
        """When the next report is due; None if none waits."""
        while self._heap:
            due, _, uid = self._heap[0]
            job = self._jobs.get(uid)
            if job is not None and job.pending is not None and job.due == due:
                return due
            heapq.heappop(self._heap)
        return None

    def flush(self, now: float) -> None:
        """Makes every waiting report due, before the process ends."""
        for uid, job in self._jobs.items():
            if job.pending is not None:
                self._schedule(uid, job, now)

    def forget_idle(self, now: float) -> None:
        """Forgets jobs that have had no report for an hour."""
        idle = [
            uid
            for uid, job in self._jobs.items()
            if job.pending is None and job.written is not None and now - job.written > FORGET_SECONDS
        ]
        for uid in idle:
            del self._jobs[uid]

    def __len__(self) -> int:
        """Number of waiting reports."""
        return sum(1 for job in self._jobs.values() if job.pending is not None)

    def _schedule(self, uid: str, job: _JobTimes, due: float) -> None:
        job.due = due
        heapq.heappush(self._heap, (due, next(self._sequence), uid))
