"""Gives the S3 server a name inside the cluster: a Service without a selector, and its endpoint.

Pods of the namespace reach it as `http://NAME:PORT`, other pods as `http://NAME.NAMESPACE.svc:PORT`, as a job's spec
has it in production.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from localcluster.errors import ClusterError
from localcluster.kubectl import Kubectl
from localcluster.records import S3


def publish(kubectl: Kubectl, s3: S3, namespace: str, name: str = "s3") -> str:
    """Creates the Service and its endpoint in an existing namespace. Returns the URL for pods."""
    url = urlsplit(s3.pod_endpoint)
    address, port = url.hostname, url.port
    if not address or not port or not address.replace(".", "").isdigit():
        raise ClusterError(f"{s3.pod_endpoint} has no address and port that a Service could point to")
    metadata = {"name": name, "namespace": namespace}
    ports = [{"name": "s3", "protocol": "TCP", "port": port}]
    kubectl.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": ports,
        },
    )
    return f"http://{name}.{namespace}.svc:{port}"
