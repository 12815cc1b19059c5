"""Applies many jobs at once. Measures how long until all have a child Job and until all have ended, and the cost."""

import asyncio
import time
from dataclasses import dataclass

from benchmarks.jobs import JobWatch, create, warm_up
from benchmarks.tables import Table, load
from benchmarks.testbed import OPERATOR, OPERATOR_AGENT, PLANE, testbed

from localcluster.control_plane import API_SERVER, CONTROLLER_MANAGER

_SETTLE_SECONDS = 2.0
"""Wait after the last job's end: the controller manager still removes finalizers of pods, which is part of the cost."""

KUBEFLOW = (
    ("Kubeflow Trainer, 500", "", "1.4", "32.4", "35.8", "7.2", "7.0", "19.4", "78", "122", "154"),
    ("Kubeflow Trainer, 1,000", "", "2.7", "74.1", "82.6", "7.1", "7.0", "19.3", "87", "136", "206"),
)
"""Kubeflow Trainer v2.3.0 with JobSet 0.12.0 as shipped (client 50/100). Its pods had such a stand-in too.
Measured earlier, on another run of the same kind of machine, when that was quiet: see docs/benchmarks.md."""


@dataclass(frozen=True)
class Burst:
    """The parameters of one row."""

    jobs: int
    preflight: bool


def measure(bursts: list[Burst]) -> Table:
    """Runs each burst on a new plane."""
    table = Table(
        "Jobs applied at once",
        (
            "jobs",
            "load",
            "created, s",
            "all have a child Job, s",
            "all ended, s",
            "writes per job: operator (bar 3.5)",
            "kube-controller-manager",
            "CPU ms per job: operator (bar 10)",
            "API server",
            "whole plane",
            "operator RSS, MiB",
        ),
        note=(
            "Kubeflow Trainer's rows were measured earlier, on another run of the same kind of machine. "
            "Load is the machine's load average of the minute before. "
            "Creating, watching and the stand-in take {cpu} ms of CPU per job on the same cores."
        ),
    )
    loads = []
    for burst in bursts:
        row, load_cpu = asyncio.run(_measure(burst))
        table.rows.append(row)
        loads.append(f"{load_cpu:.0f}")
    table.rows.extend(KUBEFLOW)
    table.note = table.note.format(cpu="/".join(loads))
    return table


async def _measure(burst: Burst) -> tuple[tuple[str, ...], float]:
    with testbed() as bed:
        before = load()
        bed.start_operator()
        bed.start_standin()
        await warm_up(bed)
        namespace = bed.namespace()
        async with bed.api() as api, JobWatch(bed, api, namespace) as watch:
            mark = bed.cluster.audit.mark()
            cpu = bed.cpu_seconds()
            start = time.monotonic()
            await create(api, namespace, burst.jobs, preflight=burst.preflight)
            created = time.monotonic() - start
            child = await watch.until("child Jobs", watch.child, burst.jobs)
            ended = await watch.until("ends", watch.ended, burst.jobs)
            await asyncio.sleep(_SETTLE_SECONDS)
            used = {name: (now - cpu[name]) * 1000 / burst.jobs for name, now in bed.cpu_seconds().items()}
            writes = bed.cluster.audit.count(mark, namespace=namespace)
            memory, _ = bed.operator_memory_mib()
    name = f"{burst.jobs:,}" + (" with preflight (bar 6 writes)" if burst.preflight else "")
    return (
        name,
        before,
        f"{created:.1f}",
        f"{child - start:.1f}",
        f"{ended - start:.1f}",
        f"{writes[OPERATOR_AGENT] / burst.jobs:.2f}",
        f"{writes[CONTROLLER_MANAGER] / burst.jobs:.1f}",
        f"{used[OPERATOR]:.1f}",
        f"{used[API_SERVER]:.0f}",
        f"{sum(used[name] for name in PLANE):.0f}",
        f"{memory:.0f}",
    ), used["load"]
