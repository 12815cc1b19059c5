"""Every fault of the API server on every verb and resource that the operator uses."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tables import Table

from component.plane import Plane
from faults.calls import Call
from faults.cases import each
from faults.lives import Life, everything
from faults.played import Played, play
from faults.proxy import Fault
from faults.site import site

LIFE = Life(name="everything", course=everything)
CALLS = (
    "get discovery",
    "list finetunejobs",
    "watch finetunejobs",
    "list finetuneprofiles",
    "watch finetuneprofiles",
    "get finetunejobs",
    "patch finetunejobs/status",
    "patch progress",
    "list jobs",
    "watch jobs",
    "get jobs",
    "patch jobs",
    "delete jobs",
    "list pods",
    "watch pods",
    "get pods",
    "create services",
    "patch services",
    "create events",
    "patch events",
    "get leases",
    "create leases",
    "update leases",
    "create tokenreviews",
)
"""Every verb and resource that the operator uses."""

RARE = frozenset({"list events", "create jobs (dry run)"})
"""Requests that only a slow cluster or a kill brings about."""

ON_ALL = (
    Fault.CONFLICT,
    Fault.TOO_MANY,
    Fault.ERROR,
    Fault.UNAVAILABLE,
    Fault.TIMEOUT,
    Fault.EXPIRED,
    Fault.RESET,
    Fault.LOST,
    Fault.TRUNCATED,
    Fault.SLOW,
    Fault.SILENT,
)
ON_LISTS = (Fault.GONE, Fault.STALE)
ON_WATCHES = (Fault.GONE, Fault.DUPLICATED, Fault.DROPPED)
FAULT_SECONDS = 5.0
MOST_REQUESTS = 25
"""Requests of one kind in five seconds of a fault that are no busy loop: the watches and the workers each have their
own back-off."""


def faults_of(call: str) -> tuple[Fault, ...]:
    """The faults that a verb and resource can have."""
    verb = call.partition(" ")[0]
    return ON_ALL + {"list": ON_LISTS, "watch": ON_WATCHES}.get(verb, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fault on one verb and resource."""

    call: str
    fault: Fault

    def __str__(self) -> str:
        """For people."""
        return f"{self.fault} on {self.call}"


CASES = tuple(Case(call=call, fault=fault) for call in CALLS for fault in faults_of(call))


class Window:
    """A proxy's plan: a fault that lasts a while, from the first request that it meets after it was armed.

    Attributes:
        struck: requests that it met, in each of its times.
    """

    def __init__(self, case: Case, seconds: float = FAULT_SECONDS) -> None:
        self._case = case
        self._seconds = seconds
        self._until: float | None = None
        self._armed = False
        self.struck: list[int] = []

    def arm(self) -> None:
        """Lets it begin with the next request."""
        self._armed = True

    def __call__(self, call: Call) -> Fault | None:
        """The fault of a call."""
        if str(call) != self._case.call:
            return None
        now = time.monotonic()
        if self._armed:
            self._armed, self._until = False, now + self._seconds
            self.struck.append(0)
        if self._until is None or now >= self._until:
            return None
        self.struck[-1] += 1
        return self._case.fault


@dataclass(frozen=True, kw_only=True)
class Struck:
    """A life with a fault.

    Attributes:
        played: how it went.
        times: how often the fault began.
        most: requests that it met in one of its times, at most.
        requests: all that the operator made.
    """

    played: Played
    times: int
    most: int
    requests: int

    def wrong(self, measure: Played) -> list[str]:
        """What should not be."""
        found = self.played.differences(measure) + self.played.out_of_order(measure) + self.played.errors
        if not self.times:
            found.append("there was no such request")
        if self.most > MOST_REQUESTS:
            found.append(f"{self.most} requests in {FAULT_SECONDS:.0f} s")
        return found


async def undisturbed(plane: Plane, folder: Path) -> tuple[Played, set[str]]:
    """The life without a fault, and the verbs and resources of its requests."""
    async with site(plane, folder) as place:
        place.start()
        played = await play(place, LIFE)
        return played, {str(entry.call) for entry in place.proxy.journal}


async def struck(plane: Plane, folder: Path, case: Case, measure: Played) -> Struck:
    """The life with a fault that comes twice: with the first such request, and with the first once it trains."""
    async with site(plane, folder) as place:
        window = Window(case)

        def reached(_: str) -> None:
            window.arm()
            place.proxy.cut(case.call)

        place.proxy.plan, place.reached = window, reached
        window.arm()
        place.start()
        played = await play(place, LIFE, measure)
        most = max(window.struck, default=0)
        return Struck(played=played, times=len(window.struck), most=most, requests=len(place.proxy.journal))


async def table(plane: Plane, folder: Path, cases: Sequence[Case] = CASES, *, at_a_time: int) -> tuple[Table, bool]:
    """The table, and whether everything in it is as it should be."""
    [(measure, seen)] = await each(
        [LIFE], lambda _: undisturbed(plane, folder), 1, wrong=lambda _, found: _troubles(*found)
    )
    found = await each(
        cases,
        lambda case: struck(plane, folder, case, measure),
        at_a_time,
        wrong=lambda _, item: item.wrong(measure),
    )
    cells: dict[tuple[str, Fault], str] = {}
    good = 0
    for case, item in zip(cases, found, strict=True):
        wrong = item.wrong(measure)
        good += not wrong
        cells[case.call, case.fault] = "**no**" if wrong else str(item.most)
    columns = [fault for fault in Fault if any(case.fault is fault for case in cases)]
    rows = [call for call in CALLS if any(case.call == call for case in cases)]
    result = Table(title="Faults of the API server", heads=["", *columns])
    for call in rows:
        result.rows.append([call, *(cells.get((call, fault), "") for fault in columns)])
    result.note = (
        f"{good} of {len(cases)} converged to the end of the undisturbed life, with the same phases, no Job made "
        "twice, none at work beside another, nothing left and no ERROR line. A number says how many requests met the "
        f"fault in {FAULT_SECONDS:.0f} s."
    )
    return result, good == len(cases) and not _troubles(measure, seen)


def _troubles(measure: Played, seen: set[str]) -> list[str]:
    return measure.troubles + [f"not in the table: {call}" for call in sorted(seen - set(CALLS) - RARE)]
