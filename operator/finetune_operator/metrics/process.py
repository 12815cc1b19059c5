"""Gauges about this replica: whether it leads, its queue, its watches."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector
from prometheus_client import ProcessCollector as OperatingSystemCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from finetune_operator.metrics import catalog
from finetune_operator.metrics.instruments import QUEUE
from finetune_trainer.contract.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """The work queue now.

    Attributes:
        depth: keys that wait for a worker.
        running: seconds that each current key has been with its worker.
    """

    depth: int
    running: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchState:
    """The watches of one namespace now.

    Attributes:
        watching: whether all of them are open.
        last_resync: when everything was last listed, in seconds of the Unix epoch; None if never.
    """

    watching: bool
    last_resync: float | None


class ProcessCollector:
    """Collects gauges about this replica.

    Args:
        lease_name: name of the Lease.
        leading: whether this replica leads.
        queue: the work queue now.
        watches: the watches now, by namespace; `*` stands for all.
    """

    def __init__(
        self,
        *,
        lease_name: str,
        leading: Callable[[], bool],
        queue: Callable[[], QueueState],
        watches: Callable[[], Mapping[str, WatchState]],
    ) -> None:
        self._lease_name = lease_name
        self._leading = leading
        self._queue = queue
        self._watches = watches
        self._taken: tuple[bool, QueueState, Mapping[str, WatchState]] | None = None

    def take(self) -> None:
        """Takes what `collect` reads. Called on the event loop, which owns the queue."""
        leading = self._leading()
        self._taken = leading, self._queue(), self._watches() if leading else {}

    def collect(self) -> Iterator[Family]:
        """The families as of the last `take`. Only the leader has watches. May run in another thread."""
        if self._taken is None:
            return
        leading, queue, watches = self._taken
        yield _gauge(catalog.BUILD_INFO, {(__version__,): 1})
        yield _gauge(catalog.LEADER, {(self._lease_name,): float(leading)})
        yield _gauge(catalog.QUEUE_DEPTH, {(QUEUE,): queue.depth})
        yield _gauge(catalog.QUEUE_UNFINISHED, {(QUEUE,): sum(queue.running)})
        yield _gauge(catalog.QUEUE_LONGEST, {(QUEUE,): max(queue.running, default=0.0)})
        yield _gauge(catalog.WATCHING, {(namespace,): float(state.watching) for namespace, state in watches.items()})
        yield _gauge(
            catalog.RESYNC,
            {(namespace,): state.last_resync for namespace, state in watches.items() if state.last_resync is not None},
        )


def process_metrics(registry: CollectorRegistry) -> None:
    """Adds the client library's own metrics: `process_*` and `python_*`."""
    OperatingSystemCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)


def _gauge(metric: catalog.Metric, values: Mapping[tuple[str, ...], float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
