"""Trainings that send their metrics to a real MLflow server, to a real Trackio server, and to none that answers."""

import json
import os
import sqlite3
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from component.plane import free_port
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.layout import TRACKER_PYTHON_ENV, TRACKING_SECRET_ENV
from finetune_trainer.contract.progress import Progress, Stage
from finetune_trainer.tracking.environment import tracker_environment
from finetune_trainer.tracking.messages import Begin, End, Message, Metrics, RunStatus, TrackerKind, to_line
from tracking.servers import PYTHON, mlflow_server, trackio_server
from trainer.conftest import local_run, tiny_model
from trainer.running import QUESTIONS, LocalRun, folder_of

__all__ = ["local_run", "tiny_model"]

ENVIRONMENT = {"PATH": os.environ["PATH"], TRACKER_PYTHON_ENV: str(PYTHON)}
STEPS = 4


@pytest.fixture(autouse=True)
def _a_slow_machine_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("END_SECONDS", "_STOPPING_SECONDS"):
        monkeypatch.setattr(f"finetune_trainer.train.tracked_run.{limit}", 600.0)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), free_port()) as url:
        yield url


def _run(local_run: Callable[..., LocalRun], tracking: dict[str, Any], **sections: Any) -> LocalRun:
    run = local_run(
        QUESTIONS,
        job={"name": "support", "namespace": "team", "uid": "0a1b"},
        tracking=tracking,
        training={"maxSteps": STEPS, "batchSize": 8, "learningRate": "2e-3", "warmup": "0"},
        dataset={"validation": {"fraction": "0.25"}},
        **sections,
    )
    run.environment = ENVIRONMENT
    return run


def _asked(url: str, path: str, **body: Any) -> dict[str, Any]:
    request = urllib.request.Request(f"{url}/api/2.0/mlflow/{path}", headers={"Content-Type": "application/json"})
    request.data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def _runs(url: str, experiment: str) -> list[dict[str, Any]]:
    known = _asked(url, f"experiments/get-by-name?experiment_name={experiment}")["experiment"]["experiment_id"]
    runs: list[dict[str, Any]] = _asked(url, "runs/search", experiment_ids=[known])["runs"]
    return runs


def _steps(url: str, run: dict[str, Any], metric: str) -> set[int]:
    history = _asked(url, f"metrics/get-history?run_id={run['info']['run_id']}&metric_key={metric}")
    return {int(entry["step"]) for entry in history["metrics"]}


def test_mlflow_has_one_run_with_settings_and_metrics(mlflow: str, local_run: Callable[..., LocalRun]) -> None:
    result = _run(local_run, {"mlflow": {"uri": mlflow, "experiment": "whole"}})()

    (run,) = _runs(mlflow, "whole")
    parameters = {item["key"]: item["value"] for item in run["data"]["params"]}
    tags = {item["key"]: item["value"] for item in run["data"]["tags"]}
    metrics = {item["key"]: item["value"] for item in run["data"]["metrics"]}
    assert (run["info"]["run_name"], run["info"]["status"]) == ("support", "FINISHED")
    assert (parameters["lora.rank"], parameters["training.learningRate"]) == ("4", "2e-3")
    assert (tags["finetune.dev/namespace"], tags["finetune.dev/attempt"]) == ("team", "1")
    assert tags["finetune.dev/fingerprint"] == result.fingerprint[:12]
    assert _steps(mlflow, run, "loss") == set(range(1, STEPS + 1))
    assert metrics["eval_loss"] == pytest.approx(result.output.metrics["eval_loss"])
    assert metrics["base_eval_loss"] == pytest.approx(result.output.metrics["base_eval_loss"])


