"""Finds everything of a plane that is still on the machine. After `down` there must be nothing."""

from __future__ import annotations

from pathlib import Path

from localcluster import cgroups, iptables, mounts, network, processes
from localcluster.containerd import network_name
from localcluster.control_plane import MAX_NODES
from localcluster.home import Home
from localcluster.records import Node

NODES = [Node.number(index + 1) for index in range(MAX_NODES)]
NETWORKS = [network_name(node) for node in NODES]
_CNI_RESULTS = Path("/var/lib/cni/results")
_CONTAINER_LOGS = Path("/var/log/containers")
RUNTIME_FOLDER = Path("/run/containerd")
FIXED_FOLDERS = (Path("/var/lib/kubelet"), Path("/var/lib/cni"), _CONTAINER_LOGS, RUNTIME_FOLDER)
"""Folders in which the kubelet, CNI and containerd's shims create files. No setting changes them."""


def leftovers(home: Home, *, with_node: bool = True) -> list[str]:
    """Returns every process, mount, bridge, cgroup, iptables chain and file of the plane that still exists."""
    left = [f"process {process.name} (pid {process.pid})" for process in _recorded(home)]
    left += [f"process {pid} ({_command(pid)})" for pid in processes.marked(home)]
    left += [f"mount {point}" for point in mounts.below(home.root)]
    if with_node:
        for node in NODES:
            if network.has_bridge(node):
                left.append(f"bridge {node.bridge}")
            left += [f"cgroup {group}" for group in cgroups.existing(node.cgroup)]
        left += [f"iptables chain {chain}" for chain in iptables.leftovers(NETWORKS)]
        left += [f"file {path}" for path in stray_files(home)]
    if home.root.exists():
        kept = {home.logs}
        left += [f"file {path}" for path in sorted(home.root.iterdir()) if path not in kept]
    return left


def stray_files(home: Home) -> list[Path]:
    """Returns the CNI results and container log links that the plane's programs created outside its folder."""
    stray: list[Path] = []
    if _CNI_RESULTS.is_dir():
        stray += [path for path in _CNI_RESULTS.iterdir() if path.name.startswith(tuple(NETWORKS))]
    if _CONTAINER_LOGS.is_dir():
        stray += [
            path
            for path in _CONTAINER_LOGS.iterdir()
            if path.is_symlink() and path.readlink().is_relative_to(home.root)
        ]
    return stray


def _recorded(home: Home) -> list[processes.Process]:
    return [process for process in processes.all_recorded(home) if process.is_running()]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:80]
    except OSError:
        return "ended"
