"""A child Job that another controller holds back, as Kueue does until there is quota.

The operator never sets `suspend`. The attempt stays the same: the Job keeps its name, and its training goes on at the
last checkpoint.
"""

from datetime import timedelta

from finetune_operator.api import names
from finetune_operator.api.reasons import ConditionType, Phase, Reason
from finetune_operator.reconcile.child_state import Failed
from finetune_operator.reconcile.conditions import set_phase
from finetune_operator.reconcile.observed import JobView
from finetune_operator.reconcile.plan import EventType
from finetune_operator.reconcile.plan_builder import PlanBuilder
from finetune_operator.reconcile.workload import QueueState, WorkloadView
from finetune_trainer.contract.failure import FailureReason

POLL = timedelta(seconds=20)
"""How often a suspended Job's Workload is read. It is another controller's object, so nothing watches it."""

_REASONS = {
    QueueState.PENDING: Reason.QUEUE_PENDING,
    QueueState.RESERVED: Reason.QUEUE_PENDING,
    QueueState.ADMITTED: Reason.QUEUE_PENDING,
    QueueState.INADMISSIBLE: Reason.QUEUE_INADMISSIBLE,
    QueueState.PREEMPTED: Reason.QUEUE_PREEMPTED,
    QueueState.EVICTED: Reason.QUEUE_EVICTED,
    QueueState.DEACTIVATED: Reason.QUEUE_DEACTIVATED,
    QueueState.OUT_OF_TIME: Reason.QUEUE_DEACTIVATED,
}
_QUIET = (Reason.QUEUE_PENDING, Reason.QUEUE_PREEMPTED)
"""Reasons that need nobody."""


def ended_by_queue(builder: PlanBuilder, job: JobView) -> Failed | None:
    """The failure of a job that Kueue stopped at its maximum execution time."""
    if job.workload is None or job.workload.state is not QueueState.OUT_OF_TIME:
        return None
    limit = builder.finetunejob.spec.active_deadline_seconds
    return Failed(
        reason=FailureReason.DEADLINE,
        message=f"Kueue stopped Job {job.name} at its maximum execution time, activeDeadlineSeconds, {limit} s",
    )


def moved(builder: PlanBuilder, role: str, job: JobView) -> Failed | None:
    """The uncounted end of an attempt whose Job waits in another queue than the spec now names."""
    spec = builder.finetunejob.spec
    queue = spec.scheduling.queue_name if role == names.TRAIN_ROLE else spec.preflight.queue_name
    if queue is None or queue == job.queue:
        return None
    place = f"waited in LocalQueue {job.queue}" if job.queue else "was suspended without a queue"
    return Failed(
        reason=FailureReason.PREEMPTED, message=f"Job {job.name} {place}; the spec names LocalQueue {queue} now"
    )


def show_suspended(builder: PlanBuilder, job: JobView) -> None:
    """Sets the status while the Job is suspended, in the queue's words. It is read again after `POLL`."""
    builder.requeue_at(builder.now + POLL)
    if job.workload is None and job.queue:
        # Kueue makes the Workload a moment after the Job.
        reason, message = Reason.QUEUE_PENDING, f"Job {job.name} waits in LocalQueue {job.queue} for Kueue to see it"
    elif job.workload is None:
        reason, message = Reason.CHILD_SUSPENDED, _without_a_queue(job)
    else:
        reason, message = _REASONS[job.workload.state], _queued(job, job.workload)
    before = builder.status.condition(ConditionType.RECONCILING)
    if before is None or before.reason != reason:
        builder.event(reason, message, EventType.NORMAL if reason in _QUIET else EventType.WARNING)
    set_phase(builder, Phase.QUEUED, reason, message)


def leave(builder: PlanBuilder, job: JobView) -> None:
    """Notes that the Job is no longer suspended, if it was. As for a Job, the time before does not count."""
    if builder.status.phase is not Phase.QUEUED:
        return
    builder.update(start_time=builder.now)
    admission = job.workload.admission if job.workload is not None else ""
    message = f"Kueue admitted Job {job.name} to {admission}" if admission else f"Job {job.name} is resumed"
    builder.event(Reason.QUEUE_ADMITTED, message)


def ignored(job: JobView) -> str | None:
    """What is said of a Job that names a queue while no Kueue manages it; None of any other."""
    if not job.queue or job.suspended or not job.unmanaged:
        return None
    return (
        f"Job {job.name} names LocalQueue {job.queue}, but Kueue does not manage it, so its pods start without quota: "
        "install Kueue with the integration batch/job, or remove the queue from the spec"
    )


def _without_a_queue(job: JobView) -> str:
    return (
        f"Job {job.name} is suspended, by another controller or by a user; it continues when its spec.suspend is "
        f"false: kubectl get job {job.name}"
    )


def _queued(job: JobView, workload: WorkloadView) -> str:
    queue = f"LocalQueue {workload.queue}" if workload.queue else "no LocalQueue"
    place = f", position {workload.position}" if workload.position is not None else ""
    words = f": {workload.words}" if workload.words else ""
    match workload.state:
        case QueueState.INADMISSIBLE:
            return (
                f"Kueue does not admit Job {job.name} from {queue}{words}. Name another queue in the spec, or ask its "
                "administrator: kubectl get localqueues"
            )
        case QueueState.PREEMPTED:
            return f"Kueue preempted Job {job.name}, which waits in {queue}{place} for quota{words}"
        case QueueState.EVICTED:
            return f"Kueue evicted Job {job.name}, which waits in {queue}{place}{words}"
        case QueueState.DEACTIVATED:
            return (
                f"Kueue does not consider Job {job.name}{words}. To queue it again: kubectl patch workload "
                f'{workload.name} --type=merge -p \'{{"spec":{{"active":true}}}}\''
            )
        case QueueState.RESERVED:
            return f"Job {job.name} has quota in {workload.admission}, and waits for an admission check{words}"
        case _:
            return f"Job {job.name} waits in {queue}{place} for quota{words}"
