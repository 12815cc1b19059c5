"""Leadership on a real API server, with times a tenth as long."""

import asyncio
from datetime import UTC, datetime

import pytest

from component.plane import SYSTEM, eventually
from finetune_operator.kube.api import LEASES
from finetune_operator.kube.client import ClientKube
from finetune_operator.kube.lease import Lease, LeaseTimes

TIMES = LeaseTimes(duration=3.0, renew_deadline=2.0, period=0.3, request=1.0)


class Replica:
    """A replica that does nothing but lead."""

    def __init__(self, kube: ClientKube, name: str, identity: str) -> None:
        self.stop = asyncio.Event()
        self.leads = asyncio.Event()
        self.lost = asyncio.Event()
        clock = asyncio.get_running_loop().time
        self.lease = Lease(
            kube,
            namespace=SYSTEM,
            name=name,
            identity=identity,
            clock=clock,
            now=lambda: datetime.now(UTC),
            times=TIMES,
        )
        self.task = asyncio.create_task(self.lease.run(self._lead, self.stop))

    async def _lead(self) -> None:
        self.leads.set()
        try:
            await self.stop.wait()
        except asyncio.CancelledError:
            self.lost.set()
            raise
        finally:
            self.leads.clear()

    async def ends(self) -> None:
        self.stop.set()
        await self.task


@pytest.fixture
def name(namespace: str) -> str:
    """A Lease of its own."""
    return f"lease-{namespace}"


async def holder(kube: ClientKube, name: str) -> str:
    lease = await kube.get(LEASES, SYSTEM, name)
    found: str = lease["spec"]["holderIdentity"]
    return found


async def test_one_leads_and_hands_over_at_its_end(kube: ClientKube, name: str) -> None:
    first, second = Replica(kube, name, "first"), Replica(kube, name, "second")
    await eventually("a leader", lambda: first.leads.is_set() or second.leads.is_set())
    await asyncio.sleep(2 * TIMES.period)
    assert first.leads.is_set() != second.leads.is_set()
    leader, standby = (first, second) if first.leads.is_set() else (second, first)
    assert leader.lease.is_leader
    assert not standby.lease.is_leader
    assert standby.lease.last_contact is not None
    await leader.ends()
    await eventually("the other one to lead", standby.leads.is_set)
    assert (await kube.get(LEASES, SYSTEM, name))["spec"]["leaseTransitions"] == 1
    await standby.ends()
    assert await holder(kube, name) == ""


async def test_a_standby_ends_at_once(kube: ClientKube, name: str) -> None:
    leader = Replica(kube, name, "leader")
    await eventually("a leader", leader.leads.is_set)
    standby = Replica(kube, name, "standby")
    await asyncio.sleep(TIMES.period)
    await standby.ends()
    assert await holder(kube, name) == "leader"
    await leader.ends()


async def test_a_killed_leader_is_succeeded_after_the_lease_and_not_before(kube: ClientKube, name: str) -> None:
    loop = asyncio.get_running_loop()
    killed = Replica(kube, name, "killed")
    await eventually("a leader", killed.leads.is_set)
    held = killed.lease._held
    killed.lease._held = None  # as a process that is killed: it neither renews nor gives back
    killed.task.cancel()
    assert held is not None
    silent_since = loop.time()
    successor = Replica(kube, name, "successor")
    await eventually("a successor", successor.leads.is_set)
    assert loop.time() - silent_since >= TIMES.duration - TIMES.period
    await successor.ends()


async def test_a_leader_that_lost_its_lease_stops(kube: ClientKube, admin: ClientKube, name: str) -> None:
    replica = Replica(kube, name, "me")
    await eventually("a leader", replica.leads.is_set)
    patch = {"spec": {"holderIdentity": "usurper"}}
    await admin.merge(LEASES, SYSTEM, name, patch, field_manager="test")
    await eventually("the loss", replica.lost.is_set)
    assert await holder(kube, name) == "usurper", "what another one holds is not given back"
    await replica.ends()
