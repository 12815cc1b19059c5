"""The S3 server for a cluster that has none: who may do what, from where it is reached, and that nothing stays."""

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from cluster.lab import Lab
from demo import installation
from localcluster import S3, ClusterError, Target, deployed_s3, levers, seaweedfs
from localcluster.port_forward import port_forward
from localcluster.waiting import wait_for


@dataclass(frozen=True)
class Deployed:
    """The server and where it is."""

    s3: S3
    namespace: str


def fresh_name() -> str:
    return f"s3-{uuid.uuid4().hex[:6]}"


def exists(target: Target, namespace: str) -> bool:
    return bool(target.kubectl.items("namespaces", f"--field-selector=metadata.name={namespace}"))


@pytest.fixture(scope="module")
def deployed(target: Target) -> Iterator[Deployed]:
    namespace = fresh_name()
    with deployed_s3.running(target.kubectl, target.image(installation.S3_IMAGE), namespace) as s3:
        yield Deployed(s3, namespace)
    assert not exists(target, namespace)


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as caught:
        act()
    return str(caught.value.response["Error"]["Code"])


def test_real_keys_a_read_only_identity_and_no_automatic_buckets(deployed: Deployed) -> None:
    admin, reader = seaweedfs.client(deployed.s3), seaweedfs.client(deployed.s3, deployed.s3.reader)
    stranger = seaweedfs.client(deployed.s3, seaweedfs.new_keys())
    assert refusal(lambda: admin.put_object(Bucket="rights", Key="a", Body=b"1")) == "NoSuchBucket"
    admin.create_bucket(Bucket="rights")
    admin.put_object(Bucket="rights", Key="a", Body=b"1")
    assert reader.get_object(Bucket="rights", Key="a")["Body"].read() == b"1"
    assert refusal(lambda: reader.put_object(Bucket="rights", Key="b", Body=b"1")) == "AccessDenied"
    assert refusal(stranger.list_buckets) == "InvalidAccessKeyId"


def test_pods_reach_it_by_its_name(lab: Lab, deployed: Deployed) -> None:
    there = replace(lab, endpoint=deployed.s3.pod_endpoint)
    there.secret("deployed", deployed.s3.admin)
    storage = {"endpoint": there.endpoint, "secretRef": {"name": "deployed"}}
    there.apply("asks", storage=storage, dataset={"uri": "s3://never-made/train.jsonl"})
    status = there.until_finished("asks")
    # The server's own answer, after it knew the key.
    assert status["failure"]["reason"] == "StorageNotFound", status["failure"]
    assert "never-made" in status["failure"]["message"]


def test_a_port_forward_that_drops_comes_back_on_the_same_port(target: Target, deployed: Deployed) -> None:
    with port_forward(target.kubectl, deployed.namespace, "service/s3", 8333) as forward:
        connection = seaweedfs.client(replace(deployed.s3, endpoint=f"http://127.0.0.1:{forward.port}"))

        def answers() -> bool:
            try:
                return bool(connection.list_buckets())
            except BotoCoreError:
                return False

        wait_for("the first forward", answers, timeout=30)
        first = forward.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_for("another forward", lambda: forward.pid not in {None, first}, timeout=30)
        wait_for("an answer", answers, timeout=30)
        last = forward.pid
        assert last is not None
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)
    assert not answers()


def test_an_image_that_the_cluster_does_not_get_is_named(target: Target) -> None:
    namespace = fresh_name()
    with (
        pytest.raises(ClusterError, match=f"{levers.UNPULLABLE_IMAGE}.*make images.*S3_ENDPOINT"),
        deployed_s3.running(target.kubectl, levers.UNPULLABLE_IMAGE, namespace),
    ):
        pass
    assert not exists(target, namespace)


def test_a_namespace_of_somebody_else_is_left_alone(target: Target) -> None:
    namespace = fresh_name()
    target.kubectl("create", "namespace", namespace)
    try:
        with (
            pytest.raises(ClusterError, match=f"{namespace} that the tests did not make"),
            deployed_s3.running(target.kubectl, target.image(installation.S3_IMAGE), namespace),
        ):
            pass
        assert target.kubectl.get("namespace", namespace)["status"]["phase"] == "Active"
    finally:
        target.kubectl("delete", "namespace", namespace, "--wait=false")


def test_what_a_killed_run_left_goes_first(target: Target) -> None:
    name = fresh_name()
    metadata = {"name": name, "labels": deployed_s3.OWNER}
    target.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    left = target.kubectl.get("namespace", name)["metadata"]["uid"]
    with deployed_s3.running(target.kubectl, target.image(installation.S3_IMAGE), name):
        assert target.kubectl.get("namespace", name)["metadata"]["uid"] != left
