"""Runs CoreDNS on the first node's address, for the cluster's names. Other names go to the machine's DNS server."""

from __future__ import annotations

import socket
from pathlib import Path

from localcluster import identities, processes
from localcluster.binaries import COREDNS
from localcluster.home import Home
from localcluster.kubectl import Kubectl
from localcluster.processes import Process
from localcluster.waiting import wait_for

COMPONENT = "coredns"
_ROLE = "localcluster:dns"
_RESOLV_CONF = Path("/etc/resolv.conf")


def allow(kubectl: Kubectl) -> None:
    """Grants CoreDNS the rights to list and watch Services, pods, namespaces and EndpointSlices."""
    group = "rbac.authorization.k8s.io"
    core = {"apiGroups": [""], "resources": ["services", "pods", "namespaces"]}
    slices = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"]}
    verbs = {"verbs": ["list", "watch"]}
    kubectl.apply(
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": _ROLE},
            "rules": [core | verbs, slices | verbs],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": _ROLE},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": _ROLE},
            "subjects": [{"apiGroup": group, "kind": "User", "name": identities.DNS_USER}],
        },
    )


def start(home: Home, address: str) -> Process:
    """Starts CoreDNS."""
    has_servers = _RESOLV_CONF.exists() and "nameserver" in _RESOLV_CONF.read_text()
    forward = f"forward . {_RESOLV_CONF}" if has_servers else ""
    corefile = home.root / "Corefile"
    corefile.write_text(
        f""".:53 {{
    bind {address}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {identities.kubeconfig(home, identities.DNS)}
        pods insecure
        ttl 5
        fallthrough in-addr.arpa
    }}
    cache 5
    {forward}
}}
"""
    )
    return processes.start(home, COMPONENT, [COREDNS.program("coredns"), "-conf", str(corefile)])


def wait_ready(home: Home, address: str) -> None:
    """Waits until the API server's name resolves."""
    server = processes.recorded(home, COMPONENT)
    assert server is not None
    question = _question("kubernetes.default.svc.cluster.local")

    def answers() -> bool:
        processes.must_run(home, server)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            try:
                client.sendto(question, (address, 53))
                answer = client.recv(512)
            except OSError:
                return False
        code, answers_given = answer[3] & 0x0F, int.from_bytes(answer[6:8])
        return code == 0 and answers_given > 0

    wait_for("the cluster's DNS to answer", answers, timeout=30)


def _question(name: str) -> bytes:
    """Returns a DNS query for the address of a name (RFC 1035, section 4.1)."""
    header = bytes([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return header + labels + bytes([0, 0, 1, 0, 1])
