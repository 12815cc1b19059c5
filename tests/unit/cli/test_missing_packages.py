"""The command where packages of its extra are missing or broken: it says which, and what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.extras

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
        ("ModuleNotFoundError('no botocore', name='botocore.config')", "botocore is not installed: "),
        ("ModuleNotFoundError('Could not import module X')", "Could not import module X: "),
    ],
)
@pytest.mark.parametrize(("command", "extra"), [("preflight", "cli,preflight"), ("run", "trainer")])
def test_it_names_what_is_missing_and_the_extra_of_a_checkout(
    tmp_path: Path, command: str, extra: str, raised: str, said: str
) -> None:
    (tmp_path / "boto3.py").write_text(f"raise {raised}")
    (tmp_path / "job.yaml").write_text(JOB)
    program = f"from finetune_operator.cli import main; raise SystemExit(main(['local', {command!r}, 'job.yaml']))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]  # a run says first what it is about
    assert last == f"{said}pip install '.[{extra}]' in a checkout of finetune-operator"
