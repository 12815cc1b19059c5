"""`finetune local run`: the whole path from a YAML with file:// places, as a user types it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from finetune_trainer.contract.failure import ExitCode
from finetune_trainer.contract.layout import ALLOW_CPU_ENV
from trainer.pods import wait_for
from trainer.tiny_model import make_tiny_model

pytestmark = pytest.mark.trainer


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A YAML with its model and data."""
    make_tiny_model(tmp_path / "model")
    rows = [{"text": f"Question {n}: what is {n} plus one? Answer: {n + 1}."} for n in range(16)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "job.yaml"
    path.write_text(
        f"""
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {{name: local}}
spec:
  model: {{uri: "file://{tmp_path}/model"}}
  dataset: {{uri: "file://{tmp_path}/train.jsonl"}}
  output: {{uri: "file://{tmp_path}/out"}}
  training: {{maxSteps: 2, batchSize: 4}}
  resources: {{gpus: 0}}
"""
    )
    return path


def finetune(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command, found beside the interpreter. `more` are further variables."""
    program = Path(sys.executable).with_name("finetune")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=environment, check=False)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines about the job, without its name and without places."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("local: ")]
    return [line.removeprefix("local: ").partition(" file://")[0] for line in lines]


def test_a_yaml_becomes_an_adapter_and_the_printed_lines_load_it(job: Path) -> None:
    done = finetune("local", "run", str(job))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert said(done) == ["checking storage, data and model", "training", "the adapter is at"]
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", "\n".join(lines)], check=True)

    again = finetune("local", "run", str(job))
    assert again.returncode == 0
    assert said(again) == [
        "checking storage, data and model",
        "an identical run already exists; nothing is trained",
        "the adapter is at",
    ]
    assert again.stderr.count("\n") == 3, "a bar of steps that are not taken"
    assert again.stdout == done.stdout
    [manifest] = (job.parent / "out").rglob("manifest.json")
    assert json.loads(manifest.read_text())["recipe"]["training"]["maxSteps"] == 2


def test_a_broken_line_ends_the_run_before_anything_is_written(job: Path) -> None:
    data = job.parent / "train.jsonl"
    data.write_text(data.read_text() + '{"text": \n')
    done = finetune("local", "run", str(job))
    assert done.returncode == 13
    assert "train.jsonl:17" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (job.parent / "out").exists()


def test_the_report_of_preflight_is_json_on_demand(job: Path) -> None:
    done = finetune("local", "preflight", "--output", "json", str(job))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] is True
    assert report["summary"]["rows"] == 16


def test_two_processes_where_the_yaml_asks_for_two_gpus_and_none_where_the_adapter_is_there(job: Path) -> None:
    """With the developer's setting they share the CPU."""
    job.write_text(job.read_text().replace("gpus: 0", "gpus: 2") + "  preflight: {enabled: false}\n")
    looks = "looking for data, model and an adapter of an identical run"
    done = finetune("local", "run", str(job), **{ALLOW_CPU_ENV: "1"})
    assert done.returncode == 0, done.stderr
    assert said(done) == [looks, "training in 2 processes", "the adapter is at"]
    assert len(list((job.parent / "out").rglob("adapter_model.safetensors"))) == 1
    again = said(finetune("local", "run", str(job), **{ALLOW_CPU_ENV: "1"}))
    assert again == [looks, "an identical run already exists; nothing is trained", "the adapter is at"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("gpus", [1, 2])
def test_a_job_that_asks_for_a_gpu_is_refused_where_there_is_none(job: Path, gpus: int) -> None:
    job.write_text(job.read_text().replace("gpus: 0", f"gpus: {gpus}") + "  preflight: {enabled: false}\n")
    done = finetune("local", "run", str(job))
    assert done.returncode == ExitCode.GPU_UNAVAILABLE
    last = done.stderr.splitlines()[-1]
    assert f"spec.resources.gpus: {gpus}, but no GPU can be used on this machine: " in done.stderr
    assert "580 or later" in done.stderr
    assert "torch says: Found no NVIDIA driver" in done.stderr
    assert "resources.gpus: 0 trains on the CPU" in last
    assert not (job.parent / "out").exists()


def test_an_interrupted_run_says_at_which_step_it_goes_on(job: Path) -> None:
    endless = job.read_text().replace("maxSteps: 2", "maxSteps: 5000")
    job.write_text(endless + "  preflight: {enabled: false}\n  checkpoint: {everySteps: 1}\n")
    program = Path(sys.executable).with_name("finetune")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [program, "local", "run", job], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        while not list((job.parent / "out").rglob("checkpoint.json")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        shown = process.communicate()[1]
    assert process.returncode == 30, shown
    assert "another attempt" not in shown
    assert "Run the same command again: it goes on from the newest checkpoint" in shown
    [stopped] = re.findall(r"stopped after step (\d+) of 5000", shown)
    with subprocess.Popen(
        [program, "local", "run", job], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        line = wait_for(process, "resuming after step")
        process.kill()
    assert f"local: resuming after step {stopped}, from its checkpoint" in line
