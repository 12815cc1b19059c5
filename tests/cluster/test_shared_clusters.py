"""Jobs in a namespace with a quota and limits, and on a node with a taint, on a real kubelet."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.lab import Lab, condition

pytestmark = pytest.mark.usefixtures("scripted")

QUOTA = {"limits.cpu": "4", "limits.memory": "8Gi", "requests.cpu": "2", "requests.memory": "4Gi"}
SMALL = {"cpu": "100m", "memory": "256Mi"}
TAINT = "finetune-test/team=ml:NoSchedule"
TOLERATION = {"key": "finetune-test/team", "operator": "Equal", "value": "ml", "effect": "NoSchedule"}
SCENARIO = {"name": "FINETUNE_SCENARIO", "value": json.dumps({"steps": 2, "stepSeconds": 0.1})}


def apply(lab: Lab, name: str, scheduling: dict[str, Any] | None = None, **spec: Any) -> None:
    """A job whose preflight is the real one, and whose training is scripted."""
    lab.apply(name, scheduling={**(scheduling or {}), "env": [SCENARIO]}, **spec)


@pytest.fixture
def limited(lab: Lab) -> Lab:
    """A namespace that counts the limits of its pods, and bounds the memory of a container."""
    for kind, name, spec in (
        ("ResourceQuota", "quota", {"hard": QUOTA}),
        ("LimitRange", "limits", {"limits": [{"type": "Container", "max": {"memory": "2Gi"}}]}),
    ):
        manifest = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        lab.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    lab.until("the quota to count", lambda: _quota(lab).get("status", {}).get("used"))
    return lab


def _quota(lab: Lab) -> dict[str, Any]:
    return lab.target.kubectl.get("-n", lab.namespace, "resourcequota", "quota")


def test_a_quota_lets_a_job_with_limits_through_and_ends_others_with_its_words(limited: Lab) -> None:
    fits = {"gpus": 0, **SMALL, "cpuLimit": "1"}
    checked = {**SMALL, "cpuLimit": "500m"}
    apply(limited, "fits", resources=fits, preflight={"resources": checked})
    apply(limited, "waits", resources=fits, preflight={"resources": SMALL})
    apply(limited, "no-limit", resources=fits, preflight={"resources": SMALL}, startDeadlineSeconds=35)
    too_large = {"resources": {**checked, "memory": "3Gi"}}
    apply(limited, "too-large", resources=fits, preflight=too_large, startDeadlineSeconds=35)

    waiting = limited.until("the words of the quota", lambda: _waiting(limited, "waits"))
    assert "must specify limits.cpu for: preflight" in waiting["message"]
    fitting = limited.until_finished("fits")
    assert fitting["phase"] == "Succeeded", limited.picture()
    assert [len(limited.pods("fits", role)) for role in ("preflight", "train")] == [1, 1]
    for name, words in (
        ("no-limit", "must specify limits.cpu for: preflight"),
        ("too-large", "maximum memory usage per Container is 2Gi"),
    ):
        status = limited.until_finished(name)
        assert status["failure"]["reason"] == "StartDeadlineExceeded", status
        assert words in status["failure"]["message"]
        assert limited.pods(name) == []


def _waiting(lab: Lab, name: str) -> dict[str, Any] | None:
    found = condition(lab.status(name), "Reconciling")
    return found if found.get("reason") == "PodNotCreated" else None


@pytest.fixture
def tainted(lab: Lab) -> Iterator[Lab]:
    """Every node takes only pods that tolerate a taint."""
    lab.target.require_local()
    lab.target.kubectl("taint", "node", "--all", TAINT, "--overwrite")
    try:
        yield lab
    finally:
        lab.target.kubectl("taint", "node", "--all", f"{TAINT}-")


def test_preflight_runs_on_a_node_that_only_the_job_tolerates(tainted: Lab) -> None:
    tolerating = {"tolerations": [TOLERATION]}
    apply(tainted, "inherits", tolerating)
    apply(tainted, "does-not", tolerating, preflight={"scheduling": "none"}, startDeadlineSeconds=20)
    status = tainted.until_finished("inherits")
    assert status["phase"] == "Succeeded", tainted.picture()
    assert [len(tainted.pods("inherits", role)) for role in ("preflight", "train")] == [1, 1]
    refused = tainted.until_finished("does-not")
    assert refused["failure"]["reason"] == "StartDeadlineExceeded"
    assert "untolerated taint" in refused["failure"]["message"]
