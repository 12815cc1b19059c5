"""Deploys SeaweedFS as an S3 server in a cluster that has none.

Pods reach it by its Service, this machine by `kubectl port-forward`. Its data is in the pod and is lost with it. The
namespace is deleted at the end of the block. A namespace that a killed run left is deleted before the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from localcluster import seaweedfs
from localcluster.errors import ClusterError
from localcluster.kubectl import Kubectl, Manifest
from localcluster.port_forward import PortForward, port_forward
from localcluster.progress import step
from localcluster.records import S3, Keys
from localcluster.waiting import wait_for

NAMESPACE = "finetune-test-s3"
_NAME = "s3"
OWNER = {"app.kubernetes.io/managed-by": "finetune-operator-tests"}
"""The labels of a namespace that the tests made, and may delete."""
_LABELS = {"app.kubernetes.io/name": "seaweedfs", **OWNER}
_CONFIG = PurePosixPath("/etc/seaweedfs")
_DATA = PurePosixPath("/data")
_PORTS = seaweedfs.Ports()
_NO_IMAGE = {"ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"}
_START_SECONDS = 120
_DELETE_SECONDS = 120


@contextmanager
def running(kubectl: Kubectl, image: str, namespace: str = NAMESPACE) -> Iterator[S3]:
    """Yields an S3 server that stores objects. Removes it at the end.

    Raises:
        ClusterError: the image cannot be pulled, the pod does not start, or the namespace was not created by the tests.
    """
    admin, reader = seaweedfs.new_keys(), seaweedfs.new_keys()
    _remove_leftover(kubectl, namespace)
    try:
        with step(f"deploying an S3 server into the namespace {namespace}"):
            kubectl.apply(*_manifests(image, namespace, admin, reader))
            _wait_running(kubectl, image, namespace)
        with port_forward(kubectl, namespace, f"service/{_NAME}", _PORTS.s3) as forward:
            s3 = S3(
                endpoint=f"http://{seaweedfs.LOOPBACK}:{forward.port}",
                pod_endpoint=f"http://{_NAME}.{namespace}.svc:{_PORTS.s3}",
                region=seaweedfs.REGION,
                admin=admin,
                reader=reader,
            )
            with step("waiting for the S3 server to keep an object"):
                _wait_ready(s3, forward)
            yield s3
    finally:
        with step(f"deleting the namespace {namespace}"):
            _delete(kubectl, namespace)


def _manifests(image: str, namespace: str, admin: Keys, reader: Keys) -> list[Manifest]:
    metadata = {"name": _NAME, "namespace": namespace, "labels": _LABELS}
    labels = {"pod-security.kubernetes.io/enforce": "restricted", **OWNER}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
        # Not the default account, because a controller creates that one later and the pod would have to wait.
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": False},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "stringData": {"s3.json": seaweedfs.identities(admin, reader)},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": _LABELS, "ports": [{"name": "s3", "port": _PORTS.s3}]},
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _pod(image)},
    ]


def _pod(image: str) -> dict[str, Any]:
    arguments = seaweedfs.arguments(data=_DATA, config=_CONFIG / "s3.json", address="0.0.0.0", ports=_PORTS)
    return {
        "serviceAccountName": _NAME,
        "enableServiceLinks": False,
        # After SIGTERM it would take half a minute, and its data is not needed.
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "seaweedfs",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": arguments,
                "env": [{"name": name, "value": value} for name, value in seaweedfs.ENVIRONMENT.items()],
                "ports": [{"name": "s3", "containerPort": _PORTS.s3}],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": "s3"}, "periodSeconds": 1},
                "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "data", "mountPath": str(_DATA)},
                    {"name": "tmp", "mountPath": "/tmp"},
                    {"name": "config", "mountPath": str(_CONFIG), "readOnly": True},
                ],
            }
        ],
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "config", "secret": {"secretName": _NAME}},
        ],
    }


def _wait_running(kubectl: Kubectl, image: str, namespace: str) -> None:
    status: dict[str, Any] = {}

    def ready() -> bool:
        nonlocal status
        status = kubectl.get(f"--namespace={namespace}", "pod", _NAME)["status"]
        for container in status.get("containerStatuses", []):
            waiting = container["state"].get("waiting", {})
            if waiting.get("reason") in _NO_IMAGE:
                raise ClusterError(
                    f"the cluster does not get the image {image} ({waiting['reason']}): build it with `make images` "
                    "and bring it to the nodes, or to the registry of IMAGE_PREFIX; or set S3_ENDPOINT to an S3 "
                    "server of yours"
                )
        return any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions", []))

    def seen() -> str:
        unmet = [item for item in status.get("conditions", []) if item["status"] != "True"]
        return "; ".join(f"{item['type']}: {item.get('reason')} {item.get('message', '')}" for item in unmet)

    wait_for(f"the pod {namespace}/{_NAME} to be ready", ready, timeout=_START_SECONDS, interval=0.5, seen=seen)


def _wait_ready(s3: S3, forward: PortForward) -> None:
    try:
        seaweedfs.wait_ready(s3)
    except ClusterError as error:
        raise ClusterError(f"{error}; kubectl port-forward: {forward.words or 'runs'}") from error


def _remove_leftover(kubectl: Kubectl, namespace: str) -> None:
    found = kubectl.items("namespaces", f"--field-selector=metadata.name={namespace}")
    if not found:
        return
    labels = found[0]["metadata"].get("labels", {})
    if not OWNER.items() <= labels.items():
        raise ClusterError(
            f"the cluster has a namespace {namespace} that the tests did not make: delete it, or set S3_ENDPOINT"
        )
    _delete(kubectl, namespace)


def _delete(kubectl: Kubectl, namespace: str) -> None:
    kubectl("delete", "namespace", namespace, "--ignore-not-found", timeout=_DELETE_SECONDS)
