"""`kubectl finetune init`, `plan`, `compare` and `top`."""

import json
from pathlib import Path

from component.plugin.conftest import User


def test_init_writes_a_file_that_plan_and_submit_take(user: User, tmp_path: Path) -> None:
    file = tmp_path / "first.yaml"
    answers = ("--name", "bot", "--model", "hf://org/base", "--data", "s3://data/t.jsonl", "--to", "s3://models/a")
    said = user.types("init", file, *answers, "--gpus", "0", "--rank", "8", "--epochs", "2", "--secret", "keys")
    assert (said.code, "bot is valid" in said.err) == (0, True)
    planned = user.types("plan", file)
    assert planned.code == 0, planned.err
    assert f"bot would be created in namespace {user.namespace}" in planned.out
    assert not user.plane.items("ftj", user.namespace), "a plan stores nothing"
    assert user.types("submit", file).out == "finetunejob.finetune.dev/bot created\n"
    spec = user.stored("bot")["spec"]
    assert (spec["lora"]["rank"], spec["training"]["epochs"], spec["resources"]["gpus"]) == (8, 2, 0)
    assert spec["storage"]["secretRef"]["name"] == "keys"


def test_init_asks_nobody_where_nobody_is_and_never_replaces_in_silence(user: User, tmp_path: Path) -> None:
    file = tmp_path / "first.yaml"
    missing = user.types("init", file, "--name", "bot")
    assert (missing.code, "--model is missing" in missing.err) == (2, True)
    assert user.types("init", file, "--yes").code == 0
    again = user.types("init", file, "--yes")
    assert (again.code, "--force" in again.err) == (2, True)
    assert user.types("init", file, "--yes", "--force", "--name", "other").code == 0
    assert '"other"' in file.read_text()
    wrong = user.types("init", "-", "--yes", "--model", 'hf://x"\n  lora: {rank: 1}')
    assert (wrong.code, wrong.out) == (10, "")
    assert "spec.model.uri" in wrong.err


def test_a_plan_names_pods_gpus_and_deadlines(user: User) -> None:
    resources = {"gpus": 8, "nodes": 2}
    out = user.types("plan", user.file("job", resources=resources, preflight={}, training={"maxSteps": 500})).out
    for words in (
        "Job job-preflight-1: cpu 100m, memory 1Gi, no GPU",
        "Job job-train-1: 2 pods with 8 x nvidia.com/gpu",
        "16 GPUs at once",
        "500 steps of 16 rows",
        "a pod starts within 24h; the job ends within no limit",
    ):
        assert words in out


def test_a_plan_says_what_a_change_does_and_when(user: User) -> None:
    user.types("submit", user.file("job", retry={"limit": 1}))
    assert "the file changes nothing" in user.types("plan", user.file("job", retry={"limit": 1})).out
    said = user.types("plan", user.file("job", retry={"limit": 2}, resources={"gpus": 2}, suspend=True))
    assert said.code == 0
    rows = [line.split() for line in said.out.splitlines()]
    assert ["retry.limit", "1", "2", "at", "once"] in rows
    assert ["resources.gpus", "1", "2", "from", "the", "next", "attempt", "on"] in rows
    assert ["suspend", "false", "true", "at", "once"] in rows
    refused = user.types("plan", user.file("job", lora={"rank": 8}))
    assert refused.code == 1
    assert "submit would be refused" in refused.err
    assert "lora is immutable" in refused.err
    assert "never: create a job with another name" in refused.out
    assert user.stored()["spec"]["retry"]["limit"] == 1


def test_compare_shows_what_differs_and_what_came_out(user: User) -> None:
    user.applies("one", lora={"rank": 8}, training={"learningRate": "1e-4"})
    user.applies("two", lora={"rank": 16}, training={"learningRate": "0.0001"})
    user.succeeds("one")
    user.fails("two")
    out = user.types("compare", "one", "two").out
    rows = [line.split() for line in out.splitlines()]
    assert ["lora.rank", "8", "16"] in rows
    assert ["status", "Succeeded", "Failed"] in rows
    assert ["eval_loss", "0.75", "-"] in rows
    assert ["failure", "-", "DatasetInvalid"] in rows
    assert "model.uri" not in out
    data = json.loads(user.types("compare", "one", "two", "-o", "json").out)
    assert data["settings"]["lora.rank"] == ["8", "16"]
    same = user.types("compare", "one", "one").out
    assert same.startswith("the settings are the same\n")


def test_top_counts_gpus_and_money_of_what_has_not_ended(user: User) -> None:
    assert "no unfinished" in user.types("top").err
    for name in ("runs", "waits", "done"):
        user.applies(name)
    user.runs("runs")
    user.succeeds("done")
    out = user.types("top").out
    assert "done" not in out
    head, first, second, _, sums = out.splitlines()
    assert head.split()[:6] == ["NAME", "STATUS", "PROGRESS", "GPUS", "GPU-HOURS", "COST"]
    assert first.split()[:6] == ["runs", "Running", "62%", "310/500", "2", "2.00"]
    assert second.startswith("waits")
    assert "2 jobs, 1 with GPUs, 1 waiting; 2 GPUs in use, 2.00 GPU hours; cost 6.0" in sums
    assert "6.00 an hour now; 1 without a price" in sums
    data = json.loads(user.types("top", "--ended", "-o", "json").out)
    assert {row["name"]: row["gpus"] for row in data["jobs"]} == {"runs": 2, "waits": 0, "done": 0}
