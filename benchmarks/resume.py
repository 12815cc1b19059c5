"""Kills trainings at random instants and compares what comes out, byte by byte, with one that was left alone.

    python benchmarks/resume.py --kills 50

Every process is the real trainer on the tiny random model, with dropout, over several epochs; SIGKILL or SIGTERM
by chance. A row a training: how often it was killed, what the checkpoints saved, and whether the adapter is the same.
"""

import argparse
import hashlib
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose trainer.py would hide tests/trainer
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benchmarks.tables import Table

from finetune_trainer.contract.recipe import Recipe
from trainer.kills import Life, random_kills, train_through
from trainer.running import QUESTIONS, LocalRun
from trainer.tiny_model import make_tiny_model

STEPS = 150
KILLS_A_TRAINING = 5
VARIANTS: dict[str, dict[str, Any]] = {
    "packed, every 3 steps": {"checkpoint": {"everySteps": 3}},
    "padded, every 3 steps": {"checkpoint": {"everySteps": 3}, "dataset": {"packing": "disabled"}},
    "only when told to end": {"checkpoint": {"everySteps": 10_000}},
}


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="kills in all (default: 10)")
    parser.add_argument("--seconds", type=float, default=4.0, help="longest training before a kill (default: 4)")
    options = parser.parse_args()

    rows: list[Sequence[str]] = []
    differ = number = 0
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "model"
        make_tiny_model(base)
        whole: dict[str, str] = {}
        while number * KILLS_A_TRAINING < options.kills:
            name = list(VARIANTS)[number % len(VARIANTS)]
            if name not in whole:
                whole[name] = _trained(base, Path(folder) / f"whole-{number}", name, [])[0]
            kills = random_kills(
                number, min(KILLS_A_TRAINING, options.kills - number * KILLS_A_TRAINING), options.seconds
            )
            digest, lives = _trained(base, Path(folder) / f"run-{number}", name, kills)
            differ += digest != whole[name]
            rows.append([name, *_row(lives), "same" if digest == whole[name] else "DIFFERS"])
            number += 1
    heads = ["training", "processes", "SIGKILL", "SIGTERM", "went on from step", "adapter"]
    print(Table(title=f"Resume after {options.kills} kills", heads=heads, rows=rows).text())
    sys.exit(1 if differ else 0)


def _trained(base: Path, folder: Path, name: str, kills: list[Any]) -> tuple[str, list[Life]]:
    folder.mkdir()
    run = LocalRun.make(
        base,
        folder,
        QUESTIONS,
        training={"maxSteps": STEPS, "batchSize": 8, "learningRate": "1e-2"},
        lora={"dropout": "0.1"},
        **VARIANTS[name],
    )
    lives = train_through(run.recipe, folder, kills)
    return _digest(run.recipe, lives), lives


def _digest(recipe: Recipe, lives: list[Life]) -> str:
    message = lives[-1].message
    assert message is not None
    assert message.output is not None
    weights = Path(message.output.uri.removeprefix("file://")) / "adapter_model.safetensors"
    assert str(weights).startswith(recipe.output.uri.removeprefix("file://"))
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def _row(lives: list[Life]) -> list[str]:
    planned = [life.kill.number for life in lives if life.kill is not None and life.code != 0]
    steps = ", ".join(str(life.resumed_from or 0) for life in lives[1:])
    return [str(len(lives)), str(planned.count(signal.SIGKILL)), str(planned.count(signal.SIGTERM)), steps]


if __name__ == "__main__":
    main()
