"""Several pods that train together: one Job, names for its pods, and one verdict on all of them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.api import names
from finetune_operator.api.reasons import ConditionType, Phase
from finetune_operator.reconcile.manifests import child_job
from finetune_operator.reconcile.observed import PodView, Terminated
from finetune_trainer.contract import layout
from finetune_trainer.contract.failure import FailureReason
from unit.reconcile.world import CONFIG, START, World, a_job, failed, succeeded

NODES = {"resources": {"nodes": 2, "gpus": 4}, "preflight": {"enabled": False}, "retry": {"backoffSeconds": 0}}


def _phase(world: World) -> Phase | None:
    return world.status.phase


@pytest.fixture
def world() -> World:
    """A job of two pods whose Job is there."""
    world = World(a_job(**NODES))
    world.step()
    return world


def _pod(world: World, index: int, **fields: Any) -> PodView:
    seen = world.pod(**fields)
    del world.pods[seen.uid]
    pod = replace(seen, uid=f"{seen.uid}-{index}", name=f"{seen.name}-{index}", index=index)
    world.pods[pod.uid] = pod
    return pod


def _ended(message: str, code: int, after: float) -> Terminated:
    finished = START + timedelta(seconds=after)
    return Terminated(exit_code=code, reason="", message=message, started=START, finished=finished)


def _fails(world: World) -> None:
    [(name, job)] = [(name, job) for name, job in world.jobs.items() if not job.failed]
    world.jobs[name] = replace(job, failed=True, failure_reason="BackoffLimitExceeded")
    world.step()


def test_one_indexed_job_and_a_service_that_names_its_pods(world: World) -> None:
    assert world.made == ["support-bot-train-1"]
    assert world.status.gpus == 8
    manifest = world.manifests["support-bot-train-1"]
    spec, pod = manifest["spec"], manifest["spec"]["template"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    # One that was replaced would wait for others that are past their beginning.
    assert "podFailurePolicy" not in spec
    [(name, service)] = world.services.items()
    assert pod["subdomain"] == name
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    labels = manifest["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["metadata"]["ownerReferences"] == manifest["metadata"]["ownerReferences"]
    env = {item["name"]: item.get("value") for item in pod["containers"][0]["env"]}
    assert env[layout.NODES_ENV] == "2"
    assert env[layout.MASTER_ENV] == f"support-bot-train-1-0.{name}:29500"
    [apart] = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert apart["labelSelector"]["matchLabels"].items() <= labels.items()


def test_a_job_of_one_pod_has_none_of_it() -> None:
    spec = child_job(a_job(), CONFIG, names.TRAIN_ROLE, 1)["spec"]
    assert "completionMode" not in spec
    assert "podFailurePolicy" in spec
    assert not {"subdomain", "affinity"} & spec["template"]["spec"].keys()
    preflight = child_job(a_job(**NODES), CONFIG, names.PREFLIGHT_ROLE, 1)["spec"]
    assert preflight["completions"] == 1
    alone = World(a_job(preflight={"enabled": False}))
    alone.step()
    assert alone.services == {}


def test_it_trains_when_all_pods_run(world: World) -> None:
    _pod(world, 0, phase="Running", running_since=START)
    _pod(world, 1, unschedulable="0/2 nodes are available")
    world.step()
    assert _phase(world) is Phase.STARTING
    _pod(world, 1, phase="Running", running_since=START + timedelta(seconds=5))
    world.step()
    assert _phase(world) is Phase.RUNNING
    assert world.status.pod_name is not None
    assert world.status.pod_name.endswith("-0")


def test_only_the_first_pods_success_is_the_jobs(world: World) -> None:
    _pod(world, 0, phase="Running", running_since=START)
    _pod(world, 1, phase="Succeeded", terminated=_ended("", 0, 10))
    world.step()
    assert _phase(world) is Phase.RUNNING
    _pod(world, 0, phase="Succeeded", terminated=_ended(succeeded(), 0, 20))
    world.step()
    assert _phase(world) is Phase.SUCCEEDED


def test_the_pod_that_failed_first_by_itself_is_the_reason(world: World) -> None:
    """Pod 0 loses the other and says so at once; what it says is a consequence, and so is a pod that was told to go."""
    lost = failed(FailureReason.PEER_FAILED, "another process of this training has ended")
    _pod(world, 0, phase="Failed", terminated=_ended(lost, 32, 9))
    _pod(world, 1, phase="Failed", terminated=_ended(failed(FailureReason.DISK_FULL, "no space left"), 22, 10))
    _fails(world)
    assert world.status.failure is not None
    assert (world.status.failure.reason, world.status.phase) == ("DiskFull", Phase.FAILED)


def test_a_pod_that_is_terminated_after_another_failed_is_not_the_reason(world: World) -> None:
    _pod(world, 0, phase="Failed", terminated=_ended(failed(FailureReason.PREEMPTED, "told to stop"), 30, 20))
    _pod(world, 1, phase="Failed", terminated=_ended(failed(FailureReason.LOSS_DIVERGED, "the loss is nan"), 23, 10))
    _fails(world)
    assert world.status.failure is not None
    assert world.status.failure.reason == "LossDiverged"


def test_a_pod_that_is_terminated_in_the_same_second_is_not_the_reason(world: World) -> None:
    """The kubelet's times are whole seconds, and pod 0 is the first of the list."""
    _pod(world, 0, phase="Failed", terminated=_ended(failed(FailureReason.PREEMPTED, "told to stop"), 30, 10))
    _pod(world, 1, phase="Failed", terminated=_ended("", 137, 10))
    _fails(world)
    assert world.status.attempts[-1].reason == "Killed"
    assert world.status.counted_failures == 1


