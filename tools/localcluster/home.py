"""Where everything lies: one state folder for each plane, one cache of built programs.

Two kinds of plane may stand on one machine at the same time: the whole cluster, and a
control plane alone (benchmarks, API tests). Each has its own folder, so neither can
mistake the other's processes for its own.

`LOCALCLUSTER_STATE` moves the state, `LOCALCLUSTER_CACHE` the built programs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CLUSTER = "cluster"
CONTROL_PLANE = "control-plane"


def cache_root() -> Path:
    """The user's cache of built programs and images; survives every `down`."""
    if given := os.environ.get("LOCALCLUSTER_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "finetune-operator" / "localcluster"


def state_root() -> Path:
    """The folder that holds the planes' state.

    Root's is short on purpose: unix sockets lie in it, and their paths may have 107 bytes.
    """
    if given := os.environ.get("LOCALCLUSTER_STATE"):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/lib/finetune-localcluster")
    return cache_root() / "state"


@dataclass(frozen=True)
class Home:
    """The folders of one plane."""

    root: Path

    @classmethod
    def of(cls, plane: str) -> Home:
        """The folders of `CLUSTER` or `CONTROL_PLANE`."""
        return cls(state_root() / plane)

    @property
    def record(self) -> Path:
        """What `up` decided: addresses, ports, nodes, keys."""
        return self.root / "cluster.json"

    @property
    def lock(self) -> Path:
        """Held while somebody brings the plane up or down. Beside the folder: it outlives it."""
        return self.root.with_suffix(".lock")

    @property
    def pids(self) -> Path:
        """One file for each process that was started."""
        return self.root / "pids"

    @property
    def logs(self) -> Path:
        """One file for each component. Kept by `down`, so that a failed run can be read."""
        return self.root / "logs"

    @property
    def audit_log(self) -> Path:
        """Every write to the API server, one JSON object a line."""
        return self.logs / "audit.log"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.root / "pki"

    @property
    def identities(self) -> Path:
        """The kubeconfig of each component."""
        return self.root / "kubeconfigs"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    def node(self, name: str) -> Path:
        """Everything of one node: containerd, kubelet, CNI."""
        return self.root / name

    def create(self) -> None:
        """Makes the folders; only their owner may read them, for they hold keys."""
        for folder in (self.root, self.pids, self.logs, self.pki, self.identities):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
