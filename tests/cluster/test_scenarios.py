"""What happens to jobs in a cluster's life, played by the scripted trainer so that each takes seconds."""

import contextlib
import json
import random
import subprocess
import time
from typing import Any

import pytest

from cluster.lab import CPU_ONLY, Lab, condition
from demo import installation
from localcluster import levers

pytestmark = pytest.mark.usefixtures("scripted")

Scenario = dict[str, Any]


def apply(lab: Lab, name: str, scenario: Scenario | list[Scenario], **spec: Any) -> None:
    """A job without preflight whose attempts play a scenario each."""
    environment = [{"name": "FINETUNE_SCENARIO", "value": json.dumps(scenario)}]
    values = {"preflight": {"enabled": False}, **spec}
    lab.apply(name, **values, scheduling={**values.pop("scheduling", {}), "env": environment})


def training_pod(lab: Lab, name: str) -> str:
    """The pod that trains now."""

    def running() -> str | None:
        for pod in lab.pods(name, "train"):
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]:
                return str(pod["metadata"]["name"])
        return None

    found: str = lab.until(f"a running pod of {name}", running)
    return found


def reasons(status: dict[str, Any]) -> list[str]:
    """Why each attempt ended."""
    return [attempt["reason"] for attempt in status["attempts"]]


def test_kubectl_shows_percent_and_loss_while_it_trains(lab: Lab) -> None:
    apply(lab, "steps", {"steps": 100, "stepSeconds": 0.2})
    watch = subprocess.Popen(
        [lab.target.kubectl.program, f"--kubeconfig={lab.target.kubeconfig}", "-n", lab.namespace, "get", "ftj", "-w"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        status = lab.until_finished("steps")
        time.sleep(1)
    finally:
        watch.terminate()
        shown, _ = watch.communicate(timeout=10)
    assert status["phase"] == "Succeeded"
    lines = shown.splitlines()
    assert lines[0].split() == ["NAME", "STATUS", "PROGRESS", "LOSS", "RESTARTS", "GPUS", "AGE"]
    percents = {line.split("%")[0].split()[-1] for line in lines if "%" in line}
    assert len(percents) >= 3, shown
    assert any("Running" in line and "." in line for line in lines), shown


def test_a_crash_is_tried_again_and_says_why(lab: Lab) -> None:
    apply(lab, "crash", [{"end": "crash", "exitCode": 3, "steps": 1}, {"steps": 2, "stepSeconds": 0.1}])
    status = lab.until_finished("crash")
    assert status["phase"] == "Succeeded"
    assert status["restarts"] == 1
    assert reasons(status) == ["InternalError", "TrainingSucceeded"]
    assert status["attempts"][0]["exitCode"] == 3
    events = lab.kubectl(
        "get", "events", "--field-selector", "involvedObject.name=crash", "-o", "jsonpath={.items[*].reason}"
    )
    assert {"AttemptStarted", "Retrying", "TrainingSucceeded"} <= set(events.split())


def test_the_retry_limit_ends_the_job_with_reason_and_remedy(lab: Lab) -> None:
    apply(
        lab,
        "limit",
        {"end": "fail", "reason": "GpuOutOfMemory", "message": "CUDA out of memory at step 3", "steps": 1},
        retry={"limit": 1, "backoffSeconds": 1},
    )
    status = lab.until_finished("limit")
    assert reasons(status) == ["GpuOutOfMemory", "GpuOutOfMemory"]
    message = condition(status, "Succeeded")["message"]
    assert "CUDA out of memory at step 3" in message
    assert "maxLength" in message


def test_a_kernel_kill_for_memory_is_told_apart(lab: Lab) -> None:
    apply(lab, "oom", {"end": "oom", "steps": 1}, resources={**CPU_ONLY, "memory": "128Mi"})
    status = lab.until_finished("oom")
    assert status["failure"]["reason"] == "HostOutOfMemory"
    assert "resources.memory" in status["failure"]["message"]
    assert len(status["attempts"]) == 2


def test_an_evicted_pod_is_replaced_within_its_attempt(lab: Lab) -> None:
    apply(lab, "evicted", {"steps": 60, "stepSeconds": 0.2})
    pod = training_pod(lab, "evicted")
    levers.evict(lab.target.kubectl, lab.namespace, pod)
    status = lab.until_finished("evicted", seconds=180)
    assert status["phase"] == "Succeeded"
    assert status["attempt"] == 1
    assert len(lab.children("evicted", "train")) == 1


def test_a_killed_process_is_a_new_attempt(lab: Lab) -> None:
    cluster = lab.target.require_local()
    apply(lab, "killed", {"steps": 30, "stepSeconds": 0.2})
    levers.kill_container(cluster, lab.namespace, training_pod(lab, "killed"))
    status = lab.until_finished("killed")
    assert status["phase"] == "Succeeded"
    assert reasons(status) == ["Killed", "TrainingSucceeded"]


def test_suspend_frees_the_pods_and_resume_is_a_new_attempt(lab: Lab) -> None:
    apply(lab, "paused", {"steps": 40, "stepSeconds": 0.2})
    training_pod(lab, "paused")
    lab.patch("paused", suspend=True)
    lab.until_phase("paused", "Suspended")
    lab.until("no pod", lambda: not lab.pods("paused"))
    lab.patch("paused", suspend=False)
    status = lab.until_finished("paused")
    assert status["phase"] == "Succeeded"
    assert status["attempt"] == 2
    assert status.get("countedFailures", 0) == 0


def test_an_image_that_cannot_be_pulled_is_named(lab: Lab) -> None:
    image = lab.target.image(installation.SCRIPTED_IMAGE)
    installation.set_environment(lab.target, FINETUNE_TRAINER_IMAGE=levers.UNPULLABLE_IMAGE)
    try:
        apply(lab, "unpulled", {}, startDeadlineSeconds=20)
        status = lab.until_finished("unpulled")
    finally:
        installation.set_environment(lab.target, FINETUNE_TRAINER_IMAGE=image)
    assert status["failure"]["reason"] == "StartDeadlineExceeded"
    assert levers.UNPULLABLE_IMAGE in status["failure"]["message"]


def test_a_job_waits_for_a_gpu_and_says_so(lab: Lab) -> None:
    cluster = lab.target.require_local()
    cluster.set_gpus(0)
    apply(lab, "gpu", {"steps": 2, "stepSeconds": 0.1}, resources={"gpus": 1, "cpu": "100m", "memory": "128Mi"})

    def said() -> bool:
        return condition(lab.status("gpu"), "Reconciling").get("reason") == "Unschedulable"

    lab.until("the scheduler's word", said)
    assert "nvidia.com/gpu" in condition(lab.status("gpu"), "Reconciling")["message"]
    cluster.set_gpus(1)
    status = lab.until_finished("gpu")
    assert status["phase"] == "Succeeded"


def test_a_deleted_job_takes_its_pods_along(lab: Lab) -> None:
    apply(lab, "gone", {"steps": 1000, "stepSeconds": 0.2})
    training_pod(lab, "gone")
    # A container's first process that has no handler yet does not hear SIGTERM.
    lab.until("its first step", lambda: lab.status("gone").get("progress", {}).get("step"))
    lab.kubectl("delete", "ftj", "gone")
    lab.until("no child", lambda: not lab.pods("gone") and not lab.children("gone"))


def test_an_operator_that_is_killed_again_and_again_makes_every_job_once(lab: Lab) -> None:
    cluster = lab.target.require_local()

    def running_operator() -> bool:
        pods = installation.operator_pods(lab.target)
        return any(pod["status"]["phase"] == "Running" for pod in pods)

    chance = random.Random(7)
    names = [f"crash-{number}" for number in range(6)]
    for name in names:
        apply(lab, name, {"steps": 20, "stepSeconds": 0.2}, preflight={"enabled": True})
    for _ in range(4):
        lab.until("an operator that runs", running_operator)
        time.sleep(chance.uniform(0.0, 2.0))
        levers.kill_selected(cluster, installation.NAMESPACE, "app.kubernetes.io/name=finetune-operator")
        # A new pod instead of the old one's growing back-off: the crash is the same, the wait is not.
        for pod in installation.operator_pods(lab.target):
            name = pod["metadata"]["name"]
            with contextlib.suppress(Exception):
                lab.target.kubectl("-n", installation.NAMESPACE, "delete", "pod", name, "--wait=false")
    for name in names:
        status = lab.until_finished(name, seconds=180)
        assert status["phase"] == "Succeeded"
        assert status["attempt"] == 1
        for role in ("preflight", "train"):
            assert len(lab.children(name, role)) == 1
        assert len(lab.pods(name, "train")) == 1


def test_a_second_replica_takes_over(lab: Lab) -> None:
    installation.scale(lab.target, 2)
    try:

        def leader() -> str | None:
            lease = lab.target.kubectl.get("-n", installation.NAMESPACE, "lease", "finetune-operator")
            names = [pod["metadata"]["name"] for pod in installation.operator_pods(lab.target)]
            return next((name for name in names if name == lease["spec"].get("holderIdentity")), None)

        name = lab.until("a leader", leader)
        lab.target.kubectl("-n", installation.NAMESPACE, "delete", "pod", name, "--grace-period=0", "--force")
        apply(lab, "taken-over", {"steps": 2, "stepSeconds": 0.1})
        assert lab.until_finished("taken-over")["phase"] == "Succeeded"
    finally:
        installation.scale(lab.target, 1)


def test_a_job_costs_few_writes(lab: Lab) -> None:
    audit = lab.target.require_local().audit
    mark = audit.mark()
    apply(lab, "cheap", {"steps": 0}, preflight={"enabled": True})
    lab.until_finished("cheap")
    writes = [
        f"{write.verb} {write.resource}"
        for write in audit.writes(mark, namespace=lab.namespace)
        # A 409 is the price of a progress record in between, which this test does not count either.
        if write.field_manager == "finetune-operator" and write.code != 409
    ]
    assert sorted(writes) == ["patch finetunejobs/status"] * 4 + ["patch jobs"] * 2
