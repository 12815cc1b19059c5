"""The two ends of a run. An end is final: only another runToken starts the job again."""

from finetune_operator.api.reasons import ConditionType, Phase, Reason
from finetune_operator.api.status import (
    ConditionStatus,
    Failure,
    OutputStatus,
    PreflightStatus,
    ProgressStatus,
)
from finetune_operator.reconcile import attempts
from finetune_operator.reconcile.conditions import set_condition, show
from finetune_operator.reconcile.draft import Draft
from finetune_operator.reconcile.outcome import Ending, Passed
from finetune_operator.reconcile.plan import EventType
from finetune_trainer.contract.failure import FAILURES, FailureReason
from finetune_trainer.contract.termination import Outcome, Termination
from finetune_trainer.contract.text import MAX_MESSAGE

WARNING = EventType.WARNING


def is_finished(draft: Draft) -> bool:
    """Whether this run has ended."""
    return draft.status.is_true(ConditionType.FINISHED)


def succeed(draft: Draft, passed: Passed) -> Ending | None:
    """Ends the run as Succeeded, or returns why the attempt does not count as a success."""
    termination = passed.termination
    if termination is None or termination.output is None:
        return unreported(passed)
    _succeed(draft, termination)
    return None


def unreported(passed: Passed) -> Ending:
    """The end of an attempt whose container exited with code 0 and left no usable report."""
    if passed.pod_gone:
        # After a training the adapter is there: the next attempt finds it and trains nothing.
        return Ending(reason=FailureReason.POD_LOST, message="the container succeeded, but its pod and report are gone")
    return Ending(
        reason=FailureReason.INTERNAL,
        message="the container ended with exit code 0 but left no report, which this operator's images always do",
        exit_code=0,
    )


def succeed_reused(draft: Draft, termination: Termination) -> bool:
    """Ends the run without training when preflight has found its adapter; returns whether it did."""
    if termination.outcome is not Outcome.REUSED or termination.output is None:
        return False
    if termination.preflight is not None:
        draft.update(preflight=PreflightStatus.model_validate(termination.preflight.to_dict()))
    set_condition(
        draft, ConditionType.PREFLIGHT_PASSED, ConditionStatus.TRUE, Reason.OUTPUT_EXISTS, "an identical run exists"
    )
    _succeed(draft, termination)
    return True


def fail(draft: Draft, ending: Ending) -> None:
    """Ends the run as Failed and says what to do. `retention` stops what still runs."""
    attempts.end(draft, ending)
    remedy = FAILURES[ending.reason].remedy
    message = f"{ending.message.rstrip('. ')}. {remedy}" if remedy else ending.message
    if draft.status.restarts:
        message += f" Gave up at attempt {draft.status.attempt}."
    message = message[:MAX_MESSAGE]
    preflight = draft.status.condition(ConditionType.PREFLIGHT_PASSED)
    if preflight is not None and preflight.reason == Reason.PREFLIGHT_RUNNING:
        set_condition(draft, ConditionType.PREFLIGHT_PASSED, ConditionStatus.FALSE, ending.reason, message)
    draft.update(
        failure=Failure(reason=ending.reason, message=message, exit_code=ending.exit_code),
        fingerprint=ending.fingerprint or draft.status.fingerprint,
        completion_time=draft.now,
    )
    draft.event(ending.reason, message, WARNING)
    show(draft, Phase.FAILED, ending.reason, message)


def _succeed(draft: Draft, termination: Termination) -> None:
    assert termination.output is not None
    reused = termination.outcome is Outcome.REUSED
    reason = Reason.OUTPUT_EXISTS if reused else Reason.SUCCEEDED
    message = (
        f"an identical run has made the adapter already: {termination.output.uri}"
        if reused
        else f"the adapter is at {termination.output.uri}"
    )
    attempts.succeed(draft, reason)
    draft.update(
        output=OutputStatus.of(termination.output),
        fingerprint=termination.fingerprint or draft.status.fingerprint,
        completion_time=draft.now,
        failure=None,
    )
    if termination.progress is not None:
        draft.update(progress=ProgressStatus.of(termination.progress))
    draft.event(reason, message)
    show(draft, Phase.SUCCEEDED, reason, message)
