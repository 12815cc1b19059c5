"""What the operator costs a cluster and how quick it is, on a real API server with etcd and controllers.

    python benchmarks/control_plane.py [--full] [--only SECTION ...]

There is no node: a stand-in writes the pods' status (see standin_kubelet.py). Prints tables; docs/benchmarks.md says
how to read them. Needs the programs of the local cluster: `python -m localcluster build` makes them once.
"""

import argparse
import signal
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT), str(_ROOT / "tests")]

from benchmarks import burst
from benchmarks.burst import Burst
from localcluster import ClusterError


def main() -> int:
    """Measures and prints."""
    print(burst.measure([Burst(200, preflight=False)]).text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
