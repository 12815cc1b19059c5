"""Suspension: pods go, the job waits, and taking it back starts a new attempt."""

from finetune_operator.api.reasons import ConditionType, Phase, Reason
from finetune_operator.reconcile import attempts
from finetune_operator.reconcile.conditions import show
from finetune_operator.reconcile.draft import Draft
from finetune_operator.reconcile.outcome import Ending
from finetune_trainer.contract.failure import FailureReason

_MESSAGE = "suspended by spec.suspend: set it to false to go on"


def suspend(draft: Draft) -> None:
    """Ends the current attempt, uncounted, and removes every child."""
    for child in draft.observed.jobs:
        draft.delete(child)
    attempts.end(draft, Ending(reason=FailureReason.PREEMPTED, message="suspended by spec.suspend"))
    draft.update(job_name=None, job_uid=None, pod_name=None)
    if not draft.status.is_true(ConditionType.SUSPENDED):
        draft.update(progress=None)  # the next attempt starts anew
        draft.event(Reason.SUSPENDED, _MESSAGE)
    show(draft, Phase.SUSPENDED, Reason.SUSPENDED, _MESSAGE)


def resume(draft: Draft) -> None:
    """Says that a suspended job goes on."""
    if draft.status.is_true(ConditionType.SUSPENDED):
        draft.update(start_time=draft.now)  # as of a Job: time that was spent suspended counts against no deadline
        draft.event(Reason.RESUMED, "spec.suspend is false again")
        show(draft, Phase.PENDING, Reason.RESUMED, "spec.suspend is false again")
