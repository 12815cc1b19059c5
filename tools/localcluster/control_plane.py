"""Runs etcd, the API server, the controller manager and the scheduler.

They listen on loopback and on the given address only. etcd does not sync its writes to disk, because its data lives no
longer than the cluster.
"""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from localcluster import identities, processes
from localcluster.audit import POLICY
from localcluster.binaries import KUBERNETES
from localcluster.home import Home
from localcluster.pki import Pki
from localcluster.ports import choose
from localcluster.processes import Process
from localcluster.records import Node
from localcluster.waiting import wait_for

SERVICES = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"
MAX_NODES = 2
_LOOPBACK = "127.0.0.1"
_GRACE_SECONDS = 20
"""Seconds until a node whose kubelet is silent is NotReady. Half of the default, so that tests are quick."""

ETCD = "etcd"
API_SERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"


@dataclass(frozen=True)
class Options:
    """The settings in which a control plane for benchmarks differs."""

    scheduler: bool = True
    controller_qps: int | None = None
    """Requests per second of the controller manager's client. None is its default."""


def choose_ports(address: str) -> dict[str, int]:
    """Chooses the ports of the control plane."""
    ports: dict[str, int] = {}
    # Nothing listens on a chosen port yet, so the next choice must know it.
    for name, host, preferred in (
        ("api", address, 6443),
        ("etcd", _LOOPBACK, 12379),
        ("etcd-peer", _LOOPBACK, 12380),
        ("controllers", _LOOPBACK, 10257),
        ("scheduler", _LOOPBACK, 10259),
    ):
        ports[name] = choose(host, preferred, taken=ports.values())
    return ports


def start(home: Home, address: str, ports: dict[str, int], options: Options) -> None:
    """Starts the control plane. Returns when all components serve.

    Raises:
        ClusterError: a component ends or does not serve. The message has its last output.
    """
    pki = Pki(home.pki)
    pki.create(sorted({address, _LOOPBACK}), SERVICE_ADDRESS)
    server = identities.Server(f"https://{address}:{ports['api']}", pki.ca)
    nodes = [Node.number(index + 1).name for index in range(MAX_NODES)]
    tokens = identities.create(home, server, nodes)
    _start_etcd(home, ports)
    policy = home.pki / "audit-policy.json"
    policy.write_text(json.dumps(POLICY))
    arguments = [
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={ports['api']}",
        f"--etcd-servers=http://{_LOOPBACK}:{ports['etcd']}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--tls-cert-file={pki.server}",
        f"--tls-private-key-file={pki.key(pki.server)}",
        f"--client-ca-file={pki.ca}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--kubelet-client-certificate={pki.kubelet_client}",
        f"--kubelet-client-key={pki.key(pki.kubelet_client)}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki.service_accounts}",
        f"--service-account-signing-key-file={pki.key(pki.service_accounts)}",
        f"--requestheader-client-ca-file={pki.ca}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki.proxy_client}",
        f"--proxy-client-key-file={pki.key(pki.proxy_client)}",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={home.audit_log}",
        # The log must not rotate, or a count would miss writes.
        "--audit-log-maxsize=100000",
        "--profiling=false",
    ]
    if address == _LOOPBACK:
        # Loopback cannot be the address of a Service's endpoint, and no pod uses it.
        arguments.append("--endpoint-reconciler-type=none")
    api = processes.start(home, API_SERVER, [KUBERNETES.program(API_SERVER), *arguments])
    # Before the API server is ready, the default roles do not exist, and the other components may be refused and end.
    wait_serving(home, api, f"{server.url}/readyz", server.ca)
    serving = [(_start_controllers(home, pki, ports, options), ports["controllers"])]
    if options.scheduler:
        serving.append((_start_scheduler(home, ports), ports["scheduler"]))
    for process, port in serving:
        certificate = _certificates(home, process.name) / f"{process.name}.crt"
        wait_serving(home, process, f"https://{_LOOPBACK}:{port}/healthz", certificate)


def _start_etcd(home: Home, ports: dict[str, int]) -> Process:
    client = f"http://{_LOOPBACK}:{ports['etcd']}"
    peer = f"http://{_LOOPBACK}:{ports['etcd-peer']}"
    return processes.start(
        home,
        ETCD,
        [
            KUBERNETES.program(ETCD),
            f"--data-dir={home.root / 'etcd'}",
            "--name=etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=etcd={peer}",
            "--unsafe-no-fsync",
            "--quota-backend-bytes=4294967296",
            "--log-level=warn",
        ],
    )


def _start_controllers(home: Home, pki: Pki, ports: dict[str, int], options: Options) -> Process:
    config = identities.kubeconfig(home, identities.CONTROLLER_MANAGER)
    # A cloud would give addresses, routes and load balancers. `pki` creates the certificates.
    off = (
        "node-ipam-controller",
        "node-route-controller",
        "service-lb-controller",
        "cloud-node-lifecycle-controller",
        "certificatesigningrequest-signing-controller",
    )
    arguments = [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--authentication-tolerate-lookup-failure",
        f"--bind-address={_LOOPBACK}",
        f"--secure-port={ports['controllers']}",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={pki.key(pki.service_accounts)}",
        f"--root-ca-file={pki.ca}",
        f"--node-monitor-grace-period={_GRACE_SECONDS}s",
        f"--controllers=*,{','.join(f'-{name}' for name in off)}",
        f"--cert-dir={_certificates(home, CONTROLLER_MANAGER)}",
    ]
    if options.controller_qps is not None:
        arguments += [
            f"--kube-api-qps={options.controller_qps}",
            f"--kube-api-burst={2 * options.controller_qps}",
        ]
    program = KUBERNETES.program(CONTROLLER_MANAGER)
    return processes.start(home, CONTROLLER_MANAGER, [program, *arguments])


def _start_scheduler(home: Home, ports: dict[str, int]) -> Process:
    config = identities.kubeconfig(home, identities.SCHEDULER)
    return processes.start(
        home,
        SCHEDULER,
        [
            KUBERNETES.program(SCHEDULER),
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            f"--bind-address={_LOOPBACK}",
            f"--secure-port={ports['scheduler']}",
            "--leader-elect=false",
            f"--cert-dir={_certificates(home, SCHEDULER)}",
        ],
    )


def _certificates(home: Home, component: str) -> Path:
    """Returns the folder of the certificate that a component creates for itself."""
    return home.root / "certs" / component


def wait_serving(home: Home, process: Process, url: str, certificate: Path) -> None:
    """Waits until the component answers with its own certificate.

    If another plane has the component's port, the other plane answers. Only the certificate shows that.

    Raises:
        ClusterError: the process has ended, or does not serve in time. The message has its last output.
    """
    last = "it does not answer yet"

    def ready() -> bool:
        nonlocal last
        processes.must_run(home, process)
        try:
            context = ssl.create_default_context(cafile=str(certificate))
            with urllib.request.urlopen(url, context=context, timeout=2):
                return True
        except urllib.error.HTTPError as error:
            with error:
                last = error.read().decode(errors="replace")[-500:]
        except OSError as error:
            last = str(error)
        return False

    wait_for(f"{process.name} to serve", ready, timeout=90, seen=lambda: last)
