"""Statuses that no policy can give: the spec is not understood, or Kubernetes refuses a child.

A reconcile that fails must leave a condition behind, not just a line in the operator's log.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from finetune_operator.api.job import SpecError
from finetune_operator.api.reasons import ConditionType, Phase, Reason
from finetune_operator.api.status import MAX_MESSAGE, Condition, ConditionStatus, Failure, FineTuneJobStatus
from finetune_operator.kube.errors import KubeError
from finetune_operator.reconcile.plan import Event, EventType
from finetune_trainer.contract.failure import FailureReason


def invalid_spec(raw_status: Mapping[str, Any], generation: int, error: SpecError, now: datetime) -> FineTuneJobStatus:
    """The status of a job whose spec this version does not understand: stalled until somebody changes it.

    It is not finished: a corrected spec, or another version of the operator, goes on from here. The API server refuses
    such specs, so this shows only when CRD and operator are of different versions.
    """
    status = FineTuneJobStatus.model_validate(raw_status)
    reason = FailureReason.INVALID_RECIPE
    message = _cut("The spec is not understood by this version of the operator: " + "; ".join(map(str, error.problems)))
    wanted = {
        ConditionType.SUCCEEDED: ConditionStatus.UNKNOWN,
        ConditionType.READY: ConditionStatus.UNKNOWN,
        ConditionType.STALLED: ConditionStatus.TRUE,
    }
    return status.model_copy(
        update={
            "observed_generation": generation,
            "phase": status.phase if status.attempt else Phase.PENDING,
            "failure": Failure(reason=reason, message=message),
            "conditions": _conditions(
                status, wanted, reason, message, generation, now, without=ConditionType.RECONCILING
            ),
        }
    )


def child_refused(
    planned: FineTuneJobStatus, generation: int, child: str, error: KubeError, now: datetime
) -> FineTuneJobStatus:
    """The status of a job whose child the API server refuses, with its words; tried again for ever.

    Args:
        planned: the status as it should have become.
        generation: the spec's.
        child: its kind and name.
        error: the refusal.
        now: the time.
    """
    message = refusal_event(child, error).message
    wanted = {
        ConditionType.SUCCEEDED: ConditionStatus.UNKNOWN,
        ConditionType.READY: ConditionStatus.UNKNOWN,
        ConditionType.RECONCILING: ConditionStatus.TRUE,
    }
    return planned.model_copy(
        update={
            # Without its name the Job is one that is still to be made, and not one that somebody has deleted.
            "job_name": None,
            "job_uid": None,
            "conditions": _conditions(planned, wanted, Reason.CHILD_REFUSED, message, generation, now),
        }
    )


def refusal_event(child: str, error: KubeError) -> Event:
    """The refusal as a user reads it in `kubectl describe`."""
    text = f"Kubernetes refuses the {child}: {error.message} The operator tries again; the quota, policy or right "
    return Event(type=EventType.WARNING, reason=Reason.CHILD_REFUSED, message=_cut(f"{text}named here must change."))


def _conditions(
    status: FineTuneJobStatus,
    wanted: Mapping[ConditionType, ConditionStatus],
    reason: str,
    message: str,
    generation: int,
    now: datetime,
    *,
    without: ConditionType | None = None,
) -> list[Condition]:
    """The conditions with those of `wanted` in place, the rest as it was; times change only with the status."""
    kept = [item for item in status.conditions if item.type not in wanted and item.type != without]
    for type_, value in wanted.items():
        before = status.condition(type_)
        kept.append(
            Condition(
                type=type_,
                status=value,
                reason=reason,
                message=message,
                observed_generation=generation,
                last_transition_time=before.last_transition_time if before and before.status is value else now,
            )
        )
    return kept


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
