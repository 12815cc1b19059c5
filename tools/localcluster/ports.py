"""Chooses ports that no other program on the machine uses.

A chosen port stays free until its program listens, which takes seconds. Two planes that start at once, in two
processes, would choose the same port. So a process reserves each port that it chooses, until it ends.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from localcluster.errors import ClusterError

_reserved: set[tuple[str, int]] = set()


def choose(address: str, preferred: int, *, taken: Iterable[int] = (), gap: int = 0) -> int:
    """Returns the first free port from `preferred` on whose neighbour `gap` above is free too.

    SeaweedFS serves gRPC 10000 above each HTTP port. `gap` is for that.

    Raises:
        ClusterError: none of 500 ports is free.
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
    """Reserves a port. Returns False when another process has reserved it.

    A reservation is an abstract Unix socket, which the kernel removes when the process ends.
    """
    if (address, port) in _reserved:
        return True
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0finetune-localcluster/{address}:{port}")
    except OSError:
        name.close()
        return False
    name.detach()  # stays open until the process ends
    _reserved.add((address, port))
    return True
