"""The users of the API server: one token and one kubeconfig for each component.

Each component has the user name that it has in a production cluster. So RBAC and the node authorizer decide as they do
there.
"""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from localcluster.home import Home

ADMIN = "admin"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
KUBE_PROXY = "kube-proxy"
DNS = "coredns"
DNS_USER = "localcluster:dns"

_USERS = {
    ADMIN: ("localcluster:admin", "system:masters"),
    CONTROLLER_MANAGER: ("system:kube-controller-manager", ""),
    SCHEDULER: ("system:kube-scheduler", ""),
    KUBE_PROXY: ("system:kube-proxy", ""),
    DNS: (DNS_USER, ""),
}


def kubelet(node: str) -> str:
    """Returns the component name of a node's kubelet."""
    return f"kubelet-{node}"


@dataclass(frozen=True)
class Server:
    """Address and certificate authority of the API server, for its clients."""

    url: str
    ca: Path


def create(home: Home, server: Server, nodes: list[str]) -> Path:
    """Writes the token file and the kubeconfigs. Returns the token file."""
    users = dict(_USERS)
    users |= {kubelet(node): (f"system:node:{node}", "system:nodes") for node in nodes}
    lines = []
    for component, (user, group) in users.items():
        token = secrets.token_hex(24)
        lines.append(f'{token},{user},{user},"{group}"' if group else f"{token},{user},{user}")
        _write(kubeconfig(home, component), _document(server, component, token))
    tokens = home.pki / "tokens.csv"
    _write(tokens, "\n".join(lines) + "\n")
    return tokens


def kubeconfig(home: Home, component: str) -> Path:
    """Returns the kubeconfig of a component, as JSON."""
    return home.kubeconfig if component == ADMIN else home.identities / component


def _document(server: Server, user: str, token: str) -> str:
    authority = base64.b64encode(server.ca.read_bytes()).decode()
    cluster = {"server": server.url, "certificate-authority-data": authority}
    context = {"cluster": "localcluster", "user": user, "namespace": "default"}
    # JSON is valid YAML and needs no library.
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "localcluster",
            "clusters": [{"name": "localcluster", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "localcluster", "context": context}],
        },
        indent=2,
    )


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
