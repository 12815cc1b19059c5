"""Real API servers for the tests of the CRD, the manifests and the chart.

They are never the cluster of KUBECONFIG, because these tests install and remove the CRD, and with it every FineTuneJob.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.server import Server
from localcluster import ClusterError, cluster
from localcluster.waiting import wait_for

CRD = Path(__file__).parents[2] / "manifests/crd/finetunejobs.yaml"


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The API server without the CRD. Each module has its own, so that one may install what another removes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALCLUSTER_STATE", str(tmp_path_factory.mktemp("control-plane")))
        try:
            yield _with_controllers()
        finally:
            cluster.down(control_plane_only=True)


def _with_controllers(tries: int = 3) -> Server:
    """Returns an API server whose controllers run.

    A plane that starts beside another may lose a port, and its controllers end. Then a new plane is started.
    """
    plane = cluster.up(control_plane_only=True)
    server = Server(plane.kubectl.program, plane.kubeconfig)
    try:
        wait_for("the controllers", lambda: server.has("serviceaccount/default", "--namespace=default"), timeout=30)
    except ClusterError:
        if tries == 1:
            raise
        cluster.down(control_plane_only=True)
        return _with_controllers(tries - 1)
    return server


@pytest.fixture(scope="module")
def installed(control_plane: Server) -> Server:
    """The API server with the CRD."""
    control_plane.kubectl("apply", "-f", str(CRD))
    control_plane.wait_established()
    return control_plane


@pytest.fixture
def server(installed: Server) -> Iterator[Server]:
    """The API server with the CRD and without FineTuneJobs."""
    yield installed
    installed.kubectl("delete", "ftj", "--all", "--namespace=default")
