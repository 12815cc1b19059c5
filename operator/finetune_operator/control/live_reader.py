"""Reading a job and its children live, before anything is done that can not be undone.

The cache may be late: on its word alone a second training could be started. So a plan that applies, deletes or ends
something is made again from what the API server says now.

Lists are the sure way and cost up to 100 ms: the server answers them from its watch cache and first waits for it to
catch up with the store. For the first child of a job, where that time would be the user's, a GET of the child by its
deterministic name proves the same: no attempt was ever recorded, and this one does not exist. For a success a GET of
the Job and of the pod that reports it proves all that the plan stands on.
"""

from typing import TypeVar

from finetune_operator.api import names
from finetune_operator.api.reasons import ConditionType
from finetune_operator.control.informer.cache import Cache, own_children
from finetune_operator.control.informer.record import FineTuneJobRecord, finetunejob_record
from finetune_operator.kube.api import FINETUNEJOBS, JOBS, PODS, Kube, Resource
from finetune_operator.kube.errors import NotFound
from finetune_operator.reconcile.observed import JobView, Observed, PodView, job_view, pod_view
from finetune_operator.reconcile.plan import Plan

V = TypeVar("V", JobView, PodView)


class LiveReader:
    """Reads from the API server and lets the cache know."""

    def __init__(self, kube: Kube, cache: Cache) -> None:
        self._kube = kube
        self._cache = cache

    async def finetunejob(self, record: FineTuneJobRecord) -> FineTuneJobRecord | None:
        """The FineTuneJob now, or None when it is gone, also when a namesake took its place."""
        try:
            raw = await self._kube.get(FINETUNEJOBS, record.namespace, record.name)
        except NotFound:
            self._cache.remove_finetunejob(record.key, record.uid)
            return None
        live = finetunejob_record(raw)
        self._cache.put_finetunejob(live)
        return live if live.uid == record.uid else None

    async def children(self, record: FineTuneJobRecord, plan: Plan | None = None) -> Observed:
        """The children now.

        Args:
            record: the job, itself read live.
            plan: what is about to be done, if there is a plan already.
        """
        if plan is not None and record.attempt == 0 and not plan.delete and not self._cache.has_children(record.owner):
            job_names = [manifest["metadata"]["name"] for manifest in plan.apply if manifest["kind"] == "Job"]
            if job_names and await self._none_exists(record.namespace, job_names):
                return Observed()
        if plan is not None and plan.status.is_true(ConditionType.SUCCEEDED) and not plan.delete:
            return await self._proof(record, plan)
        selector = f"{names.JOB_UID_LABEL}={record.uid}"
        # One after the other: pods that are read later than their Job are never older than what it says of them.
        jobs = await self._list(JOBS, JobView, record, selector)
        pods = await self._list(PODS, PodView, record, selector)
        return own_children(record.owner, jobs, pods)

    async def _none_exists(self, namespace: str, job_names: list[str]) -> bool:
        for name in job_names:
            try:
                await self._kube.get(JOBS, namespace, name)
            except NotFound:
                continue
            return False
        return True

    async def _proof(self, record: FineTuneJobRecord, plan: Plan) -> Observed:
        """What the cache has, with the Job that succeeded and its reporting pods as they are now."""
        cached = self._cache.observed(record.owner) or Observed()
        child = cached.job(plan.status.job_uid)
        jobs = [job for job in cached.jobs if job is not child]
        pods = [pod for pod in cached.pods if child is None or pod.job_uid != child.uid]
        if child is not None:
            jobs += await self._get(JOBS, JobView, record, child.name)
            for pod in cached.pods_of(child):
                pods += await self._get(PODS, PodView, record, pod.name) if pod.is_first_pod else [pod]
        return own_children(record.owner, jobs, pods)

    async def _get(self, resource: Resource, kind: type[V], record: FineTuneJobRecord, name: str) -> list[V]:
        """One child, or none when it is gone."""
        try:
            raw = await self._kube.get(resource, record.namespace, name)
        except NotFound:
            return []
        view = job_view(raw) if kind is JobView else pod_view(raw)
        return [view] if isinstance(view, kind) else []

    async def _list(self, resource: Resource, kind: type[V], record: FineTuneJobRecord, selector: str) -> list[V]:
        self._cache.keep_children(record.owner)
        views: list[V] = []
        version = ""
        async for page in self._kube.pages(resource, record.namespace, label_selector=selector):
            version = page.resource_version
            for raw in page.items:
                view = job_view(raw) if kind is JobView else pod_view(raw)
                if isinstance(view, kind):
                    self._cache.put_child(record.owner, raw["metadata"]["resourceVersion"], view)
                    views.append(view)
        seen = {view.uid for view in views}
        self._cache.prune_children(kind, seen, version, record.namespace, owner=record.owner)
        return views
