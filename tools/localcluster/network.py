"""Creates the bridges and sets the kernel settings that a node's pods need. Restores the settings afterwards."""

from __future__ import annotations

from pathlib import Path

from localcluster.commands import run, try_run
from localcluster.machine import program
from localcluster.records import Node

_CHANGED = (
    # Set by this module, by the kubelet, by kube-proxy.
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/ipv4/conf/all/route_localnet",
    "net/bridge/bridge-nf-call-iptables",
)
_PROC = Path("/proc/sys")


def read_sysctls() -> dict[str, str]:
    """Returns the current values of the kernel settings that a node changes."""
    return {name: (_PROC / name).read_text().strip() for name in _CHANGED if _exists(name)}


def restore_sysctls(before: dict[str, str]) -> None:
    """Restores the kernel settings."""
    for name, value in before.items():
        path = _PROC / name
        if _exists(name) and path.read_text().strip() != value:
            path.write_text(value)


def enable_forwarding() -> None:
    """Lets packets pass between pods, nodes and the host."""
    (_PROC / "net/ipv4/ip_forward").write_text("1")
    # An answer of a Service on the same bridge must pass iptables too, or its address is not translated back.
    if not _exists("net/bridge/bridge-nf-call-iptables"):
        try_run(["modprobe", "br_netfilter"])
    if _exists("net/bridge/bridge-nf-call-iptables"):
        (_PROC / "net/bridge/bridge-nf-call-iptables").write_text("1")


def create_bridge(node: Node) -> None:
    """Creates the node's bridge with the node's address."""
    ip = program("ip")
    run([ip, "link", "add", node.bridge, "type", "bridge"])
    run([ip, "address", "add", f"{node.address}/24", "dev", node.bridge])
    run([ip, "link", "set", node.bridge, "up"])


def remove_bridge(node: Node) -> None:
    """Removes the node's bridge and all devices on it."""
    ip = program("ip")
    for port in bridge_ports(node):
        try_run([ip, "link", "delete", port])
    if has_bridge(node):
        run([ip, "link", "delete", node.bridge])


def has_bridge(node: Node) -> bool:
    """Returns True when the node's bridge exists."""
    return (Path("/sys/class/net") / node.bridge).exists()


def bridge_ports(node: Node) -> list[str]:
    """Returns the devices on the node's bridge, one for each pod."""
    ports = Path("/sys/class/net") / node.bridge / "brif"
    return sorted(port.name for port in ports.iterdir()) if ports.exists() else []


def _exists(name: str) -> bool:
    return (_PROC / name).exists()
