"""The trainer's speed, from the 2023 QLoRA recipe to our defaults, one change per row, beside TRL's defaults.

Each row is a new process (`trainer_row.py`) over the same rows of real chats. The rows run one after the other, so that
the ratios of one run are comparable. On a CPU, the seconds are CPU seconds of one thread, because the machine may be
shared.

    python benchmarks/trainer.py [--rows N] [--only judged] [--device cuda --model-shape 8b]
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benchmarks.tables import Table, load
from benchmarks.trainer_models import SHAPES, model_folder
from benchmarks.trainer_row import LENGTH, Measured, Row

SPEED_BAR, MEMORY_BAR = 3.0, 0.7
RECIPE_2023: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "max_length": LENGTH,
    "activation_checkpointing": True,
}
KEPT: dict[str, Any] = {"gradientCheckpointing": "disabled"}
PADDED: dict[str, Any] = {"dataset": {"packing": "disabled"}, "attention": "sdpa"}
LADDER = (
    Row(name="the 2023 recipe: batch 4 x 4, checkpointing, dropout 0.1", trl=RECIPE_2023, dropout="0.1"),
    Row(name="no dropout", trl=RECIPE_2023),
    Row(name="no checkpointing", trl=RECIPE_2023 | {"activation_checkpointing": False}),
    Row(name="our trainer and its head, padded", recipe=PADDED | {"training": KEPT | {"microBatchSize": 4}}),
    Row(name="passes filled by tokens", recipe=PADDED | {"training": KEPT}),
    Row(name="packed, kept apart by a mask", recipe={"attention": "sdpa", "training": KEPT}),
    Row(name="varlen attention", recipe={"training": KEPT}),
)
DEFAULTS = (
    Row(name="TRL's defaults: batch 8, checkpointing", trl={}),
    Row(name="our defaults, rows kept apart"),
    # The last row, because it needs 9 GB: once, the row after it was a fifth slower than alone.
    Row(name="TRL's packing, rows see each other", trl={"packing": True}),
)


def main() -> None:
    """Measures and prints. Exits with an error when the judged row is below its bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--rows",
        type=int,
        default=160,
        help="rows of data that each row of the table trains; 160 have the whole corpus's share of long ones",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model-shape", choices=SHAPES, default="smollm2")
    parser.add_argument("--only", choices=("ladder", "judged"), help="one of the two tables")
    asked = parser.parse_args()
    model_folder()

    def on(rows: tuple[Row, ...]) -> list[tuple[Row, Measured]]:
        here = [replace(row, device=asked.device, shape=asked.model_shape, rows=asked.rows) for row in rows]
        return [(row, _process(row)) for row in here]

    if asked.only != "judged":
        print(_table("From the 2023 recipe to our defaults", on(LADDER)).text())
    if asked.only != "ladder":
        judged = on(DEFAULTS)
        print(_table("Beside TRL's defaults", judged).text())
        theirs, found = judged[0][1], judged[1][1]
        faster, larger = (
            _speed(found, asked.device) / _speed(theirs, asked.device),
            found.peak_bytes / theirs.peak_bytes,
        )
        print(f"{faster:.2f}x the useful tokens (bar: {SPEED_BAR}), {larger:.2f}x the memory (bar: {MEMORY_BAR})")
        sys.exit(0 if faster >= SPEED_BAR and larger <= MEMORY_BAR else 1)


def _process(row: Row) -> Measured:
    command = [sys.executable, str(Path(__file__).with_name("trainer_row.py")), json.dumps(asdict(row))]
    print(f"... {row.name}", file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{row.name}: {done.stderr[-2000:]}")
    return Measured.parse(done.stdout)


def _speed(found: Measured, device: str) -> float:
    """Returns useful tokens per second: of CPU time on a CPU, of wall time on a GPU."""
    return found.tokens / (found.cpu_seconds if device == "cpu" else found.wall_seconds)


def _table(title: str, rows: list[tuple[Row, Measured]]) -> Table:
    device = rows[0][0].device
    clock, memory = ("CPU second", "peak RSS, GB") if device == "cpu" else ("second", "peak GPU memory, GB")
    table = Table(
        title, ["", f"useful tokens a {clock}", "x the first", "used of the device (4N)", memory, "loss", "load"]
    )
    first = _speed(rows[0][1], device)
    for row, found in rows:
        speed = _speed(found, device)
        used = 4 * found.parameters * speed / found.peak_flops
        table.rows.append(
            [
                row.name,
                f"{speed:,.1f}",
                f"{speed / first:.2f}",
                f"{used:.0%}",
                f"{found.peak_bytes / 1e9:.2f}",
                f"{found.loss:.3f}",
                load(),
            ]
        )
    return table


if __name__ == "__main__":
    main()
