"""The whole path with the real trainer: a YAML, its way through the states, and the adapter that comes out."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.lab import Lab, condition
from demo.answers import ask
from demo.artefact import download, verified_manifest
from demo.s3 import keys_under, s3_client
from demo.smollm2 import chatterbot_rows, prepare_smollm2
from finetune_trainer.runtime import log
from localcluster import levers

TINY_STEPS = 6
REAL_STEPS = 12


def test_a_yaml_becomes_a_checksummed_adapter(lab: Lab, tmp_path: Path) -> None:
    lab.apply("tiny", training={"maxSteps": TINY_STEPS, "batchSize": 4}, lora={"rank": 4, "alpha": 8})
    status = lab.until_finished("tiny", seconds=240)
    assert status["phase"] == "Succeeded", lab.picture()
    assert condition(status, "Ready")["status"] == "True"
    assert condition(status, "PreflightPassed")["status"] == "True"
    assert status["preflight"]["rows"] == 64
    assert status["progress"]["display"] == f"100% {TINY_STEPS}/{TINY_STEPS}"
    assert status["output"]["rank"] == 4
    manifest = verified_manifest(download(lab.target, status, tmp_path), status)
    assert status["output"]["uri"].endswith(f"/{manifest['adapter']}")
    assert [len(lab.children("tiny", role)) for role in ("preflight", "train")] == [1, 1]


def test_the_same_yaml_again_trains_nothing(lab: Lab) -> None:
    lab.apply("again", training={"maxSteps": 1, "batchSize": 4})
    first = lab.until_finished("again", seconds=240)
    assert first["phase"] == "Succeeded", lab.picture()
    lab.kubectl("delete", "ftj", "again", "--cascade=foreground", timeout=180)
    lab.apply("again", training={"maxSteps": 1, "batchSize": 4})
    second = lab.until_finished("again")
    assert condition(second, "Succeeded")["reason"] == "OutputAlreadyExists"
    assert second["output"] == first["output"]
    assert lab.children("again", "train") == []


def test_a_trainer_that_is_killed_and_evicted_makes_the_bytes_of_one_that_was_left_alone(
    lab: Lab, tmp_path: Path
) -> None:
    cluster = lab.target.require_local()
    recipe = {
        "training": {"maxSteps": 1500, "batchSize": 4},
        "lora": {"dropout": "0.1"},
        "checkpoint": {"everySteps": 50},
    }
    lab.apply("disturbed", **recipe)

    def checkpoint_after(step: int) -> int:
        """Waits for a checkpoint of a later step; returns its step."""

        def newest() -> int | None:
            found = int(lab.status("disturbed").get("progress", {}).get("checkpointStep", 0))
            return found if found > step else None

        return int(lab.until(f"a checkpoint after step {step}", newest, seconds=180))

    first = checkpoint_after(0)
    [pod] = lab.pods("disturbed", "train")
    levers.kill_container(cluster, lab.namespace, pod["metadata"]["name"])
    checkpoint_after(first)
    [pod] = [pod for pod in lab.pods("disturbed", "train") if pod["status"]["phase"] == "Running"]
    levers.evict(lab.target.kubectl, lab.namespace, pod["metadata"]["name"])
    status = lab.until_finished("disturbed", seconds=300)
    assert status["phase"] == "Succeeded", lab.picture()
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Killed", "TrainingSucceeded"]
    assert status["progress"]["resumedFromStep"] > first

    lab.apply("left-alone", **recipe)
    alone = lab.until_finished("left-alone", seconds=240)
    assert alone["phase"] == "Succeeded", lab.picture()
    assert "resumedFromStep" not in alone["progress"]
    weights = [
        _weights_digest(verified_manifest(download(lab.target, found, tmp_path / name), found))
        for name, found in (("disturbed", status), ("alone", alone))
    ]
    assert weights[0] == weights[1]
    left = keys_under(s3_client(lab.target.s3), lab.bucket, "")
    assert [key for key in left if "/checkpoints/" in key] == []


def _weights_digest(manifest: dict[str, Any]) -> str:
    [digest] = [file["sha256"] for file in manifest["files"] if file["path"].endswith("/adapter_model.safetensors")]
    return str(digest)


def test_pairs_of_answers_become_an_adapter(lab: Lab, tmp_path: Path) -> None:
    data = "".join(
        json.dumps({"prompt": f"What is {number}? ", "chosen": f"It is {number}.", "rejected": f"I guess {number}!"})
        + "\n"
        for number in range(32)
    )
    s3_client(lab.target.s3).put_object(Bucket=lab.bucket, Key="data/pairs.jsonl", Body=data.encode())
    lab.apply(
        "pairs",
        method="dpo",
        dataset={"uri": f"s3://{lab.bucket}/data/pairs.jsonl", "validation": {"fraction": "0.25"}},
        training={"maxSteps": TINY_STEPS, "batchSize": 4, "learningRate": "1e-2"},
        evaluation={"gate": {"minAccuracy": "0.5"}},
    )
    status = lab.until_finished("pairs", seconds=240)
    assert status["phase"] == "Succeeded", lab.picture()
    assert status["preflight"]["rows"] == 32
    assert float(status["progress"]["rewardMargin"]) > 0
    assert (
        status["progress"]["evalRewardAccuracy"] == f"{float(status['output']['metrics']['eval_reward_accuracy']):.4f}"
    )
    assert verified_manifest(download(lab.target, status, tmp_path), status)["recipe"]["method"] == "dpo"


def test_nothing_that_was_applied_is_changed(lab: Lab) -> None:
    lab.apply("quiet", training={"maxSteps": 1, "batchSize": 4}, suspend=True)
    lab.until_phase("quiet", "Suspended")
    manifest = json.dumps(lab.manifest("quiet", training={"maxSteps": 1, "batchSize": 4}, suspend=True))
    assert lab.kubectl("diff", "-f", "-", stdin=manifest) == ""


@pytest.mark.filterwarnings("ignore")  # what the libraries say while they generate text is theirs
def test_a_real_model_answers_differently_afterwards(lab: Lab, tmp_path: Path) -> None:
    with log.libraries_quiet():
        model = prepare_smollm2()
    client = s3_client(lab.target.s3)
    for path in model.iterdir():
        client.upload_file(str(path), lab.bucket, f"models/smollm2/{path.name}")
    data = "".join(json.dumps(row) + "\n" for row in chatterbot_rows())
    client.put_object(Bucket=lab.bucket, Key="data/chat.jsonl", Body=data.encode())
    lab.apply(
        "real",
        model={"uri": f"s3://{lab.bucket}/models/smollm2"},
        dataset={"uri": f"s3://{lab.bucket}/data/chat.jsonl", "maxLength": 256},
        lora={"rank": 8, "alpha": 16},
        training={"maxSteps": REAL_STEPS, "batchSize": 8, "learningRate": "2e-3"},
        resources={"gpus": 0},
    )
    status = lab.until_finished("real", seconds=600)
    assert status["phase"] == "Succeeded", lab.picture()
    run = download(lab.target, status, tmp_path)
    manifest = verified_manifest(run, status)
    with log.libraries_quiet():
        [answer] = ask(model, run / manifest["adapter"], ["My mouse is not responding."])
    assert answer.base != answer.tuned
