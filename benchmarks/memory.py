"""Measures the memory of an operator with many jobs that have not ended.

Each job has its child Job and a pod that waits for a GPU. The operator keeps less of a job that has ended, so this is
the worse case.
"""

import asyncio

from benchmarks.jobs import JobWatch, create
from benchmarks.tables import Table, load
from benchmarks.testbed import testbed

_AT_ONCE = 1000
"""Number of jobs in one namespace."""
_LOOKED_AT_SECONDS = 5.0


def measure(jobs: int) -> Table:
    """Creates a number of jobs whose pods are never scheduled. Measures the operator's memory."""
    table = Table(
        "Memory with jobs that wait for their pod",
        ("jobs", "load", "RSS, MiB (bar 300 with 10,000)", "highest RSS, MiB", "after a restart, MiB", "highest, MiB"),
    )
    table.rows.append(asyncio.run(_measure(jobs)))
    return table


async def _measure(jobs: int) -> tuple[str, ...]:
    with testbed() as bed:
        before = load()
        bed.start_operator()
        bed.wait_ready()
        for start in range(0, jobs, _AT_ONCE):
            count = min(_AT_ONCE, jobs - start)
            namespace = bed.namespace()
            async with bed.api() as api, JobWatch(bed, api, namespace) as watch:
                await create(api, namespace, count, preflight=False)
                await watch.until("child Jobs", watch.child, count)
        await asyncio.sleep(_LOOKED_AT_SECONDS)
        grown = bed.operator_memory_mib()
        bed.stop_operator()
        namespace = bed.namespace()
        async with bed.api() as api, JobWatch(bed, api, namespace) as watch:
            await create(api, namespace, 1, preflight=False)
            bed.start_operator()
            await watch.until("the new job's child", watch.child, 1)
        await asyncio.sleep(_LOOKED_AT_SECONDS)
        listed = bed.operator_memory_mib()
    return f"{jobs:,}", before, *(f"{value:.0f}" for value in (*grown, *listed))
