"""The reconciler: a worker takes a key, asks the policy for a plan and carries it out.

A decision is made from the cache and confirmed by a live read before it acts. A plan that changes nothing costs no
request. A plan that creates, deletes or ends something is made again from a live read, so a stale cache never starts a
second training. A success is confirmed too, because it is final. Status patches use optimistic concurrency: they carry
the resourceVersion that the decision was made on.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJob, FineTuneJobRef, SpecError
from finetune_operator.api.reasons import ConditionType
from finetune_operator.api.status import FineTuneJobStatus
from finetune_operator.control import Key, error_status
from finetune_operator.control.apply_child import apply_job, apply_service
from finetune_operator.control.informer.cache import Cache
from finetune_operator.control.informer.profiles import ProfileCache
from finetune_operator.control.informer.record import FineTuneJobRecord, finetunejob_record
from finetune_operator.control.live_reader import LiveReader
from finetune_operator.control.status_patch import status_patch
from finetune_operator.control.taken_name import free_name
from finetune_operator.control.work_queue import QueueClosed, WorkQueue
from finetune_operator.kube.api import FINETUNEJOBS, JOBS, Kube
from finetune_operator.kube.errors import Conflict, Forbidden, Invalid, KubeError, NotFound
from finetune_operator.kube.events import EventRecorder
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_operator.reconcile.invalid_spec import reconcile_invalid
from finetune_operator.reconcile.observed import Observed, job_view
from finetune_operator.reconcile.plan import Deletion, Plan
from finetune_operator.reconcile.plan_builder import RunPlanBuilder

logger = logging.getLogger(__name__)

Policy = Callable[[FineTuneJob, Observed, ReconcileConfig, datetime], Plan]
"""`reconcile.reconcile`, or a simpler function in a test."""


RECONCILE_ERRORS = ("Conflict", "ApiError", "ChildRefused", "Unexpected")
"""The kinds of errors that end a reconcile."""


class ControllerObserver(Protocol):
    """Is told what the controller has done, for metrics."""

    def reconciled(self, seconds: float, error: str | None) -> None:
        """A reconcile has ended, with one of `RECONCILE_ERRORS` if it failed."""

    def status_written(self, record: FineTuneJobRecord, known: FineTuneJobStatus, written: FineTuneJobStatus) -> None:
        """The status was changed from `known` to `written`. No other write can have made that change too."""


_WRITES_AFTER_DELETIONS = 5
"""How often a status that was written in the meantime is written over before the plan is made anew."""
_APPLY = {"Job": apply_job, "Service": apply_service}


class _NothingToReconcile(Exception):  # noqa: N818 (an outcome)
    """The FineTuneJob was deleted or has finished since it was cached."""


class _ChildRefused(Exception):  # noqa: N818 (an outcome)
    """The API server refused a child. The status has the refusal already."""

    def __init__(self, child: str, error: KubeError) -> None:
        super().__init__(f"{child}: {error.message}")
        self.child = child
        self.error = error


class Controller:
    """Reconciles the FineTuneJobs whose keys are in the work queue.

    Args:
        policy: makes the plan for a FineTuneJob and its observed children.
        has_synced: whether the cache knows enough to reconcile a FineTuneJob. One that has not synced is skipped.
        now: the current time, with a time zone.
        observer: is told what was done.
        clock: seconds, monotonic, for the durations that the observer is told.
        profiles: those that count when a run begins; by default there are none.
    """

    def __init__(
        self,
        *,
        kube: Kube,
        cache: Cache,
        queue: WorkQueue[Key],
        policy: Policy,
        config: ReconcileConfig,
        events: EventRecorder,
        now: Callable[[], datetime],
        has_synced: Callable[[FineTuneJobRecord], bool] = lambda _: True,
        observer: ControllerObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
        profiles: ProfileCache | None = None,
    ) -> None:
        self._profiles = profiles if profiles is not None else ProfileCache()
        self._observer = observer
        self._clock = clock
        self._kube = kube
        self._cache = cache
        self._queue = queue
        self._policy = policy
        self._has_synced = has_synced
        self._config = config
        self._events = events
        self._now = now
        self._live = LiveReader(kube, cache, clock)

    async def work(self) -> None:
        """Handles keys until the queue is closed. Several workers run concurrently."""
        while True:
            try:
                key = await self._queue.get()
            except QueueClosed:
                return
            await self._handle(key)

    async def _handle(self, key: Key) -> None:
        context = {"job": "/".join(key)}
        began = self._clock()
        error_kind = None
        try:
            requeue_after = await self.reconcile(key)
        except asyncio.CancelledError:
            self._queue.retry(key)
            raise
        except Conflict as error:
            error_kind = "Conflict"
            delay = self._queue.retry(key)
            logger.info("conflict: %s; requeued in %.0f s", error.message, delay, extra=context)
        except KubeError as error:
            error_kind = "ApiError"
            delay = self._queue.retry(key, at_least=error.retry_after)
            logger.log(error.level, "reconcile failed: %s; requeued in %.0f s", error.message, delay, extra=context)
        except _ChildRefused as refusal:
            error_kind = "ChildRefused"
            delay = self._queue.retry(key)
            logger.warning("child refused: %s; requeued in %.0f s", refusal, delay, extra=context)
        except Exception:  # an unexpected error with one job must not stop the others
            error_kind = "Unexpected"
            delay = self._queue.retry(key)
            logger.exception("unexpected error; requeued in %.0f s", delay, extra=context)
        else:
            self._queue.done(key, requeue_after)
        if self._observer is not None:
            self._observer.reconciled(self._clock() - began, error_kind)

    async def reconcile(self, key: Key) -> float | None:
        """Reconciles one FineTuneJob once.

        Returns:
            Seconds after which the key must be requeued, or None when only an event can change the plan.

        Raises:
            KubeError: a request failed; the caller requeues with back-off.
        """
        record = self._cache.finetunejob(key)
        if record is None or record.ignored or (record.finished and not self._needs_cleanup(record)):
            return None
        if not self._has_synced(record):
            return None
        try:
            record, finetunejob, plan = await self._decide(record)
            await self._carry_out(record, finetunejob.status, plan)
        except _NothingToReconcile:
            return None
        except SpecError:
            return await self._reconcile_invalid(record)
        return plan.requeue_after

    def _needs_cleanup(self, record: FineTuneJobRecord) -> bool:
        return not record.keeps_children and self._cache.has_children(record.owner)

    async def _decide(self, record: FineTuneJobRecord) -> tuple[FineTuneJobRecord, FineTuneJob, Plan]:
        """The plan from the cache, or from a live read if the plan would act."""
        if not record.has_spec:
            record = await self._read(record)
        finetunejob, revision = record.finetunejob(self._profiles.of), self._profiles.revision
        observed = self._cache.observed(record.owner)
        plan = None
        if observed is not None:
            plan = await self._plan(finetunejob, observed)
            if not _needs_live_read(finetunejob, plan):
                return record, finetunejob, plan
        live = await self._read(record)
        children = await self._live.children(live, plan)
        if plan is not None and (live, children, self._profiles.revision) == (record, observed, revision):
            return live, finetunejob, plan  # the cache was current: the same arguments give the same plan
        finetunejob = live.finetunejob(self._profiles.of)
        return live, finetunejob, await self._plan(finetunejob, children)

    async def _read(self, record: FineTuneJobRecord) -> FineTuneJobRecord:
        live = await self._live.finetunejob(record)
        if live is None or live.settled:
            raise _NothingToReconcile
        return live

    async def _plan(self, finetunejob: FineTuneJob, observed: Observed) -> Plan:
        now = self._now()
        explained = await self._live.explained(observed, finetunejob, now)
        return self._policy(finetunejob, explained, self._config, now)

    async def _reconcile_invalid(self, record: FineTuneJobRecord) -> float | None:
        """Ends or holds a FineTuneJob whose spec is invalid, after a live read: it may have been corrected since.

        Returns:
            See `reconcile`.
        """
        live = await self._live.finetunejob(record)
        if live is None or live.settled:
            return None
        try:
            live.finetunejob(self._profiles.of)
        except SpecError as error:
            status = FineTuneJobStatus.model_validate(live.raw_status())
            plan = reconcile_invalid(
                error,
                RunPlanBuilder(
                    generation=live.generation,
                    run_token=live.run_token,
                    ttl_seconds=live.ttl_seconds,
                    observed=await self._live.children(live),
                    now=self._now(),
                    status=status,
                    profile=status.profile,
                ),
            )
            await self._carry_out(live, status, plan)
            return plan.requeue_after
        self._queue.add(live.key)
        return None

    async def _carry_out(self, record: FineTuneJobRecord, status: FineTuneJobStatus, plan: Plan) -> None:
        """Carries out a plan that was made for a FineTuneJob with that status."""
        for manifest in plan.apply:
            name = manifest["metadata"]["name"]
            try:
                raw = await _APPLY[manifest["kind"]](self._kube, manifest)
            except (Forbidden, Invalid) as error:
                refusal: KubeError = error
                if manifest["kind"] == "Job" and isinstance(error, Invalid):
                    refusal = await free_name(self._kube, record, name) or error
                child = f"{manifest['kind']} {name}"
                refused = error_status.child_refused(plan.status, record.generation, child, refusal, self._now())
                if await self._write_status(record, status, refused):
                    await self._events.post(_ref(record), [error_status.refusal_event(child, refusal)])
                raise _ChildRefused(name, refusal) from None
            if manifest["kind"] == "Job":
                plan = plan.with_job_uid(name, raw["metadata"]["uid"])
                self._cache_child(record, raw)
        for deletion in plan.delete:
            await self._delete(record.namespace, deletion)
        write = self._write_status_after_deletions if plan.delete else self._write_status
        if await write(record, status, plan.status):
            _log(record, plan)
            await self._events.post(_ref(record), plan.events)

    async def _delete(self, namespace: str, deletion: Deletion) -> None:
        """Deletes a child.

        Raises:
            KubeError: the child is still there. Its attempt must not be recorded as ended, or two could train.
        """
        try:
            await self._kube.delete(JOBS, namespace, deletion.name, uid=deletion.uid)
        except NotFound:
            return
        except Conflict:
            # A Job with another UID has the name, or the server could not delete this one now.
            try:
                child = job_view(await self._kube.get(JOBS, namespace, deletion.name))
            except NotFound:
                return
            if child is not None and child.uid == deletion.uid and not child.deleting:
                raise

    def _cache_child(self, record: FineTuneJobRecord, raw: Mapping[str, Any]) -> None:
        """Puts the applied child into the cache, so that its watch event changes nothing and enqueues nothing."""
        view = job_view(raw)
        if view is None:
            return
        self._cache.put_child(record.owner, raw["metadata"]["resourceVersion"], view)
        if view.complete or view.failed or view.deleting:
            self._queue.add(record.key)  # the Job existed already and has moved on since the plan was made

    async def _write_status_after_deletions(
        self, record: FineTuneJobRecord, known: FineTuneJobStatus, desired: FineTuneJobStatus
    ) -> bool:
        """Patches the status. A progress report or a label that came meanwhile is no reason to plan anew.

        A new plan would not know any more how the deleted children have ended.
        """
        for _ in range(_WRITES_AFTER_DELETIONS):
            try:
                return await self._write_status(record, known, desired)
            except Conflict:
                live = await self._live.finetunejob(record)
                if live is None:
                    raise _NothingToReconcile from None
                if live.differs_from(record):
                    raise
                record = live
        return await self._write_status(record, known, desired)

    async def _write_status(
        self, record: FineTuneJobRecord, known: FineTuneJobStatus, desired: FineTuneJobStatus
    ) -> bool:
        """Patches the status if it differs from `known`, the record's. Returns whether it wrote."""
        patch = status_patch(record.resource_version, known, desired)
        if patch is None:
            return False
        try:
            raw = await self._kube.merge(
                FINETUNEJOBS,
                record.namespace,
                record.name,
                patch,
                field_manager=names.FIELD_MANAGER,
                subresource="status",
            )
        except NotFound:
            self._cache.remove_finetunejob(record.key, record.uid)
            raise _NothingToReconcile from None
        if self._observer is not None:
            self._observer.status_written(record, known, desired)
        written = finetunejob_record(raw)
        self._cache.put_finetunejob(written)
        due = desired.is_true(ConditionType.FINISHED) and not written.finished
        if written.generation != record.generation or due:
            # The spec has changed, or asks for another run. The watch event will not differ from the cache, so it
            # will not enqueue the key.
            self._queue.add(record.key)
        return True


