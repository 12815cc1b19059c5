"""The progress writer: writes due reports to the status, at most fifty a second over all jobs."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from finetune_operator.api.status import ProgressStatus
from finetune_operator.progress.coalescer import INTERVAL_SECONDS, Coalescer, Report
from finetune_operator.progress.pacer import Pacer
from finetune_operator.progress.ports import Cluster, Unavailable

logger = logging.getLogger(__name__)

WRITES_PER_SECOND = 50.0
WRITES_AT_ONCE = 16
RETRY_SECONDS = 5.0
FLUSH_SECONDS = 3.0
REMEMBERED = 10_000

_IDLE_SECONDS = 60.0


class ProgressWriter:
    """The loop from the coalescer to the status.

    Args:
        cluster: writes the status.
        clock: seconds, monotonic: the event loop's time.
    """

    def __init__(self, cluster: Cluster, *, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._coalescer = Coalescer()
        self._submitted = asyncio.Event()
        self._slots = asyncio.Semaphore(WRITES_AT_ONCE)
        self._pacer = Pacer(WRITES_PER_SECOND, clock=clock)
        self._written: OrderedDict[str, datetime] = OrderedDict()  # heartbeat of our last write, by UID

    def submit(self, report: Report) -> None:
        """Submits a report. It is written within about ten seconds."""
        self._coalescer.add(report, self._clock())
        self._submitted.set()

    async def run(self) -> None:
        """Writes until cancelled. Then it writes the waiting reports, for at most three seconds."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._submitted.clear()
                    if not await self._write_one(group):
                        await self._wait()
        except asyncio.CancelledError:
            await self._flush()
            raise

    async def _write_one(self, group: asyncio.TaskGroup) -> bool:
        await self._slots.acquire()
        report = self._coalescer.pop_due(self._clock())
        if report is None:
            self._slots.release()
            return False
        group.create_task(self._write(report))
        # A sleep of 0 is a turn of the loop, which on a busy machine takes longer than many slots.
        if (delay := self._pacer.reserve()) > 0:
            await asyncio.sleep(delay)
        return True

    async def _write(self, report: Report) -> None:
        context = {"job": f"{report.ref.namespace}/{report.ref.name}"}
        try:
            if (delay := await self._seconds_to_yield(report)) > 0:
                self._requeue(replace(report, yielded=True), delay)
                return
            await self._cluster.write(report.ref, report.attempt, ProgressStatus.of(report.record))
            self._remember(report)
        except Unavailable as error:
            logger.log(error.level, "progress not written: %s; retrying in %.0f s", error, RETRY_SECONDS, extra=context)
            self._requeue(report, RETRY_SECONDS)
        except asyncio.CancelledError:
            self._requeue(report, 0.0)
            raise
        except Exception:  # an unexpected error with one record must not stop the others
            logger.exception("progress record dropped: unexpected error", extra=context)
        finally:
            self._slots.release()

    async def _seconds_to_yield(self, report: Report) -> float:
        """Seconds to wait because another replica has just written a record of this job.

        A Service spreads a job's reports over the replicas. Together they should not write more often than one alone.
        """
        heartbeat = report.record.heartbeat_time
        if report.yielded or heartbeat is None:
            return 0.0
        state = await self._cluster.finetunejob(report.ref)
        if state is None or state.heartbeat_time is None or state.heartbeat_time == self._written.get(report.ref.uid):
            return 0.0
        gap = (heartbeat - state.heartbeat_time).total_seconds()
        return INTERVAL_SECONDS - gap if 0 <= gap < INTERVAL_SECONDS else 0.0

    def _requeue(self, report: Report, delay: float) -> None:
        self._coalescer.requeue(report, self._clock(), delay)
        self._submitted.set()

    def _remember(self, report: Report) -> None:
        if report.record.heartbeat_time is not None:
            self._written[report.ref.uid] = report.record.heartbeat_time
            self._written.move_to_end(report.ref.uid)
        while len(self._written) > REMEMBERED:
            self._written.popitem(last=False)

    async def _wait(self) -> None:
        """Waits until a report is due or submitted."""
        due = self._coalescer.next_due()
        delay = _IDLE_SECONDS if due is None else max(0.0, due - self._clock())
        try:
            async with asyncio.timeout(delay):
                await self._submitted.wait()
        except TimeoutError:
            if due is None:
                self._coalescer.forget_idle(self._clock())

    async def _flush(self) -> None:
        self._coalescer.flush(self._clock())
        try:
            async with asyncio.timeout(FLUSH_SECONDS), asyncio.TaskGroup() as group:
                while len(self._coalescer):
                    await self._slots.acquire()
                    report = self._coalescer.pop_due(self._clock())
                    if report is None:  # the others wait for a retry
                        break
                    group.create_task(self._write(replace(report, yielded=True)))
        except TimeoutError:
            logger.warning("%d progress records were not written before the process ended", len(self._coalescer))
