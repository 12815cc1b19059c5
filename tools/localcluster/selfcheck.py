"""Checks on the running cluster everything on which the tests rely.

If a lever silently did nothing, every test with this lever would be worthless. Each check acts through the public
functions and then reads the result from Kubernetes.
"""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Callable, Sequence

from localcluster import cgroups, iptables, levers, mounts, network, s3_service, seaweedfs
from localcluster.bench import Bench, bench
from localcluster.cluster import LocalCluster
from localcluster.containerd import network_name
from localcluster.errors import ClusterError
from localcluster.gpus import RESOURCE
from localcluster.progress import say, step
from localcluster.waiting import wait_for

_SLEEP = ("/busybox", "sleep", "3600")


def check_pod_security_logs_exec(place: Bench) -> str:
    """A restricted namespace accepts the pod. The kubelet's logs and exec work, and the projected token exists."""
    place.pod("basic", ["/busybox", "sh", "-c", "echo hello; exec /busybox sleep 3600"])
    place.wait_running("basic")
    where = f"--namespace={place.namespace}"
    wait_for("the log", lambda: "hello" in place.kubectl("logs", "basic", where), timeout=10)
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    out = place.kubectl("exec", "basic", where, "--", "/busybox", "sh", "-c", f"/busybox id -u; /busybox wc -c {token}")
    user, size = out.split()[:2]
    _expect(user == "65535" and int(size) > 100, f"exec said {out}")
    return f"uid {user}, token of {size} bytes"


def check_dns(place: Bench) -> str:
    """Pods resolve the cluster's names."""
    name = "kubernetes.default.svc.cluster.local"
    out = place.run_to_end("dns", ["/busybox", "nslookup", name])
    _expect("10.96.0.1" in out, out)
    return name


def check_pod_service(place: Bench) -> str:
    """A pod reaches a Service whose pod is on another node, or on the same with one node."""
    names = [node.name for node in place.cluster.nodes]
    serve = "while /busybox true; do echo pong | /busybox nc -l -p 8080; done"
    place.pod("server", ["/busybox", "sh", "-c", serve], labels={"app": "server"}, nodeName=names[-1])
    metadata = {"name": "server", "namespace": place.namespace}
    spec = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}
    place.kubectl.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    place.wait_running("server")
    address = place.kubectl.get("service", "server", f"--namespace={place.namespace}")["spec"]["clusterIP"]
    script = f"for i in 1 2 3 4 5; do /busybox nc -w 2 {address} 80 </dev/null && exit; /busybox sleep 1; done; exit 1"
    out = place.run_to_end("client", ["/busybox", "sh", "-c", script], nodeName=names[0])
    _expect("pong" in out, out)
    return f"{names[0]} to {names[-1]}"


def check_s3_service(place: Bench) -> str:
    """Pods reach the S3 server by its Service, through DNS and kube-proxy."""
    url = s3_service.publish(place.kubectl, place.cluster.s3, place.namespace)
    host, port = url.removeprefix("http://").split(":")
    address = place.kubectl.get("service", "s3", f"--namespace={place.namespace}")["spec"]["clusterIP"]
    # Two steps, because in the static busybox only nslookup resolves names.
    script = (
        f"/busybox nslookup {host}.cluster.local | /busybox grep {address} &&"
        f" printf 'GET / HTTP/1.0\\r\\n\\r\\n' | /busybox nc {address} {port}"
    )
    out = place.run_to_end("s3", ["/busybox", "sh", "-c", script])
    _expect("AccessDenied" in out, out)
    return url


def check_s3_rights(place: Bench) -> str:
    """The S3 server checks keys, has a read-only identity and conditional writes, and creates no bucket by itself."""
    from botocore.exceptions import ClientError

    s3 = place.cluster.s3
    admin, reader = seaweedfs.client(s3), seaweedfs.client(s3, s3.reader)
    stranger = seaweedfs.client(s3, seaweedfs.new_keys())
    bucket = place.namespace

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


def check_s3_survives_a_crash(place: Bench) -> str:
    """After SIGKILL and a restart, the S3 server has its data."""
    cluster = place.cluster
    admin = seaweedfs.client(cluster.s3)
    admin.create_bucket(Bucket=place.namespace)
    body = secrets.token_bytes(2**20)
    admin.put_object(Bucket=place.namespace, Key="a", Body=body)
    with levers.s3_outage(cluster):
        pass
    _expect(admin.get_object(Bucket=place.namespace, Key="a")["Body"].read() == body, "same bytes")
    admin.delete_object(Bucket=place.namespace, Key="a")
    admin.delete_bucket(Bucket=place.namespace)
    return "1 MiB intact"


