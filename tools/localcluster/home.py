"""Places of all files: one state folder per plane, and one cache of built programs.

Two kinds of plane may run on one machine at the same time: the whole cluster, and a control plane alone (benchmarks,
API tests). Each has its own folder, so neither can take the other's processes for its own.

`LOCALCLUSTER_STATE` moves the state, `LOCALCLUSTER_CACHE` the built programs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CLUSTER = "cluster"
CONTROL_PLANE = "control-plane"


def cache_root() -> Path:
    """Returns the user's cache of built programs and images. `down` leaves it."""
    if given := os.environ.get("LOCALCLUSTER_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "finetune-operator" / "localcluster"


def state_root() -> Path:
    """Returns the folder with the planes' state.

    For root it is a short path, because it contains unix sockets, whose paths may have at most 107 bytes.
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
        """Returns the folders of the plane `CLUSTER` or `CONTROL_PLANE`."""
        return cls(state_root() / plane)

    @property
    def record(self) -> Path:
        """The file with addresses, ports, nodes and keys of the plane."""
        return self.root / "cluster.json"

    @property
    def lock(self) -> Path:
        """The lock that `up` and `down` hold. It is beside the folder, because `down` removes the folder."""
        return self.root.with_suffix(".lock")

    @property
    def pids(self) -> Path:
        """The folder with one file for each started process."""
        return self.root / "pids"

    @property
    def logs(self) -> Path:
        """The folder with one log file per component. `down` keeps it, so that the logs of a failed run can be read."""
        return self.root / "logs"

    @property
    def audit_log(self) -> Path:
        """The log of every write to the API server, one JSON object per line."""
        return self.logs / "audit.log"

    @property
    def pki(self) -> Path:
        """The folder of keys and certificates."""
        return self.root / "pki"

    @property
    def identities(self) -> Path:
        """The folder with the kubeconfig of each component."""
        return self.root / "kubeconfigs"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    def node(self, name: str) -> Path:
        """Returns the folder of a node: containerd, kubelet and CNI."""
        return self.root / name

    def create(self) -> None:
        """Creates the folders. Only their owner may read them, because they contain keys."""
        for folder in (self.root, self.pids, self.logs, self.pki, self.identities):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
