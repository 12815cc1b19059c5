"""The local cluster as one object: starts it, gives its addresses, takes it down.

`up` is idempotent. It extends a plane that runs by a second node, GPUs or images. An incomplete or broken plane is
taken down first and started again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from localcluster import (
    binaries,
    control_plane,
    dns,
    kubelet,
    machine,
    network,
    object_store,
    processes,
    service_proxy,
    teardown,
)
from localcluster.audit import AuditLog
from localcluster.containerd import Containerd
from localcluster.errors import ClusterError
from localcluster.gpus import set_gpus
from localcluster.health import Component, broken, components
from localcluster.home import CLUSTER, CONTROL_PLANE, Home
from localcluster.kubectl import Kubectl
from localcluster.leftovers import FIXED_FOLDERS, leftovers
from localcluster.locking import locked
from localcluster.progress import step
from localcluster.records import S3, Node, Record
from localcluster.waiting import wait_for

_LOOPBACK = "127.0.0.1"
_LOCKED = "bringing the cluster up or down"
_POD_SECONDS = 5
"""Time for pods to end when their node is removed."""


class LocalCluster:
    """A running plane. `up` and `find` return it.

    Attributes:
        home: the plane's folders.
        record: the plane's addresses, ports, nodes and keys.
        kubectl: kubectl as administrator.
        audit: the audit log of the API server.
    """

    def __init__(self, home: Home, record: Record) -> None:
        self.home = home
        self.record = record
        self.kubectl = Kubectl(binaries.KUBERNETES.program("kubectl"), home.kubeconfig)
        self.audit = AuditLog(home.audit_log)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.home.kubeconfig

    @property
    def api_server(self) -> str:
        """URL of the API server, for this machine and for pods."""
        return self.record.api_server

    @property
    def address(self) -> str:
        """The address on which a test's server must listen so that pods reach it: that of the first bridge."""
        return self.record.address

    @property
    def nodes(self) -> list[Node]:
        """The nodes, ordered by number."""
        return list(self.record.nodes)

    @property
    def s3(self) -> S3:
        """The S3 server.

        Raises:
            ClusterError: the plane is a control plane alone.
        """
        if self.record.s3 is None:
            raise ClusterError("a control plane alone has no S3 server")
        return self.record.s3

    def node(self, name: str) -> Node:
        """Returns the node with this name.

        Raises:
            ClusterError: there is none.
        """
        for node in self.record.nodes:
            if node.name == name:
                return node
        raise ClusterError(f"there is no node {name}")

    def runtime(self, node: str) -> Containerd:
        """Returns the container runtime of a node."""
        return Containerd(self.home, self.node(node))

    def load_image(self, archive: Path) -> list[str]:
        """Imports an image archive (docker or OCI) into every node. Returns the images' names."""
        first, *others = [Containerd(self.home, node) for node in self.record.nodes]
        names = first.load(archive)
        for other in others:
            other.take_images_of(first)
        return names

    def set_gpus(self, count: int, node: str | None = None) -> None:
        """Sets the number of fake GPUs of one node, or of all, and records it."""
        for target in [self.node(node)] if node else self.record.nodes:
            set_gpus(self.kubectl, target.name, count)
            self.record.gpus[target.name] = count
        self.record.save(self.home.record)

    def add_node(self) -> Node:
        """Adds a node with the images of the first one. Returns when the node is Ready.

        Raises:
            ClusterError: there are as many nodes as possible, or the node does not become Ready.
        """
        taken = {node.index for node in self.record.nodes}
        free = [index for index in range(1, control_plane.MAX_NODES + 1) if index not in taken]
        if not free:
            raise ClusterError(f"the cluster has all of its {control_plane.MAX_NODES} nodes already")
        node = Node.number(free[0])
        with locked(self.home.lock, _LOCKED):
            _ensure_node(self, node)
        return node

    def remove_node(self, name: str) -> None:
        """Removes a node and its pods.

        Raises:
            ClusterError: it is the first node, which only `down` removes.
        """
        node = self.node(name)
        if node == self.nodes[0]:
            raise ClusterError(f"{name} carries the cluster's own servers: only `down` takes it away")
        with locked(self.home.lock, _LOCKED), step(f"removing {name}"):
            self.kubectl("cordon", name)
            # While the kubelet runs, because it also removes the network interfaces of the pods.
            on_it = ("--all-namespaces", f"--field-selector=spec.nodeName={name}")
            self.kubectl("delete", "pods", *on_it, f"--grace-period={_POD_SECONDS}", "--ignore-not-found", timeout=120)
            teardown.end_node(self.home, node)
            self.kubectl("delete", "node", name)
            self.record.nodes.remove(node)
            self.record.gpus.pop(name, None)
            self.record.save(self.home.record)

    def start_kubelet(self, node: Node) -> None:
        """Starts a node's kubelet, waits until the node is Ready, and sets its GPUs.

        Raises:
            ClusterError: the kubelet ends, or the node is not Ready within 90 s.
        """
        runtime = Containerd(self.home, node)
        process = processes.recorded(self.home, kubelet.component(node))
        if process is None or not process.is_running():
            process = kubelet.start(self.home, node, runtime, self.address)
        running = process

        def ready() -> bool:
            processes.must_run(self.home, running)
            return self.is_ready(node.name)

        wait_for(f"{node.name} to be Ready", ready, timeout=90, seen=lambda: self._why(node.name))
        if count := self.record.gpus.get(node.name):
            set_gpus(self.kubectl, node.name, count)

    def is_ready(self, node: str) -> bool:
        """Returns True when the node's condition Ready is True."""
        return self._ready_condition(node).get("status") == "True"

    def components(self) -> list[Component]:
        """Returns all processes of the plane, and whether they run."""
        return components(self.home)

    def _why(self, node: str) -> str:
        return self._ready_condition(node).get("message", "the kubelet has not registered it")

    def _ready_condition(self, node: str) -> dict[str, str]:
        for found in self.kubectl.items("nodes"):
            if found["metadata"]["name"] == node:
                for condition in found["status"].get("conditions", []):
                    if condition["type"] == "Ready":
                        return dict(condition)
        return {}


