"""A real API server with etcd and the controllers, and the operator's service account on it.

There is no node and no scheduler. The tests write pod status in place of a kubelet. If LOCALCLUSTER_STATE names a
running plane, that one is used. Otherwise a plane is started and taken down.
"""

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from component.plane import REPOSITORY, Plane
from finetune_operator.kube.client import ClientKube, connect
from localcluster import cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """The control plane, with the shipped CRD and RBAC."""
    with pytest.MonkeyPatch.context() as patch:
        running = cluster.find(control_plane_only=True) if "LOCALCLUSTER_STATE" in os.environ else None
        reused = running is not None
        if running is None:
            patch.setenv("LOCALCLUSTER_STATE", str(tmp_path_factory.mktemp("plane")))
            running = cluster.up(control_plane_only=True, scheduler=False)
        try:
            plane = Plane(running)
            plane.kubectl("apply", "--server-side", "-k", REPOSITORY / "manifests/crd")
            plane.await_crd()
            plane.kubectl("apply", "--server-side", "-f", REPOSITORY / "manifests/default/namespace.yaml")
            plane.grant()
            yield plane
        finally:
            if not reused:
                cluster.down(control_plane_only=True)


@pytest.fixture
def namespace(plane: Plane) -> Iterator[str]:
    """A new namespace."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    plane.kubectl("create", "namespace", name)
    yield name
    plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
async def kube(plane: Plane) -> AsyncIterator[ClientKube]:
    """The operator's client, with only the rights of its service account."""
    async with connect({"KUBECONFIG": str(plane.operator_kubeconfig())}, page_size=3) as client:
        yield client


@pytest.fixture
async def admin(plane: Plane) -> AsyncIterator[ClientKube]:
    """The same client with all rights, in the role of user, kubelet and administrator."""
    async with connect({"KUBECONFIG": str(plane.kubeconfig)}) as client:
        yield client
