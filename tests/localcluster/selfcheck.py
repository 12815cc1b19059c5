"""Tries everything that a test relies on, on the running cluster, by really doing it.

A lever that silently does nothing makes every test that pulls it worthless. Each check here
acts through the public functions and looks at what Kubernetes says afterwards.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from localcluster import levers, machine, object_store, s3_service
from localcluster.cluster import LocalCluster
from localcluster.errors import ClusterError
from localcluster.gpus import RESOURCE
from localcluster.home import cache_root
from localcluster.kubectl import Kubectl
from localcluster.pause_image import docker_archive
from localcluster.progress import say, step
from localcluster.waiting import wait_for

IMAGE = "localhost/finetune-localcluster/busybox:1"
_BUSYBOX = Path("/bin/busybox")


class Bench:
    """A namespace of its own on the cluster, and what the checks do in it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.kubectl: Kubectl = cluster.kubectl
        self.namespace = f"selfcheck-{secrets.token_hex(3)}"

    def pod(self, name: str, command: Sequence[str], **more: Any) -> None:
        """Creates a pod that satisfies the restricted Pod Security Standard."""
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
        """The pod's status now."""
        found: dict[str, Any] = self.kubectl.get("pod", pod, f"--namespace={self.namespace}")["status"]
        return found

    def main_status(self, pod: str) -> dict[str, Any]:
        """The status of the pod's container; empty before there is one."""
        found: list[dict[str, Any]] = self.status(pod).get("containerStatuses") or [{}]
        return found[0]

    def wait_running(self, pod: str) -> None:
        """Waits until the pod's container runs."""
        wait_for(
            f"pod {pod} to run",
            lambda: "running" in self.main_status(pod).get("state", {}),
            timeout=30,
            seen=lambda: json.dumps(self.status(pod))[-1500:],
        )

    def run_to_end(self, name: str, command: Sequence[str], **more: Any) -> str:
        """Runs a pod that ends by itself and returns its output; it must exit with 0."""
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


_SLEEP = ("/busybox", "sleep", "3600")


def check_pod_security_logs_exec(bench: Bench) -> str:
    """A restricted namespace, the kubelet's logs and exec, a projected token."""
    bench.pod("basic", ["/busybox", "sh", "-c", "echo hello; exec /busybox sleep 3600"])
    bench.wait_running("basic")
    where = f"--namespace={bench.namespace}"
    wait_for("the log", lambda: "hello" in bench.kubectl("logs", "basic", where), timeout=10)
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    out = bench.kubectl("exec", "basic", where, "--", "/busybox", "sh", "-c", f"/busybox id -u; /busybox wc -c {token}")
    user, size = out.split()[:2]
    _expect(user == "65535" and int(size) > 100, f"exec said {out}")
    return f"uid {user}, token of {size} bytes"


def check_dns(bench: Bench) -> str:
    """The cluster's names resolve in pods."""
    name = "kubernetes.default.svc.cluster.local"
    out = bench.run_to_end("dns", ["/busybox", "nslookup", name])
    _expect("10.96.0.1" in out, out)
    return name


def check_pod_service(bench: Bench) -> str:
    """A Service of one node's pod answers a pod of another node (the same, when there is one)."""
    names = [node.name for node in bench.cluster.nodes]
    serve = "while /busybox true; do echo pong | /busybox nc -l -p 8080; done"
    bench.pod("server", ["/busybox", "sh", "-c", serve], labels={"app": "server"}, nodeName=names[-1])
    metadata = {"name": "server", "namespace": bench.namespace}
    spec = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}
    bench.kubectl.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    bench.wait_running("server")
    address = bench.kubectl.get("service", "server", f"--namespace={bench.namespace}")["spec"]["clusterIP"]
    script = f"for i in 1 2 3 4 5; do /busybox nc -w 2 {address} 80 </dev/null && exit; /busybox sleep 1; done; exit 1"
    out = bench.run_to_end("client", ["/busybox", "sh", "-c", script], nodeName=names[0])
    _expect("pong" in out, out)
    return f"{names[0]} to {names[-1]}"


def check_s3_service(bench: Bench) -> str:
    """Pods reach the S3 server by its Service, through DNS and kube-proxy."""
    url = s3_service.publish(bench.kubectl, bench.cluster.s3, bench.namespace)
    host, port = url.removeprefix("http://").split(":")
    address = bench.kubectl.get("service", "s3", f"--namespace={bench.namespace}")["spec"]["clusterIP"]
    # The static busybox resolves names with nslookup alone, hence the two steps.
    script = (
        f"/busybox nslookup {host}.cluster.local | /busybox grep {address} &&"
        f" printf 'GET / HTTP/1.0\\r\\n\\r\\n' | /busybox nc {address} {port}"
    )
    out = bench.run_to_end("s3", ["/busybox", "sh", "-c", script])
    _expect("AccessDenied" in out, out)
    return url


