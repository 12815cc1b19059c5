"""`kubectl finetune status`, `suspend`, `resume` and `rerun`, and what is said when the cluster refuses."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from component.plane import Plane
from component.plugin.conftest import User


def test_the_list_has_the_columns_of_kubectl_and_those_that_it_lacks(user: User) -> None:
    assert user.types("status").err == f"no FineTuneJobs in namespace {user.namespace}\n"
    user.applies("a-new-one")
    user.applies("job")
    user.runs("job")
    head, new, job = user.types("status").out.splitlines()
    assert head.split() == ["NAME", "STATUS", "PROGRESS", "LOSS", "ETA", "RESTARTS", "GPUS", "AGE"]
    assert new.split()[:2] == ["a-new-one", "0"]
    assert job.split()[:9] == ["job", "Running", "62%", "310/500", "1.2345", "90m", "1", "2", job.split()[-1]]
    wide = user.types("status", "-o", "wide", "--all-namespaces").out
    assert "WAITS FOR" in wide
    assert f"{user.namespace}   job " in wide
    assert "hf://org/model" in wide
    assert user.types("status", "-l", "team=a").err.startswith("no FineTuneJobs")


def test_the_screen_says_everything_about_a_running_job(user: User) -> None:
    user.applies("job")
    user.runs("job")
    said = user.types("status", "job")
    assert said.code == 0
    for words in (
        f"job in {user.namespace}",
        "Status:     Running, 5m",
        "(Training)",
        "62% 310/500, Training, 12,500 tokens/s, 90m left",
        "Loss:       1.2345, learning rate 0.0002",
        "Checkpoint: step 300, 4m",
        "Pod:        job-train-2-x7",
        "cost 6.0",
        "GpuOutOfMemory   21     CUDA out of memory in the first step",
        "(runs)",
    ):
        assert words in said.out
    assert "Waits for" not in said.out


def test_the_cluster_is_named_before_or_after_the_word(user: User) -> None:
    user.applies("job")
    before = user.types("-n", user.namespace, "status", "job")
    assert f"job in {user.namespace}" in before.out
    assert user.types("-n", "kube-public", "status").err == "no FineTuneJobs in namespace kube-public\n"
    both = user.types("--namespace", "kube-public", "status", "-n", user.namespace)
    assert both.out.splitlines()[1].startswith("job ")
    wrong = user.types("--context", "none", "top")
    assert (wrong.code, "has no context none" in wrong.err) == (2, True)


def test_the_screen_has_the_events(user: User) -> None:
    job = user.applies("job")
    event: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "job.1", "namespace": user.namespace},
        "involvedObject": {
            "kind": "FineTuneJob",
            "name": "job",
            "namespace": user.namespace,
            "uid": job["metadata"]["uid"],
        },
        "type": "Warning",
        "reason": "Unschedulable",
        "message": "0/1 nodes \x1b[31mare available",
        "count": 3,
        "lastTimestamp": user.ago(minutes=2),
    }
    user.plane.kubectl("create", "-f", "-", stdin=json.dumps(event))
    other = {**event, "metadata": {"name": "job.2", "namespace": user.namespace}, "reason": "OfAnother"}
    other["involvedObject"] = {**event["involvedObject"], "uid": str(uuid.uuid4())}
    user.plane.kubectl("create", "-f", "-", stdin=json.dumps(other))
    out = user.types("status", "job").out
    assert "(x3)   Warning   Unschedulable   0/1 nodes \\x1b[31mare available" in out
    assert "OfAnother" not in out


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({}, "no operator has seen it"),
        ({"phase": "Suspended"}, "kubectl finetune resume job"),
        (
            {"phase": "Retrying", "attempts": [{"number": 1, "reason": "Killed", "message": "by \x07a signal"}]},
            "attempt 1 ended with Killed: by \\x07a signal",
        ),
        ({"phase": "Running", "progress": {"waitingFor": "s3://data does not answer"}}, "s3://data does not answer"),
        ({"phase": "Starting", "reason": "Unschedulable"}, "0/1 nodes are available"),
    ],
)
def test_it_says_what_a_job_waits_for(user: User, status: dict[str, Any], words: str) -> None:
    user.applies("job")
    if status:
        reason = status.pop("reason", "Training")
        condition = user.condition("Succeeded", "Unknown", reason, "0/1 nodes are available")
        user.reports("job", observedGeneration=1, conditions=[condition], **status)
    [line] = [line for line in user.types("status", "job").out.splitlines() if line.startswith("Waits for:")]
    assert words in line


def test_for_programs_it_prints_objects(user: User) -> None:
    user.applies("one")
    user.applies("two")
    listed = json.loads(user.types("status", "-o", "json").out)
    assert listed["kind"] == "List"
    assert [item["metadata"]["name"] for item in listed["items"]] == ["one", "two"]
    one = yaml.safe_load(user.types("status", "-o", "yaml", "one").out)
    assert (one["kind"], one["apiVersion"]) == ("FineTuneJob", "finetune.dev/v1alpha1")
    assert one["spec"]["model"]["uri"] == "hf://org/model"
    assert "managedFields" not in one["metadata"]


def test_suspend_and_resume_change_one_field(user: User) -> None:
    user.applies("job")
    assert user.types("suspend", "job").out == "finetunejob.finetune.dev/job suspended\n"
    assert user.stored()["spec"]["suspend"] is True
    assert user.types("suspend", "job").out == "finetunejob.finetune.dev/job is suspended already\n"
    assert user.types("resume", "job").out == "finetunejob.finetune.dev/job resumed\n"
    assert user.stored()["spec"]["suspend"] is False
    user.succeeds("job")
    ended = user.types("suspend", "job")
    assert (ended.code, ended.err) == (1, "job has ended (Succeeded): there is nothing to suspend\n")


def test_rerun_gives_an_ended_job_another_run_token(user: User) -> None:
    user.applies("job")
    early = user.types("rerun", "job")
    assert (early.code, early.err) == (1, "job has not ended (not seen): suspend or delete it first\n")
    user.succeeds("job")
    assert "runs again" in user.types("rerun", "job").out
    assert len(user.stored()["spec"]["runToken"]) == len("2026-11-24T10:00:00Z")
    again = user.types("rerun", "job")
    assert again.code == 1, "the run that was asked for has not begun"
    user.reports("job", runToken=user.stored()["spec"]["runToken"])
    assert user.types("rerun", "job", "--token", "second").code == 0
    assert user.stored()["spec"]["runToken"] == "second"


def test_a_name_that_is_not_there_leads_to_the_near_ones(user: User) -> None:
    user.applies("support-bot")
    said = user.types("status", "suport-bot")
    place = f"in namespace {user.namespace}"
    assert (said.code, said.err) == (1, f"there is no FineTuneJob suport-bot {place}; there is support-bot\n")
    empty = user.types("status", "support-bot", "-n", "kube-public")
    assert empty.err == "there is no FineTuneJob support-bot in namespace kube-public; -n names another namespace\n"
    assert user.types("status", "../secrets").code == 2


def test_a_right_that_is_missing_is_named_with_the_role_that_has_it(user: User, plane: Plane) -> None:
    user.applies("job")
    plane.kubectl("create", "serviceaccount", "nobody", "-n", user.namespace)
    token = plane.kubectl("create", "token", "nobody", "-n", user.namespace).strip()
    config = json.loads(user.kubeconfig.read_text())
    config["users"] = [{"name": item["name"], "user": {"token": token}} for item in config["users"]]
    user.kubeconfig.write_text(json.dumps(config))
    who = f"you (system:serviceaccount:{user.namespace}:nobody)"
    asked = "ask an administrator for the ClusterRole finetune-operator-view"
    said = user.types("status")
    assert said.code == 1
    assert said.err.startswith(f"{who} may not list finetunejobs.finetune.dev in namespace {user.namespace}: {asked}")
    assert "may not list finetunejobs.finetune.dev in all namespaces" in user.types("status", "-A").err
    binding = ("create", "rolebinding", "viewer", f"--serviceaccount={user.namespace}:nobody", "-n", user.namespace)
    plane.kubectl(*binding, "--clusterrole=finetune-operator-view")
    screen = user.types("status", "job")
    assert screen.code == 0
    assert "without events: " in screen.err
    denied = user.types("suspend", "job")
    assert denied.code == 1
    assert "may not patch finetunejobs.finetune.dev" in denied.err
    assert "finetune-operator-edit" in denied.err


def test_credentials_contexts_and_servers_that_do_not_work_are_sentences(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = user.kubeconfig.read_text()
    said = user.types("status", "--context", "localclustr")
    assert said.code == 2
    assert "has no context localclustr; it has" in said.err
    assert user.types("status", "--kubeconfig", tmp_path / "none").err.startswith("no kubeconfig: ")
    (tmp_path / "text").write_text("just text")
    assert "cannot be used" in user.types("status", "--kubeconfig", tmp_path / "text").err
    config = json.loads(right)
    config["users"] = [{"name": item["name"], "user": {"token": "stale"}} for item in config["users"]]
    user.kubeconfig.write_text(json.dumps(config))
    assert "does not accept your credentials" in user.types("status").err
    config = json.loads(right)
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    user.kubeconfig.write_text(json.dumps(config))
    said = user.types("status")
    assert said.code == 1
    assert said.err.startswith("the API server does not answer (to list finetunejobs.finetune.dev): ")
    assert "0x" not in said.err
