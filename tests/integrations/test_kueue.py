"""Jobs in queues of a real Kueue, deployed as it is shipped: who waits, who is admitted, preempted, resumed."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.lab import Lab, condition, namespace
from kueue.deployed import deployed
from localcluster import Target

SCENARIO = "FINETUNE_SCENARIO"
LONG = {"steps": 1_000_000, "stepSeconds": 0.2}
"""A training that ends only when it is stopped."""
SHORT = {"steps": 2, "stepSeconds": 0.1}
QUOTA = {"cpu": "8", "memory": "16Gi", "nvidia.com/gpu": "1"}


@pytest.fixture(scope="module", autouse=True)
def kueue(target: Target, scripted: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Kueue with one ClusterQueue, in which a GPU is to be had, and two priorities."""
    with deployed(target, tmp_path_factory.mktemp("kueue")):
        objects = [
            _object("ResourceFlavor", "any", {}),
            _object("ClusterQueue", "gpus", _cluster_queue()),
            *({**_object("WorkloadPriorityClass", name), "value": value} for name, value in (("low", 1), ("high", 9))),
        ]
        _until_served(target, objects)
        yield
        # Kueue's finalizers need Kueue.
        target.kubectl("delete", "clusterqueue,resourceflavor,workloadpriorityclass", "--all", "--wait", timeout=300)


def _object(kind: str, name: str, spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": kind,
        "metadata": {"name": name, **metadata},
    }
    return made if spec is None else {**made, "spec": spec}


def _cluster_queue() -> dict[str, Any]:
    resources = [{"name": name, "nominalQuota": quota} for name, quota in QUOTA.items()]
    return {
        "namespaceSelector": {},
        "preemption": {"withinClusterQueue": "LowerPriority"},
        "resourceGroups": [{"coveredResources": list(QUOTA), "flavors": [{"name": "any", "resources": resources}]}],
    }


def _until_served(target: Target, objects: list[dict[str, Any]]) -> None:
    """Applies the objects as soon as the webhooks have their certificates."""
    lab = Lab(target, "kueue-system", "", "")

    def applied() -> bool:
        try:
            target.kubectl.apply(*objects)
        except Exception:  # noqa: BLE001 (whatever a webhook that is not there yet answers)
            return False
        return True

    lab.until("Kueue's webhooks", applied, seconds=300)


@pytest.fixture
def team(target: Target, bucket: str) -> Iterator[Lab]:
    """A namespace with a LocalQueue `team`."""
    with namespace(target, f"team-{uuid.uuid4().hex[:6]}", bucket) as lab:
        target.kubectl.apply(_object("LocalQueue", "team", {"clusterQueue": "gpus"}, namespace=lab.namespace))
        yield lab


def apply(
    lab: Lab, name: str, scenario: dict[str, Any], queue: str = "team", priority: str = "low", **spec: Any
) -> None:
    """A job with a GPU in a queue. Its preflight is the real one, its training is scripted."""
    scheduling = {
        "queueName": queue,
        "workloadPriorityClassName": priority,
        "env": [{"name": SCENARIO, "value": json.dumps(scenario)}],
    }
    resources = {"gpus": 1, "cpu": "100m", "memory": "128Mi"}
    lab.apply(name, scheduling=scheduling, **{"resources": resources, **spec})


def waits(lab: Lab, name: str, reason: str, *words: str) -> None:
    """Waits until the job is queued for that reason, and its message has the words. Kueue may write them later."""

    def seen() -> bool:
        status = lab.status(name)
        found = condition(status, "Reconciling")
        said = all(word in found.get("message", "") for word in words)
        return status.get("phase") == "Queued" and found.get("reason") == reason and said

    lab.until(f"{name} to be {reason}: {words}", seen, seconds=180)


def _give_gpus(lab: Lab, count: int) -> None:
    [group] = _cluster_queue()["resourceGroups"]
    for resource in group["flavors"][0]["resources"]:
        if resource["name"] == "nvidia.com/gpu":
            resource["nominalQuota"] = str(count)
    patch = json.dumps({"spec": {"resourceGroups": [group]}})
    lab.target.kubectl("patch", "clusterqueue", "gpus", "--type=merge", f"--patch={patch}")


