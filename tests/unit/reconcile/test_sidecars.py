"""Pods into which a mesh injects containers of its own."""

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.api import names
from finetune_operator.reconcile.observed import PodView, pod_view
from finetune_trainer.contract.failure import FailureReason
from unit.reconcile.world import World, a_job, checked, failed, succeeded

STARTED = "2026-01-01T00:00:00Z"
RUNS = {"running": {"startedAt": STARTED}}


def ended(code: int) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": "", "startedAt": STARTED, "finishedAt": STARTED}}


def view(
    role: str, states: dict[str, dict[str, Any]], *, phase: str = "Running", init: tuple[dict[str, Any], ...] = ()
) -> PodView:
    """A pod whose containers are in these states, listed by name, as a kubelet does."""
    raw = {
        "metadata": {
            "namespace": "team",
            "name": "pod",
            "uid": "uid",
            "creationTimestamp": STARTED,
            "labels": {names.ROLE_LABEL: role, names.ATTEMPT_LABEL: "1"},
        },
        "status": {
            "phase": phase,
            "initContainerStatuses": list(init),
            "containerStatuses": [{"name": name, "state": state} for name, state in sorted(states.items())],
        },
    }
    seen = pod_view(raw)
    assert seen is not None
    return seen


@pytest.mark.parametrize("sidecar", ["istio_proxy", "zz_agent"])
def test_a_pods_own_container_is_read_by_its_name(sidecar: str) -> None:
    assert view(names.TRAIN_ROLE, {"trainer": RUNS, sidecar: ended(0)}).terminated is None
    trained = view(names.TRAIN_ROLE, {"trainer": ended(13), sidecar: ended(0)})
    assert trained.terminated is not None
    assert (trained.terminated.exit_code, trained.kept_by_sidecar) == (13, False)
    checked_ = view(names.PREFLIGHT_ROLE, {"preflight": ended(0), sidecar: RUNS})
    assert checked_.terminated is not None
    assert checked_.kept_by_sidecar


@pytest.mark.parametrize("sidecar", [RUNS, {"waiting": {"reason": "ImagePullBackOff"}}, {}])
def test_a_sidecar_that_runs_or_never_starts_keeps_the_pod(sidecar: dict[str, Any]) -> None:
    assert view(names.TRAIN_ROLE, {"trainer": ended(1), "proxy": sidecar}, phase="Pending").kept_by_sidecar
    assert not view(names.TRAIN_ROLE, {"trainer": ended(1), "proxy": sidecar}, phase="Failed").kept_by_sidecar
    assert not view(names.TRAIN_ROLE, {"trainer": RUNS, "proxy": sidecar}, phase="Pending").kept_by_sidecar


INITIALIZING = {"trainer": {"waiting": {"reason": "PodInitializing"}}}
NATIVE = {"name": "proxy", "started": True, "state": RUNS}
DONE = {"name": "first", "state": ended(0)}


def shown(world: World, pod: PodView) -> str:
    """What the job shows of a pod whose containers are in these states."""
    fields = ("phase", "waiting_reason", "waiting_message", "init_failure")
    world.pod(**{name: getattr(pod, name) for name in fields})
    world.step()
    reconciling = world.status.condition("Reconciling")
    assert reconciling is not None
    return f"{reconciling.reason}: {reconciling.message}"


def test_an_injected_init_container_that_does_not_start_is_named() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    pulls = {"name": "mesh", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    pod = view(names.TRAIN_ROLE, INITIALIZING, phase="Pending", init=(DONE, NATIVE, pulls))
    said = shown(world, pod)
    assert said == "ImagePullFailed: ImagePullBackOff: init container mesh: no such image"
    crashes = {"name": "mesh", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}}
    said = shown(world, view(names.TRAIN_ROLE, INITIALIZING, phase="Pending", init=(crashes,)))
    assert said == "CrashLoopBackOff: init container mesh: back-off 10s"
    runs = {"name": "mesh", "started": False, "state": RUNS}
    said = shown(world, view(names.TRAIN_ROLE, INITIALIZING, phase="Pending", init=(runs,)))
    assert said == "WaitingForPod: attempt 1 waits for its pod to start"


def test_an_injected_init_container_that_fails_is_named() -> None:
    world = World(a_job(preflight={"enabled": False}, retry={"limit": 0}))
    world.step()
    fails = {"name": "mesh", "state": {"terminated": {"exitCode": 3, "reason": "Error", "message": "no iptables"}}}
    pod = view(names.TRAIN_ROLE, INITIALIZING, phase="Failed", init=(fails,))
    job = world.child()
    world.pod(phase="Failed", init_failure=pod.init_failure)
    world.jobs[job.name] = replace(job, failed=True)
    world.step()
    assert world.status.failure is not None
    assert world.status.failure.reason == "PodRejected"
    said = f"an injected init container failed in pod {job.name}-x: mesh ended with exit code 3: no iptables."
    assert world.status.failure.message.startswith(said)


def finish(world: World, message: str, exit_code: int = 0) -> None:
    """The newest Job's container ends, a sidecar goes on, and so neither pod nor Job ends."""
    job = world.child()
    world.finish(message, exit_code, sidecar_remains=True)
    world.jobs[job.name] = job
    uid = f"pod-{job.name}"
    world.pods[uid] = replace(world.pods[uid], phase="Running")


def test_a_success_beside_a_sidecar_ends_the_job_and_the_pod() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    finish(world, succeeded())
    world.step()
    assert world.status.phase == "Succeeded"
    assert world.jobs == {}, "the sidecar would hold the pod, and its GPUs, for ever"


def test_a_failure_beside_a_sidecar_ends_the_attempt_and_then_the_pod() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    finish(world, failed(FailureReason.STORAGE_UNAVAILABLE), 1)
    assert world.step().delete == (), "the pod alone knows its end until the status has it"
    assert world.status.phase == "Retrying"
    assert world.status.attempts[-1].reason == FailureReason.STORAGE_UNAVAILABLE
    assert world.requeue_after == 0
    world.later(3600)
    assert world.step().apply == (), "the next attempt begins when this one is gone"
    assert (world.jobs, world.requeue_after) == ({}, 0)
    world.step()
    assert [*world.jobs] == ["support-bot-train-2"]


def test_a_preflight_beside_a_sidecar_passes_and_then_its_pod_goes() -> None:
    world = World(a_job())
    world.step()
    preflight = world.child().name
    finish(world, checked())
    assert world.step().delete == (), "the pod alone knows its end until the status has it"
    assert world.status.is_true("PreflightPassed")
    assert world.requeue_after == 0
    world.step()
    assert [*world.jobs] == [preflight.replace("preflight", "train")]
