"""A training that is killed again and again until it is done: each process goes on from what the last one has left."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_trainer.contract.layout import POD_UID_ENV, RECIPE_ENV, TERMINATION_ENV, WORK_ENV
from finetune_trainer.contract.recipe import Recipe
from finetune_trainer.contract.termination import Termination

_INHERITED = ("PATH", "HOME", "LANG", "PYTHONPATH")


@dataclass(frozen=True, kw_only=True)
class Kill:
    """When and how a process is ended.

    Attributes:
        number: SIGKILL or SIGTERM.
        seconds: after its first line of a training, or of its start if `early`.
        early: whether it may not have begun to train.
    """

    number: signal.Signals
    seconds: float
    early: bool = False


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


def random_kills(seed: int, count: int, seconds: float) -> list[Kill]:
    """Kills at random instants of up to `seconds` of training, SIGKILL or SIGTERM; a tenth are early."""
    source = random.Random(seed)
    return [
        Kill(
            number=source.choice([signal.SIGKILL, signal.SIGTERM]),
            seconds=source.uniform(0, seconds),
            early=source.random() < 0.1,
        )
        for _ in range(count)
    ]


def train_through(recipe: Recipe, folder: Path, kills: Sequence[Kill]) -> list[Life]:
    """Starts the trainer, kills it as planned, starts it again, and so on until it ends by itself.

    Args:
        recipe: the recipe.
        folder: for the files of the processes.
        kills: one for each process; after the last, processes are left alone.
    """
    lives: list[Life] = []
    plan = iter(kills)
    while not lives or lives[-1].code != 0:
        kill = next(plan, None)
        lives.append(_live(recipe, folder, kill, number=len(lives) + 1))
        if kill is None and lives[-1].code != 0:
            raise AssertionError(f"a process that nobody killed ended with {lives[-1]}")
    return lives


def _live(recipe: Recipe, folder: Path, kill: Kill | None, number: int) -> Life:
    (folder / "recipe.json").write_text(recipe.to_json())
    message = folder / f"termination-{number}"
    with tempfile.TemporaryDirectory(dir=folder) as work:
        process = subprocess.Popen(
            [sys.executable, "-m", "finetune_trainer"],
            env=_environment(folder / "recipe.json", Path(work), message, number),
            stderr=subprocess.PIPE,
            text=True,
        )
        resumed, timer = None, None
        assert process.stderr is not None
        for line in process.stderr:
            if " resuming step=" in line:
                resumed = int(line.split("step=")[1].split("/")[0])
            begun = " training " in line or (kill is not None and kill.early)
            if kill is not None and timer is None and begun:
                timer = threading.Timer(kill.seconds, process.send_signal, [kill.number])
                timer.start()
        code = process.wait()
        process.stderr.close()
        if timer is not None:
            timer.cancel()
            timer.join()
    said = Termination.read(message.read_text()) if message.exists() else None
    return Life(kill=kill, code=code, resumed_from=resumed, message=said)


def _environment(recipe: Path, work: Path, message: Path, number: int) -> Mapping[str, str]:
    return {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        "OMP_NUM_THREADS": "1",
        RECIPE_ENV: str(recipe),
        WORK_ENV: str(work),
        TERMINATION_ENV: str(message),
        POD_UID_ENV: f"{number:08d}-0000-4000-8000-000000000000",
    }
