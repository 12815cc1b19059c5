"""Statuses for what no policy can say."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from finetune_operator.api.finetunejob import SpecError, parse_job
from finetune_operator.api.reasons import Phase, Reason
from finetune_operator.api.status import Attempt, ConditionStatus, FineTuneJobStatus
from finetune_operator.control.error_status import child_refused, invalid_spec
from finetune_operator.kube.errors import Forbidden
from finetune_operator.reconcile.observed import JobView, Observed
from finetune_operator.reconcile.plan import Deletion
from unit.control.builders import a_finetunejob

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def spec_error(**training: object) -> SpecError:
    raw = a_finetunejob(spec={"training": training or {"learningRate": 2e-4, "epochs": "3"}})
    with pytest.raises(SpecError) as caught:
        parse_job(raw)
    return caught.value


JOB = JobView(
    namespace="team",
    name="job-train-1",
    uid="job-uid-1",
    owner_uid="uid-1",
    role="train",
    attempt=1,
    created=NOW,
    complete=False,
    failed=False,
    failure_reason="",
    failure_message="",
    suspended=False,
    deleting=False,
)


def test_an_invalid_spec_fails_the_job_with_every_problem_and_deletes_running_children() -> None:
    running = FineTuneJobStatus(attempt=1, start_time=NOW, attempts=[Attempt(number=1, start_time=NOW)])
    done = replace(JOB, name="job-preflight-1", uid="job-uid-0", complete=True)
    plan = invalid_spec(running, 3, "again", spec_error(), Observed(jobs=(done, JOB)), NOW)
    status = plan.status
    assert (status.observed_generation, status.run_token, status.phase) == (3, "again", "Failed")
    assert status.failure is not None
    assert status.failure.reason == "InvalidSpec"
    assert "spec.training.learningRate" in status.failure.message
    assert "spec.training.epochs" in status.failure.message
    assert [status.is_true(type_) for type_ in ("Finished", "Stalled", "Succeeded", "Ready")] == [
        True,
        True,
        False,
        False,
    ]
    assert status.condition("Reconciling") is None
    assert status.attempts[0].end_time == status.completion_time == NOW
    assert plan.delete == (Deletion(name="job-train-1", uid="job-uid-1"),)
    assert [event.reason for event in plan.events] == ["InvalidSpec"]


def test_a_finished_job_stays_finished_and_its_conditions_have_the_new_generation() -> None:
    first = invalid_spec(FineTuneJobStatus(), 3, None, spec_error(), Observed(), NOW).status
    again = invalid_spec(first, 3, None, spec_error(), Observed(jobs=(JOB,)), NOW + timedelta(hours=1))
    assert (again.status, again.delete, again.events) == (first, (), ())
    later = invalid_spec(first, 4, None, spec_error(), Observed(), NOW + timedelta(hours=1)).status
    assert later.observed_generation == 4
    assert {item.observed_generation for item in later.conditions} == {4}
    assert later.completion_time == NOW


def test_another_run_token_with_an_invalid_spec_fails_again() -> None:
    first = invalid_spec(FineTuneJobStatus(), 3, None, spec_error(), Observed(), NOW).status
    again = invalid_spec(first, 4, "again", spec_error(), Observed(), NOW + timedelta(hours=1))
    assert (again.status.run_token, again.status.completion_time) == ("again", NOW + timedelta(hours=1))
    assert len(again.events) == 1


def test_a_field_of_a_newer_crd_ends_nothing_and_says_what_to_do() -> None:
    running = FineTuneJobStatus(
        observed_generation=2, phase=Phase.RUNNING, attempt=1, start_time=NOW, attempts=[Attempt(number=1)]
    )
    plan = invalid_spec(running, 3, None, spec_error(optimiser2="new", epochs="3"), Observed(jobs=(JOB,)), NOW)
    assert (plan.delete, plan.status.phase, plan.status.observed_generation) == ((), Phase.RUNNING, 2)
    assert plan.status.attempts == running.attempts
    shown = {item.type: (item.status, item.reason) for item in plan.status.conditions}
    assert shown == {
        "Succeeded": (ConditionStatus.UNKNOWN, Reason.OPERATOR_OUTDATED),
        "Ready": (ConditionStatus.UNKNOWN, Reason.OPERATOR_OUTDATED),
        "Finished": (ConditionStatus.FALSE, Reason.OPERATOR_OUTDATED),
        "Reconciling": (ConditionStatus.TRUE, Reason.OPERATOR_OUTDATED),
    }
    assert "upgrade the operator" in plan.status.conditions[0].message
    assert 'unknown field "spec.training.optimiser2"' in plan.status.conditions[0].message
    later = NOW + timedelta(hours=1)
    again = invalid_spec(plan.status, 3, None, spec_error(optimiser2="new", epochs="3"), Observed(jobs=(JOB,)), later)
    assert again.status == plan.status, "said once"


def test_a_new_job_with_a_field_of_a_newer_crd_waits_and_a_finished_one_stays_finished() -> None:
    unknown = spec_error(optimiser2="new")
    new = invalid_spec(FineTuneJobStatus(), 1, None, unknown, Observed(), NOW).status
    assert (new.phase, new.observed_generation, new.start_time) == (Phase.PENDING, -1, None)
    ended = invalid_spec(FineTuneJobStatus(), 1, None, spec_error(), Observed(), NOW).status
    assert invalid_spec(ended, 2, "again", unknown, Observed(), NOW).status == ended


def test_a_refused_child_sets_a_condition_with_the_servers_message_once() -> None:
    error = Forbidden('jobs.batch "a" is forbidden: exceeded quota: gpus', status=403)
    first = child_refused(FineTuneJobStatus(), 1, "a", error, NOW)
    ready = first.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == (ConditionStatus.UNKNOWN, Reason.CHILD_REFUSED)
    assert "exceeded quota: gpus" in ready.message
    assert child_refused(first, 1, "a", error, NOW + timedelta(minutes=5)) == first
