"""Prints the tables.

scripts/faults [kills | api | tls | gitops | soak] … [--at-a-time 4] [--minutes 60]
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from component.plane import Plane
from faults import api_faults, gitops, kills, soak, tls_faults
from faults.cluster import plane
from faults.door import TlsFault
from faults.lives import LIVES
from localcluster import ClusterError
from localcluster.interrupts import interrupt_on_signals

TABLES = ("kills", "api", "tls", "gitops", "soak")


def main() -> int:
    """Prints the tables; 1 if anything in them is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], default=TABLES, metavar="TABLE", help=str(TABLES))
    parser.add_argument("--at-a-time", type=int, default=4, help="cases that are played at the same time (default: 4)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORDS", help="cases whose name has these words")
    parser.add_argument("--minutes", type=float, default=60, help="how long the soak takes (default: 60)")
    arguments = parser.parse_args()
    interrupt_on_signals()
    try:
        with plane() as found, tempfile.TemporaryDirectory() as folder:
            return asyncio.run(_print(found, Path(folder), arguments))
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


async def _print(found: Plane, folder: Path, arguments: argparse.Namespace) -> int:
    right = True
    at_a_time, words = arguments.at_a_time, arguments.only

    def chosen(name: str) -> bool:
        return not words or any(word in name for word in words)

    for name in arguments.tables:
        if name == "kills":
            lives = [life for life in LIVES if chosen(life.name)]
            table, good = await kills.table(found, folder, lives, at_a_time=at_a_time)
        elif name == "tls":
            faults = [fault for fault in TlsFault if chosen(fault)]
            table, good = await tls_faults.table(found, folder, faults, at_a_time=at_a_time)
        elif name == "gitops":
            rows = [row for row in gitops.ROWS if chosen(str(row))]
            table, good = await gitops.table(found, folder, rows, at_a_time=at_a_time)
        elif name == "soak":
            table, good = await soak.table(found, folder, arguments.minutes)
        else:
            cases = [case for case in api_faults.CASES if chosen(str(case))]
            table, good = await api_faults.table(found, folder, cases, at_a_time=at_a_time)
        print(table.text(), flush=True)
        right &= good
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
