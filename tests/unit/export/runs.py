"""The facts of a run, for the tests of the report and the card."""

from datetime import UTC, datetime
from typing import Any

from finetune_trainer.contract.history import HistoryEntry
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.data.histogram import LengthBin
from finetune_trainer.data.tokenization.tokens import TokenCounts
from finetune_trainer.export.facts import RunFacts
from unit.trainer_train.recipes import recipe

CREATED = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HISTORY = [
    HistoryEntry(
        step=step, loss=4.0 / step, learning_rate=2e-4 / step, grad_norm=1.5, tokens=1000 * step,
        tokens_per_second=500.0, seconds=2.0 * step, wall_time=1.8e9 + step,
        eval_loss={2: 2.5, 4: 2.75}.get(step),
    )
    for step in range(1, 5)
]  # fmt: skip


def facts(**changed: Any) -> RunFacts:
    """Returns the facts of a run of four steps with two evaluations. `recipe` has sections of the recipe."""
    values: dict[str, Any] = {
        "recipe": recipe(**changed.pop("recipe", {})),
        "fingerprint": "0123456789abcdef" * 4,
        "base_revision": None,
        "base_licence": None,
        "dataset": [SourceObject(uri="s3://data/train.jsonl", size=1234, etag="abc")],
        "counts": TokenCounts(rows=90, tokens=9000, trained_tokens=4000, truncated=7, dropped=10, longest=3000),
        "lengths": [LengthBin(low=1, high=50, rows=60), LengthBin(low=51, high=100, rows=30)],
        "target_modules": ["k_proj", "q_proj"],
        "metrics": {"loss": 1.0, "steps": 4.0, "tokens": 4000.0},
        "history": HISTORY,
        "stage_seconds": {"Loading": 12.0, "Training": 200.0},
        "device": "CPU, 1 threads",
        "peak_gpu_memory_bytes": None,
        "peak_memory_bytes": 3 << 30,
        "versions": {"torch": "2.13.0"},
        "created": CREATED,
    }
    return RunFacts(**{**values, **changed})
