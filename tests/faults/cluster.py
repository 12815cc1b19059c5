"""The cluster that the tables are made on: the one of KUBECONFIG, or a control plane that is started here."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from component.plane import REPOSITORY, SYSTEM, Plane
from localcluster import ClusterError, Target, down, up
from localcluster.home import cache_root
from localcluster.locking import locked

NOWHERE = {"nodeSelector": {"finetune.dev/no-such-node": "true"}}
"""No kubelet may take the pods, because their status is written here."""


@contextmanager
def plane() -> Iterator[Plane]:
    """The cluster, with the resource and the operator's rights.

    Raises:
        ClusterError: the cluster of KUBECONFIG has an operator, which would take part.
    """
    if os.environ.get("KUBECONFIG"):
        yield from _given()
        return
    state = Path(os.environ.get("LOCALCLUSTER_STATE") or cache_root() / "faults")
    os.environ["LOCALCLUSTER_STATE"] = str(state)
    with locked(state.with_suffix(".lock"), "injecting faults"):
        try:
            down(control_plane_only=True)  # what a killed run left
            found = Plane(up(control_plane_only=True, scheduler=False, controller_qps=200))
            install(found)
            yield found
        finally:
            down(control_plane_only=True)


def _given() -> Iterator[Plane]:
    found = Plane(Target.current())
    deployments = json.loads(found.kubectl("get", "deployments", "--all-namespaces", "-o", "json"))["items"]
    if any(item["metadata"]["name"] == "finetune-operator" for item in deployments):
        raise ClusterError("this cluster has an operator, which would take part: remove it first")
    found.job_defaults = {"scheduling": NOWHERE}
    try:
        install(found)
        yield found
    finally:
        found.kubectl("delete", "-k", REPOSITORY / "manifests/rbac", "--ignore-not-found", "--wait=false")
        found.kubectl("delete", "namespace", SYSTEM, "--ignore-not-found", "--wait=false")


def install(plane: Plane) -> None:
    """What the operator's process needs."""
    plane.kubectl("apply", "--server-side", "-k", REPOSITORY / "manifests/crd")
    plane.await_crd()
    plane.kubectl("apply", "--server-side", "-f", REPOSITORY / "manifests/default/namespace.yaml")
    plane.grant()