def home_of(*, control_plane_only: bool) -> Home:
    """Returns the folders of the cluster, or of the control plane that stands alone."""
    return Home.of(CONTROL_PLANE if control_plane_only else CLUSTER)


def find(*, control_plane_only: bool = False) -> LocalCluster | None:
    """Returns the plane that is up, or None."""
    home = home_of(control_plane_only=control_plane_only)
    record = Record.load(home.record)
    if record is None or not record.complete or broken(home, record):
        return None
    return LocalCluster(home, record)


def up(
    nodes: int = 1,
    gpus: int | None = None,
    images: Sequence[Path] = (),
    *,
    control_plane_only: bool = False,
    scheduler: bool = True,
    controller_qps: int | None = None,
) -> LocalCluster:
    """Starts the cluster, or extends the one that runs.

    Args:
        nodes: number of nodes, 1 or 2. Further nodes that run already stay.
        gpus: fake GPUs of each node; None leaves them as they are.
        images: image archives to import.
        control_plane_only: no node, no DNS and no S3. This needs no root.
        scheduler: False starts no scheduler, for benchmarks.
        controller_qps: requests per second of the controller manager's client, for benchmarks.

    Raises:
        ClusterError: something is missing on the machine, or a component does not start.
    """
    machine.require_linux()
    home = home_of(control_plane_only=control_plane_only)
    if not control_plane_only:
        machine.require_node_rights()
        if not 1 <= nodes <= control_plane.MAX_NODES:
            raise ClusterError(f"the cluster has 1 to {control_plane.MAX_NODES} nodes, not {nodes}")
        machine.install_packages()
        object_store.program()
    binaries.build(binaries.KUBERNETES, *(() if control_plane_only else (binaries.COREDNS,)))
    with locked(home.lock, _LOCKED):
        cluster = find(control_plane_only=control_plane_only)
        if cluster is None:
            options = control_plane.Options(scheduler, controller_qps)
            cluster = _start(home, options, with_node=not control_plane_only)
        if not control_plane_only:
            for index in range(nodes):
                _ensure_node(cluster, Node.number(index + 1))
            _finish(cluster)
        cluster.record.complete = True
        cluster.record.save(home.record)
    for archive in images:
        cluster.load_image(archive)
    if gpus is not None and not control_plane_only:
        cluster.set_gpus(gpus)
    return cluster


