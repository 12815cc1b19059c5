"""What follows a failed attempt: another attempt after a back-off, or the failure of the job."""

from datetime import datetime, timedelta

from finetune_operator.api.spec import Retry
from finetune_operator.api.status import FineTuneJobStatus
from finetune_operator.reconcile.child_state import Failed
from finetune_trainer.contract.failure import FAILURES, FailureReason, Policy

MAX_BACKOFF = timedelta(hours=1)

_MAX_OCCURRENCES = {FailureReason.HOST_OUT_OF_MEMORY: 2}
"""Failures that repeat: after so many with this reason another attempt would fail the same way."""


def gives_up(status: FineTuneJobStatus, failure: Failed, retry: Retry) -> bool:
    """Whether the job fails now. `status` has the attempt's end already."""
    policy = FAILURES[failure.reason].policy
    if policy is Policy.FAIL:
        return True
    if policy is Policy.RETRY_UNCOUNTED:
        return False
    same = sum(1 for attempt in status.attempts if attempt.reason == failure.reason)
    return status.counted_failures > retry.limit or same >= _MAX_OCCURRENCES.get(failure.reason, same + 1)


def not_before(status: FineTuneJobStatus, retry: Retry) -> datetime | None:
    """When the next attempt may start. The back-off doubles with each counted failure.

    After an uncounted failure the first back-off applies.
    """
    if not status.attempts or (ended := status.attempts[-1]).end_time is None:
        return None
    doublings = max(0, status.counted_failures - 1) if ended.counted else 0
    pause = timedelta(seconds=retry.backoff_seconds << min(doublings, 12))
    return ended.end_time + min(pause, MAX_BACKOFF)
