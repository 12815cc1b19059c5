"""Leader election by a Lease: one of several replicas is the leader, the others wait.

The client's own leader election cannot create its Lease (kubernetes 37.0.2 passes a bool where its model wants a
string), and kopf's peering has no lock. The rules are those of client-go: the leader renews the Lease. Another replica
that sees no renewal for the lease duration, by its own clock, may take over. A leader that cannot renew in time steps
down before that. Clocks of different machines are never compared.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finetune_operator.kube.api import LEASES, Kube
from finetune_operator.kube.errors import Conflict, KubeError, NotFound

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """Times of the leader election, in seconds.

    Attributes:
        duration: how long a renewal is valid.
        renew_deadline: how long the leader continues without a renewal; less than `duration`.
        period: time between two tries to renew or to acquire.
        request: limit for one request.
    """

    duration: float = 15.0
    renew_deadline: float = 10.0
    period: float = 2.0
    request: float = 4.0


class Lease:
    """The leader election of one replica.

    Args:
        identity: name of this replica, unique to the process.
        clock: seconds, monotonic.
        now: the current time, with a time zone, for people who read the Lease.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        times: LeaseTimes | None = None,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._now = now
        self._times = times or LeaseTimes()
        self._held: dict[str, Any] | None = None  # the Lease as we last wrote it
        self._seen: tuple[object, ...] = ()
        self._seen_since = clock()
        self._silent = False  # the last try had no response, and the log says so
        self.last_contact: float | None = None
        """When the API server last answered a try, by `clock`; None if never."""

    @property
    def is_leader(self) -> bool:
        """Whether this replica holds the Lease."""
        return self._held is not None

    async def run(self, lead: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        """Waits for leadership, runs `lead` while it lasts, and starts again.

        Returns when `lead` returns, or when `stop` is set while it waits. If the Lease cannot be renewed, `lead` is
        cancelled. The Lease is released whenever `lead` ends, so that the next leader need not wait.
        """
        while await self._acquire(stop):
            logger.info("leading", extra={"identity": self._identity})
            leading = asyncio.ensure_future(lead())
            renewing = asyncio.create_task(self._renew())
            try:
                await asyncio.wait({leading, renewing}, return_when=asyncio.FIRST_COMPLETED)
                if leading.done():
                    leading.result()
                    return
                logger.warning("lost leadership")
            finally:
                await _cancel(renewing)
                await _cancel(leading)
                await self._release()

    async def _acquire(self, stop: asyncio.Event) -> bool:
        """Waits until this replica holds the Lease; False if `stop` is set first."""
        while not stop.is_set():
            if await self._try(self._claim, self._times.request):
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._times.period):
                    await stop.wait()
        return False

    async def _renew(self) -> None:
        """Renews until that has failed for the renew deadline, or another replica holds the Lease."""
        last = self._clock()
        while self._held is not None:
            left = self._times.renew_deadline - (self._clock() - last)
            if left <= 0:
                return
            await asyncio.sleep(min(self._times.period, left))
            if await self._try(self._renew_once, min(self._times.request, left)):
                last = self._clock()

    async def _try(self, attempt: Callable[[], Awaitable[bool]], limit: float) -> bool:
        """Tries once, for at most `limit` seconds: a hung request must not outlive the Lease."""
        try:
            async with asyncio.timeout(limit):
                succeeded = await attempt()
        except KubeError as error:
            logger.log(error.level, "lease: %s", error.message)
            return False
        except TimeoutError:
            logger.log(logging.DEBUG if self._silent else logging.WARNING, "lease: no response within %.1f s", limit)
            self._silent = True
            return False
        self.last_contact = self._clock()
        self._silent = False
        return succeeded

    async def _claim(self) -> bool:
        try:
            lease = await self._kube.get(LEASES, self._namespace, self._name)
        except NotFound:
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"namespace": self._namespace, "name": self._name},
                "spec": self._spec({}),
            }
            try:
                self._held = await self._kube.create(LEASES, self._namespace, lease)
            except Conflict:
                return False
            return True
        spec = lease.get("spec") or {}
        if self._is_held_by_another(spec):
            return False
        return await self._write(lease, self._spec(spec))

    def _is_held_by_another(self, spec: Mapping[str, Any]) -> bool:
        holder = spec.get("holderIdentity")
        if not holder or holder == self._identity:
            return False
        seen = holder, spec.get("renewTime"), spec.get("leaseTransitions")
        if seen != self._seen:
            self._seen, self._seen_since = seen, self._clock()
        duration = spec.get("leaseDurationSeconds") or self._times.duration
        return self._clock() - self._seen_since < duration

    async def _renew_once(self) -> bool:
        assert self._held is not None
        if await self._write(self._held, self._spec(self._held["spec"])):
            return True
        # Our own write may have succeeded although its response was lost: read who holds the Lease.
        lease = await self._kube.get(LEASES, self._namespace, self._name)
        if (lease.get("spec") or {}).get("holderIdentity") != self._identity:
            self._held = None
            return False
        self._held = lease
        return await self._write(lease, self._spec(lease["spec"]))

    async def _write(self, lease: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
        try:
            self._held = await self._kube.replace(LEASES, self._namespace, self._name, {**lease, "spec": spec})
        except Conflict:
            return False
        return True

    async def _release(self) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        spec = {**held["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro(self._now())}
        with contextlib.suppress(KubeError, TimeoutError):
            async with asyncio.timeout(self._times.request):
                await self._kube.replace(LEASES, self._namespace, self._name, {**held, "spec": spec})

    def _spec(self, before: Mapping[str, Any]) -> dict[str, Any]:
        now = _micro(self._now())
        same = before.get("holderIdentity") == self._identity
        transitions = before.get("leaseTransitions") or 0
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._times.duration),
            "acquireTime": before.get("acquireTime", now) if same else now,
            "renewTime": now,
            "leaseTransitions": transitions if same or not before else transitions + 1,
        }


async def _cancel(task: "asyncio.Future[None]") -> None:
    if task.done():
        return
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _micro(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"
