"""Several pods that train together: one Job, names for its pods, and one verdict on all of them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.api import names
from finetune_operator.api.reasons import Phase
from finetune_operator.reconcile.manifests import child_job
from finetune_operator.reconcile.observed import PodView, Terminated
from finetune_trainer.contract import layout
from finetune_trainer.contract.failure import FailureReason
from unit.reconcile.world import CONFIG, START, World, a_job, failed, succeeded

ALLOWED = replace(CONFIG, allow_several_nodes=True)
NODES = {"resources": {"nodes": 2, "gpus": 4}, "preflight": {"enabled": False}, "retry": {"backoffSeconds": 0}}


def _phase(world: World) -> Phase | None:
    return world.status.phase


@pytest.fixture
def world() -> World:
    """A job of two pods whose Job is there."""
    world = World(a_job(**NODES), config=ALLOWED)
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
    lost = failed(FailureReason.PEER_FAILED, "another process of this training is gone")
    _pod(world, 0, phase="Failed", terminated=_ended(lost, 32, 9))
    _pod(world, 1, phase="Failed", terminated=_ended(failed(FailureReason.DISK_FULL, "no space left"), 22, 10))
    _fails(world)
    assert world.status.failure is not None
    assert (world.status.failure.reason, world.status.phase) == ("DiskFull", Phase.FAILED)


def test_a_pod_that_is_told_to_go_after_another_failed_is_not_the_reason(world: World) -> None:
    _pod(world, 0, phase="Failed", terminated=_ended(failed(FailureReason.PREEMPTED, "told to stop"), 30, 20))
    _pod(world, 1, phase="Failed", terminated=_ended(failed(FailureReason.LOSS_DIVERGED, "the loss is nan"), 23, 10))
    _fails(world)
    assert world.status.failure is not None
    assert world.status.failure.reason == "LossDiverged"


def test_gpu_seconds_count_every_pod(world: World) -> None:
    for index in (0, 1):
        _pod(world, index, phase="Failed", terminated=_ended("", 1, 100))
    _fails(world)
    assert world.status.gpu_seconds == 2 * 4 * 100


@pytest.mark.parametrize("job", ["a", "7b-tuned", "a" * 63])
def test_names_of_services_and_pods_are_host_names(job: str) -> None:
    service, first = names.service_name(job), f"{names.child_name(job, names.TRAIN_ROLE, 12)}-63"
    assert service[0].isalpha()
    assert max(len(service), len(first)) <= 63
