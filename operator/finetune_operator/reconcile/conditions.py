"""The conditions of each phase, for kubectl wait, kstatus (Flux) and Argo CD.

kstatus reads observedGeneration, then Reconciling, then Stalled, then Ready. A condition that is False for a moment
makes a sync wave fail, so Ready and Succeeded are Unknown until the end.
"""

from collections.abc import Mapping
from datetime import datetime

from finetune_operator.api.reasons import ConditionType, Phase
from finetune_operator.api.status import Condition, ConditionStatus, FineTuneJobStatus
from finetune_operator.reconcile.plan_builder import RunPlanBuilder
from finetune_trainer.contract.text import message_of

_TRUE, _FALSE, _UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN

_STATES: dict[Phase, dict[ConditionType, ConditionStatus | None]] = {
    Phase.SUCCEEDED: {
        ConditionType.SUCCEEDED: _TRUE,
        ConditionType.READY: _TRUE,
        ConditionType.FINISHED: _TRUE,
        ConditionType.RECONCILING: None,
        ConditionType.STALLED: None,
    },
    Phase.FAILED: {
        ConditionType.SUCCEEDED: _FALSE,
        ConditionType.READY: _FALSE,
        ConditionType.FINISHED: _TRUE,
        ConditionType.RECONCILING: None,
        ConditionType.STALLED: _TRUE,
    },
    Phase.SUSPENDED: {
        ConditionType.SUCCEEDED: _UNKNOWN,
        ConditionType.READY: _UNKNOWN,
        ConditionType.FINISHED: _FALSE,
        ConditionType.RECONCILING: None,
        ConditionType.STALLED: None,
        ConditionType.SUSPENDED: _TRUE,
    },
}
_ACTIVE: dict[ConditionType, ConditionStatus | None] = {
    ConditionType.SUCCEEDED: _UNKNOWN,
    ConditionType.READY: _UNKNOWN,
    ConditionType.FINISHED: _FALSE,
    ConditionType.RECONCILING: _TRUE,
    ConditionType.STALLED: None,
}

_RANKS: dict[str, int] = {type_: rank for rank, type_ in enumerate(ConditionType)}
"""Order of the conditions in the list. Types of a later version come last."""


def set_phase(builder: RunPlanBuilder, phase: Phase, reason: str, message: str) -> None:
    """Sets the phase and the conditions that belong to it.

    Args:
        builder: the plan that is being made.
        phase: the phase.
        reason: one CamelCase word, the same in all conditions of the phase.
        message: text for people, without numbers that change with time: each change would be a status write.
    """
    desired = dict(_STATES.get(phase, _ACTIVE))
    if phase is not Phase.SUSPENDED and builder.status.condition(ConditionType.SUSPENDED) is not None:
        desired[ConditionType.SUSPENDED] = _FALSE
    if phase is not builder.status.phase:
        builder.update(last_phase_transition_time=builder.now)
    builder.update(phase=phase, conditions=_conditions(builder, desired, reason, message))


def with_observed_generation(status: FineTuneJobStatus, generation: int) -> list[Condition]:
    """The conditions with this observedGeneration: `kubectl wait` ignores a condition of an older generation."""
    if all(item.observed_generation == generation for item in status.conditions):
        return status.conditions
    return [item.model_copy(update={"observed_generation": generation}) for item in status.conditions]


def set_condition(
    builder: RunPlanBuilder, type_: ConditionType, status: ConditionStatus | None, reason: str, message: str
) -> None:
    """Sets one condition, or removes it if `status` is None. lastTransitionTime changes only with the status."""
    builder.update(conditions=_conditions(builder, {type_: status}, reason, message))


def with_conditions(
    status: FineTuneJobStatus,
    desired: Mapping[ConditionType, ConditionStatus | None],
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> list[Condition]:
    """The status's conditions with those of `desired` replaced, in the order of `ConditionType`.

    Args:
        status: the status so far.
        desired: status of each condition to set; None removes the condition.
        reason: one CamelCase word.
        message: text for people.
        generation: generation of the spec.
        now: the current time. It becomes lastTransitionTime where the condition's status changes.
    """
    conditions: dict[str, Condition] = {item.type: item for item in status.conditions}
    for type_, value in desired.items():
        previous = conditions.pop(type_, None)
        if value is not None:
            unchanged = previous is not None and previous.status is value
            conditions[type_] = Condition(
                type=type_,
                status=value,
                reason=reason,
                message=message_of(message),
                observed_generation=generation,
                last_transition_time=previous.last_transition_time if previous and unchanged else now,
            )
    return sorted(conditions.values(), key=lambda item: _RANKS.get(item.type, len(_RANKS)))


def _conditions(
    builder: RunPlanBuilder, desired: Mapping[ConditionType, ConditionStatus | None], reason: str, message: str
) -> list[Condition]:
    return with_conditions(builder.status, desired, reason, message, builder.generation, builder.now)
