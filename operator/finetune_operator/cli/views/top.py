"""Jobs that use GPUs or wait for them, what that has cost, and the sums."""

from collections.abc import Sequence
from datetime import datetime

from finetune_operator.cli.views.job import JobView
from finetune_operator.cli.views.table import NAMESPACE, Column, columns_table


def _money(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


_COLUMNS: tuple[Column, ...] = (
    ("NAME", lambda job, _: job.name),
    ("STATUS", lambda job, _: job.phase),
    ("PROGRESS", lambda job, _: job.progress("display")),
    ("GPUS", lambda job, _: str(job.gpus_in_use)),
    ("GPU-HOURS", lambda job, now: f"{job.gpu_seconds(now) / 3600:.2f}"),
    ("COST", lambda job, now: _money(job.cost(now))),
    ("COST/HOUR", lambda job, _: _money(job.cost_per_hour)),
    ("WAITS FOR", lambda job, _: job.waits_for),
)


def top_table(jobs: Sequence[JobView], now: datetime, *, namespaces: bool) -> list[str]:
    """The table, with those that use most GPUs first, and a line of sums."""
    ordered = sorted(jobs, key=lambda job: (-job.gpus_in_use, -job.gpu_seconds(now), job.namespace, job.name))
    lines = columns_table(((NAMESPACE,) if namespaces else ()) + _COLUMNS, ordered, now)
    return [*lines, "", sums_line(jobs, now)]


def sums_line(jobs: Sequence[JobView], now: datetime) -> str:
    """Jobs, GPUs, GPU time and money of all together."""
    sums = sums_of(jobs, now)
    parts = [f"{sums['jobs']} jobs, {sums['running']} with GPUs, {sums['waiting']} waiting"]
    parts.append(f"{sums['gpus']} GPUs in use, {sums['gpuHours']:.2f} GPU hours")
    if sums["priced"]:
        parts.append(f"cost {sums['cost']:.2f}, {sums['costPerHour']:.2f} an hour now")
    if 0 < sums["priced"] < sums["jobs"]:
        parts.append(f"{sums['jobs'] - sums['priced']} without a price")
    return "; ".join(parts)


def sums_of(jobs: Sequence[JobView], now: datetime) -> dict[str, float]:
    """The sums, for programs."""
    costs = [cost for job in jobs if (cost := job.cost(now)) is not None]
    return {
        "jobs": len(jobs),
        "running": sum(1 for job in jobs if job.gpus_in_use),
        "waiting": sum(1 for job in jobs if job.waits_for),
        "gpus": sum(job.gpus_in_use for job in jobs),
        "gpuHours": sum(job.gpu_seconds(now) for job in jobs) / 3600,
        "priced": len(costs),
        "cost": sum(costs),
        "costPerHour": sum(job.cost_per_hour or 0.0 for job in jobs),
    }
