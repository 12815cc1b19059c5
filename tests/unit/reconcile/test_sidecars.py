"""Pods into which a mesh injects containers of its own."""

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


def view(role: str, **states: dict[str, Any]) -> PodView:
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
            "phase": "Running",
            "containerStatuses": [{"name": name, "state": state} for name, state in sorted(states.items())],
        },
    }
    seen = pod_view(raw)
    assert seen is not None
    return seen


@pytest.mark.parametrize("sidecar", ["istio_proxy", "zz_agent"])
def test_a_pods_own_container_is_read_by_its_name(sidecar: str) -> None:
    assert view(names.TRAIN_ROLE, trainer=RUNS, **{sidecar: ended(0)}).terminated is None
    trained = view(names.TRAIN_ROLE, trainer=ended(13), **{sidecar: ended(0)})
    assert trained.terminated is not None
    assert (trained.terminated.exit_code, trained.kept_by_sidecar) == (13, False)
    checked_ = view(names.PREFLIGHT_ROLE, preflight=ended(0), **{sidecar: RUNS})
    assert checked_.terminated is not None
    assert checked_.kept_by_sidecar


def finish(world: World, message: str, exit_code: int = 0) -> None:
    """The newest Job's container ends, a sidecar goes on, and so the Job does not end."""
    job = world.child()
    world.finish(message, exit_code, sidecar_running=True)
    world.jobs[job.name] = job


def test_a_success_beside_a_sidecar_ends_the_job_and_the_pod() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    finish(world, succeeded())
    world.step()
    assert world.status.phase == "Succeeded"
    assert world.jobs == {}, "the sidecar would hold the pod, and its GPUs, for ever"


def test_a_failure_beside_a_sidecar_ends_the_attempt() -> None:
    world = World(a_job(preflight={"enabled": False}))
    world.step()
    finish(world, failed(FailureReason.STORAGE_UNAVAILABLE), 1)
    world.step()
    assert world.status.phase == "Retrying"
    assert world.status.attempts[-1].reason == FailureReason.STORAGE_UNAVAILABLE
    assert world.jobs == {}


def test_a_preflight_beside_a_sidecar_passes_and_its_pod_goes() -> None:
    world = World(a_job())
    world.step()
    preflight = world.child().name
    finish(world, checked())
    world.step()
    assert world.status.is_true("PreflightPassed")
    assert preflight not in world.jobs
