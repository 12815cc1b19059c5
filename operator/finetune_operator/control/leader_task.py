"""What the leader does and a standby does not: resync, watch, work."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from finetune_operator.control import Key
from finetune_operator.control.controller import Controller
from finetune_operator.control.informer.resync import Resync
from finetune_operator.control.work_queue import WorkQueue

DRAIN_SECONDS = 8.0
"""How long workers may take to finish the job they are at when the process is asked to end."""


class LeaderTask:
    """One replica's time as leader; may come several times.

    Args:
        watch: delivers events until it is cancelled.
        workers: jobs handled at a time.
        stop: set when the process is asked to end.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        resync: Resync,
        controller: Controller,
        queue: WorkQueue[Key],
        watch: Callable[[], Awaitable[None]],
        workers: int,
        stop: asyncio.Event,
        clock: Callable[[], float],
    ) -> None:
        self._resync = resync
        self._controller = controller
        self._queue = queue
        self._watch = watch
        self._workers = workers
        self._stop = stop
        self._clock = clock
        self._fed = False
        self.since: float | None = None
        """Since when this replica leads, by `clock`; None if it does not."""

    @property
    def is_fed(self) -> bool:
        """Whether watches feed the cache now."""
        return self._fed

    async def lead(self) -> None:
        """Works until `stop` is set, and then lets the workers finish; cancelled when leadership is lost."""
        self.since = self._clock()
        listed, synced = asyncio.Event(), asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                resyncing = group.create_task(self._resync.run(listed, synced))
                if await self._comes_before_stop(listed):
                    workers = [group.create_task(self._controller.work()) for _ in range(self._workers)]
                    # Not before the children are listed: kopf would list them at the same time.
                    if await self._comes_before_stop(synced):
                        await self._watch_until_stop()
                    self._queue.close()
                    await asyncio.wait(workers, timeout=DRAIN_SECONDS)
                    for worker in workers:
                        worker.cancel()
                resyncing.cancel()
        finally:
            self._fed = False
            self.since = None

    async def _watch_until_stop(self) -> None:
        watching = asyncio.ensure_future(self._watch())
        self._fed = True
        try:
            await self._stop.wait()
        finally:
            await _cancel(watching)

    async def _comes_before_stop(self, event: asyncio.Event) -> bool:
        waits = [asyncio.create_task(event.wait()), asyncio.create_task(self._stop.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not self._stop.is_set()


async def _cancel(task: "asyncio.Future[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
