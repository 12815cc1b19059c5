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
from finetune_operator.api.spec import ProfileKind
from finetune_operator.control import Key
from finetune_operator.control.informer.cache import Cache
from finetune_operator.control.informer.event_handler import EventHandler
from finetune_operator.control.informer.profiles import ProfileCache
from finetune_operator.control.informer.record import FineTuneJobRecord
from finetune_operator.control.work_queue import WorkQueue
from finetune_operator.kube.api import CLUSTER_PROFILES, FINETUNEJOBS, JOBS, PODS, PROFILES, Kube, Resource
from finetune_operator.kube.errors import KubeError, NotFound
from finetune_operator.reconcile.observed import JobView, PodView

logger = logging.getLogger(__name__)

CHILDREN = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
"""Label selector of child Jobs and their pods."""

_FIRST_RETRY_SECONDS = 1.0


class Resync:
    """Lists one namespace, or all, periodically.

    Args:
        namespace: the namespace to list; None for all.
        profiles: receives the profiles that are listed; None to list none.
        cluster_profiles: whether ClusterFineTuneProfiles are listed too.
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
        profiles: ProfileCache | None = None,
        cluster_profiles: bool = False,
    ) -> None:
        self._profiles = profiles
        self._profiles_listed = profiles is None
        self._cluster_profiles = cluster_profiles
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

        Its profiles must be known too: without a ceiling that exists, a job could begin that is above it. A FineTuneJob
        that cannot be reconciled yet is enqueued when the children have been listed.
        """
        return self._profiles_listed and (self._children_listed or record.attempt == 0)

    async def run(self, listed: asyncio.Event, synced: asyncio.Event) -> None:
        """Runs until cancelled. Sets `listed` when FineTuneJobs are listed, `synced` when their children are too."""
        self._children_listed = False  # the cache is stale since this replica was last the leader
        self._profiles_listed = self._profiles is None
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
        await self._list_profiles()
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

    async def _list_profiles(self) -> None:
        """Lists the profiles. They come first: a job that is reconciled before its profiles would begin without them.

        In an installation whose CRDs are older there are none. Missing rights are an error, and nothing begins: whoever
        took a right away must not lift a ceiling.
        """
        if self._profiles is None:
            return
        await self._list_profiles_of(ProfileKind.NAMESPACED, PROFILES, self._event_handler.profile, self.namespace)
        if self._cluster_profiles:
            deliver = self._event_handler.cluster_profile
            await self._list_profiles_of(ProfileKind.CLUSTER, CLUSTER_PROFILES, deliver, None)
        self._profiles_listed = True

    async def _list_profiles_of(
        self,
        kind: ProfileKind,
        resource: Resource,
        deliver: Callable[[str | None, dict[str, Any]], None],
        namespace: str | None,
    ) -> None:
        assert self._profiles is not None
        try:
            seen, version = await self._list(resource, deliver, "", namespace)
        except NotFound:
            logger.info("the cluster has no %s: jobs have no profiles of that kind", resource.plural)
            seen, version = set(), ""
        for profile in self._profiles.prune(kind, seen, version, namespace):
            logger.info("removed %s from the cache: its deletion event was lost", profile)

    async def _list_finetunejobs(self) -> None:
        seen, version = await self._list(FINETUNEJOBS, self._event_handler.finetunejob, "", self.namespace)
        for key in self._cache.prune_finetunejobs(seen, version, self.namespace):
            logger.info("removed from the cache: its deletion event was lost", extra={"job": "/".join(key)})

    async def _list_children(
        self,
        resource: Resource,
        kind: type[JobView] | type[PodView],
        deliver: Callable[[str | None, dict[str, Any]], None],
    ) -> None:
        seen, version = await self._list(resource, deliver, CHILDREN, self.namespace)
        self._cache.prune_children(kind, seen, version, self.namespace)

    async def _list(
        self,
        resource: Resource,
        deliver: Callable[[str | None, dict[str, Any]], None],
        selector: str,
        namespace: str | None,
    ) -> tuple[set[str], str]:
        seen: set[str] = set()
        version = ""
        async for page in self._kube.pages(resource, namespace, label_selector=selector):
            version = page.resource_version
            for raw in page.items:
                seen.add(raw["metadata"]["uid"])
                deliver(None, raw)
        return seen, version
