"""The operator killed by SIGKILL before and after every write of whole lives."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tables import Table

from component.plane import Plane
from faults.calls import Call
from faults.cases import each
from faults.lives import LIVES, Life
from faults.played import Played, play
from faults.proxy import Fault
from faults.site import site

LEASE_WRITES = 2
"""The first that takes the Lease, and the first renewal. The later ones are like it."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where the operator is killed.

    Attributes:
        number: of the write, from 1, in one of two series: those about leases, and all others.
        lease: which series.
        when: before the write, or after it.
    """

    number: int
    lease: bool
    when: Fault

    def __str__(self) -> str:
        """For people."""
        return f"{self.when}, {'lease write' if self.lease else 'write'} {self.number}"


class KillOnce:
    """A proxy's plan: one kill, at a point.

    Attributes:
        killed_at: the call at which it happened; None before.
    """

    def __init__(self, point: Point) -> None:
        self._point = point
        self._count = 0
        self.killed_at: Call | None = None

    def __call__(self, call: Call) -> Fault | None:
        """The fault of a call."""
        if not call.writes or call.about_lease is not self._point.lease or self.killed_at is not None:
            return None
        self._count += 1
        if self._count < self._point.number:
            return None
        self.killed_at = call
        return self._point.when


@dataclass(frozen=True, kw_only=True)
class Killed:
    """A life with a kill.

    Attributes:
        at: the write at which the operator was killed; None if there was no such write. A slow cluster has more writes
            in some plays than in others: the operator says it when a Job gets no pod for a while.
        played: how it went.
    """

    at: Call | None
    played: Played

    def wrong(self, measure: Played) -> list[str]:
        """What should not be."""
        return self.played.differences(measure) + self.played.out_of_order(measure) + self.played.errors


async def undisturbed(plane: Plane, folder: Path, life: Life) -> tuple[Played, list[Call]]:
    """A life without a kill, and the operator's writes in it, those to its Lease left out."""
    async with site(plane, folder) as place:
        place.start()
        played = await play(place, life)
        await place.stop()
        writes = [entry.call for entry in place.proxy.journal if entry.call.writes and not entry.call.about_lease]
        return played, writes


async def killed(plane: Plane, folder: Path, life: Life, point: Point, measure: Played) -> Killed:
    """The life with a kill; the operator is started again at once, under its name."""
    async with site(plane, folder) as place:
        plan = KillOnce(point)

        async def kill() -> None:
            await place.kill()
            place.start()

        place.proxy.plan, place.proxy.on_kill = plan, kill
        place.struck = lambda: plan.killed_at is not None
        place.start()
        played = await play(place, life, measure)
        return Killed(at=plan.killed_at, played=played)


def points(writes: int, *, lease: bool) -> list[Point]:
    """Before and after each of that many writes."""
    numbers = range(1, writes + 1)
    return [Point(number=n, lease=lease, when=when) for n in numbers for when in _WHEN]


_WHEN = (Fault.KILLED_BEFORE, Fault.KILLED_AFTER)


async def table(plane: Plane, folder: Path, lives: Sequence[Life] = LIVES, *, at_a_time: int) -> tuple[Table, bool]:
    """The table, and whether everything in it is as it should be."""
    heads = ["life", "writes", "kills", "converged", "Jobs made twice", "Jobs at work together", "orphans"]
    heads += ["phases out of order", "ERROR lines", "s that a kill cost, at most"]
    result = Table(title="The operator killed before and after every write", heads=heads)
    measures = await each(
        lives, lambda life: undisturbed(plane, folder, life), at_a_time, wrong=lambda _, found: found[0].troubles
    )
    plays = [
        (life, point, measure)
        for life, (measure, writes) in zip(lives, measures, strict=True)
        # All lives have the same Lease.
        for point in points(len(writes), lease=False) + points(LEASE_WRITES if life is lives[0] else 0, lease=True)
    ]
    found = await each(
        plays,
        lambda one: killed(plane, folder, *one),
        at_a_time,
        name=lambda one: f"{one[0]}: {one[1]}",
        wrong=lambda one, item: item.wrong(one[2]),
    )
    for life, (measure, writes) in zip(lives, measures, strict=True):
        mine = [item for (of, *_), item in zip(plays, found, strict=True) if of is life and item.at is not None]
        result.rows.append(_row(life, len(writes), measure, mine))
    good = [not item.wrong(measure) for (*_, measure), item in zip(plays, found, strict=True)]
    met = [item.at is not None for item in found]
    converged = sum(right for right, killed in zip(good, met, strict=True) if killed)
    result.note = f"{converged} of {sum(met)} kills converged to the end of the undisturbed life."
    if not all(met):
        result.note += f" {len(met) - sum(met)} plays did not come to the write at which they were to be killed."
    return result, all(good) and any(met) and not any(measure.troubles for measure, _ in measures)


def _row(life: Life, writes: int, measure: Played, found: Sequence[Killed]) -> tuple[str, ...]:
    played = [item.played for item in found]
    return (
        life.name,
        str(writes),
        str(len(found)),
        str(sum(not item.differences(measure) for item in played)),
        str(sum(len(item.twice) for item in played)),
        str(sum(len(item.together) for item in played)),
        str(sum(len(item.orphans) for item in played)),
        str(sum(len(item.out_of_order(measure)) for item in played)),
        str(sum(len(item.errors) for item in played)),
        f"{max((item.seconds - measure.seconds for item in played), default=0.0):.0f}",
    )
