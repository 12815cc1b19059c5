"""`finetune run`: the whole path from a YAML with file:// places, as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
"""
    )
    return path


def finetune(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, found beside the interpreter."""
    program = Path(sys.executable).with_name("finetune")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_a_yaml_becomes_an_adapter_and_the_printed_lines_load_it(job: Path) -> None:
    done = finetune("run", str(job))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "local: the adapter is at file://" in done.stderr
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")]
    subprocess.run([sys.executable, "-W", "ignore", "-c", "\n".join(lines)], check=True)

    again = finetune("run", str(job))
    assert again.returncode == 0
    assert "nothing was trained" in again.stderr
    assert again.stdout == done.stdout
    [manifest] = (job.parent / "out").rglob("manifest.json")
    assert json.loads(manifest.read_text())["recipe"]["training"]["maxSteps"] == 2


def test_a_broken_line_ends_the_run_before_anything_is_written(job: Path) -> None:
    data = job.parent / "train.jsonl"
    data.write_text(data.read_text() + '{"text": \n')
    done = finetune("run", str(job))
    assert done.returncode == 13
    assert "train.jsonl:17" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (job.parent / "out").exists()


def test_the_report_of_preflight_is_json_on_demand(job: Path) -> None:
    done = finetune("preflight", "--output", "json", str(job))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] is True
    assert report["summary"]["rows"] == 16


def test_two_processes_where_the_yaml_asks_for_two_gpus(job: Path) -> None:
    """Without any GPU they share the CPU."""
    job.write_text(job.read_text() + "  resources: {gpus: 2}\n")
    done = finetune("run", str(job))
    assert done.returncode == 0, done.stderr
    assert "local: training in 2 processes" in done.stderr
    assert len(list((job.parent / "out").rglob("adapter_model.safetensors"))) == 1
