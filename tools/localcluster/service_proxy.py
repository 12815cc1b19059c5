"""Runs kube-proxy, which turns Services into iptables rules. One kube-proxy serves all nodes of the machine."""

from __future__ import annotations

import json
import urllib.request

from localcluster import identities, processes
from localcluster.binaries import KUBERNETES
from localcluster.home import Home
from localcluster.ports import choose
from localcluster.processes import Process
from localcluster.records import Node
from localcluster.waiting import wait_for

COMPONENT = "kube-proxy"
PODS = "10.244.0.0/16"
_LOOPBACK = "127.0.0.1"
_HEALTH = "kube-proxy.health"


def start(home: Home, node: Node) -> Process:
    """Starts kube-proxy with the name of the given node."""
    health = choose(_LOOPBACK, 10256)
    (home.root / _HEALTH).write_text(f"http://{_LOOPBACK}:{health}/healthz")
    config = home.root / "kube-proxy.json"
    kubeconfig = identities.kubeconfig(home, identities.KUBE_PROXY)
    config.write_text(
        json.dumps(
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "mode": "iptables",
                "hostnameOverride": node.name,
                "clientConnection": {"kubeconfig": str(kubeconfig)},
                "clusterCIDR": PODS,
                "bindAddress": node.address,
                "healthzBindAddress": f"{_LOOPBACK}:{health}",
                "metricsBindAddress": f"{_LOOPBACK}:{choose(_LOOPBACK, 10249, taken=[health])}",
                "iptables": {"minSyncPeriod": "100ms"},
                # The kernel's limits stay: they may be read-only, and other programs use them too.
                "conntrack": {
                    "maxPerCore": 0,
                    "min": 0,
                    "tcpEstablishedTimeout": "0s",
                    "tcpCloseWaitTimeout": "0s",
                },
            }
        )
    )
    return processes.start(home, COMPONENT, [KUBERNETES.program(COMPONENT), f"--config={config}"])


def wait_ready(home: Home, proxy: Process) -> None:
    """Waits until the rules of all Services are in the kernel.

    Raises:
        ClusterError: kube-proxy ends, or is not ready within 30 s.
    """
    url = (home.root / _HEALTH).read_text()

    def synced() -> bool:
        processes.must_run(home, proxy)
        try:
            with urllib.request.urlopen(url, timeout=2):
                return True
        except OSError:
            return False

    wait_for("kube-proxy to have written its rules", synced, timeout=30)
