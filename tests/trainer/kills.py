"""A training that is killed again and again until it is done: each process goes on from what the last one has left.

A process is killed at a random instant, or at a certain request to its storage, where most of the instants that matter
are: before the server has got it, or when it has been carried out and the answer is not yet there.
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
    """When and how a process is ended.

    Attributes:
        number: SIGKILL or SIGTERM.
        seconds: after its first line of a training, or of its start if `early`.
        early: whether it may not have begun to train.
        write: instead, with which of its writes to the storage (1: the first).
        carried_out: whether the server gets that one.
        worker: of several processes not the first one is ended, but the last that it has started.
    """

    number: signal.Signals
    seconds: float = 0.0
    early: bool = False
    write: int | None = None
    carried_out: bool = False
    worker: bool = False


@dataclass(frozen=True, kw_only=True)
class Life:
    """What became of one process.

    Attributes:
        kill: what was planned; None for one that was left alone.
        code: its exit code, negative for a signal's number.
        resumed_from: step of the checkpoint that it went on from; None at the beginning.
        message: its termination message, absent where it had no time for one.
    """

    kill: Kill | None
    code: int
    resumed_from: int | None
    message: Termination | None


def random_kills(seed: int, count: int, seconds: float, *, workers: bool = False) -> list[Kill]:
    """Kills at random instants of up to `seconds` of training, SIGKILL or SIGTERM; a tenth are early.

    With `workers` every second one is a SIGKILL of a worker.
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
    """SIGKILLs at random ones of the first `writes` writes, half of which are carried out."""
    source = random.Random(seed)
    return [
        Kill(number=signal.SIGKILL, write=source.randint(1, writes), carried_out=source.random() < 0.5)
        for _ in range(count)
    ]


def train_through(
    recipe: Recipe, folder: Path, kills: Sequence[Kill], faults: Faults | None = None, keys: Path | None = None
) -> list[Life]:
    """Starts the trainer, kills it as planned, starts it again, and so on until it ends by itself.

    Args:
        recipe: the recipe.
        folder: for the files of the processes.
        kills: one for each process; after the last, processes are left alone.
        faults: the proxy of the storage, where a kill is bound to a write.
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
    """Kills the process with one of its writes."""
    writes = itertools.count(1)

    def plan(request: Request) -> Fault | None:
        if request.method not in ("PUT", "DELETE") or next(writes) != kill.write:
            return None
        _end(pid, kill)
        return Fault.LOST_ANSWER if kill.carried_out else Fault.REFUSED_CONNECTION

    return plan