def check_eviction(place: Bench) -> str:
    """The eviction API marks the pod as disrupted and ends it."""
    # A finalizer keeps the pod, so that its last condition can be read.
    place.pod("evicted", _SLEEP, restartPolicy="Never")
    place.wait_running("evicted")
    where = f"--namespace={place.namespace}"
    patch = '{"metadata":{"finalizers":["localcluster.test/keep"]}}'
    place.kubectl("patch", "pod", "evicted", where, "--type=merge", "-p", patch)
    levers.evict(place.kubectl, place.namespace, "evicted")

    def reason() -> str | None:
        conditions = place.status("evicted")["conditions"]
        found = [c["reason"] for c in conditions if c["type"] == "DisruptionTarget"]
        return found[0] if found else None

    seen = wait_for("the condition DisruptionTarget", reason, timeout=15)
    place.kubectl("patch", "pod", "evicted", where, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    return f"DisruptionTarget: {seen}"


def check_killed_container(place: Bench) -> str:
    """A killed container has exit code 137, and the kubelet starts it again."""
    place.pod("killed", _SLEEP, labels={"app": "victim"})
    place.wait_running("killed")
    levers.kill_selected(place.cluster, place.namespace, "app=victim")
    wait_for("a restart", lambda: place.main_status("killed").get("restartCount", 0) >= 1, timeout=30)
    ended = place.main_status("killed")["lastState"]["terminated"]
    _expect(ended["exitCode"] == 137, f"{ended}")
    return f"exit code {ended['exitCode']}, reason {ended['reason']}"


def check_out_of_memory(place: Bench) -> str:
    """A container that the kernel kills for its memory limit has the reason OOMKilled."""
    limits = {"limits": {"memory": "64Mi"}}
    place.pod("memory", _SLEEP, resources=limits, restartPolicy="Never")
    place.wait_running("memory")
    levers.out_of_memory(place.cluster, place.namespace, "memory")
    ended = wait_for(
        "the container's end", lambda: place.main_status("memory").get("state", {}).get("terminated"), timeout=30
    )
    _expect(ended["reason"] == "OOMKilled" and ended["exitCode"] == 137, f"{ended}")
    return f"{ended['reason']}, exit code {ended['exitCode']}"


def check_unpullable_image(place: Bench) -> str:
    """Within seconds, the status says that an image cannot be pulled."""
    place.pod("unpullable", _SLEEP, image=levers.UNPULLABLE_IMAGE)

    def reason() -> str | None:
        waiting = place.main_status("unpullable").get("state", {}).get("waiting", {})
        return waiting["reason"] if "Image" in waiting.get("reason", "") else None

    return wait_for("the pull to fail", reason, timeout=30)


def check_fake_gpus(place: Bench) -> str:
    """A pod that requests a GPU waits while there is none, and runs when there is one."""
    cluster = place.cluster
    before = {node.name: cluster.record.gpus.get(node.name, 0) for node in cluster.nodes}
    cluster.set_gpus(0)
    try:
        place.pod("gpu", _SLEEP, resources={"limits": {RESOURCE: "1"}})

        def message() -> str | None:
            conditions = place.status("gpu").get("conditions", [])
            found = [c.get("message", "") for c in conditions if c["type"] == "PodScheduled"]
            return found[0] if found and f"Insufficient {RESOURCE}" in found[0] else None

        wait_for("the scheduler's message", message, timeout=15)
        cluster.set_gpus(1)
        place.wait_running("gpu")
    finally:
        for node, count in before.items():
            cluster.set_gpus(count, node)
    return f"Insufficient {RESOURCE}, then running"


def check_write_count(place: Bench) -> str:
    """The audit log counts every write of a program and no read."""
    audit = place.cluster.audit
    mark = audit.mark()
    for number in range(5):
        place.kubectl("create", "configmap", f"count-{number}", f"--namespace={place.namespace}")
        place.kubectl("get", "configmap", f"count-{number}", f"--namespace={place.namespace}")
    counted = audit.count(mark, namespace=place.namespace)
    _expect(counted == {"kubectl": 5}, f"{counted}")
    return "5 of 5, reads not counted"


def check_node_loss(place: Bench) -> str:
    """A lost node becomes NotReady after the grace period, and comes back with its GPUs."""
    cluster = place.cluster
    node = cluster.nodes[-1].name
    before = cluster.record.gpus.get(node, 0)
    cluster.set_gpus(3, node)
    began = time.monotonic()
    with levers.lost_node(cluster, node):
        wait_for(f"{node} to be NotReady", lambda: not cluster.is_ready(node), timeout=60, interval=0.5)
        lost = time.monotonic() - began
        began = time.monotonic()
    back = time.monotonic() - began
    offered = place.kubectl.get("node", node)["status"]["allocatable"].get(RESOURCE)
    cluster.set_gpus(before, node)
    _expect(offered == "3", f"{RESOURCE}: {offered}")
    return f"NotReady after {lost:.0f} s, Ready again {back:.1f} s after its return"


def check_power_loss(place: Bench) -> str:
    """A node whose containers were killed with its kubelet starts them again when it comes back."""
    cluster = place.cluster
    node = cluster.nodes[-1].name
    place.pod("power", _SLEEP, nodeName=node)
    place.wait_running("power")
    with levers.lost_node(cluster, node, pods_too=True):
        pass
    wait_for("a new start", lambda: place.main_status("power").get("restartCount", 0) >= 1, timeout=60)
    place.wait_running("power")
    return f"{place.main_status('power')['restartCount']} restart"


def check_joining_node(place: Bench) -> str:
    """A new node runs pods of the existing images, and leaves nothing when it is removed."""
    cluster = place.cluster
    if len(cluster.nodes) > 1:
        return "there are two nodes already"
    with levers.second_node(cluster):
        joined = cluster.nodes[-1]
        place.run_to_end("joined", ["/busybox", "true"], nodeName=joined.name)
        place.pod("left-there", _SLEEP, nodeName=joined.name)
        place.wait_running("left-there")
    there = [found["metadata"]["name"] for found in place.kubectl.items("nodes")]
    left = [str(group) for group in cgroups.existing(joined.cgroup)]
    left += [str(point) for point in mounts.below(cluster.home.node(joined.name))]
    left += [chain for chain in iptables.leftovers([network_name(joined)]) if "CNI-" in chain]
    _expect(there == [cluster.nodes[0].name], f"nodes: {there}")
    _expect(not left and not network.has_bridge(joined), f"left: {left}")
    return f"{joined.name} came and went"


def check_frozen_container(place: Bench) -> str:
    """A stopped process hangs without ending, and continues after SIGCONT."""
    place.pod("frozen", ["/busybox", "sh", "-c", "while /busybox sleep 0.1; do echo tick; done"])
    place.wait_running("frozen")

    def ticks() -> int:
        return place.kubectl("logs", "frozen", f"--namespace={place.namespace}").count("tick")

    wait_for("a tick", ticks, timeout=10)
    levers.signal_container(place.cluster, place.namespace, "frozen", signal.SIGSTOP)
    time.sleep(0.5)
    before = ticks()
    time.sleep(1)
    _expect(ticks() == before, "it did not stop")
    levers.signal_container(place.cluster, place.namespace, "frozen", signal.SIGCONT)
    wait_for("another tick", lambda: ticks() > before, timeout=10)
    return "no tick for a second, then more"


CHECKS: dict[str, Callable[[Bench], str]] = {
    name.removeprefix("check_"): check for name, check in globals().items() if name.startswith("check_")
}


def run(cluster: LocalCluster, only: Sequence[str] = ()) -> int:
    """Runs the checks and prints each result. Returns 1 when one has failed, else 0."""
    if unknown := set(only) - set(CHECKS):
        raise ClusterError(f"no check {', '.join(sorted(unknown))}; there are: {', '.join(CHECKS)}")
    failed = []
    with bench(cluster) as place:
        for name in only or CHECKS:
            try:
                with step(name) as running:
                    running.outcome = CHECKS[name](place)
            except ClusterError as error:
                say(f"      {error}")
                failed.append(name)
    say(f"{len(failed)} failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


def _expect(fact: object, otherwise: str) -> None:
    if not fact:
        raise ClusterError(f"unexpected: {otherwise}")
