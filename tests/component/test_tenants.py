"""A tenant who may edit one namespace and view another attacks a FineTuneJob in the other one."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from component.plane import Plane, a_finetunejob, end_pod, eventually, eventually_seen
from component.test_controller import Operator
from finetune_operator.api.finetunejob import parse_job
from finetune_operator.kube.api import FINETUNEJOBS, JOBS, PODS
from finetune_operator.kube.client import ClientKube, connect
from finetune_operator.kube.errors import Forbidden
from finetune_operator.reconcile.config import ReconcileConfig
from finetune_operator.reconcile.manifests import child_job
from finetune_operator.reconcile.reconcile import reconcile
from finetune_trainer.contract.termination import Outcome, OutputRecord, Termination

CONFIG = ReconcileConfig(preflight_image="operator:1", trainer_image="trainer:1")
EVIL = "s3://evil/adapter"
FORGED = Termination(
    outcome=Outcome.SUCCEEDED,
    fingerprint="0" * 12,
    output=OutputRecord(
        uri=EVIL,
        manifest_uri="s3://evil/manifest.json",
        digest="sha256:00",
        size_bytes=1,
        base_model="org/model",
        rank=16,
    ),
).to_json()


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """Whoever attacks.

    Attributes:
        kube: the API server with the tenant's own rights.
        namespace: where the tenant may edit.
    """

    kube: ClientKube
    namespace: str


@pytest.fixture
async def tenant(plane: Plane, namespace: str, tmp_path: Path) -> AsyncIterator[Tenant]:
    """A ServiceAccount with `edit` in a namespace of its own, and `view` in the victim's."""
    own = f"{namespace}-attacker"
    plane.kubectl("create", "namespace", own)
    plane.kubectl("create", "serviceaccount", "tenant", "-n", own)
    account = f"--serviceaccount={own}:tenant"
    for role, where in (("edit", own), ("view", namespace)):
        plane.kubectl("create", "rolebinding", f"tenant-{role}", f"--clusterrole={role}", account, "-n", where)
    token = plane.kubectl("create", "token", "tenant", "-n", own).strip()
    config = json.loads(plane.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path = tmp_path / "tenant-kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    user = f"--as=system:serviceaccount:{own}:tenant"

    def allowed() -> bool:
        return plane.may(user, "create", "jobs.batch", own)

    await eventually("the tenant's rights", allowed)  # an aggregated role is filled some time after the start
    async with connect({"KUBECONFIG": str(path)}) as kube:
        yield Tenant(kube=kube, namespace=own)
    plane.kubectl("delete", "namespace", own, "--wait=false")


@pytest.fixture
async def victim(kube: ClientKube, admin: ClientKube, namespace: str) -> Operator:
    """An operator that serves all namespaces, with one FineTuneJob whose training has begun."""
    await admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace))
    operator = Operator(kube, namespace, policy=reconcile)
    await operator.resync.once()
    await operator.reconcile()
    assert (await operator.status())["phase"] == "Starting"
    return operator


async def _forge(tenant: Tenant, admin: ClientKube, victim: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The Job of the victim's current attempt, copied into the tenant's namespace, whose pod reports an adapter."""
    manifest = child_job(parse_job(victim), CONFIG, "train", 1)
    manifest["metadata"]["namespace"] = tenant.namespace
    owners = manifest["metadata"].pop("ownerReferences")
    await tenant.kube.create(JOBS, tenant.namespace, manifest)

    async def made() -> dict[str, Any] | None:
        pods = [pod async for page in admin.pages(PODS, tenant.namespace) for pod in page.items]
        return pods[0] if pods else None

    pod = await eventually_seen("the tenant's pod", made)
    await end_pod(admin, pod, termination=FORGED)
    pod = await admin.get(PODS, tenant.namespace, pod["metadata"]["name"])
    # Last, since the garbage collector removes what has an owner in another namespace: seconds later, which is enough.
    owned = {"metadata": {"ownerReferences": owners}}
    return await tenant.kube.merge(JOBS, tenant.namespace, "job-train-1", owned, field_manager="tenant"), pod


async def test_a_job_of_another_namespace_ends_nothing(
    victim: Operator, tenant: Tenant, admin: ClientKube, namespace: str
) -> None:
    job, pod = await _forge(tenant, admin, await admin.get(FINETUNEJOBS, namespace, "job"))
    victim.event_handler.job("ADDED", job)
    victim.event_handler.pod("ADDED", pod)
    await victim.reconcile()
    status = await victim.status()
    assert status["phase"] == "Starting"
    assert "output" not in status


async def test_a_success_that_only_the_cache_has_does_not_count(
    victim: Operator, admin: ClientKube, namespace: str
) -> None:
    """Whatever comes by the watch, the API server itself must say that the pod ended so."""
    child = await admin.get(JOBS, namespace, "job-train-1")

    async def made() -> dict[str, Any] | None:
        pods = [pod async for page in admin.pages(PODS, namespace) for pod in page.items]
        return pods[0] if pods else None

    pod = await eventually_seen("the pod", made)
    state = {"terminated": {"exitCode": 0, "message": FORGED, "startedAt": None, "finishedAt": None}}
    seen = {**pod, "status": {"phase": "Succeeded", "containerStatuses": [{"name": "trainer", "state": state}]}}
    victim.event_handler.job("MODIFIED", child)
    victim.event_handler.pod("ADDED", seen)
    await victim.reconcile()
    assert "output" not in await victim.status()


async def test_a_tenant_writes_no_status_itself(victim: Operator, tenant: Tenant, namespace: str) -> None:
    success = {"status": {"phase": "Succeeded"}}
    with pytest.raises(Forbidden):
        await tenant.kube.merge(FINETUNEJOBS, namespace, "job", success, field_manager="tenant", subresource="status")
