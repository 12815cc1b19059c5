"""The count of writes is what the benchmarks publish: it must be exact."""

import json
from pathlib import Path

import pytest

from localcluster import audit
from localcluster.audit import AuditLog, Write


def event(agent: str, verb: str, resource: str, namespace: str = "default", sub: str = "", code: int = 200) -> str:
    target = {"resource": resource, "namespace": namespace, "name": "x"}
    if sub:
        target["subresource"] = sub
    return json.dumps(
        {
            "verb": verb,
            "userAgent": agent,
            "user": {"username": "someone"},
            "objectRef": target,
            "responseStatus": {"code": code},
            "requestURI": "/apis?fieldManager=somebody&force=true",
        }
    )


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AuditLog:
    monkeypatch.setattr(audit, "_SETTLED_SECONDS", 0.01)
    return AuditLog(tmp_path / "audit.log")


def test_reads_a_line() -> None:
    agent = (
        "kube-controller-manager/v1.36.3 (linux/amd64) kubernetes/abc/system:serviceaccount:kube-system:job-controller"
    )
    write = Write.parse(event(agent, "patch", "jobs", sub="status", code=409))
    assert write == Write(
        agent="kube-controller-manager",
        user_agent=agent,
        user="someone",
        verb="patch",
        resource="jobs/status",
        namespace="default",
        name="x",
        code=409,
        field_manager="somebody",
    )


def test_reads_a_request_without_an_object() -> None:
    assert Write.parse('{"verb": "create", "userAgent": ""}').resource == ""


def test_counts_by_program_after_a_mark(log: AuditLog) -> None:
    log.path.write_text(event("kubectl/v1", "create", "jobs") + "\n")
    mark = log.mark()
    with log.path.open("a") as file:
        for line in (
            event("kopf/1.45", "patch", "finetunejobs", sub="status"),
            event("kopf/1.45", "create", "jobs"),
            event("kopf/1.45", "create", "jobs", namespace="other"),
            event("kubelet/v1", "patch", "pods", sub="status"),
        ):
            file.write(line + "\n")
    assert log.count(mark) == {"kopf": 3, "kubelet": 1}
    assert log.count(mark, namespace="default") == {"kopf": 2, "kubelet": 1}
    assert log.count()["kubectl"] == 1


def test_a_log_that_does_not_exist_yet_has_a_mark(log: AuditLog) -> None:
    assert log.mark() == 0


def test_the_policy_skips_what_says_nothing() -> None:
    none, *_ = audit.POLICY["rules"]
    assert none == {"level": "None", "verbs": ["get", "list", "watch"]}
    skipped = [entry.get("resources", []) for rule in audit.POLICY["rules"] for entry in rule.get("resources", [])]
    assert ["leases"] in skipped
    assert skipped.count(["events"]) == 2
