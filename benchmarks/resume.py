"""Kills trainings at random times, and compares the adapters byte by byte with that of an undisturbed training.

    python benchmarks/resume.py --kills 50

Every process is the real trainer on the tiny random model, with dropout. The signal is SIGKILL or SIGTERM at random.
Each training prints one row: the number of kills, what the checkpoints saved, and whether the adapter is the same. With
S3, a process is killed before or after one of its writes: of a checkpoint, the adapter or the manifest.
"""

import argparse
import gzip
import hashlib
import json
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.pop(0)  # this folder, whose trainer.py would hide tests/trainer
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benchmarks.tables import Table

import httpfaults
import s3server
from trainer.kills import Kill, Life, kills_at_writes, random_kills, train_through
from trainer.running import QUESTIONS, LocalRun, recipe_of
from trainer.tiny_model import make_tiny_model

KILLS_A_TRAINING = 5
_TRAINING = {"maxSteps": 60, "batchSize": 8, "learningRate": "1e-2"}
_SECONDS = 4.0


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A kind of training, and how it is killed.

    Attributes:
        sections: sections of the recipe.
        packed: True when the data is compressed with gzip.
        writes: with S3, the number of first writes of which one is the time of a kill. None means a random time,
            without S3.
        workers: True when every second kill hits a worker instead of the pod's first process.
    """

    sections: Mapping[str, Any] = field(default_factory=dict)
    packed: bool = False
    writes: int | None = None
    workers: bool = False


_EVERY_3 = {"checkpoint": {"everySteps": 3}}
_MEASURED = {
    **_EVERY_3,
    "dataset": {"validation": {"fraction": "0.2"}},
    "evaluation": {"everySteps": 2},
    "training": {**_TRAINING, "earlyStopping": {"patience": 8}},
}
VARIANTS: dict[str, Variant] = {
    "packed, every 3 steps": Variant(sections=_EVERY_3),
    "padded, every 3 steps": Variant(sections={**_EVERY_3, "dataset": {"packing": "disabled"}}),
    "only when told to end": Variant(sections={"checkpoint": {"everySteps": 10_000}}),
    "measured, early stopping, the best kept": Variant(sections=_MEASURED),
    "20 epochs of gzip, varlen attention": Variant(
        sections={
            **_EVERY_3,
            "training": {"epochs": 20, "maxSteps": None, "batchSize": 8, "learningRate": "1e-2"},
            "model": {"attention": "varlen"},
        },
        packed=True,
    ),
    "two processes": Variant(sections={**_EVERY_3, "machine": {"gpus": 2}}, workers=True),
    "S3, killed at a write of a checkpoint": Variant(sections=_EVERY_3, writes=30),
    "S3, killed at a write of the output": Variant(sections={"checkpoint": {"everySteps": 10_000}}, writes=16),
}


def main() -> None:
    """Runs the trainings and prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="kills in all (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the first training (default: 0)")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="kinds of training")
    options = parser.parse_args()

    rows: list[Sequence[str]] = []
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, s3server.running() as server:
        bench = _Bench(Path(folder), server)
        for number in range(-(-options.kills // KILLS_A_TRAINING)):
            name = options.only[number % len(options.only)]
            count = min(KILLS_A_TRAINING, options.kills - number * KILLS_A_TRAINING)
            found, lives = bench.train(name, options.seed + number, count)
            wrong += found != "same"
            rows.append([name, *_row(lives), found])
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    heads = ["training", "processes", "SIGKILL", "SIGTERM", "went on from step", "adapter"]
    print(Table(title=f"Resume after {options.kills} kills", heads=heads, rows=rows).text())
    sys.exit(1 if wrong else 0)


class _Bench:
    """The model, the S3 server, and the results of undisturbed trainings."""

    def __init__(self, folder: Path, server: s3server.S3Server) -> None:
        self._folder, self._server = folder, server
        self._base = folder / "model"
        self._whole: dict[str, str] = {}
        make_tiny_model(self._base)
        self._keys = folder / "keys"
        s3server.mount(self._keys, server.admin)

    def train(self, name: str, seed: int, count: int) -> tuple[str, list[Life]]:
        """Trains with a number of kills. Returns how the adapter compares, and how the processes ended."""
        if name not in self._whole:
            self._whole[name] = self._trained(name, f"whole-{seed}", [])[0]
        variant = VARIANTS[name]
        if variant.writes is not None:
            kills = kills_at_writes(seed, count, variant.writes)
        else:
            kills = random_kills(seed, count, _SECONDS, workers=variant.workers)
        digest, lives = self._trained(name, f"run-{seed}", kills)
        return "same" if digest == self._whole[name] else f"DIFFERS ({digest})", lives

    def _trained(self, name: str, place: str, kills: Sequence[Kill]) -> tuple[str, list[Life]]:
        folder, variant = self._folder / place, VARIANTS[name]
        folder.mkdir()
        sections = {"training": _TRAINING, "lora": {"dropout": "0.1"}, **variant.sections}
        if variant.writes is None:
            run = LocalRun.make(self._base, folder, QUESTIONS, **sections)
            recipe = run.recipe
            if variant.packed:
                plain = folder / "train.jsonl"
                plain.with_suffix(".jsonl.gz").write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
                recipe = recipe_of(self._base, plain.with_suffix(".jsonl.gz"), folder / "out", **sections)
            lives = train_through(recipe, folder, kills)
            return _digest(folder / "out"), lives
        data = folder / "train.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
        with httpfaults.running(self._server.endpoint) as faults:
            output = {"uri": f"s3://{s3server.BUCKET}/{place}"}
            storage = {"endpoint": faults.endpoint, "secretRef": {"name": "keys"}}
            recipe = recipe_of(self._base, data, folder, output=output, storage=storage, **sections)
            lives = train_through(recipe, folder, kills, faults, self._keys)
        for key in self._server.keys(f"{place}/"):
            file = folder / "out" / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self._server.get(key))
        return _digest(folder / "out"), lives


def _digest(output: Path) -> str:
    """Returns the SHA-256 of the committed adapter's weights, or in words what else is wrong with the output."""
    manifests = list(output.rglob("manifest.json"))
    if len(manifests) != 1:
        return f"{len(manifests)} manifests"
    if left := list(output.rglob("checkpoint.json")):
        return f"{len(left)} checkpoints left"
    place, manifest = manifests[0].parent, json.loads(manifests[0].read_text())
    for file in manifest["files"]:
        if hashlib.sha256((place / file["path"]).read_bytes()).hexdigest() != file["sha256"]:
            return f"{file['path']} is not that of the manifest"
    return hashlib.sha256((place / manifest["adapter"] / "adapter_model.safetensors").read_bytes()).hexdigest()


def _row(lives: list[Life]) -> list[str]:
    planned = [life.kill.number for life in lives if life.kill is not None and life.code != 0]
    steps = ", ".join(str(life.resumed_from or 0) for life in lives[1:])
    return [str(len(lives)), str(planned.count(signal.SIGKILL)), str(planned.count(signal.SIGTERM)), steps]


if __name__ == "__main__":
    main()
