"""What the leader does and a standby does not: list, watch, work."""

import asyncio
from collections.abc import Callable

from finetune_operator.control import Key
from finetune_operator.control.controller import Controller
from finetune_operator.control.informer.informer import Informers
from finetune_operator.control.work_queue import WorkQueue

DRAIN_SECONDS = 8.0
"""How long workers may take to finish the job they are at when the process is asked to end."""


class LeaderTask:
    """One replica's time as leader; may come several times.

    Args:
        informers: keep the cache true.
        workers: FineTuneJobs that are reconciled at a time.
        stop: set when the process is asked to end.
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
        """Since when this replica leads, by `clock`; None if it does not."""

    async def lead(self) -> None:
        """Works until `stop` is set, and then lets the workers finish; cancelled when leadership is lost."""
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