def down(*, control_plane_only: bool = False) -> None:
    """Takes the plane down and checks that nothing of it is left on the machine.

    Raises:
        ClusterError: something is left, or another cluster's node runs.
    """
    home = home_of(control_plane_only=control_plane_only)
    with locked(home.lock, _LOCKED):
        with_node = not control_plane_only
        if with_node:
            machine.require_node_rights()
            machine.require_no_other_node(ours=set(processes.marked(home)))
        teardown.take_down(home, with_node=with_node)


def _start(home: Home, options: control_plane.Options, *, with_node: bool) -> LocalCluster:
    if with_node:
        # Before anything is removed: a bridge or chain of this name may belong to another cluster.
        machine.require_no_other_node(ours=set(processes.marked(home)))
    if left := leftovers(home, with_node=with_node):
        title = f"clearing what an earlier run left ({len(left)} things)"
        teardown.take_down(home, with_node=with_node, title=title)
    home.create()
    teardown.clear_logs(home)
    first = Node.number(1)
    address = first.address if with_node else _LOOPBACK
    record = Record(address, "", {})
    if with_node:
        record.sysctls = network.read_sysctls()
        record.absent = [str(folder) for folder in FIXED_FOLDERS if not folder.exists()]
        # Saved before the first change, so that `down` can undo it after a crash.
        record.save(home.record)
        network.enable_forwarding()
        network.create_bridge(first)
    record.ports = control_plane.choose_ports(address)
    record.api_server = f"https://{address}:{record.ports['api']}"
    record.save(home.record)
    if with_node:
        record.s3 = object_store.start(home, address)
        record.save(home.record)
    with step("starting etcd, API server, controllers and scheduler"):
        control_plane.start(home, address, record.ports, options)
    return LocalCluster(home, record)


def _ensure_node(cluster: LocalCluster, node: Node) -> None:
    if node in cluster.record.nodes:
        cluster.start_kubelet(node)
        return
    with step(f"starting {node.name} (containerd, kubelet)"):
        if not network.has_bridge(node):
            network.create_bridge(node)
        runtime = Containerd(cluster.home, node)
        runtime.start()
        if cluster.nodes:
            runtime.take_images_of(Containerd(cluster.home, cluster.nodes[0]))
        cluster.record.nodes.append(node)
        cluster.start_kubelet(node)
        cluster.record.save(cluster.home.record)


def _finish(cluster: LocalCluster) -> None:
    """Starts what pods use: Services, DNS and storage."""
    if cluster.record.complete:
        return
    with step("starting kube-proxy and DNS"):
        proxy = service_proxy.start(cluster.home, cluster.nodes[0])
        dns.allow(cluster.kubectl)
        dns.start(cluster.home, cluster.address)
        wait_for(
            "the default service account",
            lambda: cluster.kubectl.items("serviceaccounts", "--namespace=default"),
            timeout=30,
        )
        dns.wait_ready(cluster.home, cluster.address)
        service_proxy.wait_ready(cluster.home, proxy)
    with step("waiting for the S3 server to keep an object"):
        object_store.wait_ready(cluster.home, cluster.s3)
