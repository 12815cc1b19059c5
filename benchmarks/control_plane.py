"""Measures the operator's cost and speed, on a real API server with etcd and the controllers.

    python benchmarks/control_plane.py [--quick | --full] [--only SECTION ...]

There is no node: a stand-in writes the pods' status (see standin_kubelet.py). Prints one table per section. Each
section has its own plane. docs/benchmarks.md explains the tables. The programs of the local cluster are needed:
`PYTHONPATH=tools python -m localcluster build` builds them once.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from benchmarks import burst, latency, memory, reporting, restart
from benchmarks.burst import Burst
from benchmarks.tables import Table

from localcluster import ClusterError
from localcluster.interrupts import interrupt_on_signals

SECTIONS = ("burst", "latency", "restart", "memory", "progress")


def main() -> int:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="small numbers, under four minutes; the default")
    size.add_argument("--full", action="store_true", help="the numbers that the bars are about; half an hour")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION", help=str(SECTIONS))
    parser.add_argument("--finished", type=int, help="jobs that have ended before the restart (5,000 with --full)")
    parser.add_argument("--waiting", type=int, help="jobs that wait while memory is read (10,000 with --full)")
    parser.add_argument("--reporting", type=int, help="jobs that report their progress (500 with --full)")
    arguments = parser.parse_args()
    interrupt_on_signals()
    full: bool = arguments.full
    sections: dict[str, Callable[[], Table]] = {
        "burst": lambda: burst.measure(FULL if full else QUICK),
        "latency": lambda: latency.measure(50),
        "restart": lambda: restart.measure(arguments.finished or (5000 if full else 200)),
        "memory": lambda: memory.measure(arguments.waiting or (10_000 if full else 500)),
        "progress": lambda: reporting.measure(arguments.reporting or (500 if full else 100), 60 if full else 20),
    }
    try:
        for name in SECTIONS:
            if name in arguments.only:
                print(sections[name]().text(), flush=True)
    except (ClusterError, TimeoutError) as error:
        print(f"benchmark failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the plane is down", file=sys.stderr)
        return 130
    return 0


QUICK = [Burst(200, preflight=False), Burst(200, preflight=True)]
FULL = [
    Burst(200, preflight=False),
    Burst(500, preflight=False),
    Burst(1000, preflight=False),
    Burst(200, preflight=True),
]


if __name__ == "__main__":
    sys.exit(main())
