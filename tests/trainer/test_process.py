"""The process as a pod runs it: its log, its exit code, its termination message, its connections, its signals."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from finetune_trainer.contract.failure import ExitCode, FailureReason
from finetune_trainer.contract.progress import Stage
from finetune_trainer.contract.termination import Outcome, Termination
from trainer.pods import environment_of
from trainer.running import QUESTIONS, LocalRun, adapter_files, folder_of

pytestmark = pytest.mark.trainer
Runs = Callable[..., LocalRun]
LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (info|warn|error) [a-z]+( [a-z_]+=(\S+|\"[^\"]*\"))*$")


@dataclass
class Listener:
    """A proxy that accepts connections and keeps what was asked of it."""

    port: int
    asked: list[bytes] = field(default_factory=list)


@pytest.fixture
def proxy() -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = Listener(port=server.getsockname()[1])

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    listener.asked.append(connection.recv(1024))

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def _message(run: LocalRun) -> Termination:
    message = Termination.read((run.folder / "termination").read_text())
    assert message is not None
    return message


def test_process_trains_quietly_without_connections_and_makes_the_same_bytes(local_run: Runs, proxy: Listener) -> None:
    run = local_run(QUESTIONS, training={"maxSteps": 3})
    url = f"http://127.0.0.1:{proxy.port}"
    environment = environment_of(run, HTTP_PROXY=url, HTTPS_PROXY=url, ALL_PROXY=url, PYTHONHASHSEED="77")

    done = subprocess.run(
        [sys.executable, "-m", "finetune_trainer"], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert [line for line in done.stderr.splitlines() if not LINE.match(line)] == []
    assert proxy.asked == [], "no telemetry, no look-up on a hub"
    assert list((run.folder / "work").iterdir()) == []
    message = _message(run)
    assert message.outcome is Outcome.SUCCEEDED
    assert message.output is not None
    assert message.output.uri.endswith("/1-0a1b2c3d")
    assert message.progress is not None
    assert (message.progress.stage, message.progress.step) == (Stage.FINISHED, 3)

    # Another process, other hash seed, other folders, same recipe: the same files to the last byte.
    here = folder_of(run.changed(output={"uri": f"file://{run.folder}/again"})())
    there = Path(message.output.uri.removeprefix("file://"))
    assert adapter_files(here) == adapter_files(there)


def test_sigterm_ends_the_process_at_a_step_and_says_so(local_run: Runs) -> None:
    run = local_run(QUESTIONS, training={"maxSteps": 5000})
    process = subprocess.Popen(
        [sys.executable, "-m", "finetune_trainer"], env=environment_of(run), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if " step step=2/" in line:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    process.stderr.close()

    assert process.wait() == ExitCode.PREEMPTED
    message = _message(run)
    assert message.reason is FailureReason.PREEMPTED
    assert re.search(r"stopped after step \d+ of 5000", message.message)
    assert message.progress is not None
    assert message.progress.step is not None
    assert message.progress.step < 5000
    assert "Traceback" not in rest
    assert not list((run.folder / "out").rglob("manifest.json"))


def test_existing_adapter_is_reported_without_loading_torch(local_run: Runs) -> None:
    run = local_run(QUESTIONS)
    result = run()
    program = (
        "import os, sys\n"
        "from finetune_trainer.__main__ import main\n"
        "code = main([], os.environ)\n"
        "heavy = ('torch', 'transformers', 'datasets', 'numpy', 'huggingface_hub')\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "sys.exit(code)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], env=environment_of(run), capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    message = _message(run)
    assert (message.outcome, message.output) == (Outcome.REUSED, result.output)
    assert json.loads((run.folder / "termination").read_text())["fingerprint"] == result.fingerprint
