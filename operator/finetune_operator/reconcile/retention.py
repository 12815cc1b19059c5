"""What is removed when it is no longer needed: children of old attempts, and all of them some time after the end.

The FineTuneJob itself stays: a deployment tool would create it again, and adapters are never touched.
"""

from datetime import timedelta

from finetune_operator.reconcile.draft import Draft
from finetune_operator.reconcile.observed import JobView

KEPT_ATTEMPTS = 2
"""Attempts whose Jobs stay for `kubectl logs`: the current one and the one before."""


def prune(draft: Draft) -> None:
    """Removes the children of attempts before the last two."""
    for child in draft.observed.jobs:
        if child.attempt <= draft.status.attempt - KEPT_ATTEMPTS:
            draft.delete(child)


def expire(draft: Draft) -> None:
    """After the end: stops what still runs, and removes the children when their time has come."""
    ttl = draft.job.spec.retention.ttl_seconds_after_finished
    for child in draft.observed.jobs:
        if not (child.complete or child.failed) and child.attempt <= draft.status.attempt and _idle(draft, child):
            draft.delete(child)
    if ttl is None or draft.status.completion_time is None:
        return
    due = draft.status.completion_time + timedelta(seconds=ttl)
    if draft.now < due:
        draft.wake(due)
        return
    for child in draft.observed.jobs:
        draft.delete(child)


def _idle(draft: Draft, job: JobView) -> bool:
    """Whether the Job will not end by itself: one with a pod that ended well is about to be marked complete.

    It never is while an injected sidecar runs.
    """
    return not any(
        pod.leads and pod.terminated is not None and pod.terminated.exit_code == 0 and not pod.kept_by_sidecar
        for pod in draft.observed.pods_of(job)
    )
