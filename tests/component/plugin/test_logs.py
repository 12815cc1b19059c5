"""`kubectl finetune logs`: which pod is read, and what comes after it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from component.plane import Plane
from component.plugin.conftest import User
from component.plugin.kubelet import NODE, Logs, kubelet
from finetune_operator.api import names


@pytest.fixture
def logs(plane: Plane, tmp_path: Path) -> Iterator[Logs]:
    with kubelet(plane, tmp_path) as running:
        yield running


def a_pod(
    user: User, job: dict[str, Any], name: str, *, role: str = "train", attempt: int = 1, phase: str = ""
) -> None:
    """Creates a pod of a job on the node. With a phase, it has begun."""
    container = names.CONTAINERS[role]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": user.namespace,
            "labels": {
                names.FINETUNEJOB_UID_LABEL: job["metadata"]["uid"],
                names.ROLE_LABEL: role,
                names.ATTEMPT_LABEL: str(attempt),
            },
        },
        "spec": {
            "nodeName": NODE,
            "containers": [{"name": container, "image": "image"}, {"name": "mesh", "image": "mesh"}],
        },
    }
    user.plane.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    if phase:
        begins(user, name, container, phase)


def begins(user: User, name: str, container: str, phase: str) -> None:
    state: dict[str, Any] = {"running": {"startedAt": user.ago(minutes=1)}}
    if phase != "Running":
        state = {"terminated": {"exitCode": 0, "finishedAt": user.ago(seconds=1)}}
    one = {"name": container, "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    patch = json.dumps({"status": {"phase": phase, "containerStatuses": [one]}})
    how = ("--subresource=status", "--type=merge", "--patch", patch)
    user.plane.kubectl("patch", "pod", name, "-n", user.namespace, *how)


def test_the_newest_pod_is_read_in_our_container_and_raw_characters_never_arrive(user: User, logs: Logs) -> None:
    job, other = user.applies("job"), user.applies("other")
    a_pod(user, job, "job-preflight-1-a", role="preflight", phase="Succeeded")
    a_pod(user, job, "job-train-1-b", phase="Failed")
    a_pod(user, job, "job-train-2-c", attempt=2, phase="Running")
    a_pod(user, other, "other-train-3-d", attempt=3, phase="Running")
    logs.texts = {
        "job-preflight-1-a": b"checks\n",
        "job-train-1-b": b"first\n",
        "job-train-2-c": b" 0%|\r 50%|\r100%|\x1b[31m\n\tdone\xff\nlast",
    }
    said = user.types("logs", "job", "--tail", "100")
    assert (said.code, said.err) == (0, "")
    assert said.out.split("\n") == ["100%|\\x1b[31m", "    done\ufffd", "last", ""]
    path, options = logs.asked[-1]
    assert path == f"/containerLogs/{user.namespace}/job-train-2-c/trainer"
    assert options["tailLines"] == ["100"]
    assert user.types("logs", "job", "--attempt", "1").out == "first\n"
    assert user.types("logs", "job", "--role", "preflight").out == "checks\n"
    everything = user.types("logs", "job", "--all")
    assert everything.out.startswith("checks\nfirst\n")
    assert everything.err.splitlines()[0] == "==> job-preflight-1-a (preflight, attempt 1) <=="


def test_following_goes_from_pod_to_pod_until_the_job_has_ended(user: User, logs: Logs) -> None:
    job = user.applies("job")
    a_pod(user, job, "job-train-1-a", phase="Running")
    logs.texts = {"job-train-1-a": b"attempt one\n", "job-train-2-b": b"attempt two\n"}

    def next_pod(pod: str) -> None:
        if pod == "job-train-1-a":
            a_pod(user, job, "job-train-2-b", attempt=2, phase="Running")
        else:
            user.succeeds("job")

    logs.on_end = next_pod
    said = user.types("logs", "--follow", "job")
    assert said.code == 0
    assert said.out == "attempt one\nattempt two\n"
    assert [line for line in said.err.splitlines() if line.startswith("==>")] == [
        "==> job-train-1-a (train, attempt 1) <==",
        "==> job-train-2-b (train, attempt 2) <==",
    ]
    assert all(options["follow"] == ["true"] for _, options in logs.asked)


def test_without_a_pod_it_says_why(user: User) -> None:
    user.applies("job")
    said = user.types("logs", "job")
    assert said.code == 1
    assert said.err.startswith("job has no such pod (not seen): no operator has seen it")
    user.succeeds("job")
    assert "their logs with them" in user.types("logs", "job").err
    assert "their logs with them" in user.types("logs", "-f", "job").err
