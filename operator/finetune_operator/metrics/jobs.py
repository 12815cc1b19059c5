"""Gauges about jobs, from the cache at the time of the scrape.

The cardinality is bounded: without series of single jobs, it is namespaces times phases and reasons. A status field is
data that others may have written, so a phase or a reason that is unknown gets one common label.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from pydantic_core import from_json

from finetune_operator.api.reasons import ENDED, Phase
from finetune_operator.control.informer.record import FineTuneJobRecord
from finetune_operator.metrics import catalog
from finetune_operator.metrics.catalog import Metric
from finetune_operator.metrics.labels import GpuLabels, failure_label

MAX_SINGLE_JOBS = 1_000
"""Unfinished jobs that have series of their own, at most."""

_WITH_GPUS = (Phase.STARTING, Phase.RUNNING)

_SINGLE: tuple[tuple[Metric, str], ...] = (
    (catalog.JOB_STEP, "step"),
    (catalog.JOB_STEPS, "totalSteps"),
    (catalog.JOB_EPOCH, "epoch"),
    (catalog.JOB_LOSS, "loss"),
    (catalog.JOB_EVAL_LOSS, "evalLoss"),
    (catalog.JOB_LEARNING_RATE, "learningRate"),
    (catalog.JOB_TOKENS_PER_SECOND, "tokensPerSecond"),
    (catalog.JOB_STEPS_PER_SECOND, "stepsPerSecond"),
    (catalog.JOB_CHECKPOINT_STEP, "checkpointStep"),
    (catalog.JOB_GPU_MEMORY, "peakGpuMemoryBytes"),
)
"""Metrics of a single job that are a number of status.progress, by its name there."""


class JobCollector:
    """Collects gauges about all FineTuneJobs in the cache.

    Args:
        records: the FineTuneJobs; None where this replica does not lead, and so does not know them.
        per_job: whether unfinished jobs have series of their own.
        prices: the keys of the price list.
        on_jobs: called with each namespace that has FineTuneJobs, and the extended resource of their GPUs.
    """

    def __init__(
        self,
        records: Callable[[], Iterable[FineTuneJobRecord] | None],
        *,
        per_job: bool,
        prices: Collection[str] = (),
        on_jobs: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._records = records
        self._per_job = per_job
        self._gpu_label = GpuLabels(prices)
        self._on_jobs = on_jobs
        self._taken: list[FineTuneJobRecord] | None = None

    def take(self) -> None:
        """Takes what `collect` reads. Called on the event loop, which owns the cache."""
        records = self._records()
        self._taken = None if records is None else list(records)

    def collect(self) -> Iterator[Family]:
        """The families as of the last `take`; none where this replica does not lead. May run in another thread."""
        if self._taken is None:
            return
        own = [record for record in self._taken if not record.ignored]
        for namespace, resource in {(record.namespace, record.summary.gpu_resource) for record in own}:
            self._on_jobs(namespace, resource)
        yield from _counts(own, self._gpu_label)
        yield from _trainings(own)
        if self._per_job:
            yield from _single_jobs(own)


def _counts(records: list[FineTuneJobRecord], gpu_label: GpuLabels) -> Iterator[Family]:
    phases = Counter((record.namespace, record.summary.phase) for record in records)
    reasons: Counter[tuple[str, str]] = Counter()
    oldest: dict[tuple[str, str], float] = {}
    gpus: Counter[tuple[str, str, str]] = Counter()
    for record in records:
        summary = record.summary
        if summary.phase == Phase.FAILED:
            reasons[record.namespace, failure_label(summary.failure)] += 1
        elif summary.phase != Phase.SUCCEEDED:
            key = record.namespace, summary.phase
            oldest[key] = min(oldest.get(key, math.inf), summary.since)
            if summary.phase in _WITH_GPUS and summary.gpus:
                gpus[record.namespace, gpu_label(summary.gpu_resource), summary.phase] += summary.gpus
    jobs = _family(catalog.JOBS)
    for namespace in sorted({namespace for namespace, _ in phases}):
        for phase in Phase:
            jobs.add_metric((namespace, phase), phases[namespace, phase])
    yield jobs
    yield _filled(catalog.FAILED_JOBS, reasons)
    yield _filled(catalog.OLDEST_PHASE_START, oldest)
    yield _filled(catalog.GPUS, gpus)


def _trainings(records: list[FineTuneJobRecord]) -> Iterator[Family]:
    tokens: defaultdict[tuple[str], float] = defaultdict(float)
    steps: defaultdict[tuple[str], float] = defaultdict(float)
    heartbeats: defaultdict[tuple[str], float] = defaultdict(lambda: math.inf)
    checkpoints: defaultdict[tuple[str], float] = defaultdict(lambda: math.inf)
    lag: defaultdict[tuple[str], float] = defaultdict(float)
    for record in records:
        if record.summary.phase != Phase.RUNNING:
            continue
        key, began, progress = (record.namespace,), record.summary.since, progress_of(record)
        tokens[key] += _number(progress, "tokensPerSecond") or 0.0
        steps[key] += _number(progress, "stepsPerSecond") or 0.0
        heartbeats[key] = min(heartbeats[key], max(began, _timestamp(progress, "heartbeatTime") or 0.0))
        checkpoints[key] = min(checkpoints[key], max(began, _timestamp(progress, "checkpointTime") or 0.0))
        done, kept = _number(progress, "step") or 0.0, _number(progress, "checkpointStep") or 0.0
        lag[key] = max(lag[key], done - kept)
    yield _filled(catalog.TOKENS_PER_SECOND, tokens)
    yield _filled(catalog.STEPS_PER_SECOND, steps)
    yield _filled(catalog.OLDEST_HEARTBEAT, heartbeats)
    yield _filled(catalog.OLDEST_CHECKPOINT, checkpoints)
    yield _filled(catalog.CHECKPOINT_LAG, lag)


def _single_jobs(records: list[FineTuneJobRecord]) -> Iterator[Family]:
    unfinished = [record for record in records if record.summary.phase not in ENDED]
    # Jobs that train come first, then those that have waited longest.
    unfinished.sort(key=lambda record: (record.summary.phase != Phase.RUNNING, record.summary.since, record.key))
    shown = unfinished[:MAX_SINGLE_JOBS]
    progress = [progress_of(record) for record in shown]
    info = _family(catalog.JOB_INFO)
    for record in shown:
        info.add_metric((*record.key, record.summary.phase), 1)
    yield info
    yield _filled(catalog.JOB_ATTEMPT, {record.key: record.attempt for record in shown})
    yield _filled(catalog.JOB_PHASE_START, {record.key: record.summary.since for record in shown})
    for metric, name in _SINGLE:
        yield _known(metric, ((record.key, _number(each, name)) for record, each in zip(shown, progress, strict=True)))
    for metric, name in ((catalog.JOB_HEARTBEAT, "heartbeatTime"), (catalog.JOB_CHECKPOINT, "checkpointTime")):
        times = ((record.key, _timestamp(each, name)) for record, each in zip(shown, progress, strict=True))
        yield _known(metric, times)
    yield _filled(catalog.JOB_SERIES_OMITTED, {(): len(unfinished) - len(shown)})


def progress_of(record: FineTuneJobRecord) -> Mapping[str, Any]:
    """status.progress as JSON; empty if there is none."""
    progress: Mapping[str, Any] = from_json(record.progress) if record.progress else {}
    return progress


def _number(progress: Mapping[str, Any], name: str) -> float | None:
    try:
        number = float(progress.get(name) or "nan")
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _timestamp(progress: Mapping[str, Any], name: str) -> float | None:
    try:
        return datetime.fromisoformat(progress[name]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


def _family(metric: Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)


L = TypeVar("L", bound=tuple[str, ...])
"""Values of labels."""


def _filled(metric: Metric, values: Mapping[L, float]) -> GaugeMetricFamily:
    family = _family(metric)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _known(metric: Metric, values: Iterable[tuple[tuple[str, str], float | None]]) -> GaugeMetricFamily:
    return _filled(metric, {labels: value for labels, value in values if value is not None})
