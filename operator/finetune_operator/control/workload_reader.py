"""Reads what Kueue says of child Jobs: their Workloads, and their places in the queue.

The objects are another controller's and may be many, so nothing watches them. All Workloads of a namespace are listed
at once, and the list is used for a few seconds: a thousand queued jobs cost one list, not a thousand requests. If Kueue
is not installed, does not answer or may not be read, the status says less and nothing else changes.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from finetune_operator.api.kueue import JOB_UID_LABEL
from finetune_operator.kube.api import Kube, Resource
from finetune_operator.kube.errors import KubeError, NotFound
from finetune_operator.reconcile.observed import JobView
from finetune_operator.reconcile.workload import job_uid, part_read, positions, workload_view

MAX_AGE = 10.0
"""Seconds for which a list is used."""

MOST_WORKLOADS = 20_000
"""How many Workloads of a namespace are read, or a page more. Whoever may edit a namespace may create any number."""

_VERSIONS = ("v1beta2", "v1beta1")
"""Versions of Kueue's API, newest first. What is read is the same in both."""

WORKLOADS = tuple(Resource(group="kueue.x-k8s.io", version=version, plural="workloads") for version in _VERSIONS)
LOCAL_QUEUES = tuple(
    Resource(group="visibility.kueue.x-k8s.io", version=version, plural="localqueues") for version in _VERSIONS
)


@dataclass(slots=True)
class _Namespace:
    """What was read of a namespace.

    Attributes:
        workloads: by the UID of their Job; None if they could not be read.
        positions: by LocalQueue, the place of each Workload by its name; read when it is first needed.
    """

    read_at: float
    workloads: dict[str, dict[str, Any]] | None
    positions: dict[str, dict[str, int]] = field(default_factory=dict)


class WorkloadReader:
    """Reads the Workloads of child Jobs.

    Args:
        kube: the API server.
        clock: seconds, monotonic.
    """

    def __init__(self, kube: Kube, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._clock = clock
        self._namespaces: dict[str, _Namespace] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def explained(self, job: JobView) -> JobView:
        """The Job with what Kueue says of it. `unmanaged` is set where it is certain that Kueue has no Workload."""
        async with self._locks[job.namespace]:
            # A Job that is not suspended was admitted, unless Kueue does not know it. A list without that is older.
            current = job.suspended or _admitted(self._namespaces.get(job.namespace), job.uid)
            read = await self._read(job.namespace, MAX_AGE if current else 0)
            if read.workloads is None:
                return job
            raw = read.workloads.get(job.uid)
            if raw is None:
                return replace(job, unmanaged=True)
            queue = raw["spec"].get("queueName") or ""
            waits = queue and not raw["status"].get("admission")
            if waits and queue not in read.positions:
                read.positions[queue] = await self._positions(job.namespace, queue)
            return replace(job, workload=workload_view(raw, read.positions.get(queue, {}) if waits else {}))

    async def _read(self, namespace: str, max_age: float) -> _Namespace:
        now = self._clock()
        known = self._namespaces.get(namespace)
        if known is None or now - known.read_at > max_age:
            self._namespaces = {key: old for key, old in self._namespaces.items() if now - old.read_at <= MAX_AGE}
            known = self._namespaces[namespace] = _Namespace(now, await self._workloads(namespace))
        return known

    async def _workloads(self, namespace: str) -> dict[str, dict[str, Any]] | None:
        for resource in WORKLOADS:
            found: dict[str, dict[str, Any]] = {}
            try:
                async with aclosing(self._kube.pages(resource, namespace, label_selector=JOB_UID_LABEL)) as pages:
                    async for page in pages:
                        found.update((uid, part_read(raw)) for raw in page.items if (uid := job_uid(raw)))
                        if len(found) >= MOST_WORKLOADS:
                            break
            except NotFound:
                continue  # not this version, or no Kueue
            except KubeError:
                return None
            return found
        return {}

    async def _positions(self, namespace: str, queue: str) -> dict[str, int]:
        """Places by Kueue's visibility API, which an administrator may have turned off."""
        for resource in LOCAL_QUEUES:
            try:
                answer = await self._kube.get(resource, namespace, queue, subresource="pendingworkloads")
            except (NotFound, ValueError):
                continue
            except KubeError:
                return {}
            return positions(answer)
        return {}


def _admitted(known: _Namespace | None, uid: str) -> bool:
    raw = known.workloads.get(uid) if known is not None and known.workloads is not None else None
    return raw is not None and bool(raw["status"].get("admission"))
