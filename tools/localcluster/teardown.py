"""Takes a plane down and leaves nothing, whatever its state.

It removes what it finds on the machine, not what a record says. So the same code removes a running cluster, a half
started one, and what a crash or a reboot left.

The order matters. The kubelets end first, or they would restart killed containers. The containers end while containerd
can still unmount them. etcd ends after the API server, which never ends without etcd. The folder is removed last, and
only when nothing is mounted in it, because a mounted volume may have somebody's data.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from localcluster import cgroups, iptables, kubelet, machine, mounts, network, processes
from localcluster.containerd import Containerd
from localcluster.errors import ClusterError
from localcluster.home import Home
from localcluster.leftovers import NETWORKS, NODES, RUNTIME_FOLDER, leftovers, stray_files
from localcluster.progress import Step, step
from localcluster.records import Node, Record


def take_down(home: Home, *, with_node: bool, title: str = "taking the cluster down") -> None:
    """Ends the plane and removes everything except its logs.

    Raises:
        ClusterError: something is left.
    """
    with step(title) as running:
        record = Record.load(home.record)
        if with_node:
            _end_pods(home, running)
        _end_daemons(home, running)
        if with_node:
            _remove_node_state(home, record, running)
        _remove_files(home)
        if left := leftovers(home, with_node=with_node):
            raise ClusterError("these could not be removed:\n  " + "\n  ".join(left))
        running.outcome = "nothing is left"


def end_node(home: Home, node: Node) -> None:
    """Ends one node, whose pods have ended, and removes all its parts. The rest of the plane runs on."""
    _end(home, kubelet.component(node), grace=2)
    runtime = Containerd(home, node)
    runtime.kill_tasks()
    runtime.stop()
    cgroups.kill(node.cgroup)
    mounts.unmount_below(home.node(node.name))
    network.remove_bridge(node)
    cgroups.remove(node.cgroup)
    shutil.rmtree(home.node(node.name))


def _end_pods(home: Home, running: Step) -> None:
    for node in NODES:
        _end(home, kubelet.component(node), grace=2)
    for node in NODES:
        runtime = Containerd(home, node)
        process = processes.recorded(home, runtime.component)
        if process and process.is_running():
            running.note(f"ending the containers of {node.name}")
            runtime.kill_tasks()
        runtime.stop()


def _end_daemons(home: Home, running: Step) -> None:
    names = [process.name for process in processes.all_recorded(home)]
    # In alphabetical order, etcd would end before the API server.
    for name in sorted(names, key=lambda name: (name == "etcd", name)):
        running.note(f"ending {name}")
        _end(home, name, grace=0)
    # containerd's shims, and processes that a crash left without a record.
    for pid in list(processes.marked(home)):
        processes.kill(pid, processes.start_time(pid))


def _end(home: Home, name: str, *, grace: float) -> None:
    if process := processes.recorded(home, name):
        processes.stop(process, grace=grace)
        processes.forget(home, name)


def _remove_node_state(home: Home, record: Record | None, running: Step) -> None:
    for node in NODES:
        running.note(f"removing what {node.name} made in the kernel")
        # Containers whose containerd has died.
        cgroups.kill(node.cgroup)
    mounts.unmount_below(home.root)
    iptables.clean(NETWORKS)
    for node in NODES:
        network.remove_bridge(node)
        cgroups.remove(node.cgroup)
    for path in stray_files(home):
        path.unlink(missing_ok=True)
    if record:
        network.restore_sysctls(record.sysctls)
        for folder in record.absent:
            if not (folder == str(RUNTIME_FOLDER) and machine.runs("containerd")):
                shutil.rmtree(folder, ignore_errors=True)


def _remove_files(home: Home) -> None:
    if not home.root.exists():
        return
    if still := mounts.below(home.root):
        raise ClusterError(f"not removing {home.root}: {still[0]} is still mounted")
    for path in home.root.iterdir():
        if path == home.logs:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def clear_logs(home: Home) -> None:
    """Removes the logs of an earlier run."""
    for path in home.logs.glob("*.log"):
        Path(path).unlink()
