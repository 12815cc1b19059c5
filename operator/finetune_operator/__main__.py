"""`python -m finetune_operator`: reads the configuration, wires the parts and runs until SIGTERM.

Every replica takes progress reports and answers probes. Only the leader, which holds the Lease, watches and reconciles.
"""

import asyncio
import gc
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from aiohttp import web
from prometheus_client import CollectorRegistry

from finetune_operator import logs
from finetune_operator.config import Config, ConfigError, read_config
from finetune_operator.control import Key
from finetune_operator.control.controller import Controller, Policy
from finetune_operator.control.informer.cache import Cache
from finetune_operator.control.informer.event_filter import WATCHED, EventFilter
from finetune_operator.control.informer.event_handler import EventHandler
from finetune_operator.control.informer.informer import Informer, Informers
from finetune_operator.control.informer.profiles import ProfileCache
from finetune_operator.control.informer.record import FineTuneJobRecord
from finetune_operator.control.informer.resync import CHILDREN, Resync
from finetune_operator.control.leader_task import LeaderTask
from finetune_operator.control.progress_cluster import KubeProgressCluster
from finetune_operator.control.work_queue import WorkQueue
from finetune_operator.flags import with_flags
from finetune_operator.health import Health
from finetune_operator.kube.api import Kube
from finetune_operator.kube.client import connect, own_token
from finetune_operator.kube.contact import Contact
from finetune_operator.kube.errors import KubeError
from finetune_operator.kube.events import EventRecorder
from finetune_operator.kube.lease import Lease
from finetune_operator.listener import Listener
from finetune_operator.metrics.endpoint import Endpoint
from finetune_operator.metrics.instruments import Instruments
from finetune_operator.metrics.jobs import JobCollector
from finetune_operator.metrics.process import ProcessCollector, QueueState, WatchState, process_metrics
from finetune_operator.progress.server import ProgressServer
from finetune_operator.progress.writer import ProgressWriter
from finetune_operator.reconcile.reconcile import reconcile
from finetune_operator.watch.kopf_settings import Backoffs, NoMemories, kopf_settings
from finetune_operator.watch.watches import Watches
from finetune_trainer.contract.version import __version__

logger = logging.getLogger("finetune_operator")

ALL_NAMESPACES = "*"
"""Stands for all namespaces in a label."""
EXIT_USAGE = 2
EXIT_FAILED = 1


