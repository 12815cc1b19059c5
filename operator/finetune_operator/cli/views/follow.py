"""What is told about a job while it is watched: one line for each change."""

from collections.abc import Iterator
from dataclasses import dataclass

from finetune_operator.api.reasons import Phase
from finetune_operator.cli.views.duration import duration
from finetune_operator.cli.views.job import JobView

_EVERY_PERCENT = 5


@dataclass(slots=True)
class Told:
    """What has been told so far."""

    phase: str = ""
    waits_for: str = ""
    attempt: int = 0
    percent: int = -_EVERY_PERCENT


def news(job: JobView, told: Told, *, steps: bool = True) -> Iterator[str]:
    """The lines about what has changed since `told`, which is updated.

    Args:
        job: the job as it is now.
        told: what was told before.
        steps: whether progress has lines too; a bar shows it otherwise.
    """
    if job.attempt > told.attempt:
        if told.attempt and (last := next((item for item in job.attempts if item.number == told.attempt), None)):
            yield f"attempt {last.number} ended with {last.reason}: {last.message}".rstrip(": ")
        told.attempt = job.attempt
    if job.phase != told.phase and job.phase:
        told.phase = job.phase
        yield f"{job.phase}{f': {job.message}' if job.message and not job.failure else ''}"
    if job.waits_for != told.waits_for:
        told.waits_for = job.waits_for
        if told.waits_for and told.waits_for != job.message:
            yield f"waits for: {told.waits_for}"
    if steps and job.steps is not None and job.phase == Phase.RUNNING:
        done, total = job.steps
        percent = 100 * done // total
        if percent < told.percent or percent >= told.percent + _EVERY_PERCENT:
            told.percent = percent
            yield step_line(job)


def step_line(job: JobView) -> str:
    """The steps, losses, speed and time left, on one line."""
    parts = []
    if job.steps is not None:
        done, total = job.steps
        parts.append(f"step {done}/{total}")
    names = (("loss", "loss"), ("evalLoss", "validation loss"), ("rewardAccuracy", "reward accuracy"))
    parts += [f"{word} {job.progress(field)}" for field, word in names if job.progress(field)]
    if (rate := job.count("tokensPerSecond")) is not None:
        parts.append(f"{rate:,} tokens/s")
    if job.eta_seconds is not None:
        parts.append(f"{duration(job.eta_seconds)} left")
    return ", ".join(parts)


def end_line(job: JobView) -> str:
    """How the job ended, and what to do next."""
    if job.failure is not None:
        return f"{job.name} failed: {job.failure[0]}: {job.failure[1]}"
    return f"{job.name} succeeded: the adapter is at {job.output('uri')}\nnext: kubectl finetune result {job.name}"
