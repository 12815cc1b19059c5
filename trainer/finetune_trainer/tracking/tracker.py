"""The trainer's side of the tracker: starts its process, hands messages over, and never waits for it while training."""

import contextlib
import json
import logging
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune_trainer.runtime.log import event
from finetune_trainer.tracking.messages import Begin, End, Message, Metrics, RunStatus, to_line

_QUEUED = 10_000
"""Messages that wait for the tracker's process; further ones are dropped."""
END_SECONDS = 30.0
"""Seconds after the training within which the tracker may send the rest."""


class Tracker:
    """Sends numbers to a tracker until the end. No method raises, and only `end` waits.

    Args:
        run: the run.
        environment: all variables of the tracker's process.
        folder: its working directory.
        python: the Python that has the tracker's client.
    """

    def __init__(self, run: Begin, environment: Mapping[str, str], folder: Path, python: str | None = None) -> None:
        self._queue: queue.Queue[Message] = queue.Queue(_QUEUED)
        self._dropped = 0
        self._process = _started([python or sys.executable, "-m", "finetune_trainer.tracking"], environment, folder)
        self._threads: list[threading.Thread] = []
        if self._process is not None:
            self._threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._read)]
            for thread in self._threads:
                thread.start()
            self._put(run)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Sends the numbers of a step."""
        if values:
            self._put(Metrics(step=step, values=values))

    def end(self, status: RunStatus, seconds: float = END_SECONDS) -> None:
        """Sends the end, and stops the tracker's process.

        Args:
            status: how the run ended.
            seconds: how long the process may take to send the rest.
        """
        if self._process is None:
            return
        self._put(End(status=status))
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            event("tracking", level=logging.WARNING, message=f"the rest was not sent within {seconds:.0f} s")
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(END_SECONDS)
        if self._dropped:
            event("tracking", level=logging.WARNING, message=f"{self._dropped} entries were dropped")

    def _put(self, message: Message) -> None:
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        """Runs on a thread: the pipe to a process that waits for its server may be full."""
        assert self._process is not None
        assert self._process.stdin is not None
        # OSError: the process has ended; `_read` says so.
        with contextlib.suppress(OSError), self._process.stdin as lines:
            while True:
                message = self._queue.get()
                lines.write(to_line(message))
                lines.flush()
                if isinstance(message, End):
                    return

    def _read(self) -> None:
        """Runs on a thread: logs what the process says."""
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                said = json.loads(line)
                event("tracking", level=logging.WARNING if said["warning"] else logging.INFO, message=said["message"])
        if self._process.wait():
            event("tracking", level=logging.WARNING, message=f"its process ended with {self._process.returncode}")


def _started(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> "subprocess.Popen[str] | None":
    try:
        return subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            # Ctrl-C of a local run is the trainer's.
            start_new_session=True,
        )
    except OSError as error:
        event("tracking", level=logging.WARNING, message=f"not started: {error}")
        return None
