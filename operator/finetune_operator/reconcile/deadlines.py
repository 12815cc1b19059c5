"""Deadlines: of the whole job, of a pod's start, and of a training without progress reports."""

from datetime import datetime, timedelta

from finetune_operator.api.reasons import ConditionType, Phase, Reason
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.reconcile.child_state import NO_POD_AFTER, Failed, Running, Waiting
from finetune_operator.reconcile.plan_builder import PlanBuilder
from finetune_trainer.contract.failure import FailureReason


def job_overdue(builder: PlanBuilder) -> Failed | None:
    """The failure of a job that has exceeded activeDeadlineSeconds. The time in a queue does not count."""
    limit, start = builder.finetunejob.spec.active_deadline_seconds, builder.status.start_time
    if builder.status.phase is Phase.QUEUED or limit is None or start is None or not _passed(builder, start, limit):
        return None
    return Failed(reason=FailureReason.DEADLINE, message=f"the job did not end within activeDeadlineSeconds, {limit} s")


def no_pod_after(spec: FineTuneJobSpec) -> timedelta:
    """How long a Job may lack a pod before that is reported: not longer than it may wait, or nobody learns why."""
    return min(NO_POD_AFTER, timedelta(seconds=spec.start_deadline_seconds))


def start_overdue(builder: PlanBuilder, waiting: Waiting) -> Failed | None:
    """The failure of a job whose pod has waited too long for its node, image or volumes."""
    limit = builder.finetunejob.spec.start_deadline_seconds
    if waiting.since is None or not _passed(builder, waiting.since, limit):
        return None
    cause = f"{waiting.reason}: {waiting.message}" if waiting.reason else waiting.message or "no reason is known"
    return Failed(
        reason=FailureReason.START_DEADLINE,
        message=f"the pod did not start within startDeadlineSeconds, {limit} s; {cause}",
    )


def creation_overdue(builder: PlanBuilder) -> Failed | None:
    """The failure of a job whose child Kubernetes has refused to create for too long."""
    limit, start = builder.finetunejob.spec.start_deadline_seconds, builder.status.attempts[-1].start_time
    ready = builder.status.condition(ConditionType.READY)
    if ready is None or ready.reason != Reason.CHILD_REFUSED or start is None or not _passed(builder, start, limit):
        return None
    return Failed(
        reason=FailureReason.START_DEADLINE,
        message=f"the pod was not created within startDeadlineSeconds, {limit} s; {ready.message}",
    )


def stalled(builder: PlanBuilder, running: Running) -> Failed | None:
    """The failure of an attempt that has sent no progress report for too long."""
    limit = builder.finetunejob.spec.stall_timeout_seconds
    if limit is None:
        return None
    progress = builder.status.progress
    heard = progress.heartbeat_time if progress is not None else None
    last = max(heard, running.since) if heard is not None else running.since
    if not _passed(builder, last, limit):
        return None
    return Failed(
        reason=FailureReason.STALLED,
        message=f"no progress within stallTimeoutSeconds, {limit} s, since {last:%H:%M:%S} UTC",
    )


def _passed(builder: PlanBuilder, start: datetime, seconds: int) -> bool:
    """Whether the limit has passed. If not, the plan requeues at that time."""
    due = start + timedelta(seconds=seconds)
    if builder.now >= due:
        return True
    builder.requeue_at(due)
    return False
