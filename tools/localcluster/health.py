"""Tells which processes of a plane run. `up` extends a healthy plane and restarts a broken one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from localcluster import binaries, control_plane, dns, object_store, processes, service_proxy
from localcluster.containerd import Containerd
from localcluster.home import Home
from localcluster.records import Record


@dataclass(frozen=True)
class Component:
    """One process of the plane, for `status`."""

    name: str
    pid: int
    running: bool
    memory_mib: int


def components(home: Home) -> list[Component]:
    """Returns all processes of the plane, and whether they run."""
    return [
        Component(process.name, process.pid, process.is_running(), _memory(process))
        for process in processes.all_recorded(home)
    ]


def broken(home: Home, record: Record) -> list[str]:
    """Returns the components that should run and do not. A lost kubelet is not broken: a test has stopped it."""
    names = [control_plane.ETCD, control_plane.API_SERVER, control_plane.CONTROLLER_MANAGER]
    if record.nodes:
        names += [control_plane.SCHEDULER, service_proxy.COMPONENT, dns.COMPONENT]
        names += [object_store.COMPONENT]
        names += [Containerd(home, node).component for node in record.nodes]
    missing = []
    for name in names:
        process = processes.recorded(home, name)
        if process is None or not process.is_running():
            missing.append(name)
    api = processes.recorded(home, control_plane.API_SERVER)
    if api and api.argv[0] != binaries.KUBERNETES.program(control_plane.API_SERVER):
        missing.append("the version")
    return missing


def _memory(process: processes.Process) -> int:
    try:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20 if process.is_running() else 0
