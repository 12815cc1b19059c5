"""Runs one containerd per node, with its own data, socket and pod network.

Two kubelets on one containerd would end each other's pods. So the nodes share nothing but the files of image layers.
All files are in the node's folder, also the pods' network namespaces. To remove a node is to remove its folder.
"""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

from localcluster import image_sharing, machine, pause_image, processes
from localcluster.commands import run, try_run
from localcluster.errors import ClusterError
from localcluster.home import Home
from localcluster.progress import Step, step
from localcluster.records import Node
from localcluster.waiting import wait_for

_NAMESPACE = "k8s.io"
_IMPORT_SECONDS = 900
_CLIENT_SECONDS = 300


class Containerd:
    """The container runtime of one node."""

    def __init__(self, home: Home, node: Node) -> None:
        self.home = home
        self.node = node
        self.folder = home.node(node.name)
        self.socket = self.folder / "containerd.sock"

    @property
    def component(self) -> str:
        """The name of the process."""
        return f"containerd-{self.node.name}"

    def start(self) -> None:
        """Starts containerd and waits until it answers.

        Raises:
            ClusterError: it ends, or does not answer within 30 s.
        """
        config = self.folder / "containerd.toml"
        network = self.folder / "cni"
        network.mkdir(parents=True, exist_ok=True)
        (network / "10-pods.conflist").write_text(json.dumps(_pod_network(self.node, self.folder)))
        config.write_text(_config(self.folder, self.socket, network))
        argv = [machine.program("containerd"), "--config", str(config)]
        process = processes.start(self.home, self.component, argv)

        def answers() -> bool:
            processes.must_run(self.home, process)
            return try_run(self._argv("version")) is not None

        wait_for(f"containerd of {self.node.name} to answer", answers, timeout=30)
        self._import(pause_image.archive())

    def load(self, archive: Path) -> list[str]:
        """Imports an image archive (docker or OCI), unless the same file was imported before.

        Returns:
            The images' names.

        Raises:
            ClusterError: there is no such archive, or the import fails.
        """
        if not archive.is_file():
            raise ClusterError(f"there is no image archive {archive}")
        stat = archive.stat()
        stamp = f"{archive.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        loaded = self._loaded()
        if (known := loaded.get(archive.name)) and known[0] == stamp:
            return known[1:]
        with step(f"loading {archive.name} ({stat.st_size / 1e6:.0f} MB) into {self.node.name}") as running:
            names = self._import(archive, running)
            running.outcome = ", ".join(names)
        (self.folder / "loaded.json").write_text(json.dumps({**loaded, archive.name: [stamp, *names]}))
        return names

    def _loaded(self) -> dict[str, list[str]]:
        """Returns for each archive's name the imported file's identity and the names of its images."""
        try:
            found: dict[str, list[str]] = json.loads((self.folder / "loaded.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def images(self) -> list[str]:
        """Returns the names of the node's images."""
        return self.ctr("images", "ls", "-q").split()

    def take_images_of(self, other: Containerd) -> None:
        """Imports all images of another node, so that both nodes can run the same pods."""
        with step(f"sharing the images of {other.node.name} with {self.node.name}") as running:
            running.outcome = ", ".join(image_sharing.share(other, self)) or "it has them"
        if left := set(filter(image_sharing.is_proper, other.images())) - set(self.images()):
            self._copy(sorted(left), other)

    def _copy(self, names: list[str], other: Containerd) -> None:
        """Copies images that cannot be shared: those of several platforms."""
        with step(f"copying {', '.join(names)} to {self.node.name}") as running:
            archive = other.folder / "images.tar"

            def tick(_: int) -> None:
                size = archive.stat().st_size if archive.exists() else 0
                running.note(f"{size / 1e6:.0f} MB written")

            try:
                run(other._argv("images", "export", str(archive), *names), timeout=_IMPORT_SECONDS, tick=tick)
                self._import(archive, running)
            finally:
                archive.unlink(missing_ok=True)

    def container_pid(self, container: str) -> int:
        """Returns the process id, on this machine, of a container's first process.

        Raises:
            ClusterError: the container does not run on this node.
        """
        for line in self.ctr("tasks", "ls").splitlines()[1:]:
            name, pid, *_ = line.split()
            if name == container:
                return int(pid)
        raise ClusterError(f"container {container} does not run on {self.node.name}")

    def kill_tasks(self) -> None:
        """Kills and removes every container. The kubelet must not run."""
        for kind in ("tasks", "containers"):
            names = (try_run(self._argv(kind, "ls", "-q"), timeout=20) or "").split()
            if names:
                force = ("-f",) if kind == "tasks" else ()
                try_run(self._argv(kind, "rm", *force, *names), timeout=60)

    def stop(self) -> None:
        """Ends containerd."""
        if process := processes.recorded(self.home, self.component):
            processes.stop(process, grace=5)
            processes.forget(self.home, self.component)
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()

    def _import(self, archive: Path, running: Step | None = None) -> list[str]:
        arguments = ("images", "import", "--snapshotter", "overlayfs", str(archive))
        size = archive.stat().st_size

        def tick(pid: int) -> None:
            if running:
                read = min(_bytes_read(pid), size)
                running.note("unpacking" if read == size else f"{read / size:.0%} read")

        words = run(self._argv(*arguments), timeout=_IMPORT_SECONDS, tick=tick)
        return re.findall(r"^unpacking (\S+)", words, re.MULTILINE)

    def ctr(self, *arguments: str) -> str:
        """Runs containerd's client in the namespace of Kubernetes. Returns its output."""
        return run(self._argv(*arguments), timeout=_CLIENT_SECONDS)

    def _argv(self, *arguments: str) -> list[str]:
        return [machine.program("ctr"), "-a", str(self.socket), "-n", _NAMESPACE, *arguments]


def _config(folder: Path, socket: Path, network: Path) -> str:
    plugins = machine.cni_plugins()
    return f"""\
version = 2
root = "{folder / "images"}"
state = "{folder / "run"}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder / "opt"}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image.NAME}"
  # A machine may itself be a container that must not lower OOM scores.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{plugins}"
  conf_dir = "{network}"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


def _bytes_read(pid: int) -> int:
    """Returns the number of bytes that a process has read so far."""
    try:
        counts = Path(f"/proc/{pid}/io").read_text()
    except OSError:
        return 0
    return int(counts.split("rchar: ")[1].split()[0])


def network_name(node: Node) -> str:
    """Returns the name of the node's pod network. The CNI plugins write it into their iptables rules."""
    return f"{node.bridge}-pods"


def _pod_network(node: Node, folder: Path) -> dict[str, object]:
    return {
        "cniVersion": "0.4.0",
        "name": network_name(node),
        "plugins": [
            {
                "type": "bridge",
                "bridge": node.bridge,
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(folder / "addresses"),
                    "ranges": [[{"subnet": node.pods, "rangeStart": _first_pod(node)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _first_pod(node: Node) -> str:
    return f"{node.address.rpartition('.')[0]}.10"
