"""Suspension: the pods are deleted and the job waits. To resume it starts a new attempt."""

from finetune_operator.api.reasons import ConditionType, Phase, Reason
from finetune_operator.reconcile import attempts
from finetune_operator.reconcile.child_state import Failed
from finetune_operator.reconcile.conditions import set_phase
from finetune_operator.reconcile.plan_builder import PlanBuilder
from finetune_trainer.contract.failure import FailureReason

_MESSAGE = "suspended by spec.suspend: set it to false to resume"


def suspend(builder: PlanBuilder) -> None:
    """Ends the current attempt, uncounted, and deletes every child."""
    for child in builder.observed.jobs:
        builder.delete(child)
    attempts.end(builder, Failed(reason=FailureReason.PREEMPTED, message="suspended by spec.suspend"))
    builder.update(job_name=None, job_uid=None, pod_name=None)
    if not builder.status.is_true(ConditionType.SUSPENDED):
        builder.update(progress=None)  # the next attempt reports its own
        builder.event(Reason.SUSPENDED, _MESSAGE)
    set_phase(builder, Phase.SUSPENDED, Reason.SUSPENDED, _MESSAGE)


def resume(builder: PlanBuilder) -> None:
    """Resumes a suspended job."""
    if builder.status.is_true(ConditionType.SUSPENDED):
        builder.update(start_time=builder.now)  # as for a Job: suspended time does not count
        builder.event(Reason.RESUMED, "spec.suspend is false again")
        set_phase(builder, Phase.PENDING, Reason.RESUMED, "spec.suspend is false again")
