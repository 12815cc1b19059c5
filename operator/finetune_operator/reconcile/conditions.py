"""Conditions of every state, right for kubectl wait, kstatus (Flux) and Argo CD.

kstatus reads observedGeneration, then Reconciling, then Stalled, then Ready; a condition that is False for a moment
makes a wave fail, so Ready and Succeeded are Unknown until the end.
"""

from datetime import datetime

from finetune_operator.api.reasons import ConditionType, Phase
from finetune_operator.api.status import MAX_MESSAGE, Condition, ConditionStatus, FineTuneJobStatus
from finetune_operator.reconcile.draft import Draft

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
"""Places in the list; types of a later version come last."""


def show(draft: Draft, phase: Phase, reason: str, message: str) -> None:
    """Sets the phase and the conditions that belong to it.

    Args:
        draft: the draft.
        phase: the phase.
        reason: one CamelCase word, the same in all of them.
        message: text for people; free of numbers that change by themselves, which would cost a write each.
    """
    for type_, status in _STATES.get(phase, _ACTIVE).items():
        set_condition(draft, type_, status, reason, message)
    if phase is not Phase.SUSPENDED and draft.status.condition(ConditionType.SUSPENDED) is not None:
        set_condition(draft, ConditionType.SUSPENDED, _FALSE, reason, message)
    draft.update(phase=phase)


def restamped(status: FineTuneJobStatus, generation: int) -> list[Condition]:
    """The conditions, all said of this generation: `kubectl wait` passes over one that is about an older spec."""
    if all(item.observed_generation == generation for item in status.conditions):
        return status.conditions
    return [item.model_copy(update={"observed_generation": generation}) for item in status.conditions]


def set_condition(
    draft: Draft, type_: ConditionType, status: ConditionStatus | None, reason: str, message: str
) -> None:
    """Sets one condition, or removes it when `status` is None. lastTransitionTime moves with the status only."""
    draft.update(conditions=_with(draft.status, type_, status, reason, message, draft.job.generation, draft.now))


def _with(
    current: FineTuneJobStatus,
    type_: ConditionType,
    status: ConditionStatus | None,
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> list[Condition]:
    previous = current.condition(type_)
    others = [condition for condition in current.conditions if condition.type != type_]
    if status is None:
        return others
    unchanged = previous is not None and previous.status is status
    condition = Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message[:MAX_MESSAGE],
        observed_generation=generation,
        last_transition_time=previous.last_transition_time if previous and unchanged else now,
    )
    return sorted([*others, condition], key=lambda item: _RANKS.get(item.type, len(_RANKS)))
