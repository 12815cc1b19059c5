"""When a checkpoint is due."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import TrainerControl, TrainerState

from finetune_trainer.checkpoints import Checkpointer
from finetune_trainer.contract.recipe.training import CheckpointSpec
from finetune_trainer.train.callbacks import SaveWhenDue
from finetune_trainer.train.divergence import Divergence
from finetune_trainer.train.reference import read_reference
from finetune_trainer.train.reference_checkpoints import ReferenceCheckpoints

pytestmark = pytest.mark.extras

TOTAL = 100


@dataclass
class Training:
    """Steps of so many seconds each, and the steps after which a checkpoint was asked for."""

    spec: CheckpointSpec
    seconds: float
    stop_at: int | None = None
    now: float = 1000.0
    saved: list[int] = field(default_factory=list)
    ended: int = TOTAL

    def run(self, checkpointer: Any) -> "Training":
        stop = threading.Event()
        callback = SaveWhenDue(checkpointer, self.spec, stop.is_set, lambda: self.now, Divergence())
        state, arguments = TrainerState(max_steps=TOTAL), SimpleNamespace(output_dir="there")
        callback.on_train_begin(arguments, state, TrainerControl())
        for step in range(1, TOTAL + 1):
            self.now += self.seconds
            state.global_step, control = step, TrainerControl()
            if step == self.stop_at:
                stop.set()
            callback.on_step_end(arguments, state, control)
            if control.should_save:
                self.saved.append(step)
                callback.on_save(arguments, state, control)
            if control.should_training_stop:
                self.ended = step
                break
        return self


class _Taken(Checkpointer):
    """Notes what it was given; nothing is put anywhere."""

    def __init__(self) -> None:
        self.taken: list[tuple[Path, int, int, bool]] = []
        self.measured: list[int] = []
        self.failure = None

    def save(self, folder: Path, step: int, total_steps: int, *, last: bool, measured: int = 0) -> None:
        self.taken.append((folder, step, total_steps, last))
        self.measured.append(measured)

    def wait(self) -> None:
        """Nothing runs."""


@pytest.mark.parametrize(
    ("spec", "seconds", "steps"),
    [
        ({"everySteps": 30}, 0.1, [30, 60, 90]),
        ({"everyMinutes": 1}, 25, [3, 6, 9]),
        ({}, 601, [1, 2, 3]),
        ({}, 200, [3, 6, 9]),
        ({"everySteps": 4, "everyMinutes": 1}, 25, [3, 4, 7]),
        ({"everySteps": 1000}, 601, [100]),
    ],
)
def test_every_so_many_steps_or_minutes(spec: dict[str, int], seconds: float, steps: list[int]) -> None:
    """Neither set is every ten minutes; every step and every minute count from the checkpoint before."""
    training = Training(spec=CheckpointSpec.model_validate(spec), seconds=seconds).run(_Taken())

    assert training.saved[: len(steps)] == steps


def test_after_the_last_step_only_what_takes_long_to_do_again() -> None:
    spec = CheckpointSpec.model_validate({"everySteps": 90})

    assert Training(spec=spec, seconds=1).run(_Taken()).saved == [90]
    assert Training(spec=spec, seconds=7).run(_Taken()).saved == [90, 100]


def test_told_to_stop_it_saves_and_ends() -> None:
    taken = _Taken()
    training = Training(spec=CheckpointSpec(), seconds=0.1, stop_at=17).run(taken)

    assert (training.saved, training.ended) == ([17], 17)
    assert taken.taken == [(Path("there/checkpoint-17"), 17, TOTAL, True)]


def test_told_to_stop_at_the_last_step_it_goes_on_to_the_adapter() -> None:
    training = Training(spec=CheckpointSpec(), seconds=0.1, stop_at=TOTAL).run(_Taken())

    assert training.saved == []


def test_what_is_measured_before_the_first_step_is_saved_every_so_many_minutes(tmp_path: Path) -> None:
    taken, now = _Taken(), 0.0
    kept = ReferenceCheckpoints(taken, tmp_path, CheckpointSpec.model_validate({"everySteps": 5}), lambda: now)
    known = {"training": np.full((6, 2), np.nan, np.float32)}
    for pair in range(5):
        known["training"][pair], now = -1.0, now + 301
        kept.keep(known, stopping=False)
    kept.keep(known, stopping=True)

    assert taken.measured == [2, 4, 5]
    assert [last for *_, last in taken.taken] == [False, False, True]
    assert kept.message() == "the newest checkpoint has 5 pairs"
    written = read_reference(tmp_path / "reference-5")
    assert written is not None
    assert np.isfinite(written["training"]).sum() == 10


def test_what_was_measured_is_not_saved_twice_and_nothing_is_not_saved(tmp_path: Path) -> None:
    taken = _Taken()
    kept = ReferenceCheckpoints(taken, tmp_path, CheckpointSpec(), lambda: 0.0)
    kept.keep({"training": np.full((6, 2), np.nan, np.float32)}, stopping=True)

    assert taken.taken == []
    assert kept.message() == "there is no checkpoint"
