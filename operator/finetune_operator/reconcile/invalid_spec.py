"""The policy of a FineTuneJob whose stored spec is invalid: its run fails, unless a newer operator may understand it.

The API server rejects an invalid spec. So the spec was stored before a rule existed, or the CRD is newer.
"""

from finetune_operator.api.finetunejob import SpecError, UnknownFieldError
from finetune_operator.api.reasons import ConditionType, Phase, Reason
from finetune_operator.api.status import ConditionStatus
from finetune_operator.reconcile import completion, retention, stages
from finetune_operator.reconcile.child_state import Failed
from finetune_operator.reconcile.conditions import with_conditions
from finetune_operator.reconcile.plan import EventType, Plan
from finetune_operator.reconcile.plan_builder import RunPlanBuilder
from finetune_trainer.contract.failure import FailureReason
from finetune_trainer.contract.text import message_of
from finetune_trainer.contract.version import __version__

_HELD = {
    ConditionType.SUCCEEDED: ConditionStatus.UNKNOWN,
    ConditionType.READY: ConditionStatus.UNKNOWN,
    ConditionType.FINISHED: ConditionStatus.FALSE,
    ConditionType.RECONCILING: ConditionStatus.TRUE,
}


def reconcile_invalid(error: SpecError, builder: RunPlanBuilder) -> Plan:
    """The plan that ends the run with InvalidSpec and every problem of the spec.

    A training that has succeeded already ends the run as Succeeded. A run that has ended stays as it is. Children are
    cleaned up as after every end. A corrected spec with another runToken starts a new run.

    A spec with unknown fields ends nothing: the CRD was upgraded first, and a newer operator is expected.

    Args:
        error: the problems.
        builder: the status and the children, and what can be read of the spec.
    """
    ended = completion.is_finished(builder) and builder.status.run_token == builder.run_token
    if isinstance(error, UnknownFieldError) and not ended:
        _hold(builder, error)
        return builder.build()
    stages.begin_run(builder)
    if not completion.is_finished(builder) and not completion.complete_if_succeeded(builder):
        message = "; ".join(map(str, error.problems))
        completion.fail(builder, Failed(reason=FailureReason.INVALID_SPEC, message=message))
    if completion.is_finished(builder):
        retention.expire(builder)
    return builder.build()


def _hold(builder: RunPlanBuilder, error: UnknownFieldError) -> None:
    """Leaves a FineTuneJob and its Jobs as they are until a newer operator runs, and says why.

    A new default in the CRD is seen in every stored spec. If unknown fields ended a job, an upgrade that applies the
    CRD first would end all of them.
    """
    if completion.is_finished(builder):
        return  # only its runToken has changed: the newer operator starts the run
    reason = Reason.OPERATOR_OUTDATED
    # Only the paths: what the fields should be instead is advice for a user who mistyped one.
    paths = ", ".join(problem.path for problem in error.problems)
    message = message_of(
        f"the CRD is newer than this operator ({__version__}): upgrade the operator. Until then it leaves this job and "
        f"its pods as they are. It does not understand {paths}"
    )
    builder.update(
        # Not observedGeneration: this operator has not understood the spec.
        phase=builder.status.phase or Phase.PENDING,
        conditions=with_conditions(builder.status, _HELD, reason, message, builder.generation, builder.now),
    )
    builder.event(reason, message, EventType.WARNING)
