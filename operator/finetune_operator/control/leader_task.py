"""What only the leader does: list, watch and reconcile."""

import asyncio
from collections.abc import Callable

from finetune_operator.control import Key
from finetune_operator.control.controller import Controller
from finetune_operator.control.informer.informer import Informers
from finetune_operator.control.work_queue import WorkQueue

DRAIN_SECONDS = 8.0
"""Seconds that workers have to finish their current key after a stop request."""


class LeaderTask:
    """Runs informers and workers while this replica is the leader. It may run several times.

    Args:
        informers: keep the cache up to date.
        workers: how many FineTuneJobs are reconciled concurrently.
        stop: set when the process must end.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        informers: Informers,
        controller: Controller,
        queue: WorkQueue[Key],
        workers: int,
        stop: asyncio.Event,
        clock: Callable[[], float],
    ) -> None:
        self._informers = informers
        self._controller = controller
        self._queue = queue
        self._workers = workers
        self._stop = stop
        self._clock = clock
        self.since: float | None = None
        """When this replica became the leader, by `clock`; None if it is not the leader."""

    async def lead(self) -> None:
        """Reconciles until `stop` is set, then lets the workers finish. It is cancelled when leadership is lost."""
        self.since = self._clock()
        listed = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                informing = [group.create_task(informer.run(listed)) for informer in self._informers]
                workers = []
                if await self._comes_before_stop(listed):
                    workers = [group.create_task(self._controller.work()) for _ in range(self._workers)]
                    await self._stop.wait()
                for task in informing:
                    task.cancel()
                await asyncio.wait(informing)
                self._queue.close()
                if workers:
                    await asyncio.wait(workers, timeout=DRAIN_SECONDS)
                for worker in workers:
                    worker.cancel()
        finally:
            self.since = None

    async def _comes_before_stop(self, event: asyncio.Event) -> bool:
        waits = [asyncio.create_task(event.wait()), asyncio.create_task(self._stop.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not self._stop.is_set()
