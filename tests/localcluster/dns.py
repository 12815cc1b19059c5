"""CoreDNS, on the first node's address: the cluster's names, and the machine's for the rest."""

from __future__ import annotations

from pathlib import Path

from localcluster import identities, processes
from localcluster.binaries import COREDNS
from localcluster.home import Home
from localcluster.kubectl import Kubectl
from localcluster.processes import Process

COMPONENT = "coredns"
_ROLE = "localcluster:dns"
_RESOLV_CONF = Path("/etc/resolv.conf")


def allow(kubectl: Kubectl) -> None:
    """Lets CoreDNS read what it answers from."""
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
