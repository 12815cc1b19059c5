"""Runs the kubelet of one node."""

from __future__ import annotations

import json
from pathlib import Path

from localcluster import cgroups, identities, processes
from localcluster.binaries import KUBERNETES
from localcluster.containerd import Containerd
from localcluster.home import Home
from localcluster.pki import Pki
from localcluster.processes import Process
from localcluster.records import Node

_RESOLV_CONF = Path("/etc/resolv.conf")


def component(node: Node) -> str:
    """Returns the name of the process."""
    return identities.kubelet(node.name)


def start(home: Home, node: Node, runtime: Containerd, dns: str) -> Process:
    """Starts the kubelet. The node is Ready some seconds later."""
    cgroups.create(node.cgroup)
    folder = home.node(node.name)
    config = folder / "kubelet.json"
    config.write_text(json.dumps(_config(home, node, runtime, dns), indent=2))
    return processes.start(
        home,
        component(node),
        [
            KUBERNETES.program("kubelet"),
            f"--config={config}",
            f"--kubeconfig={identities.kubeconfig(home, component(node))}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
            f"--root-dir={folder / 'kubelet'}",
            f"--cert-dir={folder / 'kubelet-certs'}",
        ],
    )


def _config(home: Home, node: Node, runtime: Containerd, dns: str) -> dict[str, object]:
    folder = home.node(node.name)
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "readOnlyPort": 0,
        "healthzPort": 0,
        "containerRuntimeEndpoint": f"unix://{runtime.socket}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(Pki(home.pki).ca)},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [dns],
        "clusterDomain": "cluster.local",
        "resolvConf": str(_RESOLV_CONF) if _RESOLV_CONF.exists() else "",
        # Not every machine has systemd or cgroup v2.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        # Other programs may have nearly filled disk and memory, so the kubelet must not evict pods for that.
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        # No garbage collection of images: a removed image could not be pulled again.
        "imageGCHighThresholdPercent": 99,
        "imageGCLowThresholdPercent": 98,
        "podLogsDir": str(folder / "pod-logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
        "rotateCertificates": False,
    }
