"""The policy of a FineTuneJob on one page."""

from datetime import datetime

from finetune_operator.api import names
from finetune_operator.api.job import FineTuneJob
from finetune_operator.api.reasons import Phase, Reason
from finetune_operator.reconcile import attempts, deadlines, ends, retention, retry, stages, suspend
from finetune_operator.reconcile.conditions import show
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_operator.reconcile.draft import Draft
from finetune_operator.reconcile.observed import Observed
from finetune_operator.reconcile.outcome import (
    Ending,
    Passed,
    Running,
    Settling,
    Waiting,
    judge,
    lost_deadline,
    missing_deadline,
)
from finetune_operator.reconcile.plan import Plan
from finetune_operator.reconcile.refusal import refuse
from finetune_trainer.contract.failure import FailureReason


def reconcile(job: FineTuneJob, observed: Observed, config: ReconcileConfig, now: datetime) -> Plan:
    """What should exist and what the status should say, given what is seen.

    Level-triggered: the same arguments give the same plan, and carrying a plan out leads to a state whose plan is
    empty but for time.
    """
    if job.deleting or job.spec.managed_by not in (None, names.CONTROLLER_NAME):
        return Plan(status=job.status)
    draft = Draft(job=job, observed=observed, config=config, now=now, status=job.status)
    stages.begin_run(draft)
    if not ends.is_finished(draft):
        _pursue(draft)
    if ends.is_finished(draft):
        retention.expire(draft)
    return draft.plan()


def _pursue(draft: Draft) -> None:
    """What comes first decides: a success that is there, a refusal before an attempt, suspension, the deadline."""
    if _arrived(draft):
        return
    if attempts.current(draft) is None and (refusal := refuse(draft.job, draft.config)):
        ends.fail(draft, refusal)
    elif draft.job.spec.suspend:
        suspend.suspend(draft)
    else:
        suspend.resume(draft)
        if overdue := deadlines.job_overdue(draft):
            ends.fail(draft, overdue)
        else:
            _advance(draft)


def _arrived(draft: Draft) -> bool:
    """Whether the current training has ended well, which nothing that came later may undo."""
    attempt = attempts.current(draft)
    child = draft.child(names.TRAIN_ROLE, attempt.number) if attempt is not None else None
    if child is None:
        return False
    verdict = judge(child, draft.observed.pods_of(child), draft.now)
    return isinstance(verdict, Passed) and ends.succeed(draft, verdict) is None


def _advance(draft: Draft) -> None:
    """Moves the current attempt on, or starts the next one when its time has come."""
    attempt = attempts.current(draft)
    if attempt is None:
        due = retry.not_before(draft.status, draft.job.spec.retry)
        if due is not None and draft.now < due:
            draft.wake(due)
            return
        attempt = attempts.start(draft)
        retention.prune(draft)
    role = names.PREFLIGHT_ROLE if attempts.needs_preflight(draft) else names.TRAIN_ROLE
    child = draft.child(role, attempt.number)
    if child is None:
        _missing(draft, role, attempt.number)
        return
    draft.update(job_name=child.name)
    pods = draft.observed.pods_of(child)
    verdict = judge(child, pods, draft.now)
    if (lost := lost_deadline(pods)) is not None:
        draft.wake(lost)
    if (missing := missing_deadline(child, pods)) is not None and draft.now < missing:
        draft.wake(missing)
    match verdict:
        case Waiting():
            overdue = deadlines.start_overdue(draft, verdict)
            if overdue is not None:
                ends.fail(draft, overdue)
            else:
                stages.show_waiting(draft, role, verdict)
        case Running():
            silent = deadlines.stalled(draft, verdict) if role == names.TRAIN_ROLE else None
            if silent is not None:
                draft.delete(child)
                _ended(draft, silent)
            else:
                stages.show_running(draft, role, verdict)
        case Settling():
            pass  # what is shown stays: the Job's next word is an event
        case Passed(termination=termination) if role == names.PREFLIGHT_ROLE and termination is not None:
            if not ends.succeed_reused(draft, termination):
                stages.pass_preflight(draft, termination)
                if any(pod.kept_by_sidecar for pod in pods):
                    draft.delete(child)
                _advance(draft)
        case Passed():
            ending = ends.unreported(verdict) if role == names.PREFLIGHT_ROLE else ends.succeed(draft, verdict)
            if ending is not None:
                _ended(draft, ending)
        case Ending():
            if not child.failed:
                draft.delete(child)
            _ended(draft, verdict)


def _missing(draft: Draft, role: str, number: int) -> None:
    """The stage's child is not seen: it is to be made, or it was made and somebody has deleted it.

    That it is not there is confirmed by a live read before the end of the attempt is booked (control/controller.py).
    A child without a UID in the status may have been made by an operator that ended before it could write that down:
    applying it again makes nothing twice and brings the UID.
    """
    if draft.status.job_uid is None or draft.status.job_name != names.child_name(draft.job.name, role, number):
        if overdue := deadlines.creation_overdue(draft):
            ends.fail(draft, overdue)
        else:
            stages.start(draft, role, number)
    else:
        _ended(draft, Ending(reason=FailureReason.POD_LOST, message=f"Job {draft.status.job_name} was deleted"))


def _ended(draft: Draft, ending: Ending) -> None:
    """Books the end of the attempt; another one follows after a pause, or the job fails."""
    attempts.end(draft, ending)
    if retry.gives_up(draft.status, ending, draft.job.spec.retry):
        ends.fail(draft, ending)
        return
    due = retry.not_before(draft.status, draft.job.spec.retry)
    if due is not None:
        draft.wake(due)
    message = f"attempt {draft.status.attempt} ended with {ending.reason}: {ending.message}"
    draft.event(Reason.RETRYING, message, ends.WARNING)
    show(draft, Phase.RETRYING, ending.reason, message)
