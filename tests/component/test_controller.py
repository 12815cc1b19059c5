"""The controller on a real API server, with a policy of a few lines: one Job, and the end when it is done."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from component.plane import OUTPUT, Plane, a_finetunejob, end_pod, eventually_seen
from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJob, FineTuneJobRef, parse_job
from finetune_operator.api.reasons import Phase, Reason
from finetune_operator.api.status import Condition, ConditionStatus, FineTuneJobStatus, ProgressStatus
from finetune_operator.control import Key
from finetune_operator.control.controller import Controller
from finetune_operator.control.informer.cache import Cache
from finetune_operator.control.informer.event_handler import EventHandler
from finetune_operator.control.informer.resync import Resync
from finetune_operator.control.live_reader import LiveReader
from finetune_operator.control.work_queue import WorkQueue
from finetune_operator.kube.api import EVENTS, FINETUNEJOBS, JOBS, PODS, Kube, Page, Resource
from finetune_operator.kube.client import ClientKube
from finetune_operator.kube.errors import Conflict, NotFound, Unavailable
from finetune_operator.kube.events import EventRecorder
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_operator.reconcile.manifests import child_job
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.plan import Deletion, Event, EventType, Plan
from finetune_operator.reconcile.reconcile import reconcile
from finetune_trainer.contract.termination import Outcome, Termination

CONFIG = ReconcileConfig(preflight_image="operator:1", trainer_image="trainer:1")


def one_job(job: FineTuneJob, observed: Observed, config: ReconcileConfig, now: datetime) -> Plan:
    """Makes one Job; is finished when it is complete; a suspended FineTuneJob has its Job deleted."""
    status = job.status.model_copy(update={"observed_generation": job.generation})
    child = observed.job(job.status.job_uid)
    if job.spec.suspend:
        gone = () if child is None else (Deletion(name=child.name, uid=child.uid),)
        return Plan(delete=gone, status=status.model_copy(update={"phase": Phase.SUSPENDED}))
    if job.status.is_true("Finished"):
        return Plan(status=status)
    if child is None and status.job_uid is None:
        name = names.child_name(job.name, names.TRAIN_ROLE, 1)
        started = status.model_copy(update={"phase": Phase.STARTING, "attempt": 1, "job_name": name})
        event = Event(type=EventType.NORMAL, reason="AttemptStarted", message="attempt 1")
        return Plan(apply=(child_job(job, config, names.TRAIN_ROLE, 1),), status=started, events=(event,))
    if child is not None and child.complete:
        return Plan(status=finished(status, now))
    return Plan(status=status, requeue_after=600)


def finished(status: FineTuneJobStatus, now: datetime) -> FineTuneJobStatus:
    end = Condition(
        type="Finished", status=ConditionStatus.TRUE, reason="TrainingSucceeded", message="", last_transition_time=now
    )
    return status.model_copy(
        update={"phase": Phase.SUCCEEDED, "conditions": [end], "progress": ProgressStatus(percent=100)}
    )


@dataclass
class Operator:
    """Cache, queue and controller; a test says when what is seen."""

    kube: Kube
    namespace: str
    policy: Callable[[FineTuneJob, Observed, ReconcileConfig, datetime], Plan] = one_job
    cache: Cache = field(default_factory=Cache)
    just_started: bool = False
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __post_init__(self) -> None:
        clock = asyncio.get_running_loop().time
        self.queue: WorkQueue[Key] = WorkQueue(clock=clock, random=lambda: 0.0)
        self.event_handler = EventHandler(self.cache, self.queue)
        self.resync = Resync(
            kube=self.kube,
            cache=self.cache,
            queue=self.queue,
            event_handler=self.event_handler,
            namespace=self.namespace,
            period=300,
            clock=clock,
        )
        self.controller = Controller(
            kube=self.kube,
            cache=self.cache,
            queue=self.queue,
            policy=self.policy,
            config=CONFIG,
            events=EventRecorder(self.kube, instance="test", now=self.now),
            now=self.now,
            has_synced=self.resync.has_synced if self.just_started else lambda _: True,
        )

    async def reconcile(self, name: str = "job") -> float | None:
        return await self.controller.reconcile((self.namespace, name))

    async def status(self, name: str = "job") -> dict[str, Any]:
        raw = await self.kube.get(FINETUNEJOBS, self.namespace, name)
        found: dict[str, Any] = raw["status"]
        return found

    async def complete_child(self, admin: ClientKube) -> None:
        """Plays the kubelet; the Job controller does the rest."""
        await end_pod(admin, await training_pod(admin, self.namespace))

        async def complete() -> bool | None:
            raw = await admin.get(JOBS, self.namespace, names.child_name("job", names.TRAIN_ROLE, 1))
            return any(item["type"] == "Complete" for item in raw["status"].get("conditions", ()))

        await eventually_seen("the Job to be complete", complete)


async def training_pod(admin: ClientKube, namespace: str) -> dict[str, Any]:
    """The only pod, when the Job controller has made it."""

    async def pod() -> dict[str, Any] | None:
        pages = [page async for page in admin.pages(PODS, namespace)]
        return pages[0].items[0] if pages[0].items else None

    return await eventually_seen("the pod", pod)


@pytest.fixture
async def operator(kube: ClientKube, admin: ClientKube, namespace: str) -> Operator:
    """An operator that has seen one fresh FineTuneJob."""
    await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace))
    synced = Operator(kube, namespace)
    await synced.resync.once()
    return synced


async def test_a_life_is_one_apply_and_two_status_writes(
    operator: Operator, admin: ClientKube, plane: Plane, namespace: str
) -> None:
    mark = plane.mark()
    assert await operator.reconcile() is None
    assert (await operator.status())["phase"] == "Starting"
    assert await operator.reconcile() == 600
    await operator.resync.once()
    assert await operator.reconcile() == 600
    await operator.complete_child(admin)
    await operator.resync.once()
    await operator.reconcile()
    status = await operator.status()
    assert (status["phase"], status["progress"]) == ("Succeeded", {"percent": 100})
    await operator.resync.once()
    assert await operator.reconcile() is None
    assert plane.operator_writes(mark, namespace) == [
        "patch jobs job-train-1",
        "patch finetunejobs/status job",
        "patch finetunejobs/status job",
    ]
    events = [item for item in plane.items("events", namespace) if item["involvedObject"]["kind"] == names.KIND]
    assert [(item["reason"], item["message"]) for item in events] == [("AttemptStarted", "attempt 1")]


async def test_a_stale_cache_never_trains_twice(
    operator: Operator, kube: ClientKube, admin: ClientKube, plane: Plane, namespace: str
) -> None:
    late = Operator(kube, namespace)
    await late.resync.once()  # sees the job before anything was made
    await operator.reconcile()
    await operator.complete_child(admin)
    await operator.resync.once()
    await operator.reconcile()
    await admin.delete(
        JOBS, namespace, "job-train-1", uid=(await admin.get(JOBS, namespace, "job-train-1"))["metadata"]["uid"]
    )
    mark = plane.mark()
    await late.reconcile()
    assert plane.operator_writes(mark, namespace) == []
    with pytest.raises(NotFound):
        await kube.get(JOBS, namespace, "job-train-1")


async def test_a_child_that_was_made_before_a_crash_is_recorded_and_not_made_again(
    operator: Operator, kube: ClientKube, admin: ClientKube, namespace: str
) -> None:
    restarted = Operator(kube, namespace)
    await restarted.resync.once()  # before the child, so that its view of Jobs is late
    raw = await admin.get(FINETUNEJOBS, namespace, "job")
    made, _ = await kube.apply(
        JOBS, child_job(parse_job(raw), CONFIG, names.TRAIN_ROLE, 1)
    )  # and then the operator died
    await restarted.reconcile()
    assert (await restarted.status())["jobUid"] == made["metadata"]["uid"]
    pages = [page async for page in admin.pages(JOBS, namespace)]
    assert [job["metadata"]["uid"] for page in pages for job in page.items] == [made["metadata"]["uid"]]


async def test_an_unrecorded_child_of_another_template_is_replaced(
    operator: Operator, kube: ClientKube, admin: ClientKube, namespace: str
) -> None:
    raw = await admin.get(FINETUNEJOBS, namespace, "job")
    manifest = child_job(parse_job(raw), CONFIG, names.TRAIN_ROLE, 1)
    manifest["spec"]["template"]["spec"]["containers"][0]["image"] = "trainer:0"
    other, _ = await kube.apply(JOBS, manifest)
    operator.queue.add((namespace, "job"))

    async def replaced() -> str | None:
        if (key := operator.queue.get_nowait()) is not None:
            await operator.controller._handle(key)
        return (await operator.status()).get("jobUid")

    uid = await eventually_seen("a child of this template", replaced)
    assert uid != other["metadata"]["uid"]
    assert (await admin.get(JOBS, namespace, "job-train-1"))["metadata"]["uid"] == uid


async def test_an_orphan_with_a_childs_name_is_replaced_and_a_foreign_job_is_named(
    operator: Operator, admin: ClientKube, namespace: str
) -> None:
    foreign = child_job(parse_job(await admin.get(FINETUNEJOBS, namespace, "job")), CONFIG, names.TRAIN_ROLE, 1)
    del foreign["metadata"]["ownerReferences"]
    foreign["spec"]["template"]["spec"]["containers"][0]["image"] = "trainer:0"
    orphan = await admin.create(JOBS, namespace, foreign)
    with pytest.raises(Conflict, match="is deleted"):
        await operator.reconcile()
    await eventually_seen("the orphan to be gone", lambda: _gone(admin, namespace, orphan["metadata"]["uid"]))
    foreign["metadata"]["labels"] = {"app": "another"}
    other = await admin.create(JOBS, namespace, foreign)
    with pytest.raises(Exception, match="not this FineTuneJob's"):
        await operator.reconcile()
    ready = next(item for item in (await operator.status())["conditions"] if item["type"] == "Ready")
    assert ready["message"].startswith("Kubernetes refuses the Job job-train-1: there is a Job job-train-1 that is not")
    assert (await admin.get(JOBS, namespace, "job-train-1"))["metadata"]["uid"] == other["metadata"]["uid"]


async def _gone(admin: ClientKube, namespace: str, uid: str) -> bool:
    try:
        return bool((await admin.get(JOBS, namespace, "job-train-1"))["metadata"]["uid"] != uid)
    except NotFound:
        return True


class _OfThePast(ClientKube):
    """Lists answer from before anything was there, as those of an API server that has fallen behind."""

    async def pages(self, *_: Any, **__: Any) -> AsyncGenerator[Page, None]:
        yield Page(items=(), resource_version="1")


async def test_a_stale_list_is_not_taken_for_the_deletion_of_a_child(
    operator: Operator, kube: ClientKube, namespace: str
) -> None:
    await operator.reconcile()
    record = operator.cache.finetunejob((namespace, "job"))
    assert record is not None
    with pytest.raises(Unavailable, match="list of jobs is older"):
        await LiveReader(_OfThePast(kube._client), operator.cache, time.monotonic).children(record)


async def test_after_a_start_new_jobs_do_not_wait_for_the_children_of_others(
    operator: Operator, kube: ClientKube, admin: ClientKube, plane: Plane, namespace: str
) -> None:
    await operator.reconcile()
    await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace, "later"))
    restarted = Operator(kube, namespace, just_started=True)
    for name in ("job", "later"):
        restarted.event_handler.finetunejob(None, await admin.get(FINETUNEJOBS, namespace, name))
    mark = plane.mark()
    assert await restarted.reconcile() is None, "its child is not known, which is not the same as gone"
    assert plane.operator_writes(mark, namespace) == []
    await restarted.reconcile("later")
    assert (await restarted.status("later"))["phase"] == "Starting"
    while restarted.queue.get_nowait() is not None:
        pass
    restarted.queue.done((namespace, "job"))
    await restarted.resync.once()
    assert restarted.queue.get_nowait() == (namespace, "job"), "it comes back by itself"
    assert await restarted.reconcile() == 600


async def test_a_new_job_with_the_same_name_is_another_job(
    operator: Operator, admin: ClientKube, plane: Plane, namespace: str
) -> None:
    record = operator.cache.finetunejob((namespace, "job"))
    assert record is not None
    await admin.delete(FINETUNEJOBS, namespace, "job", uid=record.uid)
    mark = plane.mark()
    assert await operator.reconcile() is None
    assert operator.cache.finetunejob((namespace, "job")) is None
    await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace))
    await operator.reconcile()
    assert plane.operator_writes(mark, namespace) == []


class _Meanwhile(ClientKube):
    """While a Job is deleted, somebody else changes the FineTuneJob."""

    change: dict[str, Any]
    subresource: str | None = None

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        await super().delete(resource, namespace, name, uid=uid)
        manager = names.PROGRESS_FIELD_MANAGER
        how: dict[str, Any] = {"field_manager": manager, "subresource": self.subresource}
        await self.merge(FINETUNEJOBS, namespace, "job", self.change, **how)


async def test_what_is_said_of_a_deleted_child_survives_a_report(
    operator: Operator, kube: ClientKube, admin: ClientKube, namespace: str
) -> None:
    await operator.reconcile()
    await admin.merge(FINETUNEJOBS, namespace, "job", {"spec": {"suspend": True}}, field_manager="user")
    meanwhile = _Meanwhile(kube._client)
    late = Operator(meanwhile, namespace, cache=operator.cache)
    await late.resync.once()
    meanwhile.change, meanwhile.subresource = {"status": {"progress": {"step": 3}}}, "status"
    await late.reconcile()
    status = await operator.status()
    assert (status["phase"], status["progress"]) == ("Suspended", {"step": 3})


async def test_a_spec_that_changes_while_a_child_is_deleted_is_planned_anew(
    operator: Operator, kube: ClientKube, admin: ClientKube, namespace: str
) -> None:
    await operator.reconcile()
    await admin.merge(FINETUNEJOBS, namespace, "job", {"spec": {"suspend": True}}, field_manager="user")
    meanwhile = _Meanwhile(admin._client)
    late = Operator(meanwhile, namespace, cache=operator.cache)
    await late.resync.once()
    meanwhile.change = {"spec": {"suspend": False}}
    with pytest.raises(Conflict):
        await late.reconcile()


async def test_a_status_that_changed_meanwhile_is_not_overwritten(
    operator: Operator, admin: ClientKube, namespace: str
) -> None:
    await operator.reconcile()
    progress = {"status": {"progress": {"step": 3}}}
    manager = names.PROGRESS_FIELD_MANAGER
    await admin.merge(FINETUNEJOBS, namespace, "job", progress, field_manager=manager, subresource="status")
    late = Operator(operator.kube, namespace, policy=lambda job, *_: Plan(status=renamed(job)), cache=operator.cache)
    with pytest.raises(Conflict):
        await late.reconcile()
    await late.resync.once()
    await late.reconcile()
    status = await operator.status()
    assert (status["podName"], status["progress"]) == ("pod", {"step": 3})


async def test_a_success_is_confirmed_by_a_live_read(operator: Operator, admin: ClientKube, namespace: str) -> None:
    await operator.reconcile()
    await admin.merge(FINETUNEJOBS, namespace, "job", {"spec": {"runToken": "again"}}, field_manager="user")

    def first_run_succeeds(job: FineTuneJob, *_: object) -> Plan:
        return Plan(status=succeeded(job) if job.spec.run_token is None else job.status)

    late = Operator(operator.kube, namespace, policy=first_run_succeeds, cache=operator.cache)
    await late.reconcile()
    assert (await operator.status())["phase"] == "Starting"


async def test_a_success_that_only_the_cache_has_does_not_count(
    kube: ClientKube, admin: ClientKube, namespace: str
) -> None:
    """Whatever comes by the watch, the API server itself must say that the pod ended so."""
    await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace))
    operator = Operator(kube, namespace, policy=reconcile)
    await operator.resync.once()
    await operator.reconcile()

    async def made() -> dict[str, Any] | None:
        pods = [pod async for page in admin.pages(PODS, namespace) for pod in page.items]
        return pods[0] if pods else None

    pod = await eventually_seen("the pod", made)
    message = Termination(outcome=Outcome.SUCCEEDED, fingerprint="0" * 12, output=OUTPUT).to_json()
    state = {"terminated": {"exitCode": 0, "message": message, "startedAt": None, "finishedAt": None}}
    seen = {**pod, "status": {"phase": "Succeeded", "containerStatuses": [{"name": "trainer", "state": state}]}}
    operator.event_handler.job("MODIFIED", await admin.get(JOBS, namespace, "job-train-1"))
    operator.event_handler.pod("ADDED", seen)
    await operator.reconcile()
    assert "output" not in await operator.status()


def succeeded(job: FineTuneJob) -> FineTuneJobStatus:
    status = finished(job.status, datetime.now(UTC))
    proof = status.conditions[0].model_copy(update={"type": "Succeeded"})
    return status.model_copy(update={"conditions": [*status.conditions, proof]})


def renamed(job: FineTuneJob) -> FineTuneJobStatus:
    return job.status.model_copy(update={"pod_name": "pod"})


async def test_a_deletion_hits_only_the_child_that_was_seen(
    operator: Operator, admin: ClientKube, namespace: str
) -> None:
    await operator.reconcile()
    await admin.merge(FINETUNEJOBS, namespace, "job", {"spec": {"suspend": True}}, field_manager="user")
    await operator.resync.once()
    await operator.reconcile()
    with pytest.raises(NotFound):
        await admin.get(JOBS, namespace, "job-train-1")
    assert (await operator.status())["phase"] == "Suspended"


async def test_a_pod_that_a_quota_refuses_is_told_in_the_words_of_the_quota(
    kube: ClientKube, admin: ClientKube, plane: Plane, namespace: str
) -> None:
    plane.kubectl("create", "quota", "limits", "-n", namespace, "--hard=limits.cpu=4")
    plane.kubectl("wait", "quota/limits", "-n", namespace, "--for=jsonpath={.status.hard}", "--timeout=30s")
    await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace))
    later = timedelta()
    operator = Operator(kube, namespace, policy=reconcile, now=lambda: datetime.now(UTC) + later)
    await operator.resync.once()
    await operator.reconcile()

    async def event() -> bool:
        return any(item["reason"] == "FailedCreate" for item in plane.items("events", namespace))

    await eventually_seen("the event of the Job controller", event)
    later = timedelta(seconds=31)
    mark = plane.mark()
    for _ in range(2):
        await operator.reconcile()
    [condition] = [item for item in (await operator.status())["conditions"] if item["type"] == "Reconciling"]
    assert condition["reason"] == "PodNotCreated"
    assert condition["message"].endswith("failed quota: limits: must specify limits.cpu for: trainer")
    assert len(plane.operator_writes(mark, namespace)) == 1, "the same words are written once"


async def test_a_job_whose_spec_is_too_large_to_be_kept_runs_as_any_other(
    kube: ClientKube, admin: ClientKube, namespace: str
) -> None:
    long = {"samplePrompts": ["x" * 2000] * 4}
    await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace, evaluation=long))
    operator = Operator(kube, namespace, policy=reconcile)
    await operator.resync.once()
    await operator.reconcile()
    await operator.complete_child(admin)
    for _ in range(2):
        await operator.resync.once()
        await operator.reconcile()
    assert (await operator.status())["phase"] == "Succeeded"
    record = operator.cache.finetunejob((namespace, "job"))
    assert record is not None
    assert record.spec == b""


async def test_a_start_deadline_of_seconds_fails_the_job_in_the_words_of_the_quota(
    kube: ClientKube, admin: ClientKube, plane: Plane, namespace: str
) -> None:
    plane.kubectl("create", "quota", "limits", "-n", namespace, "--hard=limits.cpu=4")
    plane.kubectl("wait", "quota/limits", "-n", namespace, "--for=jsonpath={.status.hard}", "--timeout=30s")
    operator, wait = await _waits_for_seconds(kube, admin, namespace)

    async def event() -> bool:
        return any(item["reason"] == "FailedCreate" for item in plane.items("events", namespace))

    await eventually_seen("the event of the Job controller", event)
    await wait()
    failure = (await operator.status())["failure"]
    assert failure["reason"] == "StartDeadlineExceeded"
    assert "failed quota: limits: must specify limits.cpu for: trainer" in failure["message"]


async def test_a_start_deadline_fails_the_job_in_the_words_of_the_pods_last_warning(
    kube: ClientKube, admin: ClientKube, namespace: str
) -> None:
    operator, wait = await _waits_for_seconds(kube, admin, namespace)
    pod = await training_pod(admin, namespace)
    at = datetime.now(UTC)
    metadata = pod["metadata"]
    regarding = {"kind": "Pod", "namespace": namespace, "name": metadata["name"], "uid": metadata["uid"]}
    for type_, reason, seconds in (("Warning", "Old", -9), ("Warning", "FailedMount", 0), ("Normal", "Scheduled", 9)):
        event = {
            "metadata": {"name": reason.lower()},
            "regarding": regarding,
            "eventTime": (at + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": type_,
            "reason": reason,
            "note": "volume data",
            "action": "Mount",
            "reportingController": "kubelet",
            "reportingInstance": "node",
        }
        await admin.create(EVENTS, namespace, event)
    await wait()
    failure = (await operator.status())["failure"]
    assert failure["reason"] == "StartDeadlineExceeded"
    assert "within startDeadlineSeconds, 5 s; FailedMount: volume data" in failure["message"]


async def _waits_for_seconds(
    kube: ClientKube, admin: ClientKube, namespace: str
) -> tuple[Operator, Callable[[], Awaitable[None]]]:
    """An operator whose job may wait for five seconds, and what lets them pass."""
    await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace, startDeadlineSeconds=5))
    later = timedelta()
    operator = Operator(kube, namespace, policy=reconcile, now=lambda: datetime.now(UTC) + later)
    await operator.resync.once()
    await operator.reconcile()

    async def wait() -> None:
        nonlocal later
        later = timedelta(seconds=6)
        await operator.resync.once()
        await operator.reconcile()

    return operator, wait


async def test_a_refused_child_sets_a_condition_and_is_created_when_allowed(
    operator: Operator, plane: Plane, namespace: str
) -> None:
    plane.kubectl("create", "quota", "none", "-n", namespace, "--hard=count/jobs.batch=0")
    plane.kubectl("wait", "quota/none", "-n", namespace, "--for=jsonpath={.status.hard}", "--timeout=30s")
    operator.queue.add((namespace, "job"))
    mark = plane.mark()
    for _ in range(3):
        key = await operator.queue.get()
        await operator.controller._handle(key)
    status = await operator.status()
    ready = next(item for item in status["conditions"] if item["type"] == "Ready")
    assert ready["reason"] == Reason.CHILD_REFUSED
    assert "exceeded quota: none" in ready["message"]
    writes = plane.operator_writes(mark, namespace)
    assert writes.count("patch finetunejobs/status job") == 1, "said once, however often it is tried"
    plane.kubectl("delete", "quota", "none", "-n", namespace)
    key = await operator.queue.get()
    await operator.controller._handle(key)
    assert (await operator.status())["phase"] == "Starting"


async def test_a_spec_from_before_a_rule_ends_its_job_at_once_and_a_corrected_one_runs(
    kube: ClientKube, admin: ClientKube, plane: Plane, namespace: str
) -> None:
    await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace, preflight={"enabled": False}))
    operator = Operator(kube, namespace, policy=reconcile)
    await operator.resync.once()
    await operator.reconcile()
    assert (await operator.status())["phase"] == "Starting"
    with plane.without_rules():
        await _patch(plane, namespace, {"model": {"sharding": "full"}})
    await operator.resync.once()
    mark = plane.mark()
    for _ in range(2):
        assert await operator.reconcile() is None
        await operator.resync.once()
    status = await operator.status()
    assert (status["phase"], status["failure"]["reason"], status["observedGeneration"]) == ("Failed", "InvalidSpec", 2)
    assert "spec.model.sharding: divides the weights over several processes" in status["failure"]["message"]
    assert {"Finished": "True", "Succeeded": "False", "Stalled": "True"}.items() <= {
        item["type"]: item["status"] for item in status["conditions"]
    }.items()
    assert "endTime" in status["attempts"][0]
    assert plane.operator_writes(mark, namespace) == ["delete jobs job-train-1", "patch finetunejobs/status job"]

    await _patch(plane, namespace, {"resources": {"gpus": 2}})
    await operator.resync.once()
    await operator.reconcile()
    assert (await operator.status())["phase"] == "Failed"  # an end is final until runToken changes
    await _patch(plane, namespace, {"runToken": "again"})
    await operator.resync.once()
    await operator.reconcile()
    status = await operator.status()
    assert (status["phase"], status["runToken"], status["attempt"]) == ("Starting", "again", 2)


async def test_an_upgrade_of_the_crd_alone_ends_no_running_job(
    kube: ClientKube, admin: ClientKube, plane: Plane, namespace: str
) -> None:
    """A new default is seen in every stored spec, before the new operator runs."""
    await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace, preflight={"enabled": False}))
    operator = Operator(kube, namespace, policy=reconcile)

    async def later(*, seen: bool) -> bool | None:
        raw = await kube.get(FINETUNEJOBS, namespace, "job")
        return ("later" in raw["spec"]) is seen or None

    await operator.resync.once()
    await operator.reconcile()
    before = await operator.status()
    with plane.newer_crd():
        await eventually_seen("the new default", lambda: later(seen=True))
        await operator.resync.once()
        mark = plane.mark()
        for _ in range(2):
            assert await operator.reconcile() is None
            await operator.resync.once()
        status = await operator.status()
        ready = next(item for item in status["conditions"] if item["type"] == "Ready")
        assert (status["phase"], ready["status"], ready["reason"]) == ("Starting", "Unknown", "OperatorOutdated")
        assert ready["message"].endswith("It does not understand spec.later")
        assert plane.operator_writes(mark, namespace) == ["patch finetunejobs/status job"]
    await eventually_seen("the old schema", lambda: later(seen=False))
    await operator.resync.once()
    await operator.reconcile()
    after = await operator.status()
    assert (after["phase"], after["jobUid"], len(after["attempts"])) == ("Starting", before["jobUid"], 1)
    assert "OperatorOutdated" not in {item["reason"] for item in after["conditions"]}


async def test_a_job_that_has_succeeded_stays_so_whatever_its_spec_becomes(
    operator: Operator, admin: ClientKube, plane: Plane, namespace: str
) -> None:
    await operator.reconcile()
    await operator.complete_child(admin)
    await operator.resync.once()
    await operator.reconcile()
    with plane.without_rules():
        await _patch(plane, namespace, {"model": {"sharding": "full"}})
    await operator.resync.once()
    await operator.reconcile()
    status = await operator.status()
    assert (status["phase"], status["observedGeneration"]) == ("Succeeded", 2)


async def test_a_spec_that_is_too_large_ends_its_job_with_its_size(
    operator: Operator, admin: ClientKube, namespace: str
) -> None:
    prompts = ["\u3042" * 2000] * 16  # three bytes each: within every bound of the schema, and 96 KB in all
    sections = {"evaluation": {"samplePrompts": prompts}, "retention": {"ttlSecondsAfterFinished": 60}}
    large = a_finetunejob(namespace, "large", runToken="first", **sections)
    await admin.create(FINETUNEJOBS, namespace, large)
    await operator.resync.once()
    assert await operator.reconcile("large") == 60, "its children are removed after the TTL"
    status = await operator.status("large")
    assert (status["phase"], status["failure"]["reason"], status["runToken"]) == ("Failed", "InvalidSpec", "first")
    assert "spec: must have at most 65536 bytes as JSON" in status["failure"]["message"]


async def test_a_spec_that_was_corrected_meanwhile_does_not_end_its_job(
    operator: Operator, admin: ClientKube, plane: Plane, namespace: str
) -> None:
    raw = await admin.get(FINETUNEJOBS, namespace, "job")
    late = {**raw, "spec": {**raw["spec"], "training": {"optimiser": "later"}}}
    operator.cache = Cache()
    operator.__post_init__()
    operator.event_handler.finetunejob(None, late)
    mark = plane.mark()
    assert await operator.reconcile() is None
    assert plane.operator_writes(mark, namespace) == []


async def _patch(plane: Plane, namespace: str, spec: dict[str, Any]) -> None:
    """A user's patch; a CRD that was just changed counts after a moment."""

    async def patched() -> bool | None:
        try:
            patch = json.dumps({"spec": spec})
            plane.kubectl("patch", "ftj", "job", "-n", namespace, "--type=merge", f"--patch={patch}")
        except AssertionError:
            return None
        return True

    await eventually_seen("the patch to be taken", patched)


