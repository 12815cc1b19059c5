"""One job on two nodes: its pods find each other, make what one pod makes, and end as the one that failed."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.conftest import IMAGES
from cluster.lab import CPU_ONLY, Lab
from localcluster import levers, up

SECONDS = 300


@pytest.fixture
def two_nodes(lab: Lab) -> Iterator[None]:
    """A second node for the test; on a cluster that was given there must be one."""
    if os.environ.get("KUBECONFIG"):
        if len(lab.target.kubectl.items("nodes")) < 2:
            pytest.skip("the cluster has one node")
        yield
        return
    archives: list[Path] = [IMAGES / f"{name}.tar" for name in ("finetune-operator", "finetune-trainer")]
    up(nodes=2, images=archives)
    lab.target.kubectl("uncordon", "node-2")
    yield
    # The other tests count on one.
    lab.target.kubectl("cordon", "node-2")


@pytest.mark.usefixtures("two_nodes")
def test_two_pods_on_two_nodes_make_what_one_makes(lab: Lab) -> None:
    recipe = {"training": {"maxSteps": 6, "batchSize": 4}, "lora": {"rank": 4, "alpha": 8}}
    lab.apply("two", **recipe, resources={**CPU_ONLY, "nodes": 2})
    two = lab.until_finished("two", seconds=SECONDS)
    assert two["phase"] == "Succeeded", lab.picture()
    pods = lab.pods("two", "train")
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    assert [len(lab.children("two", role)) for role in ("preflight", "train")] == [1, 1]
    assert two["progress"]["display"] == "100% 6/6"

    lab.apply("one", **recipe)
    one = lab.until_finished("one", seconds=SECONDS)
    assert float(two["output"]["metrics"]["loss"]) == pytest.approx(float(one["output"]["metrics"]["loss"]), abs=1e-4)
    lab.kubectl("delete", "ftj", "two", "--cascade=foreground", timeout=180)
    assert lab.target.kubectl.items("-n", lab.namespace, "services") == []


@pytest.mark.usefixtures("two_nodes")
def test_a_pod_that_is_killed_is_the_reason_and_both_go_on_from_the_checkpoint(lab: Lab) -> None:
    cluster = lab.target.require_local()
    recipe = {"training": {"maxSteps": 400, "batchSize": 4}, "checkpoint": {"everySteps": 50}}
    lab.apply("killed", **recipe, resources={**CPU_ONLY, "nodes": 2}, preflight={"enabled": False})
    lab.until("a checkpoint", lambda: lab.status("killed").get("progress", {}).get("checkpointStep"), seconds=SECONDS)
    [second] = [pod["metadata"]["name"] for pod in lab.pods("killed", "train") if "-1-1-" in pod["metadata"]["name"]]
    levers.kill_container(cluster, lab.namespace, second)
    status = lab.until_finished("killed", seconds=SECONDS)
    assert status["phase"] == "Succeeded", lab.picture()
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Killed", "TrainingSucceeded"]
    assert status["progress"]["resumedFromStep"] >= 50
