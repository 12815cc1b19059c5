"""The resource as users meet it, on a real API server: what is taken, what is refused and in which words."""

import json
from typing import Any

import pytest

from deploy.server import ABSENT, RefusedError, Server, job
from finetune_operator.api.finetunejob import parse_spec
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.api.supplied import supplied_paths

pytestmark = pytest.mark.cluster


def test_three_facts_are_enough_and_every_default_is_shown(server: Server) -> None:
    server.apply(job())
    found = server.get("ftj", "support-bot")
    assert found["status"] == {"observedGeneration": -1, "restarts": 0}
    shown, meant = _leaves(found["spec"]), _leaves(parse_spec(job()["spec"]).to_dict())
    assert shown.items() <= meant.items()
    # The server cannot know what a profile supplies: those defaults are the models'.
    assert meant.keys() - shown.keys() <= set(supplied_paths(FineTuneJobSpec))
    assert parse_spec(found["spec"]) == parse_spec(job()["spec"])


def _leaves(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by path; a section without any is none."""
    found: dict[str, Any] = {}
    for name, value in section.items():
        found |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def test_the_same_object_again_changes_nothing(server: Server) -> None:
    server.apply(job())
    assert "unchanged" in server.apply(job())
    server.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(job()))
    assert server.get("ftj", "support-bot")["metadata"]["generation"] == 1
    assert server.kubectl("diff", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(job())) == ""


REFUSED: dict[str, tuple[dict[str, Any], dict[str, str], list[str]]] = {
    "bad model uri": (
        {"model.uri": "meta-llama/Llama-2-7b"},
        {},
        ["spec.model.uri", "must be hf://org/name, s3://bucket/prefix or pvc://claim/path"],
    ),
    "unknown field": ({"lorra": {}}, {}, ['unknown field "spec.lorra"']),
    "unknown nested field": ({"lora.r": 8}, {}, ['unknown field "spec.lora.r"']),
    "name with dots": ({}, {"name": "support.bot"}, ["metadata.name", "at most 63", "choose another name"]),
    "long name": ({}, {"name": "a" * 64}, ["metadata.name", "at most 63", "choose another name"]),
    "learningRate as a number": (
        {"training.learningRate": 0.0002},
        {},
        ['spec.training.learningRate in body must be of type string: "number"'],
    ),
    "learningRate in words": ({"training.learningRate": "small"}, {}, ["spec.training.learningRate", "in quotes"]),
    "epochs and maxSteps": (
        {"training.epochs": 1, "training.maxSteps": 10},
        {},
        ["spec.training", "set epochs or maxSteps, not both: remove one of them"],
    ),
    "file model": (
        {"model.uri": "file:///models/a"},
        {},
        ["spec.model.uri", "finetune local run", "use hf://, s3:// or pvc://"],
    ),
    "file cache": ({"model.cache": "file:///cache"}, {}, ["spec.model.cache", "finetune local run", "use pvc://"]),
    "file dataset": (
        {"dataset.uri": "file:///a.jsonl"},
        {},
        ["spec.dataset.uri", "use s3://, hf://, pvc:// or https://"],
    ),
    "file output": ({"output.uri": "file:///out"}, {}, ["spec.output.uri", "use s3://"]),
    "neither uri nor uris": ({"dataset": {"maxLength": 512}}, {}, ["spec.dataset", "set uri (one place) or uris"]),
    "no dataset": ({"dataset": ABSENT}, {}, ["spec.dataset: Required value"]),
    "reserved environment": (
        {"scheduling.env": [{"name": "HF_TOKEN", "value": "x"}]},
        {},
        ["spec.scheduling.env[0].name", "belongs to the trainer"],
    ),
    "label of a GitOps tool": (
        {"scheduling.labels": {"app.kubernetes.io/instance": "x"}},
        {},
        ["spec.scheduling.labels", "Argo CD", "remove them"],
    ),
    "micro-batch that does not divide": (
        {"training.batchSize": 16, "training.microBatchSize": 3},
        {},
        ["spec.training.microBatchSize", "must divide training.batchSize"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_field_and_say_what_to_do(installed: Server, case: str) -> None:
    changes, metadata, words = REFUSED[case]
    said = installed.refusal(job(changes, **metadata))
    assert [word for word in words if word not in said] == []


IMMUTABLE: dict[str, Any] = {
    "model.uri": "hf://org/other",
    "model.quantization": {"type": "fp4"},
    "model.revision": "main",
    "model.trustRemoteCode": True,
    "dataset.uri": "s3://data/other.jsonl",
    "lora.rank": 8,
    "training.epochs": 2,
    "evaluation.samplePrompts": ["hello"],
    "output.uri": "s3://models/other",
    "profileRef": {"kind": "ClusterFineTuneProfile", "name": "llama2-2023"},
}


@pytest.mark.parametrize("field", IMMUTABLE)
def test_what_shapes_the_result_is_immutable(server: Server, field: str) -> None:
    server.apply(job())
    # Of the model each field stands for itself, since how it is fetched may change.
    place = field if field.startswith("model.") else field.split(".", maxsplit=1)[0]
    with pytest.raises(RefusedError, match=f"spec.{place}.*immutable.*create a FineTuneJob with another name"):
        server.apply(job({field: IMMUTABLE[field]}))


def test_managed_by_cannot_be_added_later(server: Server) -> None:
    server.apply(job())
    with pytest.raises(RefusedError, match="managedBy is immutable"):
        server.apply(job({"managedBy": "example.com/other"}))


def test_what_only_says_when_and_where_may_change(server: Server) -> None:
    server.apply(job())
    changes = {
        "suspend": True,
        "runToken": "again",
        "startDeadlineSeconds": 60,
        "activeDeadlineSeconds": 3600,
        "stallTimeoutSeconds": 600,
        "retention.ttlSecondsAfterFinished": 60,
        "retry.limit": 1,
        "resources.memory": "32Gi",
        "storage.secretRef": {"name": "other-keys"},
        "storage.endpoint": "https://minio.storage:9000",
        "checkpoint": {"everySteps": 10, "keep": 3, "uri": "s3://scratch/checkpoints"},
        "model.tokenSecretRef": {"name": "hub-token"},
        "model.cache": "pvc://models",
        "scheduling.nodeSelector": {"gpu": "h100"},
    }
    server.apply(job(changes))
    assert server.get("ftj", "support-bot")["metadata"]["generation"] == 2


def test_server_side_apply_merges_the_environment_by_name(server: Server) -> None:
    for manager, variable in (("a", "NCCL_DEBUG"), ("b", "NCCL_P2P_LEVEL")):
        manifest = job({"scheduling.env": [{"name": variable, "value": "x"}]})
        server.kubectl("apply", "--server-side", f"--field-manager={manager}", "-f", "-", stdin=json.dumps(manifest))
    env = server.get("ftj", "support-bot")["spec"]["scheduling"]["env"]
    assert {item["name"] for item in env} == {"NCCL_DEBUG", "NCCL_P2P_LEVEL"}


def test_the_status_is_a_subresource_with_conditions_by_type(server: Server) -> None:
    server.apply(job())
    for manager, kind in (("operator", "Succeeded"), ("other", "Ready")):
        condition = {
            "type": kind,
            "status": "Unknown",
            "reason": "Pending",
            "message": "",
            "lastTransitionTime": "2026-11-24T10:00:00Z",
        }
        manifest = job() | {"status": {"observedGeneration": 1, "restarts": 2, "conditions": [condition]}}
        del manifest["spec"]
        server.kubectl(
            "apply", "--server-side", "--subresource=status", "--force-conflicts", f"--field-manager={manager}",
            "-f", "-", stdin=json.dumps(manifest),
        )  # fmt: skip
    status = server.get("ftj", "support-bot")["status"]
    assert {item["type"] for item in status["conditions"]} == {"Succeeded", "Ready"}
    assert server.get("ftj", "support-bot")["metadata"]["generation"] == 1


def test_columns_short_name_and_categories(server: Server) -> None:
    server.apply(job({"resources.gpus": 4}))
    status = {
        "observedGeneration": 1,
        "phase": "Running",
        "restarts": 1,
        "gpus": 4,
        "progress": {"display": "62% 310/500", "loss": "1.2340", "etaSeconds": 90},
    }
    server.kubectl(
        "patch",
        "ftj",
        "support-bot",
        "--subresource=status",
        "--type=merge",
        f"--patch={json.dumps({'status': status})}",
    )
    head, row = server.kubectl("get", "ftj").splitlines()
    assert head.split() == ["NAME", "STATUS", "PROGRESS", "LOSS", "RESTARTS", "GPUS", "AGE"]
    assert row.split()[:7] == ["support-bot", "Running", "62%", "310/500", "1.2340", "1", "4"]
    wide = server.kubectl("get", "ftj", "-o", "wide").splitlines()[0].split()
    assert wide[7:] == ["ETA", "REASON", "MODEL", "OUTPUT", "PROFILE"]
    for category in ("all", "ml"):
        assert "support-bot" in server.kubectl("get", category)


def test_explain_says_meaning_and_default(server: Server) -> None:
    said = server.explain("ftj.spec.lora")
    assert "Rank (r): inner dimension of the adapter's matrices. Default: 16." in said
    assert "enum: lora, rslora, dora" in said


def test_wait_for_either_end(server: Server) -> None:
    server.apply(job())
    condition = {
        "type": "Finished",
        "status": "True",
        "reason": "TrainingSucceeded",
        "message": "",
        "lastTransitionTime": "2026-11-24T10:00:00Z",
    }
    patch = json.dumps({"status": {"observedGeneration": 1, "conditions": [condition]}})
    server.kubectl("patch", "ftj", "support-bot", "--subresource=status", "--type=merge", f"--patch={patch}")
    assert "condition met" in server.kubectl("wait", "--for=condition=Finished", "ftj/support-bot", "--timeout=5s")