def test_an_eviction_of_one_pod_is_a_new_attempt_that_is_not_counted(world: World) -> None:
    """Both stop at one step; the eviction is one pod's, the end of the other follows from it."""
    told = failed(FailureReason.PREEMPTED, "told to stop; stopped after step 7 of 500")
    _pod(world, 0, phase="Failed", terminated=_ended(told, 30, 9))
    _pod(world, 1, phase="Failed", terminated=_ended(told, 30, 10), disruption="EvictionByEvictionAPI")
    _fails(world)
    assert (world.status.attempts[-1].reason, world.status.counted_failures) == ("Preempted", 0)
    world.step()
    assert world.made == ["support-bot-train-1", "support-bot-train-2"]
    env = world.manifests["support-bot-train-2"]["spec"]["template"]["spec"]["containers"][0]["env"]
    [master] = [item["value"] for item in env if item["name"] == layout.MASTER_ENV]
    assert master.startswith("support-bot-train-2-0.")


def test_a_pod_whose_node_is_lost_is_the_reason_without_a_message(world: World) -> None:
    lost = failed(FailureReason.PEER_FAILED, "another process of this training has ended")
    _pod(world, 0, phase="Failed", terminated=_ended(lost, 32, 9))
    _pod(world, 1, phase="Running", running_since=START, disruption="DeletionByTaintManager")
    _fails(world)
    assert (world.status.attempts[-1].reason, world.status.counted_failures) == ("PodLost", 0)
    assert "-1 was disrupted" in (world.status.attempts[-1].message or "")


def test_a_node_that_refuses_one_pod_is_the_reason(world: World) -> None:
    """Pod 0 is only told to go, which counts against nothing: a broken node would be tried for ever."""
    _pod(world, 0, phase="Failed", terminated=_ended(failed(FailureReason.PREEMPTED, "told to stop"), 30, 10))
    _pod(world, 1, phase="Failed", reason="UnexpectedAdmissionError", message="no healthy devices")
    _fails(world)
    assert (world.status.attempts[-1].reason, world.status.counted_failures) == ("PodRejected", 1)


def test_the_start_deadline_holds_for_the_pod_that_does_not_fit() -> None:
    world = World(a_job(**NODES, startDeadlineSeconds=60))
    world.step()
    _pod(world, 0, phase="Running", running_since=START + timedelta(seconds=5))
    _pod(world, 1, unschedulable="0/2 nodes are available: 1 Insufficient nvidia.com/gpu")
    world.step()
    condition = world.status.condition(ConditionType.RECONCILING)
    assert condition is not None
    assert (_phase(world), condition.reason) == (Phase.STARTING, "Unschedulable")
    assert world.requeue_after == 60
    world.later(61)
    world.step()
    assert world.status.failure is not None
    assert world.status.failure.reason == "StartDeadlineExceeded"
    assert "Insufficient nvidia.com/gpu" in world.status.failure.message
    assert world.jobs == {}
    assert world.status.gpu_seconds == 4 * 56


def test_a_pod_that_a_quota_refuses_is_reported_as_missing(world: World) -> None:
    """The pod that is there runs and waits, which is not the training's beginning."""
    _pod(world, 0, phase="Running", running_since=START)
    world.step()
    assert _phase(world) is Phase.STARTING
    assert world.requeue_after == 30
    world.later(30)
    world.step()
    condition = world.status.condition(ConditionType.RECONCILING)
    assert condition is not None
    assert (_phase(world), condition.reason) == (Phase.STARTING, "PodNotCreated")
    assert world.requeue_after == 86_400 - 30, "the start deadline"
    assert "only 1 of 2 pods" in condition.message


def test_suspended_all_pods_go_and_resumed_all_come_back(world: World) -> None:
    for index in (0, 1):
        _pod(world, index, phase="Running", running_since=START)
    world.step()
    world.later(50)
    world.edit(**NODES, suspend=True)
    world.step()
    assert (_phase(world), world.jobs, world.pods) == (Phase.SUSPENDED, {}, {})
    assert world.status.gpu_seconds == 2 * 4 * 50
    world.edit(**NODES)
    world.step()
    world.step()
    assert world.made == ["support-bot-train-1", "support-bot-train-2"]
    assert (world.status.attempt, world.status.counted_failures, world.status.gpus) == (2, 0, 8)
    assert len(world.services) == 1


def test_gpu_seconds_count_every_pod_of_every_attempt(world: World) -> None:
    for index in (0, 1):
        _pod(world, index, phase="Failed", terminated=_ended("", 1, 100))
    _fails(world)
    world.step()
    for index in (0, 1):
        _pod(world, index, phase="Failed", terminated=_ended("", 1, 10))
    _fails(world)
    assert world.status.gpu_seconds == 2 * 4 * (100 + 10)
    assert world.status.restarts == 1


@pytest.mark.parametrize("job", ["a", "7b-tuned", "a" * 63])
def test_names_of_services_and_pods_are_host_names(job: str) -> None:
    service, first = names.service_name(job), f"{names.child_name(job, names.TRAIN_ROLE, 12)}-63"
    assert service[0].isalpha()
    assert max(len(service), len(first)) <= 63
