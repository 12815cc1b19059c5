"""Interrupting a local run: the second time it ends at once, whatever it waits for."""

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_trainer.contract.failure import ExitCode

pytestmark = pytest.mark.extras

JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {{name: support-bot}}
spec:
  model:     {{uri: "s3://models/base"}}
  dataset:   {{uri: "s3://data/train.jsonl"}}
  output:    {{uri: "s3://models/adapters"}}
  storage:   {{endpoint: "http://127.0.0.1:{port}"}}
  resources: {{gpus: 0}}
  preflight: {{enabled: false}}
"""


def test_interrupted_twice_it_does_not_wait_for_storage_that_is_silent(tmp_path: Path) -> None:
    command = "from finetune_operator.cli import main; raise SystemExit(main(['local', 'run', 'job.yaml']))"
    keys = {"AWS_ACCESS_KEY_ID": "KEY", "AWS_SECRET_ACCESS_KEY": "secret"}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (tmp_path / "job.yaml").write_text(JOB.format(port=silent.getsockname()[1]))
        process = subprocess.Popen(
            [sys.executable, "-c", command], cwd=tmp_path, env=os.environ | keys, stderr=subprocess.PIPE, text=True
        )
        with process:
            try:
                said = interrupted_twice(process, silent)
            finally:
                process.kill()
        assert process.returncode == ExitCode.PREEMPTED
    assert "interrupted" in said
    assert "Traceback" not in said


def interrupted_twice(process: subprocess.Popen[str], server: socket.socket) -> str:
    """Interrupts the process when it has connected, and again when it asks for that. Returns its last output."""
    assert process.stderr is not None
    with connection_of(process, server):
        process.send_signal(signal.SIGINT)
        lines = [process.stderr.readline()]
        while "interrupt again" not in lines[-1]:
            assert lines[-1], f"the program ended: {''.join(lines)}"
            lines.append(process.stderr.readline())
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        process.wait()
    return said


def connection_of(process: subprocess.Popen[str], server: socket.socket) -> socket.socket:
    """Waits for the process to connect. Fails with the process's output when it ends before."""
    ended = os.pidfd_open(process.pid)
    try:
        ready, _, _ = select.select([server.fileno(), ended], [], [])
    finally:
        os.close(ended)
    assert server.fileno() in ready, f"the program ended before it connected: {process.communicate()[1]}"
    return server.accept()[0]
