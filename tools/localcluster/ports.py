"""Chooses ports, so that a plane never takes what somebody else on the machine uses.

A port is free until the program that it was chosen for listens, which takes seconds: of two planes that start at once,
in two processes, both would take it. So a process reserves what it chooses, until it ends.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from localcluster.errors import ClusterError

_reserved: set[tuple[str, int]] = set()


def choose(address: str, preferred: int, *, taken: Iterable[int] = (), gap: int = 0) -> int:
    """The first port from `preferred` on that is free, and whose neighbour at `gap` is too.

    SeaweedFS serves gRPC 10000 above each HTTP port, hence the gap.
    """
    used = set(taken)
    for port in range(preferred, preferred + 500):
        wanted = {port, port + gap}
        if not wanted & used and all(_is_free(address, number) and _reserve(address, number) for number in wanted):
            return port
    raise ClusterError(f"no free port on {address} from {preferred} on")


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _reserve(address: str, port: int) -> bool:
    """Whether no other process has reserved it. A reservation is a name in the kernel that goes with its process."""
    if (address, port) in _reserved:
        return True
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0finetune-localcluster/{address}:{port}")
    except OSError:
        name.close()
        return False
    name.detach()  # kept open to the end of the process
    _reserved.add((address, port))
    return True
