"""A namespace for checks on the cluster, and pods of a tiny image.

The image is one static busybox. It is unpacked from Debian's package but not installed, because the package conflicts
with the ordinary busybox.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from localcluster.cluster import LocalCluster
from localcluster.commands import run
from localcluster.errors import ClusterError
from localcluster.home import cache_root
from localcluster.kubectl import Kubectl
from localcluster.pause_image import docker_archive
from localcluster.progress import step
from localcluster.waiting import wait_for

IMAGE = "localhost/finetune-localcluster/busybox:1"


class Bench:
    """A namespace on the cluster, with helpers for the checks in it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.kubectl: Kubectl = cluster.kubectl
        self.namespace = f"try-{secrets.token_hex(3)}"

    def pod(self, name: str, command: Sequence[str], **more: Any) -> None:
        """Creates a pod that satisfies the restricted Pod Security Standard. `more` are fields of its spec."""
        resources = more.pop("resources", {})
        image = more.pop("image", IMAGE)
        labels = more.pop("labels", {})
        container = {
            "name": "main",
            "image": image,
            "command": list(command),
            "resources": resources,
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": True,
                "readOnlyRootFilesystem": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }
        self.kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": self.namespace, "labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **more},
            }
        )

    def status(self, pod: str) -> dict[str, Any]:
        """Returns the pod's current status."""
        found: dict[str, Any] = self.kubectl.get("pod", pod, f"--namespace={self.namespace}")["status"]
        return found

    def main_status(self, pod: str) -> dict[str, Any]:
        """Returns the status of the pod's container; empty before there is one."""
        found: list[dict[str, Any]] = self.status(pod).get("containerStatuses") or [{}]
        return found[0]

    def wait_running(self, pod: str) -> None:
        """Waits until the pod's container runs.

        Raises:
            ClusterError: it does not run within 30 s.
        """
        wait_for(
            f"pod {pod} to run",
            lambda: "running" in self.main_status(pod).get("state", {}),
            timeout=30,
            seen=lambda: json.dumps(self.status(pod))[-1500:],
        )

    def run_to_end(self, name: str, command: Sequence[str], **more: Any) -> str:
        """Runs a pod to its end and returns its output.

        Raises:
            ClusterError: the pod fails, or does not end within 60 s.
        """
        self.pod(name, command, restartPolicy="Never", **more)
        wait_for(
            f"pod {name} to end",
            lambda: self.status(name)["phase"] in {"Succeeded", "Failed"},
            timeout=60,
            seen=lambda: json.dumps(self.status(name))[-1500:],
        )
        output = self.kubectl("logs", name, f"--namespace={self.namespace}")
        if self.status(name)["phase"] != "Succeeded":
            raise ClusterError(f"pod {name} failed: {output[-800:]}")
        return output


@contextlib.contextmanager
def bench(cluster: LocalCluster) -> Iterator[Bench]:
    """Yields a bench in a new namespace with the restricted Pod Security Standard. Deletes the namespace at the end."""
    cluster.load_image(_image())
    made = Bench(cluster)
    where = f"--namespace={made.namespace}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": made.namespace, "labels": labels}
    made.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    try:
        wait_for("the service account", lambda: made.kubectl.items("serviceaccounts", where), timeout=15)
        yield made
    finally:
        made.kubectl("delete", "namespace", made.namespace, "--wait=false")


def _image() -> Path:
    path = cache_root() / "busybox.tar"
    if not path.exists():
        with step("fetching busybox"), tempfile.TemporaryDirectory() as folder:
            run(["sh", "-c", 'cd "$0" && apt-get download -qq busybox-static && dpkg-deb -x *.deb .', folder])
            found = [file for file in Path(folder).rglob("busybox") if file.is_file() and file.parent.name == "bin"]
            if not found:
                raise ClusterError("the package busybox-static holds no busybox")
            path.write_bytes(docker_archive(IMAGE, {"busybox": found[0].read_bytes()}, entrypoint="/busybox"))
    return path
