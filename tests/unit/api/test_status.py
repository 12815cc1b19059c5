"""The status: records of pods in the API's form."""

from datetime import UTC, datetime

import pytest

from finetune_operator.api.status import Condition, ConditionStatus, FineTuneJobStatus, OutputStatus, ProgressStatus
from finetune_trainer.contract.progress import Progress, Stage
from finetune_trainer.contract.termination import OutputRecord


def test_numbers_that_are_not_whole_are_strings() -> None:
    record = Progress(stage=Stage.TRAINING, step=310, total_steps=500, loss=1.23456, learning_rate=1.9e-4, epoch=1.5)
    status = ProgressStatus.of(record).to_dict()
    assert (status["loss"], status["learningRate"], status["epoch"]) == ("1.2346", "0.00019", "1.50")
    assert (status["percent"], status["display"]) == (62, "62% 310/500")


@pytest.mark.parametrize(
    ("record", "display"),
    [
        (Progress(stage=Stage.FETCHING), "Fetching"),
        (Progress(stage=Stage.TRAINING, step=0, total_steps=0), "Training"),
        (Progress(stage=Stage.TRAINING, percent=40), "40%"),
        (Progress(stage=Stage.TRAINING, step=7, total_steps=5), "100% 7/5"),
    ],
)
def test_display(record: Progress, display: str) -> None:
    assert ProgressStatus.of(record).display == display


def test_what_is_waited_for_fits_the_status_however_long_it_is() -> None:
    assert ProgressStatus.of(Progress(waiting_for="http://s3: HTTP 503")).waiting_for == "http://s3: HTTP 503"
    assert ProgressStatus.of(Progress(waiting_for="x" * 5000)).waiting_for == "x" * 1024
    assert "waitingFor" not in ProgressStatus.of(Progress()).to_dict()


def test_output_metrics_are_strings() -> None:
    record = OutputRecord(
        uri="s3://models/adapters/a",
        manifest_uri="s3://models/adapters/m",
        digest="sha256:0",
        size_bytes=1,
        base_model="org/name",
        rank=8,
        metrics={"loss": 0.1234567},
    )
    assert OutputStatus.of(record).metrics == {"loss": "0.123457"}


def test_conditions_are_found_by_type() -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    condition = Condition(type="Ready", status=ConditionStatus.TRUE, reason="Done", last_transition_time=now)
    status = FineTuneJobStatus(conditions=[condition])
    assert status.is_true("Ready")
    assert not status.is_true("Stalled")
    assert status.condition("Stalled") is None


def test_a_later_version_s_fields_are_dropped() -> None:
    assert FineTuneJobStatus.model_validate({"observedGeneration": 2, "later": 1}).observed_generation == 2
