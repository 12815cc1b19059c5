"""Live reads of a FineTuneJob and its children, before an action that cannot be undone.

The cache may be stale, and a stale cache could start a second training. So a plan that applies, deletes or ends
something is made again from a live read.

A list is always right, and costs up to 100 ms: the API server answers it from its watch cache and first waits until
that cache has caught up with etcd. Two plans need less. For the first child of a FineTuneJob a GET of the child's
deterministic name is proof enough: no attempt was ever recorded, and this child does not exist. The user would wait for
that list. For a success a GET of the Job and of its first pod reads all that the plan depends on.
"""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.reasons import ConditionType, Phase
from finetune_operator.control.informer.cache import Cache, is_older, own_children
from finetune_operator.control.informer.record import FineTuneJobRecord, finetunejob_record
from finetune_operator.control.workload_reader import WorkloadReader
from finetune_operator.kube.api import EVENTS, FINETUNEJOBS, JOBS, PODS, Kube, Resource
from finetune_operator.kube.errors import KubeError, NotFound, Unavailable
from finetune_operator.reconcile import deadlines
from finetune_operator.reconcile.child_state import asks_queue, lacks_pods, waits_unexplained
from finetune_operator.reconcile.observed import (
    JobView,
    Observed,
    PodView,
    event_time,
    job_view,
    last_event,
    pod_view,
    refusal_in,
)
from finetune_operator.reconcile.plan import Plan

V = TypeVar("V", JobView, PodView)

MOST_EVENTS = 500
"""How many events are read, or a page more."""


