"""The two ends of a run, Succeeded and Failed. An end is final: only another runToken starts a new run."""

from finetune_operator.api import names
from finetune_operator.api.reasons import ConditionType, Phase, Reason
from finetune_operator.api.status import (
    ConditionStatus,
    Failure,
    OutputStatus,
    ProgressStatus,
)
from finetune_operator.reconcile import attempts
from finetune_operator.reconcile.child_state import Failed, Succeeded, child_state
from finetune_operator.reconcile.conditions import set_condition, set_phase
from finetune_operator.reconcile.plan import EventType
from finetune_operator.reconcile.plan_builder import RunPlanBuilder
from finetune_trainer.contract.failure import FAILURES, FailureReason
from finetune_trainer.contract.termination import Outcome, Termination
from finetune_trainer.contract.text import message_of

WARNING = EventType.WARNING


def is_finished(builder: RunPlanBuilder) -> bool:
    """Whether this run has ended."""
    return builder.status.is_true(ConditionType.FINISHED)


def complete_if_succeeded(builder: RunPlanBuilder) -> bool:
    """Completes the run if the current training has succeeded. Nothing that came later may undo a success."""
    attempt = attempts.current(builder)
    child = builder.child(names.TRAIN_ROLE, attempt.number) if attempt is not None else None
    if child is None:
        return False
    state = child_state(child, builder.observed.pods_of(child), builder.now)
    return isinstance(state, Succeeded) and succeed(builder, state) is None


def succeed(builder: RunPlanBuilder, succeeded: Succeeded) -> Failed | None:
    """Ends the run as Succeeded, or returns why the attempt does not count as a success."""
    termination = succeeded.termination
    if termination is None or termination.output is None:
        return report_missing(succeeded)
    _succeed(builder, termination)
    return None


def report_missing(succeeded: Succeeded) -> Failed:
    """The failure of an attempt whose container exited with code 0 without a usable termination message."""
    if succeeded.pod_gone:
        # After a training the adapter is in storage: the next attempt finds it and does not train.
        return Failed(reason=FailureReason.POD_LOST, message="the container succeeded, but its pod and report are gone")
    return Failed(
        reason=FailureReason.INTERNAL,
        message="the container ended with exit code 0 but left no report, which this operator's images always do",
        exit_code=0,
    )


def succeed_reused(builder: RunPlanBuilder, termination: Termination) -> bool:
    """Ends the run without training if preflight has found the adapter of an identical run. Returns whether it did."""
    if termination.outcome is not Outcome.REUSED or termination.output is None:
        return False
    if termination.preflight is not None:
        builder.update(preflight=termination.preflight)
    set_condition(
        builder, ConditionType.PREFLIGHT_PASSED, ConditionStatus.TRUE, Reason.OUTPUT_EXISTS, "an identical run exists"
    )
    _succeed(builder, termination)
    return True


def fail(builder: RunPlanBuilder, failure: Failed) -> None:
    """Ends the run as Failed, with the remedy in the message. `retention` then deletes Jobs that still run."""
    attempts.end(builder, failure)
    remedy = FAILURES[failure.reason].remedy
    message = f"{failure.message.rstrip('. ')}. {remedy}" if remedy else failure.message
    if builder.status.restarts:
        message += f" Gave up at attempt {builder.status.attempt}."
    message = message_of(message)
    preflight = builder.status.condition(ConditionType.PREFLIGHT_PASSED)
    if preflight is not None and preflight.reason == Reason.PREFLIGHT_RUNNING:
        set_condition(builder, ConditionType.PREFLIGHT_PASSED, ConditionStatus.FALSE, failure.reason, message)
    builder.update(
        failure=Failure(reason=failure.reason, message=message, exit_code=failure.exit_code),
        fingerprint=failure.fingerprint or builder.status.fingerprint,
        completion_time=builder.now,
    )
    builder.event(failure.reason, message, WARNING)
    set_phase(builder, Phase.FAILED, failure.reason, message)


def _succeed(builder: RunPlanBuilder, termination: Termination) -> None:
    assert termination.output is not None
    reused = termination.outcome is Outcome.REUSED
    reason = Reason.OUTPUT_EXISTS if reused else Reason.SUCCEEDED
    message = (
        f"an identical run has made the adapter already: {termination.output.uri}"
        if reused
        else f"the adapter is at {termination.output.uri}"
    )
    attempts.succeed(builder, reason)
    builder.update(
        output=OutputStatus.of(termination.output),
        fingerprint=termination.fingerprint or builder.status.fingerprint,
        completion_time=builder.now,
        failure=None,
    )
    if termination.progress is not None:
        builder.update(progress=ProgressStatus.of(termination.progress))
    builder.event(reason, message)
    set_phase(builder, Phase.SUCCEEDED, reason, message)
