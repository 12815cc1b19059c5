"""The disturbances that a training job must survive, one function each, for tests.

A lever that takes a `Kubectl` works on any cluster. A lever that takes a `LocalCluster` acts on the machine: processes,
cgroups, a kubelet. A lever affects only what its arguments name. It returns when the disturbance has happened. The test
waits for the cluster's reaction.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import cgroups, kubelet, object_store, processes
from localcluster.cluster import LocalCluster
from localcluster.errors import ClusterError
from localcluster.kubectl import Kubectl
from localcluster.waiting import wait_for

UNPULLABLE_IMAGE = "127.0.0.1:1/no/such-image:1"
"""An image whose pull fails at once: nothing listens on that port."""

_OOM_SECONDS = 60


@dataclass(frozen=True)
class RunningContainer:
    """A container and its first process on this machine."""

    pod: str
    name: str
    id: str
    node: str
    pid: int
    started: int
    """The process's start time. `pid` and start time together identify one process."""


def evict(kubectl: Kubectl, namespace: str, pod: str, *, grace_seconds: int | None = None) -> None:
    """Evicts a pod by the eviction API, as `kubectl drain` does.

    Raises:
        ClusterError: the API server refuses it, because of a PodDisruptionBudget for example.
    """
    body: dict[str, Any] = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
    if grace_seconds is not None:
        body["deleteOptions"] = {"gracePeriodSeconds": grace_seconds}
    kubectl.post(f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", body)


def running_container(
    cluster: LocalCluster, namespace: str, pod: str, container: str | None = None
) -> RunningContainer:
    """Returns a container with its process on this machine. By default it is the pod's first container.

    Raises:
        ClusterError: the container does not run.
    """
    found = cluster.kubectl.get("pod", pod, f"--namespace={namespace}")
    name = container or found["spec"]["containers"][0]["name"]
    for status in found["status"].get("containerStatuses", []):
        if status["name"] == name and "running" in status["state"]:
            node = found["spec"]["nodeName"]
            identity = status["containerID"].removeprefix("containerd://")
            pid = cluster.runtime(node).container_pid(identity)
            started = processes.start_time(pid)
            # Another process may have this id now, because containerd's answer may be out of date.
            if started is not None and identity in Path(f"/proc/{pid}/cgroup").read_text():
                return RunningContainer(pod, name, identity, node, pid, started)
    raise ClusterError(f"container {name} of pod {namespace}/{pod} does not run")


def kill_container(cluster: LocalCluster, namespace: str, pod: str, container: str | None = None) -> RunningContainer:
    """Sends SIGKILL to a container's first process. The container ends with exit code 137 without a grace period.

    Raises:
        ClusterError: the container does not run, or ended by itself.
    """
    target = running_container(cluster, namespace, pod, container)
    if not processes.kill(target.pid, target.started):
        raise ClusterError(f"container {target.name} of {namespace}/{pod} ended by itself")
    return target


def signal_container(
    cluster: LocalCluster, namespace: str, pod: str, number: signal.Signals, container: str | None = None
) -> RunningContainer:
    """Sends a signal to a container's first process. SIGSTOP makes it hang, SIGCONT continues it.

    Raises:
        ClusterError: the container does not run, or ended by itself.
    """
    target = running_container(cluster, namespace, pod, container)
    if not processes.send(target.pid, target.started, number):
        raise ClusterError(f"container {target.name} of {namespace}/{pod} ended by itself")
    return target


def kill_selected(cluster: LocalCluster, namespace: str, selector: str) -> list[RunningContainer]:
    """Sends SIGKILL to the first container of every running pod with these labels, like a crash of the operator.

    Raises:
        ClusterError: no such pod runs.
    """
    pods = cluster.kubectl.items("pods", f"--namespace={namespace}", f"--selector={selector}")
    names = [
        pod["metadata"]["name"]
        for pod in pods
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    ]
    if not names:
        raise ClusterError(f"no pod with {selector} runs in {namespace}")
    return [kill_container(cluster, namespace, name) for name in names]


def out_of_memory(cluster: LocalCluster, namespace: str, pod: str, container: str | None = None) -> RunningContainer:
    """Makes the kernel kill a container for its memory limit. Its reason is OOMKilled.

    A helper process joins the container's cgroup and uses up its memory limit with a file in memory, so that the
    helper's own process stays small. The kernel prefers the container's processes, whose oom_score_adj is raised.

    Raises:
        ClusterError: the container does not run, has no memory limit, or is not killed in time.
    """
    target = running_container(cluster, namespace, pod, container)
    group = cgroups.memory_group(target.pid)
    limit = cgroups.memory_limit(group)
    if limit is None:
        raise ClusterError(f"container {target.name} of {namespace}/{pod} has no memory limit")
    for pid in cgroups.processes_in(group):
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
    helper = subprocess.Popen([sys.executable, "-c", _HOG, str(group / "cgroup.procs"), str(limit)])
    try:
        wait_for(
            f"the kernel to kill {target.name} of {namespace}/{pod}",
            lambda: processes.start_time(target.pid) != target.started,
            timeout=_OOM_SECONDS,
        )
    finally:
        helper.kill()
        helper.wait()
    return target


_HOG = """
import os, pathlib, sys, time
pathlib.Path(sys.argv[1]).write_text("0")
file = os.memfd_create("hog")
for _ in range(int(sys.argv[2]) // 2**20 + 1):
    os.write(file, b"x" * 2**20)
time.sleep(60)
"""


def lose_node(cluster: LocalCluster, node: str, *, pods_too: bool = False) -> None:
    """Kills a node's kubelet. Its containers run on, or with `pods_too` die, as in a loss of power.

    The cluster notices it after 20 s. `return_node` brings the node back.

    Raises:
        ClusterError: the node is lost already.
    """
    target = cluster.node(node)
    process = processes.recorded(cluster.home, kubelet.component(target))
    if process is None or not process.is_running():
        raise ClusterError(f"{node} is lost already")
    processes.stop(process, grace=0)
    if pods_too:
        cgroups.kill(target.cgroup)


def return_node(cluster: LocalCluster, node: str) -> None:
    """Starts the kubelet of a lost node. Waits until the node is Ready and has its fake GPUs.

    Raises:
        ClusterError: the node does not become Ready.
    """
    cluster.start_kubelet(cluster.node(node))


@contextlib.contextmanager
def second_node(cluster: LocalCluster) -> Iterator[None]:
    """Yields while the cluster has two nodes. A node that was added is removed at the end."""
    if len(cluster.nodes) > 1:
        yield
        return
    node = cluster.add_node()
    try:
        yield
    finally:
        cluster.remove_node(node.name)


@contextlib.contextmanager
def s3_outage(cluster: LocalCluster) -> Iterator[None]:
    """Kills the S3 server, and starts it again with its data at the end."""
    object_store.kill(cluster.home)
    try:
        yield
    finally:
        object_store.start_again(cluster.home, cluster.s3)


@contextlib.contextmanager
def lost_node(cluster: LocalCluster, node: str, *, pods_too: bool = False) -> Iterator[None]:
    """Loses a node, and brings it back at the end, also after an error."""
    lose_node(cluster, node, pods_too=pods_too)
    try:
        yield
    finally:
        return_node(cluster, node)