def test_one_gpu_is_shared_by_priority_and_nobody_counts_it_as_a_failure(team: Lab) -> None:
    apply(team, "first", LONG)
    team.until_phase("first", "Running", seconds=180)
    apply(team, "second", SHORT)
    quota = "insufficient unused quota for nvidia.com/gpu"
    waits(team, "second", "QueuePending", "LocalQueue team", "position 1", quota)
    shown = team.kubectl("get", "ftj", "-o", "wide")
    assert "Queued" in shown
    assert "QueuePending" in shown

    [before] = team.pods("first", "train")
    apply(team, "urgent", LONG, priority="high")
    waits(team, "first", "QueuePreempted", "to accommodate a workload", quota)
    team.until_phase("urgent", "Running", seconds=180)
    team.patch("urgent", suspend=True)
    # By priority and age the first one is next.
    team.until_phase("first", "Running", seconds=180)
    [after] = team.pods("first", "train")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    status = team.status("first")
    assert (status["attempt"], status.get("restarts", 0), status.get("countedFailures", 0)) == (1, 0, 0)
    events = team.kubectl("get", "events", "--field-selector=involvedObject.name=first")
    assert "QueueAdmitted" in events

    team.patch("first", suspend=True)
    assert team.until_finished("second", seconds=180)["phase"] == "Succeeded", team.picture()
    team.kubectl("delete", "ftj", "first", "urgent")


def test_a_queue_that_does_not_exist_is_named_and_may_be_corrected(team: Lab) -> None:
    apply(team, "typo", SHORT, queue="taem")
    waits(team, "typo", "QueueInadmissible", "LocalQueue taem doesn't exist")
    team.patch("typo", scheduling={"queueName": "team"})
    status = team.until_finished("typo", seconds=180)
    assert status["phase"] == "Succeeded", team.picture()
    assert status.get("countedFailures", 0) == 0


def test_a_queue_may_go_while_a_job_waits_in_it(team: Lab) -> None:
    apply(team, "holder", LONG)
    team.until_phase("holder", "Running", seconds=180)
    apply(team, "waiter", SHORT)
    waits(team, "waiter", "QueuePending")
    team.kubectl("delete", "localqueue", "team", "--wait=false")
    waits(team, "waiter", "QueueInadmissible", "LocalQueue team")
    assert team.status("holder")["phase"] == "Running", "an admitted job goes on"
    team.kubectl("delete", "ftj", "holder", "waiter")


def test_two_nodes_are_admitted_together_or_not_at_all(team: Lab) -> None:
    resources = {"gpus": 1, "nodes": 2, "cpu": "100m", "memory": "128Mi"}
    apply(team, "gang", SHORT, resources=resources)
    waits(team, "gang", "QueuePending", "nvidia.com/gpu")
    assert team.pods("gang", "train") == [], "one GPU is there, and no pod takes it"
    _give_gpus(team, 2)
    team.until("both pods", lambda: len(team.pods("gang", "train")) == 2)
    _give_gpus(team, 1)
    team.kubectl("delete", "ftj", "gang")


def test_preflight_takes_no_gpu_quota_and_may_have_a_queue_of_its_own(team: Lab) -> None:
    apply(team, "checked", SHORT, preflight={"queueName": "team"})
    assert team.until_finished("checked", seconds=180)["phase"] == "Succeeded", team.picture()
    [preflight] = team.children("checked", "preflight")
    assert preflight["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    workloads = team.target.kubectl.items("-n", team.namespace, "workloads")
    asked = {
        owner["name"]: item["status"]["admission"]["podSetAssignments"][0]["resourceUsage"]
        for item in workloads
        for owner in item["metadata"]["ownerReferences"]
        if "admission" in item.get("status", {})
    }
    assert "nvidia.com/gpu" not in asked.get("checked-preflight-1", {})
