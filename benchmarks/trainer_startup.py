"""Measures the cost from the start of the process to the first optimizer step, with a tiny model.

Prints CPU seconds: those of a process with a single step, those of importing the libraries alone, which our code cannot
save, and those until an invalid recipe is refused. They are the best of several runs, because the machine may be
shared. A fixed loop's CPU time is printed too, to compare machines.

    python benchmarks/trainer_startup.py [--runs N]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

BAR_SECONDS = 8.0
LIBRARIES = "import bitsandbytes, datasets, peft, torch, transformers, trl; from trl import SFTTrainer, SFTConfig"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        recipe, wrong = _prepare(Path(folder))
        rows = {
            "to the first step (bar: 8)": [_process(Path(folder), recipe) for _ in range(runs)],
            "of it, importing the libraries": [_cpu([sys.executable, "-c", LIBRARIES], {}) for _ in range(runs)],
            "a wrong recipe refused (bar: 1)": [_process(Path(folder), wrong) for _ in range(runs)],
            "a fixed loop, to compare machines by": [_loop() for _ in range(runs)],
        }
    print(f"| CPU seconds, best of {runs} | |\n|---|---|")
    for name, seconds in rows.items():
        print(f"| {name} | {min(seconds):.2f} |")


def _prepare(folder: Path) -> tuple[Path, Path]:
    """Writes a model, data and two recipes: one of a single step, and an invalid one."""
    from trainer.tiny_model import make_tiny_model

    make_tiny_model(folder / "model")
    lines = (json.dumps({"text": f"Question {number}"}) + "\n" for number in range(8))
    (folder / "train.jsonl").write_text("".join(lines))
    recipe = {
        "job": {"name": "startup"},
        "model": {"uri": f"file://{folder}/model"},
        "dataset": {"uri": f"file://{folder}/train.jsonl"},
        "training": {"maxSteps": 1},
        "output": {"uri": f"file://{folder}/out", "onExisting": "Replace"},
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / "wrong.json").write_text(json.dumps({**recipe, "training": {"maxSteps": 0}}))
    return folder / "recipe.json", folder / "wrong.json"


def _process(folder: Path, recipe: Path) -> float:
    """Returns the CPU seconds of a training process of a single step. Publishing a few kilobytes costs little."""
    environment = {"FINETUNE_RECIPE": str(recipe), "FINETUNE_WORK": str(folder)}
    return _cpu([sys.executable, "-m", "finetune_trainer"], environment)


def _cpu(command: list[str], environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    subprocess.run(command, env=quiet, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _loop() -> float:
    start = time.process_time()
    total = 0
    for number in range(10_000_000):
        total += number
    return time.process_time() - start


if __name__ == "__main__":
    main()
