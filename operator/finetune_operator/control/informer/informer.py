"""What keeps the cache true: for each served namespace, or for the whole cluster, a list and then a watch.

Each namespace has an informer of its own. One that is deleted, or for which a right is missing, fails and heals alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

from finetune_operator.control.informer.record import FineTuneJobRecord
from finetune_operator.control.informer.resync import Resync


class Informer:
    """Lists and watches one namespace, or all.

    Args:
        resync: its lists.
        watch: delivers its events until it is cancelled.
    """

    def __init__(self, resync: Resync, watch: Callable[[], Awaitable[None]]) -> None:
        self.resync = resync
        self._watch = watch
        self.is_watching = False
        """Whether a watch feeds the cache now."""

    async def run(self, listed: asyncio.Event) -> None:
        """Runs until cancelled; sets `listed` when this informer's FineTuneJobs are known."""
        synced = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.resync.run(listed, synced))
                await synced.wait()  # kopf would list the children at the same time
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
        """Whether enough is known to reconcile a FineTuneJob."""
        informer = self._of(record.namespace)
        return informer is not None and informer.resync.has_synced(record)

    def is_watching(self, namespace: str) -> bool:
        """Whether a watch feeds the cache with what happens in a namespace."""
        informer = self._of(namespace)
        return informer is not None and informer.is_watching

    def last_success(self) -> float | None:
        """When a list of everything last succeeded in any namespace; None if none did."""
        times = (informer.resync.last_success for informer in self)
        return max((time for time in times if time is not None), default=None)

    def failing(self) -> dict[str, str]:
        """The namespaces that cannot be listed now, and why; `*` stands for the whole cluster."""
        errors = ((informer.resync.namespace or "*", informer.resync.error) for informer in self)
        return {namespace: error for namespace, error in errors if error is not None}

    def _of(self, namespace: str) -> Informer | None:
        return self._by_namespace.get(namespace) or self._by_namespace.get(None)
