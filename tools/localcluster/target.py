"""The cluster on which demo and tests run: that of KUBECONFIG, or else the local one.

Both have the same attributes. On the cluster of KUBECONFIG, the images come from `IMAGE_PREFIX`, a registry from which
the cluster pulls. S3 is at `S3_ENDPOINT`, with `S3_ACCESS_KEY` and `S3_SECRET_KEY`. `S3_POD_ENDPOINT` is its address
for pods when that differs. `S3_READER_ACCESS_KEY` and `S3_READER_SECRET_KEY` are a read-only identity. Without
`S3_ENDPOINT`, `with_s3` deploys a server. The levers that act on a machine need the local cluster: `require_local`
raises on any other.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from localcluster import binaries, cluster, deployed_s3, s3_service
from localcluster.cluster import LocalCluster
from localcluster.errors import ClusterError, UnsupportedError
from localcluster.kubectl import Kubectl
from localcluster.records import S3, Keys

LOCAL_PREFIX = "localhost/"
"""The prefix of images that were built without a registry."""


@dataclass(frozen=True)
class Target:
    """A cluster to run on."""

    kubectl: Kubectl
    image_prefix: str
    given_s3: S3 | None
    local: LocalCluster | None

    @classmethod
    def current(cls, environment: Mapping[str, str] = os.environ) -> Target:
        """Returns the cluster of KUBECONFIG, or else the local one.

        Raises:
            ClusterError: KUBECONFIG names no file, or the local cluster is not up.
        """
        local = cluster.find()
        given = environment.get("KUBECONFIG", "")
        prefix = environment.get("IMAGE_PREFIX", LOCAL_PREFIX)
        if local and given in {"", str(local.kubeconfig)}:
            return cls(local.kubectl, prefix, local.s3, local)
        if not given:
            raise ClusterError("no cluster: start one with `make cluster`, or set KUBECONFIG")
        if not Path(given).is_file():
            raise ClusterError(f"KUBECONFIG names {given}, and there is no such file")
        return cls(Kubectl(_kubectl(), Path(given)), prefix, _s3(environment), None)

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig file."""
        return self.kubectl.kubeconfig

    @contextmanager
    def with_s3(self, image: str) -> Iterator[Target]:
        """Yields the same cluster with an S3 server: its own, or one of `image` that is deployed inside the block."""
        if self.given_s3 is not None:
            yield self
            return
        with deployed_s3.running(self.kubectl, self.image(image)) as s3:
            yield replace(self, given_s3=s3)

    @property
    def s3(self) -> S3:
        """The S3 server, with its endpoints for this machine and for pods."""
        if self.given_s3 is None:
            raise ClusterError("this cluster has no S3 server: set S3_ENDPOINT, or let `with_s3` deploy one")
        return self.given_s3

    def image(self, name: str) -> str:
        """Returns the full name of one of the project's images, such as `finetune-operator:dev`."""
        return f"{self.image_prefix}{name}"

    def load_image(self, archive: Path) -> list[str]:
        """Loads an image archive into the nodes. Does nothing on another cluster, which pulls from its registry."""
        return self.local.load_image(archive) if self.local else []

    def publish_s3(self, namespace: str) -> str:
        """Returns the S3 URL for pods of a namespace. On the local cluster, a Service is created for it."""
        if self.local is None:
            return self.s3.pod_endpoint
        return s3_service.publish(self.kubectl, self.s3, namespace)

    def require_local(self) -> LocalCluster:
        """Returns the local cluster, for levers that act on the machine.

        Raises:
            UnsupportedError: this is the cluster of KUBECONFIG.
        """
        if self.local is None:
            raise UnsupportedError("this needs the local cluster: unset KUBECONFIG and run `make cluster`")
        return self.local


def _kubectl() -> str:
    if binaries.KUBERNETES.is_built():
        return binaries.KUBERNETES.program("kubectl")
    # The second is that of the development requirements, for a machine without kubectl.
    if found := shutil.which("kubectl") or shutil.which("kubectl", path=sysconfig.get_path("scripts")):
        return found
    raise ClusterError("kubectl is not installed")


def _s3(environment: Mapping[str, str]) -> S3 | None:
    endpoint = environment.get("S3_ENDPOINT")
    if not endpoint:
        return None
    admin = _keys(environment, "S3")
    if admin is None:
        raise ClusterError("S3_ENDPOINT is set, and S3_ACCESS_KEY or S3_SECRET_KEY is not")
    return S3(
        endpoint=endpoint,
        pod_endpoint=environment.get("S3_POD_ENDPOINT", endpoint),
        region=environment.get("S3_REGION", "us-east-1"),
        admin=admin,
        reader=_keys(environment, "S3_READER"),
    )


def _keys(environment: Mapping[str, str], prefix: str) -> Keys | None:
    access, secret = (environment.get(f"{prefix}_{kind}_KEY") for kind in ("ACCESS", "SECRET"))
    return Keys(access, secret) if access and secret else None
