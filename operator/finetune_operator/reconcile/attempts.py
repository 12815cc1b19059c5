"""The book of attempts: which one runs, how each ended. Numbers only grow, over reruns too, so names never repeat."""

from datetime import datetime

from finetune_operator.api import names
from finetune_operator.api.reasons import ConditionType
from finetune_operator.api.status import MAX_ATTEMPTS_KEPT, Attempt
from finetune_operator.reconcile.draft import Draft
from finetune_operator.reconcile.outcome import Ending
from finetune_trainer.contract.failure import FAILURES, Policy
from finetune_trainer.contract.text import MAX_MESSAGE


def current(draft: Draft) -> Attempt | None:
    """The attempt that runs, or None before the first and between two."""
    attempts = draft.status.attempts
    if not attempts or attempts[-1].end_time is not None or attempts[-1].number != draft.status.attempt:
        return None
    return attempts[-1]


def start(draft: Draft) -> Attempt:
    """Starts the next attempt."""
    status = draft.status
    attempt = Attempt(number=status.attempt + 1, start_time=draft.now)
    draft.update(
        attempt=attempt.number,
        attempts=[*status.attempts, attempt][-MAX_ATTEMPTS_KEPT:],
        gpus=draft.job.spec.resources.gpus * draft.job.spec.resources.nodes,
        restarts=status.restarts + 1 if status.attempts else 0,
        progress=None,
        failure=None,
        pod_name=None,
    )
    return attempt


def end(draft: Draft, ending: Ending) -> None:
    """Books how the current attempt failed; does nothing when none runs."""
    counted = FAILURES[ending.reason].policy is not Policy.RETRY_UNCOUNTED
    if _close(draft, str(ending.reason), ending.message, ending.exit_code, counted=counted):
        draft.update(counted_failures=draft.status.counted_failures + counted)


def succeed(draft: Draft, reason: str) -> None:
    """Books that the current attempt was the one."""
    _close(draft, reason, "", 0, counted=False)


def _close(draft: Draft, reason: str, message: str, exit_code: int | None, *, counted: bool) -> bool:
    attempt = current(draft)
    if attempt is None:
        return False
    ended = attempt.model_copy(
        update={
            "end_time": draft.now,
            "reason": reason,
            "message": message[:MAX_MESSAGE] or None,
            "exit_code": exit_code,
            "counted": counted,
        }
    )
    draft.update(
        attempts=[*draft.status.attempts[:-1], ended],
        gpu_seconds=draft.status.gpu_seconds + _gpu_seconds(draft, attempt.number),
    )
    return True


def needs_preflight(draft: Draft) -> bool:
    """Whether this run still has to pass its checks."""
    return draft.job.spec.preflight.enabled and not draft.status.is_true(ConditionType.PREFLIGHT_PASSED)


def _gpu_seconds(draft: Draft, attempt: int) -> int:
    """GPUs times seconds between each training container's start and end, as the kubelet saw them."""
    seconds = 0.0
    child = draft.child(names.TRAIN_ROLE, attempt)
    for pod in draft.observed.pods_of(child) if child is not None else ():
        started: datetime | None = pod.running_since
        finished: datetime | None = draft.now
        if pod.terminated is not None:
            started, finished = pod.terminated.started, pod.terminated.finished
        if started is not None and finished is not None:
            seconds += max(0.0, (finished - started).total_seconds())
    return int(seconds * draft.job.spec.resources.gpus)
