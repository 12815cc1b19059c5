"""What metrics cost the operator: memory of 10,000 jobs in the cache, and the time of a scrape.

    .venv/bin/python benchmarks/metrics.py [--jobs N] [--namespaces N]

Each row is a process of its own with N jobs in the cache. The loop only takes the records; a thread beside it does
all else. Times are CPU times.
"""

import argparse
import gc
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # from a clone, without an environment
    sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in (".", "operator", "trainer")]

from benchmarks.tables import Table, load
from prometheus_client import CollectorRegistry, generate_latest

from finetune_operator.control.informer.cache import Cache
from finetune_operator.control.informer.record import finetunejob_record
from finetune_operator.metrics.instruments import Instruments
from finetune_operator.metrics.jobs import JobCollector

SCRAPES = 11
_BEGIN = datetime(2026, 11, 24, 12, tzinfo=UTC)
_TIME = _BEGIN.isoformat()
_REASONS = ("DatasetInvalid", "GpuOutOfMemory", "StorageUnavailable", "Killed")


def a_job(number: int, namespaces: int, unfinished: float) -> dict[str, Any]:
    """Returns a FineTuneJob of an old cluster: most have ended, of the others half train."""
    ended = (number % 1000) / 1000 >= unfinished
    status: dict[str, Any] = {
        "observedGeneration": 1,
        "attempt": 1,
        "gpus": 1,
        "lastPhaseTransitionTime": (_BEGIN + timedelta(seconds=number)).isoformat(),
        "startTime": _TIME,
    }
    if ended:
        failed = number % 5 == 0
        status["phase"] = "Failed" if failed else "Succeeded"
        status["conditions"] = [{"type": "Finished", "status": "True", "reason": "x", "lastTransitionTime": _TIME}]
        if failed:
            status["failure"] = {"reason": _REASONS[number % len(_REASONS)], "message": "facts"}
    else:
        status["phase"] = "Running" if number % 2 else "Starting"
        status["progress"] = {
            "stage": "Training",
            "step": 310,
            "totalSteps": 500,
            "loss": "1.2346",
            "learningRate": "0.00019",
            "epoch": "1.50",
            "tokensPerSecond": 2400,
            "stepsPerSecond": "0.5",
            "checkpointStep": 300,
            "checkpointTime": _TIME,
            "heartbeatTime": _TIME,
        }
    metadata = {
        "namespace": f"team-{number % namespaces}",
        "name": f"job-{number}",
        "uid": f"11111111-2222-3333-4444-{number:012}",
        "resourceVersion": str(number),
        "generation": 1,
        "creationTimestamp": _TIME,
    }
    places = {"model": {"uri": "hf://o/m"}, "dataset": {"uri": "s3://d/t.jsonl"}, "output": {"uri": "s3://m/a"}}
    return {"metadata": metadata, "spec": places, "status": status}


def measure(jobs: int, namespaces: int, unfinished: float, *, per_job: bool) -> tuple[str, ...]:
    """Returns the row of one cache."""
    cache = Cache()
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(jobs):
        cache.put_finetunejob(finetunejob_record(a_job(number, namespaces, unfinished)))
    cached = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    summaries = {id(record.summary): record.summary for record in cache.finetunejobs()}
    own = sum(sys.getsizeof(summary) for summary in summaries.values()) + 8 * jobs
    registry = CollectorRegistry()
    instruments = Instruments(registry)
    collector = JobCollector(lambda: list(cache.finetunejobs()), per_job=per_job, on_jobs=instruments.know_jobs)
    registry.register(collector)
    taking, encoding, size = _scrapes(registry, collector)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (
        f"{jobs:,}",
        str(namespaces),
        f"{unfinished:.0%}",
        "yes" if per_job else "no",
        f"{(cached - before) / 1024:.1f}",
        f"{own / 2**20:.2f}",
        f"{1000 * statistics.median(taking):.1f}",
        f"{1000 * statistics.median(encoding):.0f}",
        f"{size / 1024:,.0f}",
        f"{(peak - cached) / 1024:.1f}",
    )


def _scrapes(registry: CollectorRegistry, collector: JobCollector) -> tuple[list[float], list[float], int]:
    taking, encoding, size = [], [], 0
    for _ in range(SCRAPES):
        began = time.process_time()
        collector.take()
        taken = time.process_time()
        size = len(generate_latest(registry))
        taking.append(taken - began)
        encoding.append(time.process_time() - taken)
    return taking, encoding, size


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--namespaces", type=int, default=100)
    options = parser.parse_args(arguments)
    table = Table(
        "Metrics",
        (
            "jobs",
            "namespaces",
            "unfinished",
            "series of single jobs",
            "cache, MiB",
            "of these for metrics, MiB",
            "CPU on the event loop at a scrape, ms",
            "CPU for the text beside it, ms",
            "text, KiB",
            "more memory while scraped, MiB",
        ),
        note=f"Median of {SCRAPES} scrapes; load {load()}.",
    )
    context = multiprocessing.get_context("spawn")
    for unfinished, per_job in ((0.0, False), (0.05, False), (0.05, True), (1.0, False), (1.0, True)):
        with context.Pool(1) as pool:
            kinds = {"per_job": per_job}
            table.rows.append(pool.apply(measure, (options.jobs, options.namespaces, unfinished), kinds))
    print(table.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
