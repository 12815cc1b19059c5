"""The cgroup that holds a node's pods, in cgroup v1 and v2.

Each node has its own root cgroup. So its pods can be told from all other processes of the machine and be removed.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from localcluster import processes
from localcluster.errors import ClusterError

_ROOT = Path("/sys/fs/cgroup")
_CPUSET = ("cpuset.cpus", "cpuset.mems")
_NEEDED = ("cpuset", "cpu", "io", "memory", "pids")


def is_unified() -> bool:
    """Returns True when the machine has cgroup v2 only."""
    return (_ROOT / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """Returns the mounted hierarchies: one in cgroup v2, one per controller in cgroup v1."""
    if is_unified():
        return [_ROOT]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found = []
    for line in mounts:
        fields, _, kind = line.partition(" - ")
        where = Path(fields.split()[4])
        if kind.startswith(("cgroup ", "cgroup2 ")) and where.parent == _ROOT:
            found.append(where)
    return sorted(set(found))


def create(name: str) -> None:
    """Creates the cgroup in every hierarchy."""
    for hierarchy in hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        if is_unified():
            offered = (_ROOT / "cgroup.controllers").read_text().split()
            wanted = " ".join(f"+{controller}" for controller in _NEEDED if controller in offered)
            (_ROOT / "cgroup.subtree_control").write_text(wanted)
            (group / "cgroup.subtree_control").write_text(wanted)
            continue
        for setting in _CPUSET:
            # A new cpuset is empty, and no process can enter it.
            if (group / setting).exists() and not (group / setting).read_text().strip():
                (group / setting).write_text((hierarchy / setting).read_text())


def existing(name: str) -> list[Path]:
    """Returns the cgroup's folder in each hierarchy where it exists."""
    return [group for hierarchy in hierarchies() if (group := hierarchy / name).is_dir()]


def processes_in(group: Path) -> list[int]:
    """Returns the ids of the processes in a cgroup and in all cgroups below it."""
    ids: list[int] = []
    for file in group.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            ids += [int(line) for line in file.read_text().split()]
    return ids


def memory_group(pid: int) -> Path:
    """Returns the cgroup that accounts for a process's memory."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if is_unified() and not controllers:
            return _ROOT / path.lstrip("/")
        if "memory" in controllers.split(","):
            return _ROOT / "memory" / path.lstrip("/")
    raise ClusterError(f"process {pid} is in no memory cgroup")


def memory_limit(group: Path) -> int | None:
    """Returns the cgroup's memory limit in bytes, or None without a limit."""
    name = "memory.max" if is_unified() else "memory.limit_in_bytes"
    text = (group / name).read_text().strip()
    # cgroup v1 writes "no limit" as a number near 2**63.
    return int(text) if text.isdigit() and int(text) < 2**60 else None


def kill(name: str) -> None:
    """Kills every process in the cgroup. Only containers are in it."""
    for group in existing(name):
        for pid in processes_in(group):
            processes.kill(pid, processes.start_time(pid))


def remove(name: str) -> None:
    """Removes the cgroup and all cgroups below it. Their processes must have ended."""
    for group in existing(name):
        deadline = time.monotonic() + 5
        while group.is_dir():
            _remove_tree(group)
            if time.monotonic() > deadline:
                raise ClusterError(f"cgroup {group} cannot be removed; processes in it: {processes_in(group)}")
            if group.is_dir():
                time.sleep(0.1)


def _remove_tree(group: Path) -> None:
    below = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
    for folder in [*below, group]:
        # A cgroup may be busy for a moment after its last process has ended.
        with contextlib.suppress(OSError):
            folder.rmdir()
