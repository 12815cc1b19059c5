"""Prints a table: what memory/estimate.py says of a training's memory, beside what was allocated. Nothing needs a GPU.

OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 python benchmarks/memory_estimate.py [--full]
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Iterator
from itertools import product
from pathlib import Path

# In the place of this script's own folder, whose trainer.py would hide tests/trainer.
_ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(_ROOT), str(_ROOT / "tools"), str(_ROOT / "tests")]

from benchmarks.tables import Table  # noqa: E402

from finetune_trainer.memory.estimate import MemoryEstimate  # noqa: E402
from trainer.allocations import Case, Counted, measure  # noqa: E402

MIB = 1 << 20


def cases(*, full: bool) -> Iterator[Case]:
    """Yields the trainings to measure."""
    for tokens, quantization, gradient_checkpointing, packed in product(
        (512, 2048), ("nf4", "none"), (False, True), (True, False)
    ):
        yield Case(
            shape="small",
            tokens=tokens,
            quantization=quantization,
            gradient_checkpointing=gradient_checkpointing,
            packed=packed,
        )
    if full:
        for quantization, gradient_checkpointing, packed in product(("nf4", "none"), (False, True), (True, False)):
            yield Case(
                shape="135M",
                tokens=512,
                quantization=quantization,
                gradient_checkpointing=gradient_checkpointing,
                packed=packed,
            )
    yield Case(shape="small", tokens=2048, attention="varlen")
    yield Case(shape="small", tokens=2048, attention="eager")
    yield Case(shape="small", tokens=2048, dtype="bfloat16")
    yield Case(shape="small", tokens=2048, dtype="bfloat16", gradient_checkpointing=True)
    yield Case(shape="small", tokens=2048, quantization="int8", packed=False)
    yield Case(shape="small", tokens=2048, quantization="fp4", lora=(("dropout", "0.1"),))
    yield Case(shape="small", tokens=2048, lora=(("variant", "dora"),))
    yield Case(shape="small", tokens=2048, lora=(("targetModules", ["q_proj", "v_proj"]), ("rank", 64)))


def row_of(case: Case, said: MemoryEstimate, found: Counted) -> list[str]:
    """Returns a row of the table."""
    extra = ", ".join(f"{name} {value if isinstance(value, str) else '…'}" for name, value in case.lora)
    kind = f"{case.shape}, {case.quantization}, {case.dtype}{', ' + extra if extra else ''}"
    way = f"{'packed' if case.packed else 'padded'}, {case.attention}"
    trained, step = said.adapter + said.gradients + said.optimizer, said.activations + said.workspace
    total, counted = said.model + trained + step, found.model + found.trained + found.step
    pairs = ((said.model, found.model), (trained, found.trained), (step, found.step), (total, counted))
    return [
        kind,
        way,
        f"{case.tokens:,}",
        "on" if case.gradient_checkpointing else "off",
        *(f"{one / MIB:.1f} / {other / MIB:.1f}" for one, other in pairs),
        f"{100 * (total / counted - 1):+.0f} %",
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--full", action="store_true", help="with the 135M shape: minutes instead of seconds")
    full = parser.parse_args().full
    warnings.simplefilter("ignore")
    head = ["model", "passes", "tokens", "checkpointing", "base", "trained", "step", "all", "error"]
    table = Table("Estimated and counted, MiB", head)
    for case in cases(full=full):
        with tempfile.TemporaryDirectory() as folder:
            table.rows.append(row_of(case, *measure(case, Path(folder))))
            print(*table.rows[-1], sep=" | ", file=sys.stderr, flush=True)
    print(table.text())


if __name__ == "__main__":
    main()
