"""The status of a job whose child the API server refuses."""

from datetime import UTC, datetime, timedelta

from finetune_operator.api.reasons import Reason
from finetune_operator.api.status import ConditionStatus, FineTuneJobStatus
from finetune_operator.control.error_status import child_refused
from finetune_operator.kube.errors import Forbidden

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def test_a_refused_child_sets_a_condition_with_the_servers_message_once() -> None:
    error = Forbidden('jobs.batch "a" is forbidden: exceeded quota: gpus', status=403)
    first = child_refused(FineTuneJobStatus(), 1, "a", error, NOW)
    ready = first.condition("Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == (ConditionStatus.UNKNOWN, Reason.CHILD_REFUSED)
    assert "exceeded quota: gpus" in ready.message
    assert child_refused(first, 1, "a", error, NOW + timedelta(minutes=5)) == first
