"""The history is what transformers' log holds, one entry a step."""

import json
import math

from finetune_trainer.contract.history import HistoryEntry, LossSummary, history_of

LOG = [
    {"loss": 4.0, "learning_rate": 1e-3, "grad_norm": 1.25, "epoch": 0.5, "step": 5, "tokens": 900, "seconds": 2.0,
     "entropy": 3.0},
    {"eval_loss": 3.5, "eval_runtime": 1.0, "epoch": 0.5, "step": 5},
    {"loss": 2.0, "learning_rate": 5e-4, "grad_norm": math.nan, "epoch": 1.0, "step": 10, "tokens": 1800},
    {"eval_loss": 3.75, "epoch": 1.0, "step": 10},
    {"train_loss": 3.0, "train_runtime": 4.0, "step": 10, "epoch": 1.0},
]  # fmt: skip


def test_entries_of_one_step_are_one() -> None:
    first, second = history_of(LOG)

    assert first == HistoryEntry(
        step=5, epoch=0.5, loss=4.0, eval_loss=3.5, learning_rate=1e-3, grad_norm=1.25, tokens=900, seconds=2.0
    )
    assert (second.step, second.loss, second.eval_loss, second.grad_norm) == (10, 2.0, 3.75, None)


def test_history_survives_a_checkpoint() -> None:
    assert history_of(json.loads(json.dumps(LOG))) == history_of(LOG)
    assert [HistoryEntry.model_validate_json(item.to_json()) for item in history_of(LOG)] == history_of(LOG)


def test_summary() -> None:
    assert LossSummary.of(history_of(LOG)) == LossSummary(
        entries=2, first_loss=4.0, last_loss=2.0, lowest_loss=2.0, lowest_loss_step=10, last_eval_loss=3.75,
        lowest_eval_loss=3.5, lowest_eval_loss_step=5,
    )  # fmt: skip
    assert LossSummary.of([]) == LossSummary()
