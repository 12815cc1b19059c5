"""Clean-up of children: those of old attempts, and all of them ttlSecondsAfterFinished after the end.

The FineTuneJob itself stays, because a GitOps tool would create it again. Adapters are never deleted.
"""

from datetime import timedelta

from finetune_operator.api import names
from finetune_operator.api.reasons import ConditionType
from finetune_operator.reconcile import attempts
from finetune_operator.reconcile.child_state import kept_by_sidecars
from finetune_operator.reconcile.observed import JobView
from finetune_operator.reconcile.plan_builder import RunPlanBuilder

KEPT_ATTEMPTS = 2
"""Attempts whose Jobs stay, for `kubectl logs`: the current one and the one before."""


def prune(builder: RunPlanBuilder) -> None:
    """Deletes the children of attempts before the last two."""
    for child in builder.observed.jobs:
        if child.attempt <= builder.status.attempt - KEPT_ATTEMPTS:
            builder.delete(child)


def release(builder: RunPlanBuilder) -> bool:
    """Deletes children that would stay although the status has how they ended. Returns whether there are any.

    Not earlier: the pod alone knows its end. If the operator stopped between the two, the end would be lost.
    """
    running = attempts.current(builder) is not None
    passed = builder.status.is_true(ConditionType.PREFLIGHT_PASSED)
    released = False
    for child in builder.observed.jobs:
        known = child.attempt < builder.status.attempt or (
            child.attempt == builder.status.attempt and (not running or (passed and child.role == names.PREFLIGHT_ROLE))
        )
        if known and not child.deleting and stays(builder, child):
            builder.delete(child)
            released = True
    return released


def stays(builder: RunPlanBuilder, child: JobView) -> bool:
    """Whether a child whose end is known will not end by itself: a sidecar keeps its pod, or it is suspended."""
    if child.complete or child.failed:
        return False
    return child.suspended or kept_by_sidecars(child, builder.observed.pods_of(child))


def expire(builder: RunPlanBuilder) -> None:
    """After the end of the run: deletes Jobs that will not end, and all children when their TTL has passed."""
    ttl = builder.ttl_seconds
    for child in builder.observed.jobs:
        if (
            not (child.complete or child.failed)
            and child.attempt <= builder.status.attempt
            and _must_be_stopped(builder, child)
        ):
            builder.delete(child)
    if ttl is None or builder.status.completion_time is None:
        return
    due = builder.status.completion_time + timedelta(seconds=ttl)
    if builder.now < due:
        builder.requeue_at(due)
        return
    for child in builder.observed.jobs:
        builder.delete(child)


def _must_be_stopped(builder: RunPlanBuilder, job: JobView) -> bool:
    """Whether the Job will not end by itself. A Job whose first pod has succeeded is about to complete.

    With a running sidecar it never does. And a Job that a queue suspended at its end would run again.
    """
    return job.suspended or not any(
        pod.is_first_pod and pod.terminated is not None and pod.terminated.exit_code == 0 and not pod.kept_by_sidecar
        for pod in builder.observed.pods_of(job)
    )
