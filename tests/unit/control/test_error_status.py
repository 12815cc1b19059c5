"""Statuses for what no policy can say."""

from datetime import UTC, datetime, timedelta

import pytest

from finetune_operator.api.job import SpecError, parse_job
from finetune_operator.api.reasons import Reason
from finetune_operator.api.status import ConditionStatus, FineTuneJobStatus
from finetune_operator.control.error_status import child_refused, invalid_spec
from finetune_operator.kube.errors import Forbidden
from unit.control.builders import a_finetunejob

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def spec_error() -> SpecError:
    raw = a_finetunejob(spec={"training": {"learningRate": 2e-4, "epoch": 3}})
    with pytest.raises(SpecError) as caught:
        parse_job(raw)
    return caught.value


def test_an_invalid_spec_is_stalled_names_every_problem_and_is_not_finished() -> None:
    status = invalid_spec({"observedGeneration": -1}, 3, spec_error(), NOW)
    assert status.observed_generation == 3
    assert status.failure is not None
    assert status.failure.reason == "InvalidSpec"
    assert "spec.training.learningRate" in status.failure.message
    assert "spec.training.epoch" in status.failure.message
    assert status.is_true("Stalled")
    assert not status.is_true("Finished")
    assert status.condition("Reconciling") is None


def test_saying_it_again_changes_nothing() -> None:
    first = invalid_spec({}, 3, spec_error(), NOW)
    again = invalid_spec(first.to_dict(), 3, spec_error(), NOW + timedelta(hours=1))
    assert again == first


def test_a_refused_child_is_told_in_the_servers_words_and_only_once() -> None:
    error = Forbidden('jobs.batch "a" is forbidden: exceeded quota: gpus', status=403)
    first = child_refused(FineTuneJobStatus(), 1, "a", error, NOW)
    ready = first.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == (ConditionStatus.UNKNOWN, Reason.CHILD_REFUSED)
    assert "exceeded quota: gpus" in ready.message
    assert child_refused(first, 1, "a", error, NOW + timedelta(minutes=5)) == first
