"""The informer: lists, then watches, one namespace or the whole cluster, and so keeps the cache up to date.

Each served namespace has its own informer. If a namespace is deleted or a right is missing there, the others go on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

from finetune_operator.control.informer.record import FineTuneJobRecord
from finetune_operator.control.informer.resync import Resync


class Informer:
    """Lists and watches one namespace, or all.

    Args:
        resync: lists the namespace.
        watch: delivers events until it is cancelled.
    """

    def __init__(self, resync: Resync, watch: Callable[[], Awaitable[None]]) -> None:
        self.resync = resync
        self._watch = watch
        self.is_watching = False
        """Whether a watch feeds the cache now."""

    async def run(self, listed: asyncio.Event) -> None:
        """Runs until cancelled. Sets `listed` when this informer's FineTuneJobs are in the cache."""
        synced = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.resync.run(listed, synced))
                await synced.wait()  # otherwise kopf would list the children at the same time
                self.is_watching = True
                await self._watch()
        finally:
            self.is_watching = False


class Informers:
    """All informers of a replica: one for the cluster, or one for each namespace that is served."""

    def __init__(self, informers: Sequence[Informer]) -> None:
        self._by_namespace = {informer.resync.namespace: informer for informer in informers}

    def __iter__(self) -> Iterator[Informer]:
        """Each informer."""
        return iter(self._by_namespace.values())

    def has_synced(self, record: FineTuneJobRecord) -> bool:
        """Whether the cache knows enough to reconcile a FineTuneJob."""
        informer = self._of(record.namespace)
        return informer is not None and informer.resync.has_synced(record)

    def has_listed(self, namespace: str) -> bool:
        """Whether everything in a namespace has been listed since this replica became the leader."""
        informer = self._of(namespace)
        return informer is not None and informer.resync.children_listed

    def is_watching(self, namespace: str) -> bool:
        """Whether a watch feeds the cache for a namespace."""
        informer = self._of(namespace)
        return informer is not None and informer.is_watching

    def last_success(self) -> float | None:
        """When a resync last succeeded in any namespace; None if none has."""
        times = (informer.resync.last_success for informer in self)
        return max((time for time in times if time is not None), default=None)

    def failing(self) -> dict[str, str]:
        """The namespaces that cannot be listed now, each with its error; `*` stands for the whole cluster."""
        errors = ((informer.resync.namespace or "*", informer.resync.error) for informer in self)
        return {namespace: error for namespace, error in errors if error is not None}

    def _of(self, namespace: str) -> Informer | None:
        return self._by_namespace.get(namespace) or self._by_namespace.get(None)
