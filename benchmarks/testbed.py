"""The base of every section of the control plane's benchmark: a plane, the operator and the stand-in kubelet.

The operator is the real process with the variables and the rights of the manifests. The local cluster starts all
processes and records them by id and start time. So taking the plane down also ends the processes of a killed benchmark.
"""

import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.api_client import Api

from finetune_operator.kube.client import USER_AGENT
from localcluster import LocalCluster, down, processes, up
from localcluster.control_plane import API_SERVER, CONTROLLER_MANAGER, ETCD
from localcluster.home import cache_root
from localcluster.locking import locked
from localcluster.waiting import wait_for

REPOSITORY = Path(__file__).resolve().parents[1]
SYSTEM = "finetune-system"
OPERATOR = "finetune-operator"
OPERATOR_AGENT = USER_AGENT.split("/", 1)[0]
STANDIN = "standin-kubelet"
PLANE = (API_SERVER, ETCD, CONTROLLER_MANAGER, OPERATOR)
"""The programs whose CPU time is that of the control plane. Load, stand-in and scheduler do not count."""

CONTROLLER_QPS = 500
"""Requests per second that the controller manager may send. Its default of 20 would limit every benchmark."""

_TICKS = os.sysconf("SC_CLK_TCK")


class Testbed:
    """A running plane with the CRD and the operator's rights.

    Attributes:
        cluster: the plane.
        url: URL of the operator's HTTP server; empty before its start.
    """

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.url = ""
        self._namespaces = 0
        kubectl = cluster.kubectl
        kubectl("apply", "--server-side", "-k", str(REPOSITORY / "manifests/crd"))
        kubectl.wait_established("finetunejobs.finetune.dev")
        kubectl("apply", "--server-side", "-f", str(REPOSITORY / "manifests/default/namespace.yaml"))
        kubectl("apply", "--server-side", "-k", str(REPOSITORY / "manifests/rbac"))
        token = kubectl("create", "token", "finetune-operator", f"--namespace={SYSTEM}", "--duration=24h").strip()
        config = json.loads(cluster.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        self._operator_kubeconfig = cluster.kubeconfig.with_name("operator-kubeconfig")
        self._operator_kubeconfig.touch(mode=0o600)
        self._operator_kubeconfig.write_text(json.dumps(config))

    def namespace(self) -> str:
        """Creates a namespace and waits until it is ready for pods. Returns its name."""
        self._namespaces += 1
        name = f"bench-{self._namespaces}"
        kubectl = self.cluster.kubectl
        kubectl("create", "namespace", name)
        wait_for("the service account", lambda: kubectl.items("serviceaccounts", f"--namespace={name}"), timeout=30)
        return name

    def api(self, *, connections: int = 32) -> Api:
        """Returns a client of the administrator."""
        return Api(self.cluster.kubeconfig, agent="benchmark", connections=connections)

    def start_operator(self) -> None:
        """Starts the operator. Does not wait until it is ready."""
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        processes.start(
            self.cluster.home,
            OPERATOR,
            [sys.executable, "-m", "finetune_operator"],
            {
                "KUBECONFIG": str(self._operator_kubeconfig),
                "FINETUNE_OPERATOR_IMAGE": "localhost/finetune-operator:0.1.0",
                "FINETUNE_TRAINER_IMAGE": "localhost/finetune-trainer:0.1.0",
                "FINETUNE_IMAGE_PULL_POLICY": "IfNotPresent",
                "FINETUNE_PROGRESS_URL": "http://finetune-operator.finetune-system.svc:8080",
                "FINETUNE_HTTP_HOST": "127.0.0.1",
                "FINETUNE_HTTP_PORT": str(port),
                "POD_NAMESPACE": SYSTEM,
                "POD_NAME": "finetune-operator-0",
            },
        )

    def wait_ready(self) -> None:
        """Waits until the operator's readiness probe succeeds."""
        process = self._process(OPERATOR)

        def ready() -> bool:
            processes.must_run(self.cluster.home, process)
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=2):
                    return True
            except (urllib.error.URLError, OSError):
                return False

        wait_for("the operator to be ready", ready, timeout=60)

    def stop_operator(self) -> None:
        """Ends the operator as Kubernetes does: SIGTERM, and SIGKILL after 30 s."""
        self._stop(OPERATOR, grace=30)

    def start_standin(self, *, leave_running: bool = False) -> None:
        """Starts the stand-in for scheduler and kubelet."""
        argv = [sys.executable, str(REPOSITORY / "benchmarks/standin_kubelet.py")]
        argv += [f"--kubeconfig={self.cluster.kubeconfig}", *(["--leave-running"] if leave_running else [])]
        processes.start(self.cluster.home, STANDIN, argv)

    def stop_standin(self) -> None:
        """Ends the stand-in."""
        self._stop(STANDIN, grace=0)

    def check(self) -> None:
        """Checks that no program has ended by itself.

        Raises:
            ClusterError: one has. The message has its last output.
        """
        for process in processes.all_recorded(self.cluster.home):
            processes.must_run(self.cluster.home, process)

    def cpu_seconds(self) -> dict[str, float]:
        """Returns the CPU seconds of each program of the plane since its start. `load` is that of stand-in and load."""
        used = {name: _cpu_seconds(self._process(name).pid) for name in PLANE}
        standin = processes.recorded(self.cluster.home, STANDIN)
        used["load"] = time.process_time() + (_cpu_seconds(standin.pid) if standin else 0.0)
        return used

    def operator_memory_mib(self) -> tuple[float, float]:
        """Returns the operator's current and highest resident memory, in MiB."""
        fields = dict(
            line.split(":", 1)
            for line in Path(f"/proc/{self._process(OPERATOR).pid}/status").read_text().splitlines()
            if line.startswith(("VmRSS", "VmHWM"))
        )
        now, peak = (float(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
        return now, peak

    def _stop(self, name: str, *, grace: float) -> None:
        processes.stop(self._process(name), grace=grace)
        processes.forget(self.cluster.home, name)

    def _process(self, name: str) -> processes.Process:
        found = processes.recorded(self.cluster.home, name)
        assert found is not None, f"{name} was not started"
        return found


@contextmanager
def testbed() -> Iterator[Testbed]:
    """Yields a testbed on a new plane. At the end, takes the plane down with all its processes."""
    state = cache_root() / "benchmark"
    os.environ["LOCALCLUSTER_STATE"] = str(state)
    with locked(state.with_suffix(".lock"), "measuring"):
        try:
            down(control_plane_only=True)  # what a killed run left
            yield Testbed(up(control_plane_only=True, scheduler=False, controller_qps=CONTROLLER_QPS))
        finally:
            down(control_plane_only=True)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
