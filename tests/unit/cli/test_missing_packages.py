"""The command where packages of its extra are missing or broken: it says which, and what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: support-bot}
spec:
  model:   {uri: "s3://models/base"}
  dataset: {uri: "s3://data/train.jsonl"}
  output:  {uri: "s3://models/adapters"}
"""


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("ModuleNotFoundError('no botocore', name='botocore.config')", "botocore is not installed: pip install"),
        ("ModuleNotFoundError('Could not import module X')", "Could not import module X: pip install"),
    ],
)
def test_it_names_what_is_missing(tmp_path: Path, raised: str, said: str) -> None:
    (tmp_path / "boto3.py").write_text(f"raise {raised}")
    (tmp_path / "job.yaml").write_text(JOB)
    command = "from finetune_operator.cli import main; raise SystemExit(main(['preflight', 'job.yaml']))"
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert "finetune-operator[trainer]" in done.stderr
