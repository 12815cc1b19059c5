"""One life played under some fault, and what was wrong with it. A life without faults is the measure of the others."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from faults.lives import Life
from faults.site import DidNotConverge, OneAtATime, Site
from finetune_operator.kube.errors import KubeError

SETTLING_SECONDS = 60.0
"""How long the end is waited for after the life has ended: the Jobs' ends are the Job controller's writes."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """How a life went.

    Attributes:
        seconds: how long it took.
        outcome: what is there at its end (`Site.outcome`); empty if it did not end.
        history: the phases.
        stuck: what was waited for in vain; empty if nothing was.
        twice: names that several batch Jobs had.
        together: batch Jobs that were at work at the same time.
        orphans: what was left after the FineTuneJob was deleted.
        errors: lines of the operator's log with level ERROR.
    """

    seconds: float
    outcome: dict[str, Any] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    stuck: str = ""
    twice: list[str] = field(default_factory=list)
    together: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def troubles(self) -> list[str]:
        """What is wrong even without faults."""
        return [f"waited for {self.stuck}"] * bool(self.stuck) + self.errors

    def differences(self, measure: "Played") -> list[str]:
        """What is not as in the life without faults."""
        found = []
        if self.stuck:
            found.append(f"did not converge: waited for {self.stuck}")
        else:
            found += [
                f"{name}: {self.outcome.get(name)}, not {expected}"
                for name, expected in measure.outcome.items()
                if self.outcome.get(name) != expected
            ]
        found += [f"several Jobs were called {name}" for name in self.twice]
        found += [f"at work together: {names}" for names in self.together]
        found += [f"left: {name}" for name in self.orphans]
        return found

    def out_of_order(self, measure: "Played") -> list[str]:
        """The phases, if they are not those of the life without faults."""
        return [] if self.history == measure.history or self.stuck else [f"phases: {' '.join(self.history)}"]


async def play(place: Site, life: Life, measure: Played | None = None) -> Played:
    """Plays a life at a place whose operator has been started, and looks what is left of it.

    Args:
        place: the namespace.
        life: the life.
        measure: the life without faults, whose outcome is waited for.
    """
    watch = OneAtATime(place)
    began = time.monotonic()
    stuck = ""
    outcome: dict[str, Any] = {}
    orphans: list[str] = []
    try:
        await life.course(place)
        outcome = await _settled(place, measure)
    except (DidNotConverge, KubeError) as error:
        stuck = str(error)
    seconds = time.monotonic() - began
    try:
        await place.delete()
    except DidNotConverge:
        orphans = await place.left()
    made = Counter(name for name, _ in place.made())
    return Played(
        seconds=seconds,
        outcome=outcome,
        history=place.history(),
        stuck=stuck,
        twice=[name for name, count in made.items() if count > 1],
        together=watch.together,
        orphans=orphans,
        errors=place.errors(),
    )


async def _settled(place: Site, measure: Played | None) -> dict[str, Any]:
    """The outcome once it is the expected one, or the Jobs have come to their ends; the last one otherwise."""
    deadline = time.monotonic() + SETTLING_SECONDS
    while True:
        outcome = await place.outcome()
        if measure is None:
            settled = not any("active" in job or "deleting" in job for job in outcome["jobs"])
        else:
            settled = outcome == measure.outcome
        if (settled and place.struck()) or time.monotonic() > deadline:
            return outcome
        await asyncio.sleep(0.2)
