"""The policy of a FineTuneJob on one page."""

from datetime import datetime

from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJob
from finetune_operator.api.reasons import Phase, Reason
from finetune_operator.reconcile import attempts, completion, deadlines, queue, retention, retry, stages, suspend
from finetune_operator.reconcile.child_state import (
    AwaitingJob,
    Failed,
    Running,
    Succeeded,
    Suspended,
    Waiting,
    child_state,
    kept_by_sidecars,
    lost_deadline,
    missing_deadline,
)
from finetune_operator.reconcile.conditions import set_phase
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.plan import Plan
from finetune_operator.reconcile.plan_builder import PlanBuilder
from finetune_operator.reconcile.refusal import refuse
from finetune_trainer.contract.failure import FailureReason


def reconcile(finetunejob: FineTuneJob, observed: Observed, config: ReconcileConfig, now: datetime) -> Plan:
    """The desired children and status for the observed ones.

    Level-triggered: the same arguments give the same plan. When a plan has been carried out, the next one is empty
    until an event or a deadline.
    """
    if finetunejob.deleting or finetunejob.spec.managed_by not in (None, names.CONTROLLER_NAME):
        return Plan(status=finetunejob.status)
    builder = PlanBuilder.start(finetunejob, observed, config, now)
    if finetunejob.held is not None:
        stages.hold_run(builder, finetunejob.held)
        return builder.build()
    stages.begin_run(builder)
    if not completion.is_finished(builder):
        _reconcile_run(builder)
    if completion.is_finished(builder):
        retention.expire(builder)
    return builder.build()


def _reconcile_run(builder: PlanBuilder) -> None:
    """Decides by the first that applies: success, a refused spec, suspension, the job's deadline, the next step."""
    if completion.complete_if_succeeded(builder):
        return
    if attempts.current(builder) is None and (refusal := refuse(builder.finetunejob, builder.config)):
        completion.fail(builder, refusal)
    elif builder.finetunejob.spec.suspend:
        suspend.suspend(builder)
    else:
        suspend.resume(builder)
        released = retention.release(builder)
        if overdue := deadlines.job_overdue(builder):
            completion.fail(builder, overdue)
        elif released and attempts.current(builder) is None:
            builder.requeue_at(builder.now)  # the next attempt begins when they are gone
        else:
            _advance(builder)


def _advance(builder: PlanBuilder) -> None:
    """Advances the current attempt, or starts the next one after its back-off."""
    attempt = attempts.current(builder)
    if attempt is None:
        due = retry.not_before(builder.status, builder.finetunejob.spec.retry)
        if due is not None and builder.now < due:
            builder.requeue_at(due)
            return
        attempt = attempts.start(builder)
        retention.prune(builder)
    role = names.PREFLIGHT_ROLE if attempts.needs_preflight(builder) else names.TRAIN_ROLE
    child = builder.child(role, attempt.number)
    if child is None:
        _handle_missing_child(builder, role, attempt.number)
        return
    builder.update(job_name=child.name)
    pods = builder.observed.pods_of(child)
    no_pod_after = deadlines.no_pod_after(builder.finetunejob.spec)
    state = child_state(child, pods, builder.now, no_pod_after)
    if (lost := lost_deadline(pods)) is not None:
        builder.requeue_at(lost)
    if (missing := missing_deadline(child, pods, no_pod_after)) is not None and builder.now < missing:
        builder.requeue_at(missing)
    if isinstance(state, Waiting | Running):
        queue.leave(builder, child)
    match state:
        case Suspended():
            if (over := queue.ended_by_queue(builder, child)) is not None:
                completion.fail(builder, over)
            elif (moved := queue.moved(builder, role, child)) is not None:
                builder.delete(child)
                _end_attempt(builder, moved)
            else:
                queue.show_suspended(builder, child)
        case Waiting():
            overdue = deadlines.start_overdue(builder, state)
            if overdue is not None:
                completion.fail(builder, overdue)
            else:
                stages.show_waiting(builder, role, state, child)
        case Running():
            silent = deadlines.stalled(builder, state) if role == names.TRAIN_ROLE else None
            if silent is not None:
                builder.delete(child)
                _end_attempt(builder, silent)
            else:
                stages.show_running(builder, role, state)
        case AwaitingJob():
            pass  # the status stays as it is until the Job controller decides, which is an event
        case Succeeded(termination=termination) if role == names.PREFLIGHT_ROLE and termination is not None:
            if not completion.succeed_reused(builder, termination):
                stages.pass_preflight(builder, termination)
                if retention.stays(builder, child):
                    builder.requeue_at(builder.now)  # to release it
                _advance(builder)
        case Succeeded():
            failure = (
                completion.report_missing(state) if role == names.PREFLIGHT_ROLE else completion.succeed(builder, state)
            )
            if failure is not None:
                _end_attempt(builder, failure)
        case Failed():
            if kept_by_sidecars(child, pods):
                builder.requeue_at(builder.now)  # to release it
            elif not child.failed:
                builder.delete(child)
            _end_attempt(builder, state)


def _handle_missing_child(builder: PlanBuilder, role: str, number: int) -> None:
    """The stage's child is not observed: it must be created, or it was created and then deleted.

    A live read confirms that it does not exist before the attempt ends (control/controller.py). If the status has no
    UID, an operator may have created the child and stopped before it wrote the UID. Server-side apply is idempotent:
    it returns the UID and creates nothing twice.
    """
    if builder.status.job_uid is None or builder.status.job_name != names.child_name(
        builder.finetunejob.name, role, number
    ):
        if overdue := deadlines.creation_overdue(builder):
            completion.fail(builder, overdue)
        elif refusal := refuse(builder.finetunejob, builder.config):
            completion.fail(builder, refusal)  # the spec has changed since the attempt began
        else:
            stages.start(builder, role, number)
            # Perhaps no event follows: a Job whose pods a quota refuses stays as it is.
            builder.requeue_at(builder.now + deadlines.no_pod_after(builder.finetunejob.spec))
    else:
        _end_attempt(
            builder, Failed(reason=FailureReason.POD_LOST, message=f"Job {builder.status.job_name} was deleted")
        )


def _end_attempt(builder: PlanBuilder, failure: Failed) -> None:
    """Records the end of the attempt. Another attempt follows after a back-off, or the job fails."""
    attempts.end(builder, failure)
    if retry.gives_up(builder.status, failure, builder.finetunejob.spec.retry):
        completion.fail(builder, failure)
        return
    due = retry.not_before(builder.status, builder.finetunejob.spec.retry)
    if due is not None:
        builder.requeue_at(due)
    message = f"attempt {builder.status.attempt} ended with {failure.reason}: {failure.message}"
    builder.event(Reason.RETRYING, message, completion.WARNING)
    set_phase(builder, Phase.RETRYING, failure.reason, message)
