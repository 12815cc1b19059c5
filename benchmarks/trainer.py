"""The trainer's speed, from the 2023 QLoRA recipe to our defaults, one change per row, beside TRL's defaults.

Each row is a new process (`trainer_row.py`) over the same rows of real chats. The rows run one after the other, so that
the ratios of one run are comparable. On a CPU, the seconds are CPU seconds of one thread, because the machine may be
shared.

    python benchmarks/trainer.py [--rows N] [--only judged]

With a shape, weights and rows are random, and are made on the device: that needs the trainer's packages alone, and no
network. Two steps of warm-up do not count. What no longer fits into the budget is left out.

    python benchmarks/trainer.py --device cuda --model-shape 8b --budget 480 [--length 2048] [--rows 96]
"""

import argparse
import json
import math
import subprocess
import sys
import time
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
STEP_ROWS, WARM_UP = 16, 2
SHAPED = (
    Row(name="our defaults", warm_up=WARM_UP),
    Row(name="our defaults, checkpointing", recipe={"training": {"gradientCheckpointing": "enabled"}}, warm_up=WARM_UP),
    Row(
        name="TRL: batch 4 x 4, checkpointing",
        trl={"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
        warm_up=WARM_UP,
    ),
    Row(name="our defaults with cuDNN's attention", cudnn=True, warm_up=WARM_UP),
)
"""What is measured of a shape, the most important first."""


def main() -> None:
    """Measures and prints. Exits with an error when the judged row is below its bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--rows",
        type=int,
        help="rows of data that each row of the table trains: 160 by default, which have the whole corpus's share of "
        "long ones, and 96 for a shape",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model-shape", choices=SHAPES, default="smollm2")
    parser.add_argument("--only", choices=("ladder", "judged"), help="one of the two tables")
    parser.add_argument("--length", type=int, default=2048, help="tokens of the longest row, for a shape")
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no row begins")
    asked = parser.parse_args()
    if asked.model_shape != "smollm2":
        _measure_shape(asked)
        return
    model_folder()

    def on(rows: tuple[Row, ...]) -> list[tuple[Row, Measured]]:
        here = [replace(row, device=asked.device, shape=asked.model_shape, rows=asked.rows or 160) for row in rows]
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


def _measure_shape(asked: argparse.Namespace) -> None:
    """Prints a table for a shape with random weights; a row that fails says why and the others go on."""
    rows, end = asked.rows or 6 * STEP_ROWS, time.monotonic() + asked.budget
    table = Table(
        f"{asked.model_shape}, {rows} rows of {asked.length} tokens at most, NF4, rank 16",
        ["", "tokens a second", "x TRL", "used of the device (4N)", "peak, GB", "reserved", "estimated",
         "gradient norms", "micro-batches"],
    )  # fmt: skip
    found: dict[str, Measured | str] = {}
    for row in SHAPED:
        here = replace(row, device=asked.device, shape=asked.model_shape, rows=rows, length=asked.length)
        left = end - time.monotonic()
        found[row.name] = _tried(here, left) if left > 0 else "no time left"
    judged = found[next(row.name for row in SHAPED if row.trl is not None)]
    for name, result in found.items():
        if isinstance(result, str):
            table.rows.append([name, result, *[""] * 7])
            continue
        speed = _speed(result, asked.device)
        table.note = f"{result.device}; a large matrix product: {result.peak_flops / 1e12:.1f} TFLOP/s"
        table.rows.append(
            [
                name,
                f"{speed:,.0f}",
                "" if isinstance(judged, str) else f"{speed / _speed(judged, asked.device):.2f}",
                f"{4 * result.parameters * speed / result.peak_flops:.0%}",
                *(f"{size / 1e9:.2f}" for size in (result.peak_bytes, result.reserved_bytes, result.estimated_bytes)),
                " ".join(f"{norm:.3g}" for norm in result.gradient_norms[:6]),
                result.plan,
            ]
        )
    print(table.text())
    sys.exit(any(isinstance(result, str) and result != "no time left" for result in found.values()))


def _tried(row: Row, seconds: float) -> "Measured | str":
    """The result, or why there is none."""
    print(f"... {row.name}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            _command(row), capture_output=True, text=True, check=False, timeout=None if math.isinf(seconds) else seconds
        )
    except subprocess.TimeoutExpired:
        return "no time left"
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200].replace("|", " ")
    return Measured.parse(done.stdout)


def _command(row: Row) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("trainer_row.py")), json.dumps(asdict(row))]


def _process(row: Row) -> Measured:
    print(f"... {row.name}", file=sys.stderr, flush=True)
    done = subprocess.run(_command(row), capture_output=True, text=True, check=False)
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