def check_s3_rights(bench: Bench) -> str:
    """Real keys, a read-only identity, no automatic buckets, conditional writes."""
    from botocore.exceptions import ClientError

    s3 = bench.cluster.s3
    admin, reader = object_store.client(s3), object_store.client(s3, s3.reader)
    stranger = object_store.client(s3, object_store.new_keys())
    bucket = bench.namespace

    def refused(act: Callable[[], object]) -> str:
        try:
            act()
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "allowed"

    missing = refused(lambda: admin.put_object(Bucket=bucket, Key="a", Body=b"1"))
    admin.create_bucket(Bucket=bucket)
    try:
        admin.put_object(Bucket=bucket, Key="a", Body=b"1")
        _expect(reader.get_object(Bucket=bucket, Key="a")["Body"].read() == b"1", "reader reads")
        _expect(reader.list_objects_v2(Bucket=bucket)["KeyCount"] == 1, "reader lists")
        seen = {
            "no bucket": missing,
            "reader writes": refused(lambda: reader.put_object(Bucket=bucket, Key="b", Body=b"1")),
            "reader deletes": refused(lambda: reader.delete_object(Bucket=bucket, Key="a")),
            "unknown key": refused(stranger.list_buckets),
            "second writer": refused(lambda: admin.put_object(Bucket=bucket, Key="a", Body=b"2", IfNoneMatch="*")),
        }
    finally:
        admin.delete_object(Bucket=bucket, Key="a")
        admin.delete_bucket(Bucket=bucket)
    wanted = {
        "no bucket": "NoSuchBucket",
        "reader writes": "AccessDenied",
        "reader deletes": "AccessDenied",
        "unknown key": "InvalidAccessKeyId",
        "second writer": "PreconditionFailed",
    }
    _expect(seen == wanted, f"{seen}")
    return "5 refusals"


def check_s3_survives_a_crash(bench: Bench) -> str:
    """After SIGKILL and a new start the data is there."""
    cluster = bench.cluster
    admin = object_store.client(cluster.s3)
    admin.create_bucket(Bucket=bench.namespace)
    body = secrets.token_bytes(2**20)
    admin.put_object(Bucket=bench.namespace, Key="a", Body=body)
    with levers.s3_outage(cluster):
        pass
    _expect(admin.get_object(Bucket=bench.namespace, Key="a")["Body"].read() == body, "same bytes")
    admin.delete_object(Bucket=bench.namespace, Key="a")
    admin.delete_bucket(Bucket=bench.namespace)
    return "1 MiB intact"