class LiveReader:
    """Reads from the API server and updates the cache."""

    def __init__(self, kube: Kube, cache: Cache, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._cache = cache
        self._workloads = WorkloadReader(kube, clock)

    async def finetunejob(self, record: FineTuneJobRecord) -> FineTuneJobRecord | None:
        """The current FineTuneJob; None if it was deleted, even if another one has its name now."""
        try:
            raw = await self._kube.get(FINETUNEJOBS, record.namespace, record.name)
        except NotFound:
            self._cache.remove_finetunejob(record.key, record.uid)
            return None
        live = finetunejob_record(raw)
        self._cache.put_finetunejob(live)
        return live if live.uid == record.uid else None

    async def children(self, record: FineTuneJobRecord, plan: Plan | None = None) -> Observed:
        """The current children.

        Args:
            record: the FineTuneJob, read live.
            plan: the plan from the cache, if there is one.
        """
        if plan is not None and record.attempt == 0 and not plan.delete and not self._cache.has_children(record.owner):
            job_names = [manifest["metadata"]["name"] for manifest in plan.apply if manifest["kind"] == "Job"]
            if job_names and await self._none_exists(record.namespace, job_names):
                return Observed()
        if plan is not None and plan.status.is_true(ConditionType.SUCCEEDED) and not plan.delete:
            return await self._proof(record, plan)
        selector = f"{names.FINETUNEJOB_UID_LABEL}={record.uid}"
        # One after the other: pods that are read after their Job are never older than its status.
        jobs = await self._list(JOBS, JobView, record, selector)
        pods = await self._list(PODS, PodView, record, selector)
        found = own_children(record.owner, jobs, pods)
        if (stripped := await self._stripped(record, found)) is None:
            return found
        return own_children(record.owner, [*found.jobs, stripped], pods)

    async def _stripped(self, record: FineTuneJobRecord, found: Observed) -> JobView | None:
        """The current child if somebody has taken its labels or its owner away; None if it is found or deleted.

        It may train, so the next attempt must not begin. It counts with the labels and the owner that it was made with.
        """
        status = record.raw_status()
        name, uid = status.get("jobName", ""), status.get("jobUid")
        roles = [role for role in names.CONTAINERS if names.child_name(record.name, role, record.attempt) == name]
        if uid is None or not roles or found.job(uid) is not None:
            return None
        try:
            raw = await self._kube.get(JOBS, record.namespace, name)
        except NotFound:
            return None
        metadata = {
            **raw["metadata"],
            "labels": {names.ROLE_LABEL: roles[0], names.ATTEMPT_LABEL: str(record.attempt)},
            "ownerReferences": [{"controller": True, "uid": record.uid}],
        }
        return job_view({**raw, "metadata": metadata}) if metadata["uid"] == uid else None

    async def explained(self, observed: Observed, finetunejob: FineTuneJob, now: datetime) -> Observed:
        """The children, with the words that say why pods do not run: of a queue, and of events where no status does."""
        spec, queued = finetunejob.spec, finetunejob.status.phase is Phase.QUEUED
        no_pod_after = deadlines.no_pod_after(spec)
        start_deadline = timedelta(seconds=spec.start_deadline_seconds)
        jobs = []
        for job in observed.jobs:
            pods_of_job = observed.pods_of(job)
            asked = await self._workloads.explained(job) if asks_queue(job, pods_of_job, queued=queued) else job
            lacks = lacks_pods(job, pods_of_job, now, no_pod_after)
            jobs.append(replace(asked, refusal=await self._refusal(job)) if lacks else asked)
        pods = [
            replace(pod, last_event=last_event(await self._events(pod.namespace, f"regarding.uid={pod.uid}")))
            if waits_unexplained(pod, now, start_deadline)
            else pod
            for pod in observed.pods
        ]
        return Observed(jobs=tuple(jobs), pods=tuple(pods))

    async def _refusal(self, job: JobView) -> str:
        """Why Kubernetes does not create the Job's pods, by its newest event; empty if no event says it."""
        events = await self._events(job.namespace, f"regarding.uid={job.uid},reason=FailedCreate")
        newest = max(events, key=event_time, default=None)
        return refusal_in(newest) if newest is not None else ""

    async def _events(self, namespace: str, selector: str) -> list[dict[str, Any]]:
        """Some events. They are for people: an API server that does not answer costs the words and nothing else.

        Whoever may edit a namespace may create events about anything, so not all are read.
        """
        events: list[dict[str, Any]] = []
        try:
            async with aclosing(self._kube.pages(EVENTS, namespace, field_selector=selector)) as pages:
                async for page in pages:
                    events.extend(page.items)
                    if len(events) >= MOST_EVENTS:
                        break
        except KubeError:
            return []
        return events

    async def _none_exists(self, namespace: str, job_names: list[str]) -> bool:
        for name in job_names:
            try:
                await self._kube.get(JOBS, namespace, name)
            except NotFound:
                continue
            return False
        return True

    async def _proof(self, record: FineTuneJobRecord, plan: Plan) -> Observed:
        """The cached children, with a live read of the Job that succeeded and of its first pod."""
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
        """The child, or an empty list if it does not exist."""
        try:
            raw = await self._kube.get(resource, record.namespace, name)
        except NotFound:
            return []
        view = job_view(raw) if kind is JobView else pod_view(raw)
        return [view] if isinstance(view, kind) else []

    async def _list(self, resource: Resource, kind: type[V], record: FineTuneJobRecord, selector: str) -> list[V]:
        self._cache.keep_children(record.owner)
        known = self._cache.newest_version(kind, record.owner)
        views: list[V] = []
        version = ""
        async for page in self._kube.pages(resource, record.namespace, label_selector=selector):
            version = page.resource_version
            for raw in page.items:
                view = job_view(raw) if kind is JobView else pod_view(raw)
                if isinstance(view, kind):
                    self._cache.put_child(record.owner, raw["metadata"]["resourceVersion"], view)
                    views.append(view)
        if is_older(version, known):
            # A child that is missing there would count as deleted, and a second one would start.
            raise Unavailable(f"the API server's list of {resource.plural} is older than what is known already")
        seen = {view.uid for view in views}
        self._cache.prune_children(kind, seen, version, record.namespace, owner=record.owner)
        return views
