"""Counters and histograms of what this replica does. The operator's parts call it through Protocols of their own."""

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Histogram

from finetune_operator.api.gpuprice import amount
from finetune_operator.api.reasons import ENDED, ConditionType, Phase
from finetune_operator.api.status import FineTuneJobStatus
from finetune_operator.control.controller import RECONCILE_ERRORS as ERRORS
from finetune_operator.control.informer.record import FineTuneJobRecord
from finetune_operator.metrics import catalog
from finetune_operator.metrics.catalog import Metric
from finetune_operator.metrics.labels import GpuLabels, end_label

QUEUE = "finetunejobs"


class Instruments:
    """All counters and histograms, in one registry.

    It is an observer of the work queue, of the controller and of the Kubernetes client.

    Args:
        registry: the registry.
        prices: the keys of the price list.
    """

    def __init__(self, registry: CollectorRegistry, *, prices: Collection[str] = ()) -> None:
        self._priced = bool(prices)
        self._gpu_label = GpuLabels(prices)

        def counter(metric: Metric) -> Counter:
            return Counter(metric.name, metric.help, metric.labels, registry=registry)

        def histogram(metric: Metric) -> Histogram:
            return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)

        self._phase_duration = histogram(catalog.PHASE_DURATION)
        self._runs_ended = counter(catalog.RUNS_ENDED)
        self._attempts_started = counter(catalog.ATTEMPTS_STARTED)
        self._attempts_ended = counter(catalog.ATTEMPTS_ENDED)
        self._restarts = counter(catalog.RESTARTS)
        self._gpu_seconds = counter(catalog.GPU_SECONDS)
        self._gpu_cost = counter(catalog.GPU_COST)
        self._watch_restarts = counter(catalog.WATCH_RESTARTS)
        self._reconciles = histogram(catalog.RECONCILES)
        self._reconcile_errors = counter(catalog.RECONCILE_ERRORS)
        self._reports = counter(catalog.REPORTS)
        self._queue_adds = counter(catalog.QUEUE_ADDS).labels(QUEUE)
        self._queue_retries = counter(catalog.QUEUE_RETRIES).labels(QUEUE)
        self._queue_wait = histogram(catalog.QUEUE_WAIT).labels(QUEUE)
        self._queue_work = histogram(catalog.QUEUE_WORK).labels(QUEUE)
        self._requests = counter(catalog.REQUESTS)
        self._request_duration = histogram(catalog.REQUEST_DURATION)
        self._known: set[tuple[str, str]] = set()
        for error in ERRORS:
            self._reconcile_errors.labels(error)

    def know_jobs(self, namespace: str, gpu_resource: str) -> None:
        """Begins the counters of a namespace at 0: Prometheus sees no increase in a series that begins with 1."""
        gpu_resource = self._gpu_label(gpu_resource)
        if (namespace, gpu_resource) in self._known:
            return
        self._known.add((namespace, gpu_resource))
        self._gpu_seconds.labels(namespace, gpu_resource)
        if self._priced:
            self._gpu_cost.labels(namespace, gpu_resource)
        for phase in ENDED:
            self._runs_ended.labels(namespace, phase)
        self._attempts_started.labels(namespace)
        self._restarts.labels(namespace)

    def know_watch(self, namespace: str) -> None:
        """Begins the counter of the watches' restarts at 0."""
        self._watch_restarts.labels(namespace)

    def watch_restarted(self, namespace: str) -> None:
        """The watches of a namespace had to start again; `*` stands for all namespaces."""
        self._watch_restarts.labels(namespace).inc()

    def report_answered(self, status: int) -> None:
        """A progress report was answered with that HTTP status."""
        self._reports.labels(str(status)).inc()

    # The work queue.

    def key_added(self) -> None:
        """See `QueueObserver.key_added`."""
        self._queue_adds.inc()

    def key_taken(self, waited: float) -> None:
        """See `QueueObserver.key_taken`."""
        self._queue_wait.observe(waited)

    def key_released(self, worked: float, *, retry: bool) -> None:
        """See `QueueObserver.key_released`."""
        self._queue_work.observe(worked)
        if retry:
            self._queue_retries.inc()

    # The Kubernetes client.

    def request_ended(self, method: str, code: str, seconds: float) -> None:
        """See `RequestObserver`."""
        self._requests.labels(code, method).inc()
        self._request_duration.labels(method).observe(seconds)

    # The controller.

    def reconciled(self, seconds: float, error: str | None) -> None:
        """See `ControllerObserver.reconciled`."""
        self._reconciles.observe(seconds)
        if error is not None:
            self._reconcile_errors.labels(error).inc()

    def status_written(self, record: FineTuneJobRecord, known: FineTuneJobStatus, written: FineTuneJobStatus) -> None:
        """See `ControllerObserver.status_written`."""
        namespace, resource = record.namespace, self._gpu_label(record.summary.gpu_resource)
        self.know_jobs(namespace, resource)
        self._observe_phase(record, known, written)
        self._count_attempts(namespace, known, written)
        if (seconds := written.gpu_seconds - known.gpu_seconds) > 0:
            self._gpu_seconds.labels(namespace, resource).inc(seconds)
        cost = float(amount(written.cost) or 0) - float(amount(known.cost) or 0)
        if cost > 0:
            self._gpu_cost.labels(namespace, resource).inc(cost)

    def _observe_phase(self, record: FineTuneJobRecord, known: FineTuneJobStatus, written: FineTuneJobStatus) -> None:
        if written.phase is None or written.phase is known.phase:
            return
        entered, left = known.last_phase_transition_time, written.last_phase_transition_time
        if known.phase is None:
            entered = record.creation_time
        ended = known.is_true(ConditionType.FINISHED)  # an end lasts until the next run
        if entered is not None and left is not None and not ended:
            seconds = max(0.0, (left - entered).total_seconds())
            self._phase_duration.labels(record.namespace, known.phase or Phase.PENDING).observe(seconds)
        if written.phase in ENDED:
            self._runs_ended.labels(record.namespace, written.phase).inc()

    def _count_attempts(self, namespace: str, known: FineTuneJobStatus, written: FineTuneJobStatus) -> None:
        if written.attempt > known.attempt:
            self._attempts_started.labels(namespace).inc()
            if written.restarts > known.restarts:
                self._restarts.labels(namespace).inc()
        open_before = {item.number for item in known.attempts if item.end_time is None}
        for attempt in written.attempts:
            # An attempt may start and end in one write: its Job was refused.
            if attempt.end_time is not None and (attempt.number in open_before or attempt.number > known.attempt):
                self._attempts_ended.labels(namespace, end_label(attempt.reason)).inc()
