"""Starts the processes of a pod, and ends as the first one that failed by itself.

torchrun would do, but it reports an exit code and a file of its own format: the reason of the process that failed first
must become the pod's, and not "connection reset", which is what the others see of it. No torch is loaded here.
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
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.layout import PROGRESS_URL_ENV, TERMINATION_ENV, WORK_ENV
from finetune_trainer.contract.progress import Progress
from finetune_trainer.contract.termination import Outcome, Termination
from finetune_trainer.distributed.world import LOOPBACK, Pod, World
from finetune_trainer.runtime.log import event

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 10.0
"""For the others to end by themselves once one has failed: all that they have left to do is to say why."""
_TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_THREADS_ENV = "OMP_NUM_THREADS"
_GPUS_ENV = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worker:
    """A started process and the file of its last word."""

    rank: int
    process: subprocess.Popen[bytes]
    termination_file: Path

    def termination(self) -> Termination:
        """How it has ended: its own message, else what its exit code says."""
        reported = (
            Termination.read(self.termination_file.read_text(encoding="utf-8"))
            if self.termination_file.exists()
            else None
        )
        code = self.process.returncode
        if reported is not None and (reported.reason is None) == (code == 0):
            return reported
        if code < 0:
            message = f"process {self.rank} was ended by {signal.Signals(-code).name}"
            return Termination(outcome=Outcome.FAILED, reason=FailureReason.KILLED, message=message)
        message = f"process {self.rank} ended with exit code {code} and left no message"
        return Termination(outcome=Outcome.FAILED, reason=FailureReason.INTERNAL, message=message)


def launch(
    recipe_file: Path,
    pod: Pod,
    environment: Mapping[str, str],
    stop: threading.Event,
    on_progress: Callable[[Progress], object],
    *,
    quiet: bool = False,
) -> Termination:
    """Runs the pod's processes to their end.

    Args:
        recipe_file: the recipe, which each of them reads.
        pod: how many there are.
        environment: the variables that they inherit.
        stop: tells all of them to go.
        on_progress: is given the progress records of the pod's first process.
        quiet: the processes log nothing but errors.
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
            env=_environment(environment, world, work, termination_file),
            # Its end tells the process that this one is gone.
            stdin=subprocess.PIPE,
            pass_fds=[write_end, *([listener.fileno()] if world.listener is not None and listener is not None else [])],
            # A terminal's Ctrl-C is for this process, which passes it on once.
            start_new_session=True,
        )
        assert process.stdin is not None
        stack.callback(process.stdin.close)
        workers.append(_Worker(rank=rank, process=process, termination_file=termination_file))
    os.close(write_end)
    if listener is not None:
        listener.close()
    return workers


def _listen(pod: Pod) -> socket.socket | None:
    """The socket that process 0 will listen on: made here, so that no other program gets its port in between."""
    if pod.node != 0:
        return None
    # A pod's own name may not be resolvable yet, so it listens on every address that it has.
    return socket.create_server((LOOPBACK if pod.host == LOOPBACK else "", pod.port), backlog=pod.size)


def _environment(environment: Mapping[str, str], world: World, work: Path, termination_file: Path) -> dict[str, str]:
    hidden = (*_TORCHRUN_VARIABLES, PROGRESS_URL_ENV)
    threads = environment.get(_THREADS_ENV, "")
    shared = {_THREADS_ENV: str(max(1, int(threads) // world.local_size))} if threads.isdecimal() else {}
    # A process that sees one GPU needs to be told nothing more about it.
    gpus = environment.get(_GPUS_ENV)
    every = gpus.split(",") if gpus is not None else [str(number) for number in range(world.local_size)]
    return {
        **{name: value for name, value in environment.items() if name not in hidden},
        **shared,
        _GPUS_ENV: every[world.local_rank] if world.local_rank < len(every) else "",
        # torch's own words about connections that end, which are not the reason why.
        "TORCH_CPP_LOG_LEVEL": "FATAL",
        WORK_ENV: str(work),
        TERMINATION_ENV: str(termination_file),
        **world.variables(),
    }


def _wait_for_workers(workers: list[_Worker], stop: threading.Event) -> _Worker:
    """Waits for the end of all; returns the one whose end is the pod's.

    That is the first that failed by itself, and of those with its reason the lowest rank; of those that only lost the
    others, the first; when none has failed, the pod's first process.
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
    # Where several have come to the same end, the one that writes the checkpoints knows most about it.
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
            except ValidationError:  # the process was killed while it wrote
                continue
