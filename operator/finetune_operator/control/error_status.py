"""Statuses for errors outside the policy: the spec is invalid, or the API server refuses a child.

A reconcile that fails must set a condition. A line in the operator's log is not enough.
"""

from collections.abc import Mapping
from datetime import datetime

from finetune_operator.api.finetunejob import SpecError, UnknownFieldError
from finetune_operator.api.reasons import ConditionType, Phase, Reason
from finetune_operator.api.status import Condition, ConditionStatus, Failure, FineTuneJobStatus
from finetune_operator.kube.errors import KubeError
from finetune_operator.reconcile.conditions import with_observed_generation
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.plan import Deletion, Event, EventType, Plan
from finetune_trainer.contract.failure import FAILURES, FailureReason
from finetune_trainer.contract.text import MAX_MESSAGE
from finetune_trainer.contract.version import __version__


def invalid_spec(
    status: FineTuneJobStatus,
    generation: int,
    run_token: str | None,
    error: SpecError,
    observed: Observed,
    now: datetime,
) -> Plan:
    """Ends a FineTuneJob whose spec is invalid: Failed, with every problem. Jobs that still run are deleted.

    The API server rejects such specs. This happens only to a spec that was stored before a rule existed. As after every
    end, a corrected spec with another runToken starts a new run.

    A spec with unknown fields ends nothing: the CRD was upgraded first, and a newer operator is expected.

    Args:
        status: the current status.
        generation: generation of the spec.
        run_token: spec.runToken, where it can be read.
        error: the problems.
        observed: the children.
        now: the current time.
    """
    if status.is_true(ConditionType.FINISHED) and status.run_token == run_token:
        # A finished run stays finished, whatever is written into the spec later.
        stamped = {"observed_generation": generation, "conditions": with_observed_generation(status, generation)}
        return Plan(status=status.model_copy(update=stamped))
    if isinstance(error, UnknownFieldError):
        return _held(status, generation, error, now)
    reason = FailureReason.INVALID_RECIPE
    message = _cut(f"{'; '.join(map(str, error.problems))}. {FAILURES[reason].remedy}")
    desired = {
        ConditionType.SUCCEEDED: ConditionStatus.FALSE,
        ConditionType.READY: ConditionStatus.FALSE,
        ConditionType.FINISHED: ConditionStatus.TRUE,
        ConditionType.STALLED: ConditionStatus.TRUE,
    }
    ended = status.model_copy(
        update={
            "observed_generation": generation,
            "run_token": run_token,
            "phase": Phase.FAILED,
            "start_time": status.start_time or now,
            "completion_time": now,
            "failure": Failure(reason=reason, message=message),
            "output": None,
            "attempts": [
                item if item.end_time else item.model_copy(update={"end_time": now, "reason": reason, "counted": True})
                for item in status.attempts
            ],
            "conditions": _conditions(
                status, desired, reason, message, generation, now, without=ConditionType.RECONCILING
            ),
        }
    )
    running = (job for job in observed.jobs if not (job.complete or job.failed or job.deleting))
    return Plan(
        delete=tuple(Deletion(name=job.name, uid=job.uid) for job in running),
        status=ended,
        events=(Event(type=EventType.WARNING, reason=reason, message=message),),
    )


def _held(status: FineTuneJobStatus, generation: int, error: UnknownFieldError, now: datetime) -> Plan:
    """Leaves a FineTuneJob and its Jobs as they are until a newer operator runs, and says why.

    A new default in the CRD is seen in every stored spec. If unknown fields ended a job, an upgrade that applies the
    CRD first would end all of them.
    """
    if status.is_true(ConditionType.FINISHED):
        return Plan(status=status)  # only its runToken has changed: the newer operator starts the run
    reason = Reason.OPERATOR_OUTDATED
    problems = "; ".join(map(str, error.problems))
    message = _cut(
        f"the CRD is newer than this operator ({__version__}): upgrade the operator. Until then it leaves this job and "
        f"its pods as they are. {problems}"
    )
    desired = {
        ConditionType.SUCCEEDED: ConditionStatus.UNKNOWN,
        ConditionType.READY: ConditionStatus.UNKNOWN,
        ConditionType.FINISHED: ConditionStatus.FALSE,
        ConditionType.RECONCILING: ConditionStatus.TRUE,
    }
    held = status.model_copy(
        update={
            # Not observedGeneration: this operator has not understood the spec.
            "phase": status.phase or Phase.PENDING,
            "conditions": _conditions(status, desired, reason, message, generation, now),
        }
    )
    return Plan(status=held, events=(Event(type=EventType.WARNING, reason=reason, message=message),))


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
            "conditions": _conditions(planned, desired, Reason.CHILD_REFUSED, message, generation, now),
        }
    )


def refusal_event(child: str, error: KubeError) -> Event:
    """The refusal as an event, for `kubectl describe`."""
    text = f"Kubernetes refuses the {child}: {error.message} The operator tries again; the quota, policy or right "
    return Event(type=EventType.WARNING, reason=Reason.CHILD_REFUSED, message=_cut(f"{text}named here must change."))


def _conditions(
    status: FineTuneJobStatus,
    desired: Mapping[ConditionType, ConditionStatus],
    reason: str,
    message: str,
    generation: int,
    now: datetime,
    *,
    without: ConditionType | None = None,
) -> list[Condition]:
    """The conditions with those of `desired` replaced. lastTransitionTime changes only with the status."""
    kept = [item for item in status.conditions if item.type not in desired and item.type != without]
    for type_, value in desired.items():
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
