"""Jobs that a queue holds back: the status in Kueue's words, the deadlines, the same attempt after a preemption."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.api.reasons import ConditionType
from finetune_operator.reconcile.workload import QueueState, WorkloadView, job_uid, part_read, positions, workload_view
from unit.reconcile.world import World, a_job, checked, succeeded

QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor h100"
PREEMPTION = "Preempted to accommodate a workload (UID: 1) due to prioritization in the ClusterQueue"
SPEC: dict[str, Any] = {"preflight": {"enabled": False}, "scheduling": {"queueName": "team-a"}}


def condition(type_: str, status: str, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": reason, "message": message}


def workload(*conditions: dict[str, Any], active: bool = True, admission: Any = None) -> dict[str, Any]:
    """A Workload as Kueue stores it, with what the view leaves out."""
    return {
        "metadata": {
            "name": "job-a",
            "labels": {"kueue.x-k8s.io/job-uid": "uid-1"},
            "ownerReferences": [{"uid": "uid-1", "controller": True}],
            "managedFields": [{}],
        },
        "spec": {"queueName": "team-a", "active": active, "podSets": [{}]},
        "status": {"conditions": list(conditions), "admission": admission},
    }


PENDING = condition("QuotaReserved", "False", "Pending", QUOTA)
ADMISSION = {"clusterQueue": "gpus", "podSetAssignments": [{"flavors": {"nvidia.com/gpu": "h100", "cpu": "any"}}]}


@pytest.mark.parametrize(
    ("raw", "state", "words"),
    [
        (workload(), QueueState.PENDING, ""),
        (workload(PENDING), QueueState.PENDING, QUOTA),
        (
            workload(condition("QuotaReserved", "False", "Inadmissible", "LocalQueue team-a doesn't exist")),
            QueueState.INADMISSIBLE,
            "LocalQueue team-a doesn't exist",
        ),
        (
            workload(
                condition("Evicted", "True", "Preempted", "Preempted"),
                condition("Preempted", "True", "InClusterQueue", PREEMPTION),
                PENDING,
            ),
            QueueState.PREEMPTED,
            f"{PREEMPTION}; {QUOTA}",
        ),
        (
            workload(
                condition("Evicted", "True", "Preempted", PREEMPTION),
                condition("QuotaReserved", "False", "Inadmissible", "LocalQueue team-a doesn't exist"),
            ),
            QueueState.INADMISSIBLE,
            "LocalQueue team-a doesn't exist",
        ),
        (
            workload(condition("Evicted", "True", "ClusterQueueStopped", "The ClusterQueue is stopped"), PENDING),
            QueueState.EVICTED,
            f"The ClusterQueue is stopped; {QUOTA}",
        ),
        (
            workload(condition("Evicted", "True", "Deactivated", "The workload is deactivated"), active=False),
            QueueState.DEACTIVATED,
            "The workload is deactivated",
        ),
        (
            workload(
                condition("Evicted", "True", "DeactivatedDueToMaximumExecutionTimeExceeded", "too long"), active=False
            ),
            QueueState.OUT_OF_TIME,
            "too long",
        ),
        (
            workload(condition("QuotaReserved", "True"), condition("Admitted", "False", "NoReservation", "checks")),
            QueueState.RESERVED,
            "checks",
        ),
        (workload(condition("QuotaReserved", "True"), condition("Admitted", "True")), QueueState.ADMITTED, ""),
    ],
)
def test_what_a_queue_does_with_a_job_is_read_from_its_workload(
    raw: dict[str, Any], state: QueueState, words: str
) -> None:
    view = workload_view(part_read(raw), {})
    assert (view.state, view.words, view.queue, view.position) == (state, words, "team-a", None)
    assert view == workload_view(raw, {}), "what is left out is not read"


def test_a_place_is_named_while_it_is_near_the_front() -> None:
    pending: dict[str, Any] = {
        "items": [{"metadata": {"name": "other"}}, {"metadata": {"name": "job-a"}, "positionInLocalQueue": 9}]
    }
    assert workload_view(workload(PENDING), positions(pending)).position == 10
    pending["items"][1]["positionInLocalQueue"] = 10
    assert workload_view(workload(PENDING), positions(pending)).position is None


def test_an_admission_names_the_flavor_of_each_resource() -> None:
    view = workload_view(workload(condition("Admitted", "True"), admission=ADMISSION), {})
    assert view.admission == "ClusterQueue gpus (cpu of flavor any, nvidia.com/gpu of flavor h100)"


def test_a_workload_speaks_only_for_the_job_that_controls_it() -> None:
    raw = workload()
    assert job_uid(raw) == "uid-1"
    raw["metadata"]["ownerReferences"] = [{"uid": "uid-2", "controller": True}]
    assert job_uid(raw) == ""


def test_control_characters_of_a_workload_reach_nobody() -> None:
    raw = workload(condition("QuotaReserved", "False", "Pending", "a\x1b[31mb"))
    assert "\x1b" not in workload_view(raw, {}).words


def view(state: QueueState = QueueState.PENDING, words: str = QUOTA, **fields: Any) -> WorkloadView:
    return WorkloadView(name="job-a", queue="team-a", state=state, words=words, **fields)


def queued(world: World, seen: WorkloadView | None) -> None:
    """Kueue holds the newest Job back."""
    job = world.child()
    world.jobs[job.name] = replace(job, suspended=True, resumed=None, workload=seen)
    world.pods.clear()
    world.step()


def admitted(world: World) -> None:
    job = world.child()
    place = view(QueueState.ADMITTED, "", cluster_queue="gpus", flavors=(("nvidia.com/gpu", "h100"),))
    world.jobs[job.name] = replace(job, suspended=False, resumed=world.now, workload=place)
    world.step()


def reconciling(world: World) -> tuple[str | None, str, str]:
    found = world.status.condition(ConditionType.RECONCILING)
    assert found is not None
    return world.status.phase, found.reason, found.message


def test_the_job_carries_the_queue_its_priority_and_the_longest_time() -> None:
    scheduling = {"queueName": "team-a", "workloadPriorityClassName": "high"}
    world = World(a_job(scheduling=scheduling, activeDeadlineSeconds=3600, preflight={"queueName": "checks"}))
    world.step()
    labels = world.manifests["support-bot-preflight-1"]["metadata"]["labels"]
    assert {key: value for key, value in labels.items() if "kueue" in key} == {"kueue.x-k8s.io/queue-name": "checks"}
    world.finish(checked())
    world.step()
    manifest = world.manifests["support-bot-train-1"]
    assert {key: value for key, value in manifest["metadata"]["labels"].items() if "kueue" in key} == {
        "kueue.x-k8s.io/queue-name": "team-a",
        "kueue.x-k8s.io/priority-class": "high",
        "kueue.x-k8s.io/max-exec-time-seconds": "3600",
    }
    assert "suspend" not in manifest["spec"], "it is the queue's"


def test_without_a_queue_nothing_of_kueue_is_on_a_job() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    assert "kueue" not in str(world.manifests)


@pytest.mark.parametrize("kind", ["required", "preferred"])
def test_a_topology_is_an_annotation_of_the_training_pods(kind: str) -> None:
    world = World(a_job(scheduling={"topology": {kind: "example.com/rack"}}))
    world.step()
    assert "topology" not in str(world.manifests["support-bot-preflight-1"]["spec"]["template"]["metadata"])
    world.finish(checked())
    world.step()
    annotations = world.manifests["support-bot-train-1"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations[f"kueue.x-k8s.io/podset-{kind}-topology"] == "example.com/rack"


def test_claims_are_passed_through_and_may_bring_the_gpus() -> None:
    template: dict[str, Any] = {"name": "gpu", "resourceClaimTemplateName": "one-h100", "gpus": True}
    shared: dict[str, Any] = {"name": "nic", "resourceClaimName": "nic"}
    for claims, extended in (([template, shared], None), ([shared], "2")):
        world = World(a_job(preflight={"enabled": False}, resources={"gpus": 2, "claims": claims}))
        world.step()
        pod = world.manifests["support-bot-train-1"]["spec"]["template"]["spec"]
        assert pod["resourceClaims"] == [{k: v for k, v in claim.items() if k != "gpus"} for claim in claims]
        resources = pod["containers"][0]["resources"]
        assert resources["claims"] == [{"name": claim["name"]} for claim in claims]
        assert resources.get("limits", {}).get("nvidia.com/gpu") == extended


def test_a_queued_job_says_so_in_kueue_s_words() -> None:
    world = World(a_job(**SPEC))
    world.step()
    queued(world, view(position=2))
    phase, reason, message = reconciling(world)
    assert (phase, reason) == ("Queued", "QueuePending")
    assert message == f"Job support-bot-train-1 waits in LocalQueue team-a, position 2 for quota: {QUOTA}"
    assert world.requeue_after == 20, "nothing watches Workloads"
    assert world.events[-1].type == "Normal"
    events, writes = len(world.events), world.status_writes
    queued(world, view(position=2))
    assert (len(world.events), world.status_writes) == (events, writes)
    queued(world, view(position=1))
    assert "position 1" in reconciling(world)[2]
    assert len(world.events) == events, "a place is no event"


def test_a_job_that_kueue_has_not_seen_yet_is_pending() -> None:
    world = World(a_job(**SPEC))
    world.step()
    queued(world, None)
    assert reconciling(world)[:2] == ("Queued", "QueuePending")
    assert world.events[-1].type == "Normal"


def test_a_queue_that_does_not_exist_is_a_warning_with_a_remedy() -> None:
    world = World(a_job(**SPEC))
    world.step()
    queued(world, view(QueueState.INADMISSIBLE, "LocalQueue team-a doesn't exist"))
    _, reason, message = reconciling(world)
    assert reason == "QueueInadmissible"
    assert "LocalQueue team-a doesn't exist" in message
    assert "kubectl get localqueues" in message
    assert world.events[-1].type == "Warning"


def test_an_admitted_job_names_its_flavor_and_its_deadline_begins() -> None:
    world = World(a_job(**SPEC, activeDeadlineSeconds=100, startDeadlineSeconds=60))
    world.step()
    queued(world, view())
    world.later(100_000)
    queued(world, view())
    assert world.status.phase == "Queued", "the time in a queue does not count"
    admitted(world)
    phase, reason, message = reconciling(world)
    assert (phase, reason) == ("Starting", "WaitingForPod")
    assert message.endswith("Kueue admitted it to ClusterQueue gpus (nvidia.com/gpu of flavor h100)")
    assert [event.reason for event in world.events].count("QueueAdmitted") == 1
    world.later(99)
    world.run()
    world.step()
    assert world.status.phase == "Running"
    world.later(1)
    world.step()
    assert world.status.failure is not None
    assert world.status.failure.reason == "DeadlineExceeded"


def test_a_preempted_job_waits_and_goes_on_in_the_same_attempt() -> None:
    world = World(a_job(**SPEC))
    world.step()
    world.run()
    world.step()
    queued(world, view(QueueState.PREEMPTED, f"{PREEMPTION}; {QUOTA}"))
    phase, reason, message = reconciling(world)
    assert (phase, reason) == ("Queued", "QueuePreempted")
    assert PREEMPTION in message
    assert QUOTA in message
    admitted(world)
    world.run()
    world.step()
    assert world.status.phase == "Running"
    assert (world.status.attempt, world.status.restarts, world.status.counted_failures) == (1, 0, 0)
    assert world.made == ["support-bot-train-1"]
    world.finish(succeeded())
    world.step()
    assert world.status.phase == "Succeeded"


def test_kueue_s_maximum_execution_time_is_the_job_s_deadline() -> None:
    world = World(a_job(**SPEC, activeDeadlineSeconds=100))
    world.step()
    queued(world, view(QueueState.OUT_OF_TIME, "exceeding the maximum execution time"))
    world.step()
    assert world.status.failure is not None
    assert world.status.failure.reason == "DeadlineExceeded"
    assert "activeDeadlineSeconds, 100 s" in world.status.failure.message
    assert world.jobs == {}


def test_a_deactivated_job_tells_how_to_queue_it_again() -> None:
    world = World(a_job(**SPEC))
    world.step()
    queued(world, view(QueueState.DEACTIVATED, "The workload is deactivated"))
    _, reason, message = reconciling(world)
    assert reason == "QueueDeactivated"
    assert "kubectl patch workload job-a" in message


def test_another_queue_in_the_spec_begins_another_attempt_uncounted() -> None:
    world = World(a_job(**SPEC, retry={"backoffSeconds": 0}))
    world.step()
    queued(world, view(QueueState.INADMISSIBLE, "LocalQueue team-a doesn't exist"))
    world.edit(preflight={"enabled": False}, retry={"backoffSeconds": 0}, scheduling={"queueName": "team-b"})
    world.step()
    world.step()
    assert list(world.jobs) == ["support-bot-train-2"]
    assert world.status.counted_failures == 0
    labels = world.manifests["support-bot-train-2"]["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "team-b"


def test_a_queue_that_kueue_itself_gave_is_left_alone() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    job = world.child()
    world.jobs[job.name] = replace(job, queue="default")
    queued(world, view())
    assert reconciling(world)[:2] == ("Queued", "QueuePending")


def test_a_queue_without_kueue_is_a_warning_once() -> None:
    world = World(a_job(**SPEC))
    world.step()
    job = world.child()
    world.jobs[job.name] = replace(job, unmanaged=True)
    world.step()
    world.step()
    assert reconciling(world)[:2] == ("Starting", "QueueIgnored")
    assert [event.reason for event in world.events].count("QueueIgnored") == 1
    world.run()
    world.step()
    assert world.status.phase == "Running"


def test_a_job_that_was_suspended_at_its_end_is_not_run_again() -> None:
    world = World(a_job(**SPEC))
    world.step()
    world.finish(succeeded())
    [job] = world.jobs.values()
    world.jobs[job.name] = replace(job, complete=False, suspended=True)
    world.step()
    assert world.status.phase == "Succeeded"
    assert world.jobs == {}