def test_a_preempted_training_goes_on_in_the_same_run(mlflow: str, local_run: Callable[..., LocalRun]) -> None:
    run = _run(local_run, {"mlflow": {"uri": mlflow}})

    def tell(progress: Progress) -> None:
        if progress.stage is Stage.TRAINING and progress.step == 2:
            run.stop.set()

    run.on_progress = tell
    with pytest.raises(TrainerError) as stopped:
        run()
    (between,) = _runs(mlflow, "team")
    run.changed(job={"attempt": 2})()

    assert stopped.value.reason is FailureReason.PREEMPTED
    assert between["info"]["status"] == "KILLED"
    (after,) = _runs(mlflow, "team")
    assert (after["info"]["run_id"], after["info"]["status"]) == (between["info"]["run_id"], "FINISHED")
    assert _steps(mlflow, after, "loss") == set(range(1, STEPS + 1))


def test_a_failed_training_is_a_failed_run(mlflow: str, local_run: Callable[..., LocalRun]) -> None:
    run = _run(
        local_run,
        {"mlflow": {"uri": mlflow, "experiment": "gated"}},
        evaluation={"gate": {"minLossImprovement": "0.99"}},
    )
    with pytest.raises(TrainerError):
        run()

    (failed,) = _runs(mlflow, "gated")
    assert failed["info"]["status"] == "FAILED"


def test_a_tracker_that_does_not_answer_changes_nothing(
    local_run: Callable[..., LocalRun], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = _run(local_run, {"mlflow": {"uri": f"http://127.0.0.1:{free_port()}"}})

    adapter = folder_of(run()) / "adapter_model.safetensors"

    untracked = run.changed(output={"uri": f"file://{tmp_path}/untracked"}, tracking={"mlflow": None})
    assert adapter.read_bytes() == (folder_of(untracked()) / "adapter_model.safetensors").read_bytes()
    assert "does not answer" in caplog.text


def test_a_client_that_is_not_installed_changes_nothing(
    local_run: Callable[..., LocalRun], caplog: pytest.LogCaptureFixture
) -> None:
    run = _run(local_run, {"mlflow": {"uri": "http://127.0.0.1:1"}})
    run.environment = {"PATH": os.environ["PATH"]}

    run()

    assert "not sent: mlflow: install finetune-operator[trackers]" in caplog.text


def test_trackio_gets_the_metrics_with_its_token(local_run: Callable[..., LocalRun], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "TRACKIO_WRITE_TOKEN").write_text("of-the-test")
    with trackio_server(tmp_path / "trackio", free_port(), "of-the-test") as url:
        run = _run(local_run, {"trackio": {"uri": url, "experiment": "project"}})
        run.environment = {**ENVIRONMENT, TRACKING_SECRET_ENV: str(secret)}
        run()

    with sqlite3.connect(tmp_path / "trackio/project.db") as database:
        logged = [json.loads(row) for (row,) in database.execute("SELECT metrics FROM metrics ORDER BY id")]
    assert [entry["train/global_step"] for entry in logged if "train/loss" in entry] == list(range(1, STEPS + 1))
    assert any("eval/loss" in entry for entry in logged)


def test_wandb_takes_what_it_is_sent(tmp_path: Path) -> None:
    """There is no server to be had: the client itself takes the run and its metrics, and keeps them offline."""
    variables = tracker_environment(TrackerKind.WANDB, "http://127.0.0.1:1", {"PATH": os.environ["PATH"]}, tmp_path)
    begin = Begin(tracker=TrackerKind.WANDB, experiment="team/project", name="support", run="0a1b")
    messages: list[Message] = [
        begin,
        Metrics(step=1, values={"loss": 1.0, "eval_loss": 2.0}),
        End(status=RunStatus.FINISHED),
    ]

    done = subprocess.run(
        [str(PYTHON), "-m", "finetune_trainer.tracking"],
        input="".join(map(to_line, messages)),
        env={**variables, "WANDB_MODE": "offline", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )

    assert [json.loads(line)["message"] for line in done.stdout.splitlines()] == ["sending to wandb"]
    (written,) = tmp_path.glob("wandb/offline-run-*/run-0a1b.wandb")
    assert written.stat().st_size > 0
