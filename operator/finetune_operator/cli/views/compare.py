"""Two jobs side by side: the settings that differ, and what came out."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from finetune_operator.api.finetunejob import SpecError, compact_json
from finetune_operator.api.resolution import effective
from finetune_operator.api.status import FineTuneJobStatus
from finetune_operator.cli.views.duration import duration
from finetune_operator.cli.views.job import JobView
from finetune_trainer.contract.text import printable

Row = tuple[str, str, str]
"""What, and its value in either job; empty where there is none."""


def settings(job: JobView) -> dict[str, str]:
    """Every setting of a job's spec by its path, with the defaults where this version knows all fields."""
    raw = job.raw.get("spec") or {}
    try:
        profile = FineTuneJobStatus.model_validate(job.raw.get("status") or {}).profile
        spec = effective(compact_json(raw), profile).spec.to_dict()
    except (SpecError, ValidationError):
        spec = raw
    return dict(_flat(spec, ""))


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{number}]")
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list) else "" if value in ({}, None) else str(value)
        yield printable(path), printable(text.lower() if isinstance(value, bool) else text)


def different_settings(one: JobView, other: JobView) -> list[Row]:
    """The settings that differ, by path."""
    first, second = settings(one), settings(other)
    paths = sorted(first.keys() | second.keys())
    return [
        (path, first.get(path, ""), second.get(path, ""))
        for path in paths
        if first.get(path, "") != second.get(path, "")
    ]


def results(one: JobView, other: JobView, now: datetime) -> list[Row]:
    """What came out of either job. Rows without a value in both are left out."""
    first, second = dict(_results(one, now)), dict(_results(other, now))
    names = [*first, *(name for name in second if name not in first)]
    rows = [(name, first.get(name, ""), second.get(name, "")) for name in names]
    return [row for row in rows if row[1] or row[2]]


def _results(job: JobView, now: datetime) -> Iterator[tuple[str, str]]:
    yield "status", job.phase
    yield "failure", job.failure[0] if job.failure else ""
    for name, value in job.metrics.items():
        yield name, value
    for field, name in (("loss", "last loss"), ("evalLoss", "last validation loss"), ("display", "progress")):
        yield name, job.progress(field)
    for field in ("rows", "tokens", "truncated", "steps", "modelParameters"):
        value = job.preflight.get(field, "")
        yield f"preflight {field}", f"{int(value):,}" if value.isdecimal() else value
    yield "attempts", str(job.attempt or "")
    if job.started is not None:
        yield "took", duration(((job.finished or now) - job.started) / timedelta(seconds=1))
    yield "GPU hours", f"{job.gpu_seconds(now) / 3600:.2f}" if job.gpu_seconds(now) else ""
    cost = job.cost(now)
    yield "cost", "" if cost is None else f"{cost:.2f}"
    yield "fingerprint", job.fingerprint[:12]
    yield "adapter", job.output("uri")