def _ref(record: FineTuneJobRecord) -> FineTuneJobRef:
    return FineTuneJobRef(namespace=record.namespace, name=record.name, uid=record.uid)


def _log(record: FineTuneJobRecord, plan: Plan) -> None:
    """Logs each event of the plan: starts and ends of attempts, refusals, retries, the end of the run."""
    for event in plan.events:
        context = {"job": "/".join(record.key), "phase": str(plan.status.phase), "reason": event.reason}
        logger.info("%s", event.message, extra=context)  # a job's failure is no warning about the operator


def _needs_live_read(finetunejob: FineTuneJob, plan: Plan) -> bool:
    """Whether the plan must be confirmed by a live read: it applies, deletes, or ends an attempt or the run.

    Jobs and pods come from two watches, so the cache may see the end of a Job before the end of its pod.
    """
    ends = plan.status.is_true(ConditionType.FINISHED) and not finetunejob.status.is_true(ConditionType.FINISHED)
    ends_attempt = _ended_attempts(plan.status) > _ended_attempts(finetunejob.status)
    return bool(plan.apply or plan.delete or ends or ends_attempt)


def _ended_attempts(status: FineTuneJobStatus) -> int:
    """Number of the newest attempt that has ended; 0 if none has."""
    return max((attempt.number for attempt in status.attempts if attempt.end_time is not None), default=0)
