"""A training that is killed again and again until it ends. Each process resumes from what the one before has left.

A process is killed at a random time, or at a certain request to its storage. Most critical moments are at such a
request: before the server receives it, or when the server has carried it out and the answer has not arrived.
"""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from finetune_trainer.contract.layout import POD_UID_ENV, STORAGE_SECRET_ENV
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.termination import Termination
from httpfaults import Fault, Faults, Plan, Request
from trainer.pods import pod_environment, workers_of


@dataclass(frozen=True, kw_only=True)
class Kill:
    """When and how a process is killed.

    Attributes:
        number: SIGKILL or SIGTERM.
        seconds: time since the first log line of the training, or since the process's start with `early`.
        early: True when the training may not have begun.
        write: instead of a time, the number of the write to storage, from 1.
        carried_out: True when the server receives that write.
        worker: True kills the worker that was started last, instead of the pod's first process.
    """

    number: signal.Signals
    seconds: float = 0.0
    early: bool = False
    write: int | None = None
    carried_out: bool = False
    worker: bool = False


@dataclass(frozen=True, kw_only=True)
class Life:
    """The end of one process.

    Attributes:
        kill: the planned kill; None for a process that was not killed.
        code: exit code; a signal's number is negative.
        resumed_from: step of the checkpoint from which it resumed; None for a start from the beginning.
        message: termination message; None when the process could not write one.
    """

    kill: Kill | None
    code: int
    resumed_from: int | None
    message: Termination | None


def random_kills(seed: int, count: int, seconds: float, *, workers: bool = False) -> list[Kill]:
    """Returns kills at random times within `seconds` of training, with SIGKILL or SIGTERM. A tenth of them are early.

    With `workers`, every second kill is a SIGKILL of a worker.
    """
    source = random.Random(seed)
    kills = [
        Kill(
            number=source.choice([signal.SIGKILL, signal.SIGTERM]),
            seconds=source.uniform(0, seconds),
            early=source.random() < 0.1,
        )
        for _ in range(count)
    ]
    if workers:
        kills[1::2] = [replace(kill, number=signal.SIGKILL, worker=True) for kill in kills[1::2]]
    return kills


def kills_at_writes(seed: int, count: int, writes: int) -> list[Kill]:
    """Returns SIGKILLs at random writes of the first `writes`. Half of these writes are carried out."""
    source = random.Random(seed)
    return [
        Kill(number=signal.SIGKILL, write=source.randint(1, writes), carried_out=source.random() < 0.5)
        for _ in range(count)
    ]


def train_through(
    recipe: Recipe, folder: Path, kills: Sequence[Kill], faults: Faults | None = None, keys: Path | None = None
) -> list[Life]:
    """Starts the trainer, kills it as planned, and starts it again until it ends by itself.

    Args:
        recipe: the recipe.
        folder: folder for the files of the processes.
        kills: one kill for each process. Later processes are not killed.
        faults: the proxy of the storage, for kills at a write.
        keys: the mounted Secret of the storage.
    """
    lives: list[Life] = []
    plan = iter(kills)
    while not lives or lives[-1].code != 0:
        kill = next(plan, None)
        lives.append(_live(recipe, folder, kill, len(lives) + 1, faults, keys))
        if kill is None and lives[-1].code != 0:
            raise AssertionError(f"a process that nobody killed ended with {lives[-1]}")
    return lives


def _live(
    recipe: Recipe, folder: Path, kill: Kill | None, number: int, faults: Faults | None, keys: Path | None
) -> Life:
    (folder / "recipe.json").write_text(recipe.to_json())
    message = folder / f"termination-{number}"
    with tempfile.TemporaryDirectory(dir=folder) as work:
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune_trainer"],
            env=pod_environment(
                folder / "recipe.json",
                Path(work),
                message,
                **{POD_UID_ENV: f"{number:08d}-0000-4000-8000-000000000000"},
                **({STORAGE_SECRET_ENV: str(keys)} if keys is not None else {}),
            ),
            stderr=subprocess.PIPE,
            text=True,
        )
        resumed, timer = None, None
        if faults is not None:
            faults.calm()
            if kill is not None and kill.write is not None:
                faults.plan = _kill_at(process.pid, kill)
        assert process.stderr is not None
        for line in process.stderr:
            if " resuming step=" in line:
                resumed = int(line.split("step=")[1].split("/")[0])
            begun = " training " in line or (kill is not None and kill.early)
            if kill is not None and kill.write is None and timer is None and begun:
                timer = threading.Timer(kill.seconds, _end, [process.pid, kill])
                timer.start()
        code = process.wait()
        process.stderr.close()
        if timer is not None:
            timer.cancel()
            timer.join()
    said = Termination.read(message.read_text()) if message.exists() else None
    return Life(kill=kill, code=code, resumed_from=resumed, message=said)


def _end(pid: int, kill: Kill) -> None:
    if kill.worker and (workers := workers_of(pid)):
        pid = workers[-1]
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, kill.number)


def _kill_at(pid: int, kill: Kill) -> Plan:
    """Kills the process at one of its writes."""
    writes = itertools.count(1)

    def plan(request: Request) -> Fault | None:
        if request.method not in ("PUT", "DELETE") or next(writes) != kill.write:
            return None
        _end(pid, kill)
        return Fault.LOST_ANSWER if kill.carried_out else Fault.REFUSED_CONNECTION

    return plan
