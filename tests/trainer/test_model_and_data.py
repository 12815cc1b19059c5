"""What a training is made of is made at once: the base model is read while the rows are tokenised."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.termination import Outcome
from finetune_trainer.model.load import load_base
from finetune_trainer.train.tokenized_data import tokenize_data_once
from trainer.running import QUESTIONS, LocalRun

pytestmark = pytest.mark.trainer
USER = "finetune_trainer.train.model_and_data"
PATIENCE = 60
"""Seconds after which the two are taken to run one after the other."""


def test_base_model_is_read_while_the_rows_are_tokenised(
    local_run: Callable[..., LocalRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)

    def meeting(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            both.wait(PATIENCE)  # raises BrokenBarrierError
            return real(*arguments)

        return call

    monkeypatch.setattr(f"{USER}.load_base", meeting(load_base))
    monkeypatch.setattr(f"{USER}.tokenize_data_once", meeting(tokenize_data_once))

    assert local_run(QUESTIONS)().outcome is Outcome.SUCCEEDED


def test_a_row_that_is_wrong_is_the_failure_though_the_model_cannot_be_read_either(
    local_run: Callable[..., LocalRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: Any) -> Any:
        raise TrainerError(FailureReason.MODEL_INVALID, "damaged")

    monkeypatch.setattr(f"{USER}.load_base", unreadable)

    with pytest.raises(TrainerError) as caught:
        local_run([*QUESTIONS, {"prompt": 1, "completion": "one"}])()

    assert caught.value.reason is FailureReason.DATASET_INVALID
