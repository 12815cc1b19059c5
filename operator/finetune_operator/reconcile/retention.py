"""Clean-up of children: those of old attempts, and all of them ttlSecondsAfterFinished after the end.

The FineTuneJob itself stays, because a GitOps tool would create it again. Adapters are never deleted.
"""

from datetime import timedelta

from finetune_operator.reconcile.observed import JobView
from finetune_operator.reconcile.plan_builder import RunPlanBuilder

KEPT_ATTEMPTS = 2
"""Attempts whose Jobs stay, for `kubectl logs`: the current one and the one before."""


def prune(builder: RunPlanBuilder) -> None:
    """Deletes the children of attempts before the last two."""
    for child in builder.observed.jobs:
        if child.attempt <= builder.status.attempt - KEPT_ATTEMPTS:
            builder.delete(child)


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
