"""The periodic resync: lists everything, because watches lose deletions.

kopf lists again when its watch is too old (410 Gone), but does not report objects that were deleted in between. A
restart of the watch has the same gap. So every few minutes all three kinds are listed, deleted objects are removed from
the cache, and every job that has not finished is enqueued. The first run fills the cache. It lists FineTuneJobs first:
those without an attempt are reconciled from then on, while the children of the others are still being listed.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from finetune_operator.api import names
from finetune_operator.control import Key
from finetune_operator.control.informer.cache import Cache
from finetune_operator.control.informer.event_handler import EventHandler
from finetune_operator.control.informer.record import FineTuneJobRecord
from finetune_operator.control.work_queue import WorkQueue
from finetune_operator.kube.api import FINETUNEJOBS, JOBS, PODS, Kube, Resource
from finetune_operator.kube.errors import KubeError
from finetune_operator.reconcile.observed import JobView, PodView

logger = logging.getLogger(__name__)

CHILDREN = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
"""Label selector of child Jobs and their pods."""

_FIRST_RETRY_SECONDS = 1.0


class Resync:
    """Lists one namespace, or all, periodically.

    Args:
        namespace: the namespace to list; None for all.
        period: seconds between two runs.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        kube: Kube,
        cache: Cache,
        queue: WorkQueue[Key],
        event_handler: EventHandler,
        namespace: str | None,
        period: float,
        clock: Callable[[], float],
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._queue = queue
        self._event_handler = event_handler
        self.namespace = namespace
        self._period = period
        self._clock = clock
        self._requested = asyncio.Event()
        self._children_listed = False
        self.last_success: float | None = None
        """When the last run succeeded, by `clock`; None if none has."""
        self.error: str | None = None
        """Why the last run failed; None if it succeeded."""

    @property
    def children_listed(self) -> bool:
        """Whether everything has been listed since this replica became the leader."""
        return self._children_listed

    def has_synced(self, record: FineTuneJobRecord) -> bool:
        """Whether a FineTuneJob can be reconciled: its children have been listed, or it never had any.

        A FineTuneJob that cannot be reconciled yet is enqueued when the children have been listed.
        """
        return self._children_listed or record.attempt == 0

    async def run(self, listed: asyncio.Event, synced: asyncio.Event) -> None:
        """Runs until cancelled. Sets `listed` when FineTuneJobs are listed, `synced` when their children are too."""
        self._children_listed = False  # the cache is stale since this replica was last the leader
        retry = _FIRST_RETRY_SECONDS
        while True:
            self._requested.clear()
            try:
                await self.once(listed)
            except KubeError as error:
                self.error = error.message
                context = {"namespace": self.namespace or "*"}
                logger.log(error.level, "resync failed: %s; retrying in %.0f s", error.message, retry, extra=context)
                await asyncio.sleep(retry)
                retry = min(self._period, 2 * retry)
                continue
            retry = _FIRST_RETRY_SECONDS
            synced.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period):
                    await self._requested.wait()

    def request(self) -> None:
        """Requests a run now: events may have been missed."""
        self._requested.set()

    async def once(self, listed: asyncio.Event | None = None) -> None:
        """Lists all kinds, prunes the cache and enqueues every FineTuneJob that is not settled.

        Args:
            listed: set when FineTuneJobs have been listed.

        Raises:
            KubeError: a list failed; objects that were read before are in the cache.
        """
        await self._list_finetunejobs()
        if listed is not None:
            listed.set()
        # After FineTuneJobs, because the children of settled ones are not kept.
        await self._list_children(JOBS, JobView, self._event_handler.job)
        await self._list_children(PODS, PodView, self._event_handler.pod)
        self._children_listed = True
        self.error = None
        for record in self._cache.finetunejobs():
            if not record.settled and self.namespace in (None, record.namespace):
                self._queue.add(record.key, high_priority=record.attempt == 0)
        self.last_success = self._clock()

    async def _list_finetunejobs(self) -> None:
        seen, version = await self._list(FINETUNEJOBS, self._event_handler.finetunejob, "")
        for key in self._cache.prune_finetunejobs(seen, version, self.namespace):
            logger.info("removed from the cache: its deletion event was lost", extra={"job": "/".join(key)})

    async def _list_children(
        self,
        resource: Resource,
        kind: type[JobView] | type[PodView],
        deliver: Callable[[str | None, dict[str, Any]], None],
    ) -> None:
        seen, version = await self._list(resource, deliver, CHILDREN)
        self._cache.prune_children(kind, seen, version, self.namespace)

    async def _list(
        self,
        resource: Resource,
        deliver: Callable[[str | None, dict[str, Any]], None],
        selector: str,
    ) -> tuple[set[str], str]:
        seen: set[str] = set()
        version = ""
        async for page in self._kube.pages(resource, self.namespace, label_selector=selector):
            version = page.resource_version
            for raw in page.items:
                seen.add(raw["metadata"]["uid"])
                deliver(None, raw)
        return seen, version