def check_eviction(bench: Bench) -> str:
    """The eviction API marks the pod as disrupted and ends it."""
    # A finalizer keeps the object, so that its last condition can be read.
    bench.pod("evicted", _SLEEP, restartPolicy="Never")
    bench.wait_running("evicted")
    where = f"--namespace={bench.namespace}"
    patch = '{"metadata":{"finalizers":["localcluster.test/keep"]}}'
    bench.kubectl("patch", "pod", "evicted", where, "--type=merge", "-p", patch)
    levers.evict(bench.kubectl, bench.namespace, "evicted")

    def reason() -> str | None:
        conditions = bench.status("evicted")["conditions"]
        found = [c["reason"] for c in conditions if c["type"] == "DisruptionTarget"]
        return found[0] if found else None

    seen = wait_for("the condition DisruptionTarget", reason, timeout=15)
    bench.kubectl("patch", "pod", "evicted", where, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    return f"DisruptionTarget: {seen}"


def check_killed_container(bench: Bench) -> str:
    """A killed process is exit code 137, and the kubelet starts the container again."""
    bench.pod("killed", _SLEEP, labels={"app": "victim"})
    bench.wait_running("killed")
    levers.kill_selected(bench.cluster, bench.namespace, "app=victim")
    wait_for("a restart", lambda: bench.main_status("killed").get("restartCount", 0) >= 1, timeout=30)
    ended = bench.main_status("killed")["lastState"]["terminated"]
    _expect(ended["exitCode"] == 137, f"{ended}")
    return f"exit code {ended['exitCode']}, reason {ended['reason']}"


def check_out_of_memory(bench: Bench) -> str:
    """The kernel's kill for a memory limit is told from other kills."""
    limits = {"limits": {"memory": "64Mi"}}
    bench.pod("memory", _SLEEP, resources=limits, restartPolicy="Never")
    bench.wait_running("memory")
    levers.out_of_memory(bench.cluster, bench.namespace, "memory")
    ended = wait_for(
        "the container's end", lambda: bench.main_status("memory").get("state", {}).get("terminated"), timeout=30
    )
    _expect(ended["reason"] == "OOMKilled" and ended["exitCode"] == 137, f"{ended}")
    return f"{ended['reason']}, exit code {ended['exitCode']}"


def check_unpullable_image(bench: Bench) -> str:
    """An image that cannot be pulled is said so within seconds."""
    bench.pod("unpullable", _SLEEP, image=levers.UNPULLABLE_IMAGE)

    def reason() -> str | None:
        waiting = bench.main_status("unpullable").get("state", {}).get("waiting", {})
        return waiting["reason"] if "Image" in waiting.get("reason", "") else None

    return wait_for("the pull to fail", reason, timeout=30)


def check_fake_gpus(bench: Bench) -> str:
    """A pod that asks for a GPU waits without one and runs with one."""
    cluster = bench.cluster
    before = {node.name: cluster.record.gpus.get(node.name, 0) for node in cluster.nodes}
    cluster.set_gpus(0)
    try:
        bench.pod("gpu", _SLEEP, resources={"limits": {RESOURCE: "1"}})

        def message() -> str | None:
            conditions = bench.status("gpu").get("conditions", [])
            found = [c.get("message", "") for c in conditions if c["type"] == "PodScheduled"]
            return found[0] if found and f"Insufficient {RESOURCE}" in found[0] else None

        wait_for("the scheduler's message", message, timeout=15)
        cluster.set_gpus(1)
        bench.wait_running("gpu")
    finally:
        for node, count in before.items():
            cluster.set_gpus(count, node)
    return f"Insufficient {RESOURCE}, then running"


def check_write_count(bench: Bench) -> str:
    """The audit log counts every write of a program, and no read."""
    audit = bench.cluster.audit
    mark = audit.mark()
    for number in range(5):
        bench.kubectl("create", "configmap", f"count-{number}", f"--namespace={bench.namespace}")
        bench.kubectl("get", "configmap", f"count-{number}", f"--namespace={bench.namespace}")
    counted = audit.count(mark, namespace=bench.namespace)
    _expect(counted == {"kubectl": 5}, f"{counted}")
    return "5 of 5, reads not counted"


def check_node_loss(bench: Bench) -> str:
    """A lost node becomes NotReady after the grace period, and returns with its GPUs."""
    cluster = bench.cluster
    node = cluster.nodes[-1].name
    before = cluster.record.gpus.get(node, 0)
    cluster.set_gpus(3, node)
    began = time.monotonic()
    with levers.lost_node(cluster, node):
        wait_for(f"{node} to be NotReady", lambda: not cluster.is_ready(node), timeout=60, interval=0.5)
        lost = time.monotonic() - began
        began = time.monotonic()
    back = time.monotonic() - began
    offered = bench.kubectl.get("node", node)["status"]["allocatable"].get(RESOURCE)
    cluster.set_gpus(before, node)
    _expect(offered == "3", f"{RESOURCE}: {offered}")
    return f"NotReady after {lost:.0f} s, Ready again {back:.1f} s after its return"


CHECKS: dict[str, Callable[[Bench], str]] = {
    name.removeprefix("check_"): check for name, check in globals().items() if name.startswith("check_")
}


def run(cluster: LocalCluster, only: Sequence[str] = ()) -> int:
    """Runs the checks, says each result, and returns 1 when one failed."""
    if unknown := set(only) - set(CHECKS):
        raise ClusterError(f"no check {', '.join(sorted(unknown))}; there are: {', '.join(CHECKS)}")
    for node in cluster.nodes:
        if IMAGE not in cluster.runtime(node.name).images():
            cluster.runtime(node.name).load(_image())
    bench = Bench(cluster)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": bench.namespace, "labels": labels}
    bench.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    failed = []
    try:
        _wait_service_account(bench)
        for name in only or CHECKS:
            try:
                with step(name) as running:
                    running.outcome = CHECKS[name](bench)
            except ClusterError as error:
                say(f"      {error}")
                failed.append(name)
    finally:
        bench.kubectl("delete", "namespace", bench.namespace, "--wait=false")
    say(f"{len(failed)} failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


def _wait_service_account(bench: Bench) -> None:
    where = f"--namespace={bench.namespace}"
    wait_for("the service account", lambda: bench.kubectl.items("serviceaccounts", where), timeout=15)


def _image() -> Path:
    path = cache_root() / "busybox.tar"
    if not path.exists():
        machine.apt_install(["busybox-static"])
        path.write_bytes(docker_archive(IMAGE, {"busybox": _BUSYBOX.read_bytes()}, entrypoint="/busybox"))
    return path


def _expect(fact: bool, otherwise: str) -> None:
    if not fact:
        raise ClusterError(f"unexpected: {otherwise}")
