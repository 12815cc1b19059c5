"""An operator starts on a cluster with many ended jobs. Measures how long until it serves a new job, and its memory."""

import asyncio
import time

from benchmarks.jobs import JobWatch, create, warm_up
from benchmarks.tables import Table, load
from benchmarks.testbed import OPERATOR, Testbed, testbed

_AT_ONCE = 500
"""Number of jobs in one namespace."""
_REST_SECONDS = 15.0
"""Wait until the controller manager has cleaned up after the last jobs, as it has in an old cluster."""
_WATCHES_SECONDS = 10.0
"""Wait until kopf has listed everything once more. The memory is read after that."""


def measure(finished: int) -> Table:
    """Runs a number of jobs to their end, ends the operator, creates one more job and starts the operator again."""
    table = Table(
        "Restart with jobs that have ended",
        (
            "ended jobs, with child Jobs and pods",
            "load",
            "start to the new job's child Job, s (bar 10 with 5,000)",
            "operator CPU, s",
            "RSS, MiB",
            "highest RSS, MiB",
        ),
        note="The time counts from the start of the process: Python, imports, the Lease, and three lists.",
    )
    table.rows.append(asyncio.run(_measure(finished)))
    return table


async def _measure(finished: int) -> tuple[str, ...]:
    with testbed() as bed:
        bed.start_operator()
        bed.start_standin()
        await warm_up(bed)
        for start in range(0, finished, _AT_ONCE):
            await _see_through(bed, min(_AT_ONCE, finished - start))
        bed.stop_operator()
        await asyncio.sleep(_REST_SECONDS)
        namespace = bed.namespace()
        async with bed.api() as api, JobWatch(bed, api, namespace) as watch:
            await create(api, namespace, 1, preflight=False)
            before = load()
            started = time.monotonic()
            bed.start_operator()
            served = await watch.until("the new job's child", watch.child, 1)
            used = bed.cpu_seconds()[OPERATOR]
            await watch.until("its end", watch.ended, 1)
            await asyncio.sleep(_WATCHES_SECONDS)
            now, peak = bed.operator_memory_mib()
    return f"{finished:,}", before, f"{served - started:.1f}", f"{used:.1f}", f"{now:.0f}", f"{peak:.0f}"


async def _see_through(bed: Testbed, count: int) -> None:
    namespace = bed.namespace()
    async with bed.api() as api, JobWatch(bed, api, namespace) as watch:
        await create(api, namespace, count, preflight=False)
        await watch.until("ends", watch.ended, count)
