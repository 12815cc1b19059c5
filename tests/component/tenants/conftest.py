"""The two namespaces and the tenant, once for all attacks."""

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from component.plane import REPOSITORY, Plane, a_finetunejob
from component.tenants.ground import Ground
from component.tenants.server_defences import CRD
from component.tenants.site import Site
from finetune_operator.kube.client import ClientKube, connect
from localcluster.waiting import wait_for


@pytest.fixture(scope="session")
def ground(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A ServiceAccount with `edit` in a namespace of its own, and `view` in the victim's."""
    attacker, victim = (f"{role}-{uuid.uuid4().hex[:8]}" for role in ("attacker", "victim"))
    for namespace in (attacker, victim):
        plane.kubectl("create", "namespace", namespace)
    plane.kubectl("create", "serviceaccount", "tenant", "-n", attacker)
    account = f"--serviceaccount={attacker}:tenant"
    for role, where in (("edit", attacker), ("view", victim)):
        plane.kubectl("create", "rolebinding", f"tenant-{role}", f"--clusterrole={role}", account, "-n", where)
    token = plane.kubectl("create", "token", "tenant", "-n", attacker, "--duration=24h").strip()
    config = json.loads(plane.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path: Path = tmp_path_factory.mktemp("tenant") / "kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    user = f"system:serviceaccount:{attacker}:tenant"

    def ready() -> bool:
        """An aggregated role is filled some time after the start, and pods need the default account."""
        return (
            plane.may(f"--as={user}", "create", "finetunejobs.finetune.dev", attacker)
            and plane.may(f"--as={user}", "get", "finetunejobs.finetune.dev", victim)
            and all(
                "default" in {item["metadata"]["name"] for item in plane.items("serviceaccounts", namespace)}
                for namespace in (attacker, victim)
            )
        )

    wait_for("the tenant's rights", ready, timeout=60)
    yield Ground(plane=plane, attacker=attacker, victim=victim, user=user, kubeconfig=str(path))
    plane.kubectl("delete", "namespace", attacker, victim, "--wait=false")


@pytest.fixture
async def site(ground: Ground, plane: Plane, admin: ClientKube, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """The site of one attack."""
    name = f"a-{uuid.uuid4().hex[:8]}"
    async with (
        connect({"KUBECONFIG": str(plane.operator_kubeconfig())}) as kube,
        connect({"KUBECONFIG": ground.kubeconfig}) as tenant,
    ):
        attacked = Site(ground, name, kube=kube, admin=admin, tenant=tenant)
        yield attacked
        await attacked.close()


@pytest.fixture(scope="module")
def lax_crd(ground: Ground) -> Iterator[None]:
    """The CRD without any rule about the spec, as if the API server checked nothing."""
    plane = ground.plane
    spec = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec"
    patch = json.dumps([{"op": "replace", "path": path, "value": spec}])
    nonsense = json.dumps(a_finetunejob(ground.attacker, "probe", output={"uri": "nonsense"}))

    def accepted() -> bool:
        return plane.succeeds("create", "--dry-run=server", "-f", "-", stdin=nonsense)

    plane.kubectl("patch", "crd", CRD, "--type=json", f"--patch={patch}")
    try:
        wait_for("a CRD without rules", accepted, timeout=60)
        yield
    finally:
        plane.kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", REPOSITORY / "manifests/crd/finetunejobs.yaml"
        )
        wait_for("the CRD as it is shipped", lambda: not accepted(), timeout=60)
