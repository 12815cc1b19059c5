"""The operator under random faults for a long time: 200 jobs that end, fail, are suspended, deleted and made again."""

import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.tables import Table

from component.plane import Plane
from faults.api_faults import ON_ALL
from faults.calls import Call
from faults.kubelet import Kubelet
from faults.proxy import Fault
from faults.site import Site, site
from finetune_operator.api import names
from finetune_operator.kube.api import FINETUNEJOBS
from finetune_operator.kube.errors import KubeError
from finetune_trainer.contract.failure import FailureReason

JOBS = 200
RATE = 0.03
"""The chance that a request meets a fault, or that an event of a watch is lost or doubled."""
SEED = 14
ACTIONS_PER_SECOND = 4
_ON_REQUESTS = tuple(fault for fault in ON_ALL if fault is not Fault.SILENT)
_ON_WATCHES = (*_ON_REQUESTS, Fault.GONE, Fault.DUPLICATED, Fault.DROPPED)
_ENDINGS = (None, None, None, None, FailureReason.STORAGE_UNAVAILABLE, FailureReason.PREEMPTED, FailureReason.KILLED)


class Weather:
    """A proxy's plan: faults by chance, until it is over."""

    def __init__(self) -> None:
        self._random = random.Random(SEED)
        self.over = False

    def __call__(self, call: Call) -> Fault | None:
        """The fault of a call, or of an event of a watch."""
        if self.over or call.about_lease or self._random.random() >= RATE:
            return None
        return self._random.choice(_ON_WATCHES if call.verb == "watch" else _ON_REQUESTS)


@dataclass
class Users:
    """What users do to the jobs, by chance."""

    site: Site
    done: Counter[str] = field(default_factory=Counter)
    _random: random.Random = field(default_factory=lambda: random.Random(SEED))

    async def create(self, number: int) -> None:
        """Makes a job."""
        await self.site.create(
            f"job-{number}",
            retry={"backoffSeconds": 1, "limit": 100},
            preflight={"enabled": number % 2 == 0},
            retention={"ttlSecondsAfterFinished": 30},
        )

    async def act(self) -> None:
        """Does one thing to one job."""
        number = self._random.randrange(JOBS)
        name = f"job-{number}"
        raw = await self.site.job(name)
        phase = (raw.get("status") or {}).get("phase")
        if phase == "Suspended":
            await self._patch(name, "resumed", suspend=False)
        elif phase == "Succeeded":
            if self._random.random() < 0.5:
                await self._patch(name, "run again", runToken=f"t{self._random.randrange(10**9)}")
            else:
                await self.site.admin.delete(FINETUNEJOBS, self.site.namespace, name, uid=raw["metadata"]["uid"])
                await self.create(number)
                self.done["deleted and made again"] += 1
        elif phase == "Running" and self._random.random() < 0.3:
            await self._patch(name, "suspended", suspend=True)

    async def calm(self) -> None:
        """Resumes what is suspended."""
        for number in range(JOBS):
            await self._patch(f"job-{number}", "", suspend=False)

    async def _patch(self, name: str, what: str, **spec: object) -> None:
        patch = {"spec": spec}
        await self.site.admin.merge(FINETUNEJOBS, self.site.namespace, name, patch, field_manager="kubectl-patch")
        self.done[what] += 1


async def table(plane: Plane, folder: Path, minutes: float) -> tuple[Table, bool]:
    """The table, and whether everything in it is as it should be."""
    async with site(plane, folder) as place:
        place.resync_seconds = 60
        weather = Weather()
        place.proxy.plan = weather
        endings = random.Random(SEED)
        kubelet = Kubelet(place, ending=lambda: endings.choice(_ENDINGS), period=0.5)
        users = Users(place)
        place.start()
        heads = ["minute", "operator's memory, MiB", "requests a second", "faults", "trainings ended", "ERROR lines"]
        result = Table(title=f"{minutes:.0f} minutes of random faults with {JOBS} jobs", heads=heads)
        memory: list[tuple[float, float]] = []
        async with kubelet.running():
            for number in range(JOBS):
                await users.create(number)
            began = time.monotonic()
            rows = 10
            for row in range(1, rows + 1):
                await _act_until(users, began + row * minutes * 60 / rows)
                at = (time.monotonic() - began) / 60
                memory.append((at, _memory_mib(place.pid)))
                requests = len(place.proxy.journal)
                place.proxy.journal.clear()
                result.rows.append(
                    (
                        f"{at:.0f}" if minutes >= rows else f"{at:.1f}",
                        f"{memory[-1][1]:.1f}",
                        f"{requests / (minutes * 60 / rows):.1f}",
                        str(place.proxy.counts.total()),
                        str(kubelet.trained.total()),
                        str(len(place.errors())),
                    )
                )
                print(result.rows[-1], flush=True)
            weather.over = True
            await users.calm()
            unfinished = await _wait_for_ends(place)
        errors = place.errors() + ["the operator has ended"] * (not place.alive)
        leftovers = await _strays(place)
    for line in [*errors, *(f"not ended: {name}" for name in unfinished), *(f"stray: {name}" for name in leftovers)]:
        print(f"WRONG {line}", file=sys.stderr, flush=True)
    did = ", ".join(f"{count} {what}" for what, count in sorted(users.done.items()) if what)
    result.note = (
        f"{JOBS - len(unfinished)} of {JOBS} jobs ended well after the faults. "
        f"Of the second half of the time, memory grew by {_slope(memory):.1f} MiB an hour. Users: {did}."
    )
    return result, not (errors or unfinished or leftovers)


async def _act_until(users: Users, until: float) -> None:
    while time.monotonic() < until:
        with contextlib.suppress(KubeError):  # the job is being made again
            await users.act()
        await asyncio.sleep(1 / ACTIONS_PER_SECOND)


async def _wait_for_ends(place: Site) -> list[str]:
    """The jobs that have not succeeded after a long while."""
    deadline = time.monotonic() + 600
    while True:
        jobs = await place.items(FINETUNEJOBS)
        unfinished = [item["metadata"]["name"] for item in jobs if not _succeeded(item)]
        if (len(jobs) == JOBS and not unfinished) or time.monotonic() > deadline:
            return unfinished
        await asyncio.sleep(2)


def _succeeded(raw: dict[str, object]) -> bool:
    status = raw.get("status")
    return isinstance(status, dict) and status.get("phase") == "Succeeded"


async def _strays(place: Site) -> list[str]:
    """Batch Jobs whose FineTuneJob is not there, and that the garbage collector has not taken for a while."""
    for _ in range(60):
        uids = {item["metadata"]["uid"] for item in await place.items(FINETUNEJOBS)}
        jobs = await place.jobs()
        strays = [
            item["metadata"]["name"]
            for item in jobs
            if item["metadata"]["labels"][names.FINETUNEJOB_UID_LABEL] not in uids
        ]
        if not strays:
            return []
        await asyncio.sleep(1)
    return strays


def _memory_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def _slope(memory: list[tuple[float, float]]) -> float:
    """MiB an hour over the second half, by least squares."""
    half = memory[len(memory) // 2 :]
    mean_at = sum(at for at, _ in half) / len(half)
    mean = sum(value for _, value in half) / len(half)
    spread = sum((at - mean_at) ** 2 for at, _ in half)
    return 60 * sum((at - mean_at) * (value - mean) for at, value in half) / spread if spread else 0.0
