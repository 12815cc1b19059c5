"""Measures how long a user of an idle plane waits from applying a job to its child Job."""

import asyncio
import time

from benchmarks.jobs import JobWatch, create, warm_up
from benchmarks.tables import Table, load, percentile
from benchmarks.testbed import testbed


def measure(samples: int) -> Table:
    """Applies jobs one after the other, each after the end of the one before."""
    table = Table(
        "From apply to child Job, one job at a time",
        ("jobs", "load", "p50, ms (bar 30)", "p99, ms (bar 100)", "slowest, ms"),
        note=(
            "From sending the FineTuneJob to seeing the child Job in a watch. "
            "Kubeflow Trainer, measured earlier on a quiet machine: p50 50 ms, slowest of 10 72 ms."
        ),
    )
    table.rows.append(asyncio.run(_measure(samples)))
    return table


async def _measure(samples: int) -> tuple[str, ...]:
    taken = []
    with testbed() as bed:
        before = load()
        bed.start_operator()
        bed.start_standin()
        await warm_up(bed)
        namespace = bed.namespace()
        async with bed.api() as api, JobWatch(bed, api, namespace) as watch:
            for number in range(samples):
                start = time.monotonic()
                await create(api, namespace, 1, preflight=False, prefix=f"job-{number}")
                name = f"job-{number}-0"
                await watch.until("the child Job", watch.child, number + 1)
                taken.append((watch.child[name] - start) * 1000)
                await watch.until("its end", watch.ended, number + 1)
                await asyncio.sleep(0.1)
    return (
        str(samples),
        before,
        f"{percentile(taken, 50):.0f}",
        f"{percentile(taken, 99):.0f}",
        f"{max(taken):.0f}",
    )
