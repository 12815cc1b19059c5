"""What the machine must have: Linux, root, programs. Missing Debian packages are installed."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from localcluster.commands import run
from localcluster.errors import ClusterError
from localcluster.processes import start_time
from localcluster.progress import step

CNI_PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))

_PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables-save": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "openssl": "openssl",
    "gcc": "gcc",
}
_FOREIGN = frozenset({"kubelet", "kube-proxy"})


def cni_plugins() -> Path | None:
    """Returns the folder of the CNI plugins, or None when there is none."""
    return next((folder for folder in CNI_PLUGINS if (folder / "bridge").exists()), None)


def require_linux() -> None:
    """Checks that this is Linux. The local cluster needs pidfds, /proc and, with a node, cgroups.

    Raises:
        ClusterError: it is another system.
    """
    if platform.system() != "Linux":
        raise ClusterError(
            f"the local cluster runs on Linux, and this is {platform.system()}: "
            "start any cluster (kind, k3d) and set KUBECONFIG instead"
        )


def require_node_rights() -> None:
    """Checks that this process is root. A node creates bridges, mounts and cgroups.

    Raises:
        ClusterError: it is not root, or no cgroups are mounted.
    """
    require_linux()
    if os.geteuid() != 0:
        raise ClusterError(
            "a node needs root (it makes a bridge, mounts, cgroups and iptables rules): "
            "run it with sudo, or set KUBECONFIG to a cluster that exists"
        )
    if not Path("/sys/fs/cgroup").is_dir():
        raise ClusterError("no cgroups are mounted at /sys/fs/cgroup: a kubelet cannot run here")


def require_no_other_node(ours: set[int]) -> None:
    """Checks that no other Kubernetes node runs on this machine.

    Two nodes in one network namespace overwrite each other's iptables rules.

    Args:
        ours: process ids of this plane. Any other node belongs to somebody else, and may use what looks like a
            leftover.

    Raises:
        ClusterError: another node runs.
    """
    for pid, name in _programs():
        if name in _FOREIGN and pid not in ours:
            raise ClusterError(
                f"another Kubernetes node runs on this machine ({name}, pid {pid}): stop it, or use it "
                "by setting KUBECONFIG (was it started with another LOCALCLUSTER_STATE?)"
            )


def runs(program: str) -> bool:
    """Returns True when any process of the machine runs this program."""
    return any(name == program for _, name in _programs())


def _programs() -> Iterator[tuple[int, str]]:
    """Yields process id and program name of every process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and start_time(int(entry.name)) is not None:
            with contextlib.suppress(OSError):
                yield int(entry.name), (entry / "comm").read_text().strip()


def missing_packages() -> list[str]:
    """Returns the Debian packages whose programs the machine lacks."""
    missing = {package for program, package in _PROGRAMS.items() if shutil.which(program, path=_search_path()) is None}
    if cni_plugins() is None:
        missing.add("containernetworking-plugins")
    if not _has_static_libc():
        missing.add("libc6-dev")
    return sorted(missing)


def install_packages() -> None:
    """Installs the missing packages with apt. Does nothing when none is missing.

    Raises:
        ClusterError: the installation fails, or a program is missing afterwards.
    """
    if missing := missing_packages():
        apt_install(missing)
    if still := missing_packages():
        raise ClusterError(f"apt-get installed the packages, but {', '.join(still)} are not usable")


def apt_install(packages: list[str]) -> None:
    """Installs Debian packages.

    Raises:
        ClusterError: there is no apt-get, or it fails.
    """
    if shutil.which("apt-get") is None:
        raise ClusterError(
            f"the node needs {', '.join(packages)} (Debian's names) and this machine has no "
            "apt-get: install them by hand"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with step(f"installing {', '.join(packages)}") as running:
        update = ["apt-get", "update", "-qq"]
        run(update, env=environment, timeout=600, tick=lambda _: running.note("reading package lists"))
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        run(install, env=environment, timeout=1200, tick=lambda _: running.note("installing"))


def program(name: str) -> str:
    """Returns the full path of a program.

    Raises:
        ClusterError: it is not installed.
    """
    found = shutil.which(name, path=_search_path())
    if found is None:
        raise ClusterError(f"{name} is not installed")
    return found


def _search_path() -> str:
    # After plain `su`, a root shell's PATH lacks the sbin folders.
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def _has_static_libc() -> bool:
    folders = (Path("/usr/lib"), *Path("/usr/lib").glob("*-linux-*"), Path("/usr/lib64"))
    return any((folder / "libc.a").exists() for folder in folders)
