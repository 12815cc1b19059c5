"""Starts the processes of a pod, and reports the end of the process that failed first.

When one process fails, the others fail too, with "connection reset". The pod must report the reason of the first.
torchrun reports only an exit code and a file of its own format. This module does not import torch.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.last_words import last_words
from finetune_trainer.contract.layout import PROGRESS_URL_ENV, TERMINATION_ENV, WORK_ENV
from finetune_trainer.contract.progress import Progress
from finetune_trainer.contract.termination import Outcome, Termination
from finetune_trainer.contract.text import readable
from finetune_trainer.distributed.visible_gpus import visible_gpus
from finetune_trainer.distributed.world import LOOPBACK, Pod, World
from finetune_trainer.runtime.log import event

_POLL_SECONDS = 0.05
_STANDARD_ERROR = 2
_LAST_LINES, _LINE_BYTES = 40, 2000
"""What is remembered of a process's log."""
_RELAY_SECONDS = 2.0
_GRACE_SECONDS = 10.0
"""Time for the other processes to end by themselves after one has failed. They only have to write their message."""
_TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_THREADS_ENV = "OMP_NUM_THREADS"


class _LogRelay:
    """Passes a process's log on, line by line, and remembers its end."""

    def __init__(self, log: IO[bytes]) -> None:
        self._log = log
        self._last: deque[bytes] = deque(maxlen=_LAST_LINES)
        self._thread = threading.Thread(target=self._run, name="log-of-worker", daemon=True)
        self._thread.start()

    def last_lines(self) -> str:
        """The last lines. Call it after the process's end."""
        # A child of the process may hold the pipe open.
        self._thread.join(timeout=_RELAY_SECONDS)
        return b"".join(self._last).decode("utf-8", errors="replace")

    def _run(self) -> None:
        # Not sys.stderr: a process writes bytes to the same place as this one.
        with self._log, os.fdopen(os.dup(_STANDARD_ERROR), "wb") as own:
            for line in self._log:
                self._last.append(line[:_LINE_BYTES])
                with suppress(OSError):
                    own.write(line)
                    own.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worker:
    """A started process, the file of its termination message, and its log."""

    rank: int
    process: subprocess.Popen[bytes]
    termination_file: Path
    log: _LogRelay

    def termination(self) -> Termination:
        """Returns the process's own termination message, or one made from its exit code and the end of its log.

        These count when there is no message, or when message and exit code contradict each other.
        """
        reported = (
            Termination.read(self.termination_file.read_text(encoding="utf-8"))
            if self.termination_file.exists()
            else None
        )
        code = self.process.returncode
        if reported is not None and (reported.reason is None) == (code == 0):
            return reported
        reason = FailureReason.KILLED if code < 0 else FailureReason.INTERNAL
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        message = f"process {self.rank} {how}"
        # SIGKILL and SIGTERM come from outside, whatever the process had logged.
        words = last_words(self.log.last_lines()) if code in (1, -signal.SIGABRT) else None
        if words is not None:
            reason, message = words[0], f"{message}: {readable(words[1])}"
        elif code > 0:
            message += " and left no message"
        return Termination(outcome=Outcome.FAILED, reason=reason, message=message)


def launch(
    recipe_file: Path,
    pod: Pod,
    environment: Mapping[str, str],
    stop: threading.Event,
    on_progress: Callable[[Progress], object],
    *,
    quiet: bool = False,
) -> Termination:
    """Runs the pod's processes to their end. Returns the pod's termination message.

    Args:
        recipe_file: the recipe, which every process reads.
        pod: gives the number of processes and this pod's number.
        environment: the variables that the processes inherit.
        stop: when it is set, every process gets SIGTERM.
        on_progress: called with the progress records of the pod's first process.
        quiet: True makes the processes log errors only.
    """
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pod-", dir=environment.get(WORK_ENV))))
        event("processes", here=pod.processes, nodes=pod.nodes if pod.nodes > 1 else None)
        workers = _start(recipe_file, pod, environment, work, stack, on_progress, quiet=quiet)
        try:
            ended = _wait_for_workers(workers, stop)
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.wait()
        return ended.termination()


