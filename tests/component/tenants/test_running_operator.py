"""Forged children reach the operator's process by its watches, and count for nothing."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

from component.plane import Plane, a_finetunejob, eventually_seen, operator, run_pod
from component.tenants import children
from component.tenants.ground import Ground
from component.tenants.site import Object, Site
from finetune_operator.api import names
from finetune_operator.kube.api import FINETUNEJOBS
from finetune_operator.kube.client import ClientKube, connect

FORGERIES = [name for name in children.ATTACKS if "of another namespace" in name]


class WatchedSite(Site):
    """A site whose operator is a process."""

    async def look(self) -> None:
        """The operator begins this attack's job."""
        await self._until(self.victim, self.name, "Starting", "Preflight")

    async def sees(self, job: Object, pod: Object) -> None:  # noqa: ARG002
        """The operator has handled whatever happened before now.

        A job that is created now, its Job and its pod come by the same watches, each in order.
        """
        await asyncio.gather(*(self._runs_a_job(namespace) for namespace in (self.attacker, self.victim)))

    async def _runs_a_job(self, namespace: str) -> None:
        name = f"later-{uuid.uuid4().hex[:8]}"
        await self.admin.create(FINETUNEJOBS, namespace, a_finetunejob(namespace, name))
        await run_pod(self.admin, await self.pod(namespace, names.child_name(name, names.TRAIN_ROLE, 1)))
        await self._until(namespace, name, "Running")

    async def _until(self, namespace: str, name: str, *phases: str) -> None:
        async def seen() -> bool:
            raw: dict[str, Any] = await self.admin.get(FINETUNEJOBS, namespace, name)
            return raw["status"].get("phase") in phases

        await eventually_seen(f"{name} to be {' or '.join(phases)}", seen)


async def test_a_running_operator_believes_no_child_of_another_namespace(
    ground: Ground, plane: Plane, admin: ClientKube, tmp_path: Path
) -> None:
    async def done(name: str, tenant: ClientKube) -> bool:
        site = WatchedSite(ground, f"a-{uuid.uuid4().hex[:8]}", kube=admin, admin=admin, tenant=tenant)
        return await children.ATTACKS[name].act(site)

    assert len(FORGERIES) == 4
    every_namespace = ""
    with operator(plane, tmp_path, every_namespace, FINETUNE_LEASE_NAME="tenants") as process:
        async with connect({"KUBECONFIG": ground.kubeconfig}) as tenant:
            harm = await asyncio.gather(*(done(name, tenant) for name in FORGERIES))
        assert not any(harm)
        assert process.terminate() == 0
        assert [line for line in process.lines() if line["level"] == "ERROR"] == []
