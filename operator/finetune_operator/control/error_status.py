"""The status for an error outside the policy: the API server refuses a child.

A reconcile that fails must set a condition. A line in the operator's log is not enough.
"""

from datetime import datetime

from finetune_operator.api.reasons import ConditionType, Reason
from finetune_operator.api.status import ConditionStatus, FineTuneJobStatus
from finetune_operator.kube.errors import KubeError
from finetune_operator.reconcile.conditions import with_conditions
from finetune_operator.reconcile.plan import Event, EventType
from finetune_trainer.contract.text import message_of


def child_refused(
    planned: FineTuneJobStatus, generation: int, child: str, error: KubeError, now: datetime
) -> FineTuneJobStatus:
    """The status of a FineTuneJob whose child the API server refuses. The operator keeps retrying.

    Args:
        planned: the status that the plan would have written.
        generation: generation of the spec.
        child: kind and name of the child.
        error: the refusal; its message goes into the conditions.
        now: the current time.
    """
    message = refusal_event(child, error).message
    desired = {
        ConditionType.SUCCEEDED: ConditionStatus.UNKNOWN,
        ConditionType.READY: ConditionStatus.UNKNOWN,
        ConditionType.RECONCILING: ConditionStatus.TRUE,
    }
    return planned.model_copy(
        update={
            # Without a name the Job counts as not yet created. With a name it would count as deleted.
            "job_name": None,
            "job_uid": None,
            "conditions": with_conditions(planned, desired, Reason.CHILD_REFUSED, message, generation, now),
        }
    )


def refusal_event(child: str, error: KubeError) -> Event:
    """The refusal as an event, for `kubectl describe`."""
    text = f"Kubernetes refuses the {child}: {error.message} The operator tries again; the quota, policy or right "
    return Event(
        type=EventType.WARNING, reason=Reason.CHILD_REFUSED, message=message_of(f"{text}named here must change.")
    )
