"""The trainer's side of a tracker, whatever the tracker's process does."""

import logging
from pathlib import Path

import pytest

from finetune_trainer.tracking.messages import Begin, RunStatus, TrackerKind
from finetune_trainer.tracking.tracker import Tracker

RUN = Begin(tracker=TrackerKind.MLFLOW, experiment="team", name="job", run="0a1b")


def _tracker(folder: Path, program: str) -> Tracker:
    """A tracker whose process is a shell's."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{program}\n")
    python.chmod(0o755)
    return Tracker(RUN, {"PATH": "/usr/bin:/bin"}, folder, str(python))


def test_a_process_that_reads_nothing_is_stopped_and_what_it_missed_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipe takes 64 KiB and the queue 10,000 entries: none of the calls waits for more room."""
    tracker = _tracker(tmp_path, "exec sleep 100000")
    for step in range(20_000):
        tracker.log(step, {"loss": 1.0})
    tracker.end(RunStatus.FINISHED, 0.1)

    assert "the rest was not sent within 0 s" in caplog.text
    assert "entries were dropped" in caplog.text


@pytest.mark.parametrize(
    ("program", "said"), [("exit 3", "its process ended with 3"), ("kill -9 $$", "its process ended with -9")]
)
def test_a_process_that_ends_too_soon_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, program: str, said: str
) -> None:
    tracker = _tracker(tmp_path, program)
    for step in range(100):
        tracker.log(step, {"loss": 1.0})
    tracker.end(RunStatus.FINISHED)

    assert said in caplog.text


def test_what_the_process_says_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lines = ['{"message": "sending to mlflow", "warning": false}', '{"message": "does not answer", "warning": true}']
    tracker = _tracker(tmp_path, "\n".join(f"echo '{line}'" for line in lines) + "\ncat >read")
    tracker.log(1, {"loss": 1.0})
    tracker.end(RunStatus.FINISHED, 600)

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", 'tracking message="sending to mlflow"'),
        ("WARNING", 'tracking message="does not answer"'),
    ]
    assert [line.split('"')[1] for line in (tmp_path / "read").read_text().splitlines()] == ["Begin", "Metrics", "End"]


def test_a_python_that_is_not_there_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Tracker(RUN, {}, tmp_path, str(tmp_path / "absent"))
    tracker.log(1, {"loss": 1.0})
    tracker.end(RunStatus.FAILED)

    assert "not started" in caplog.text