@pytest.mark.parametrize("managed_by", ["kueue.x-k8s.io/multikueue"])
async def test_a_job_of_another_controller_is_left_alone(
    kube: ClientKube, admin: ClientKube, plane: Plane, namespace: str, managed_by: str
) -> None:
    await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace, managedBy=managed_by))
    operator = Operator(kube, namespace)
    mark = plane.mark()
    await operator.resync.once()
    await operator.reconcile()
    assert plane.operator_writes(mark, namespace) == []


async def test_resync_finds_what_the_watches_lost(operator: Operator, admin: ClientKube, namespace: str) -> None:
    await operator.reconcile()
    await operator.resync.once()
    record = operator.cache.finetunejob((namespace, "job"))
    assert record is not None
    child = await admin.get(JOBS, namespace, "job-train-1")
    await admin.delete(JOBS, namespace, "job-train-1", uid=child["metadata"]["uid"])
    observed = operator.cache.observed(record.owner)
    assert observed is not None
    assert observed.jobs
    await operator.resync.once()
    observed = operator.cache.observed(record.owner)
    assert observed is not None
    assert not observed.jobs
    await admin.delete(FINETUNEJOBS, namespace, "job", uid=record.uid)
    await operator.resync.once()
    assert operator.cache.finetunejob((namespace, "job")) is None


async def test_the_same_event_again_raises_its_count(kube: ClientKube, plane: Plane, namespace: str) -> None:
    recorder = EventRecorder(kube, instance="test", now=lambda: datetime.now(UTC))
    regarding = FineTuneJobRef(namespace=namespace, name="job", uid="uid")
    event = Event(type=EventType.WARNING, reason="Retrying", message="x" * 5000)
    for _ in range(3):
        await recorder.post(regarding, (event,))
    events = plane.items("events.events.k8s.io", namespace)
    assert len(events) == 1
    assert events[0]["series"]["count"] == 3
    await recorder.post(FineTuneJobRef(namespace="absent", name="job", uid="uid"), (event,))