def _start(
    recipe_file: Path,
    pod: Pod,
    environment: Mapping[str, str],
    work: Path,
    stack: ExitStack,
    on_progress: Callable[[Progress], object],
    *,
    quiet: bool,
) -> list[_Worker]:
    read_end, write_end = os.pipe()
    reader = threading.Thread(
        target=_read_progress, args=(read_end, on_progress), name="progress-of-worker", daemon=True
    )
    reader.start()
    stack.callback(reader.join)
    listener = _listen(pod)
    port = listener.getsockname()[1] if listener is not None else pod.port
    workers = []
    for number in range(pod.processes):
        rank = pod.node * pod.processes + number
        first = rank == 0
        world = World(
            rank=rank,
            size=pod.size,
            local_rank=number,
            local_size=pod.processes,
            host=pod.host,
            port=port,
            listener=listener.fileno() if listener is not None and first else None,
            progress=write_end,
            quiet=quiet,
        )
        termination_file = work / f"end-{rank}.json"
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune_trainer", "--recipe", str(recipe_file)],
            env=_environment(environment, pod, world, work, termination_file),
            # The process exits when this pipe closes, that is when the launcher has ended.
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[write_end, *([listener.fileno()] if world.listener is not None and listener is not None else [])],
            # A terminal's Ctrl-C reaches the launcher only. The launcher then stops each process once.
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stderr is not None
        stack.callback(process.stdin.close)
        log = _LogRelay(process.stderr)
        stack.callback(log.last_lines)
        workers.append(_Worker(rank=rank, process=process, termination_file=termination_file, log=log))
    os.close(write_end)
    if listener is not None:
        listener.close()
    return workers


def _listen(pod: Pod) -> socket.socket | None:
    """Opens the socket on which process 0 will listen, so that no other program takes the port. None in other pods."""
    if pod.node != 0:
        return None
    # A pod's own name may not resolve yet, so process 0 listens on all addresses of the pod.
    return socket.create_server((LOOPBACK if pod.host == LOOPBACK else "", pod.port), backlog=pod.size)


def _environment(
    environment: Mapping[str, str], pod: Pod, world: World, work: Path, termination_file: Path
) -> dict[str, str]:
    hidden = (*_TORCHRUN_VARIABLES, PROGRESS_URL_ENV)
    threads = environment.get(_THREADS_ENV, "")
    shared = {_THREADS_ENV: str(max(1, int(threads) // world.local_size))} if threads.isdecimal() else {}
    return {
        **{name: value for name, value in environment.items() if name not in hidden},
        **shared,
        # Each process sees one GPU only, so no process has to select a device.
        **visible_gpus(pod, world.local_rank, environment),
        # Hides torch's log lines about closed connections, which are a consequence and not the cause.
        "TORCH_CPP_LOG_LEVEL": "FATAL",
        WORK_ENV: str(work),
        TERMINATION_ENV: str(termination_file),
        **world.variables(),
    }


def _wait_for_workers(workers: list[_Worker], stop: threading.Event) -> _Worker:
    """Waits until all processes have ended. Returns the process whose end is the pod's end.

    After a failure this is the first process with a reason other than PEER_FAILED. If all failures are PEER_FAILED, it
    is the first of all. Of several processes with the same reason, it is the one with the lowest rank. Without a
    failure it is the pod's first process.
    """
    failed: list[_Worker] = []
    running, stopping = list(workers), False
    deadline: float | None = None
    while running:
        if stop.is_set() and not stopping:
            stopping = True
            for worker in running:
                worker.process.terminate()
        for worker in [worker for worker in running if worker.process.poll() is not None]:
            running.remove(worker)
            if worker.process.returncode != 0:
                failed.append(worker)
        if failed and deadline is None:
            deadline = time.monotonic() + _GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            break
        if running:
            time.sleep(_POLL_SECONDS)
    if not failed:
        return workers[0]
    own = [worker for worker in failed if worker.termination().reason is not FailureReason.PEER_FAILED]
    first = (own or failed)[0]
    last = first.termination()
    # Of several processes with the same reason, rank 0 writes the checkpoints, so its message says the most.
    root = min((worker for worker in failed if worker.termination().reason is last.reason), key=lambda one: one.rank)
    last = root.termination()
    if not root.termination_file.exists():
        event("failed", level=logging.ERROR, reason=last.reason, message=last.message)
    return root


def _read_progress(read_end: int, on_progress: Callable[[Progress], object]) -> None:
    with os.fdopen(read_end, encoding="utf-8") as lines:
        for line in lines:
            try:
                on_progress(Progress.model_validate_json(line))
            except ValidationError:  # A process that is killed while it writes leaves half a line.
                continue