async def run(
    config: Config,
    kube: Kube,
    contact: Contact,
    environment: Mapping[str, str],
    stop: asyncio.Event,
    policy: Policy = reconcile,
    registry: CollectorRegistry | None = None,
    instruments: Instruments | None = None,
) -> None:
    """Wires the parts and runs them until `stop` is set.

    Args:
        config: the configuration.
        kube: the Kubernetes client.
        contact: knows whether the API server can be reached.
        environment: the environment variables.
        stop: set when the process must end.
        policy: makes plans.
        registry: the registry of `instruments`, which gets the other metrics too; by default a new one.
        instruments: those that `kube` tells of its requests; by default new ones.

    Raises:
        OSError: cannot listen on a port, or cannot read the certificate of the metrics port.
    """
    clock = asyncio.get_running_loop().time
    registry = registry or CollectorRegistry()
    instruments = instruments or Instruments(registry, prices=config.gpu_prices)
    cache = Cache()
    queue: WorkQueue[Key] = WorkQueue(clock=clock, random=random.random, observer=instruments)
    profiles = ProfileCache()
    event_handler = EventHandler(cache, queue, profiles)

    watches_of: dict[str | None, Watches] = {}

    def informer(namespace: str | None) -> Informer:
        instruments.know_watch(namespace or ALL_NAMESPACES)

        def restarted() -> None:
            instruments.watch_restarted(namespace or ALL_NAMESPACES)
            resync.request()

        resync = Resync(
            kube=kube,
            cache=cache,
            queue=queue,
            event_handler=event_handler,
            namespace=namespace,
            period=config.resync_seconds,
            clock=clock,
            profiles=profiles,
            cluster_profiles=config.reads_cluster_profiles,
        )
        watches = Watches(
            event_handler,
            on_restart=restarted,
            settings=lambda: kopf_settings(children=CHILDREN),
            memories=NoMemories,
            backoffs=lambda: iter(Backoffs()),
            event_filter_for=lambda plural: EventFilter(cache, plural) if plural in WATCHED else None,
            namespace=namespace,
            environment=environment,
            contact=contact,
            # One watch is enough for the cluster's.
            cluster_profiles=config.reads_cluster_profiles and not watches_of,
        )
        watches_of[namespace] = watches
        return Informer(resync, watches.run)

    informers = Informers([informer(namespace) for namespace in config.watch_namespaces or (None,)])
    controller = Controller(
        kube=kube,
        cache=cache,
        queue=queue,
        policy=policy,
        config=config.reconcile,
        events=EventRecorder(kube, instance=config.identity, now=_now),
        now=_now,
        has_synced=informers.has_synced,
        observer=instruments,
        profiles=profiles,
    )
    leader_task = LeaderTask(
        informers=informers,
        controller=controller,
        queue=queue,
        workers=config.workers,
        stop=stop,
        clock=clock,
    )
    lease = Lease(
        kube,
        namespace=config.lease_namespace,
        name=config.lease_name,
        identity=config.identity,
        clock=clock,
        now=_now,
    )
    health = Health(
        stuck_seconds=queue.stuck_seconds,
        last_contact=lambda: lease.last_contact,
        leading_since=lambda: leader_task.since,
        last_resync=informers.last_success,
        failing=informers.failing,
        resync_seconds=config.resync_seconds,
        clock=clock,
    )
    cluster = KubeProgressCluster(kube, cache, event_handler, is_watching=informers.is_watching, clock=clock)
    writer = ProgressWriter(cluster, clock=clock)
    server = ProgressServer(
        cluster,
        writer,
        own_token=lambda: own_token(environment),
        clock=clock,
        now=_now,
        on_answer=instruments.report_answered,
    )

    def known_jobs() -> list[FineTuneJobRecord] | None:
        if leader_task.since is None:
            return None
        return [record for record in cache.finetunejobs() if informers.has_listed(record.namespace)]

    def watch_states() -> dict[str, WatchState]:
        epoch = time.time() - clock()
        return {
            each.resync.namespace or ALL_NAMESPACES: WatchState(
                watching=each.is_watching and watches_of[each.resync.namespace].streams.kinds() >= WATCHED,
                last_resync=None if each.resync.last_success is None else epoch + each.resync.last_success,
            )
            for each in informers
        }

    process_metrics(registry)
    state_collector = ProcessCollector(
        lease_name=config.lease_name,
        leading=lambda: leader_task.since is not None,
        queue=lambda: QueueState(depth=queue.depth, running=queue.running_seconds()),
        watches=watch_states,
    )
    job_collector = JobCollector(
        known_jobs, per_job=config.metrics_per_job, prices=config.gpu_prices, on_jobs=instruments.know_jobs
    )
    endpoint = Endpoint(registry, config, (state_collector, job_collector))

    application = web.Application()
    server.add_to(application)
    health.add_to(application)
    listener = Listener(application)
    try:
        await listener.start(config.http_host or None, config.http_port)
        await endpoint.start()
        logger.info("started", extra={"version": __version__, "identity": config.identity, "port": config.http_port})
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(writer.run())
            await lease.run(leader_task.lead, stop)
            await listener.close()
            await endpoint.close()
            writing.cancel()
    finally:
        await listener.close()
        await endpoint.close()
    logger.info("ended")


def _now() -> datetime:
    """The current time in whole seconds, as Kubernetes writes times."""
    return datetime.now(UTC).replace(microsecond=0)


async def _main(config: Config, environment: Mapping[str, str]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    contact = Contact()
    registry = CollectorRegistry()
    instruments = Instruments(registry, prices=config.gpu_prices)
    async with connect(environment, contact=contact, observer=instruments.request_ended) as kube:
        await run(config, kube, contact, environment, stop, registry=registry, instruments=instruments)


def main() -> int:
    """Runs the operator and returns the exit code."""
    environment = with_flags(os.environ, sys.argv[1:])
    identity = f"{socket.gethostname()}-{random.randbytes(4).hex()}"  # noqa: S311 (a name, no secret)
    try:
        config = read_config(environment, fallback_identity=identity)
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"{problem}\n")
        return EXIT_USAGE
    logs.configure(config.log_level)
    # Imported objects stay for ever, and reference counts free nearly all others. By default Python searches for
    # cycles after every 700 new objects, which takes a tenth of the CPU under load.
    gc.freeze()
    gc.set_threshold(50_000)
    try:
        asyncio.run(_main(config, environment))
    except (KubeError, OSError, ExceptionGroup) as error:
        for cause in _causes(error):
            expected = isinstance(cause, KubeError | OSError)
            logger.error(  # noqa: TRY400 (an expected error needs no traceback)
                "ended: %s: %s", type(cause).__name__, cause, exc_info=None if expected else cause
            )
        return EXIT_FAILED
    return 0


def _causes(error: Exception) -> list[Exception]:
    if isinstance(error, ExceptionGroup):
        return [cause for inner in error.exceptions for cause in _causes(inner)]
    return [error]


if __name__ == "__main__":
    sys.exit(main())
