"""The list of attempts: which one runs, and how each ended. Numbers only grow, over runs too, so names never repeat."""

from datetime import datetime

from finetune_operator.api import names
from finetune_operator.api.gpuprice import gpu_price, with_cost
from finetune_operator.api.reasons import ConditionType
from finetune_operator.api.status import MAX_ATTEMPTS_KEPT, Attempt
from finetune_operator.reconcile.child_state import Failed
from finetune_operator.reconcile.plan_builder import PlanBuilder, RunPlanBuilder
from finetune_trainer.contract.failure import FAILURES, Policy
from finetune_trainer.contract.text import message_of


def current(builder: RunPlanBuilder) -> Attempt | None:
    """The attempt that runs; None before the first and between two."""
    attempts = builder.status.attempts
    if not attempts or attempts[-1].end_time is not None or attempts[-1].number != builder.status.attempt:
        return None
    return attempts[-1]


def start(builder: PlanBuilder) -> Attempt:
    """Starts the next attempt."""
    status = builder.status
    attempt = Attempt(number=status.attempt + 1, start_time=builder.now)
    builder.update(
        attempt=attempt.number,
        attempts=[*status.attempts, attempt][-MAX_ATTEMPTS_KEPT:],
        gpus=builder.finetunejob.spec.resources.gpus * builder.finetunejob.spec.resources.nodes,
        gpu_price=_gpu_price(builder),
        restarts=status.restarts + 1 if status.attempts else 0,
        progress=None,
        failure=None,
        pod_name=None,
    )
    return attempt


def end(builder: RunPlanBuilder, failure: Failed) -> None:
    """Records how the current attempt failed. Does nothing if none runs."""
    counted = FAILURES[failure.reason].policy is not Policy.RETRY_UNCOUNTED
    if _close(builder, str(failure.reason), failure.message, failure.exit_code, counted=counted):
        builder.update(counted_failures=builder.status.counted_failures + counted)


def succeed(builder: RunPlanBuilder, reason: str) -> None:
    """Records that the current attempt has succeeded."""
    _close(builder, reason, "", 0, counted=False)


def _close(builder: RunPlanBuilder, reason: str, message: str, exit_code: int | None, *, counted: bool) -> bool:
    attempt = current(builder)
    if attempt is None:
        return False
    ended = attempt.model_copy(
        update={
            "end_time": builder.now,
            "reason": reason,
            "message": message_of(message) or None,
            "exit_code": exit_code,
            "counted": counted,
        }
    )
    status, gpu_seconds = builder.status, _gpu_seconds(builder, attempt.number)
    builder.update(
        attempts=[*status.attempts[:-1], ended],
        gpu_seconds=status.gpu_seconds + gpu_seconds,
        cost=with_cost(status.cost, status.gpu_price, gpu_seconds),
    )
    return True


def _gpu_price(builder: PlanBuilder) -> str | None:
    spec = builder.finetunejob.spec
    price = gpu_price(builder.config.gpu_prices, spec.resources, spec.scheduling)
    return None if price is None else str(price)


def needs_preflight(builder: PlanBuilder) -> bool:
    """Whether this run still has to pass preflight."""
    return builder.finetunejob.spec.preflight.enabled and not builder.status.is_true(ConditionType.PREFLIGHT_PASSED)


def _gpu_seconds(builder: RunPlanBuilder, attempt: int) -> int:
    """GPUs times the seconds between start and end of each training container, by the kubelet's times."""
    seconds = 0.0
    child = builder.child(names.TRAIN_ROLE, attempt)
    for pod in builder.observed.pods_of(child) if child is not None else ():
        started: datetime | None = pod.running_since
        finished: datetime | None = builder.now
        if pod.terminated is not None:
            started, finished = pod.terminated.started, pod.terminated.finished
        if started is not None and finished is not None:
            seconds += max(0.0, (finished - started).total_seconds())
    # The GPUs of the attempt, as the status has them since its start. The spec may have changed or be invalid now.
    gpus_per_pod = (builder.status.gpus or 0) // max(1, child.size) if child is not None else 0
    return int(seconds * gpus_per_pod)
