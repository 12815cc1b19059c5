"""Faults of TLS between operator and API server: the operator says what is wrong, once, and goes on when it is over."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tables import Table

from component.plane import Plane
from faults.cases import each
from faults.door import Certificates, TlsFault
from faults.lives import Life
from faults.played import Played, play
from faults.site import Site, site

LOST, FOUND = "the API server cannot be reached at ", "the API server can be reached again"
TIMES = 2
"""How often each fault comes: when the operator starts, and while the job trains."""
_OF_CONNECTIONS = ("Cannot connect", "SSL", "ertificate", "Connector")


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A life with a fault.

    Attributes:
        played: how it went.
        struck: handshakes that met the fault.
        lost: what the operator said of the lost connection, each time.
        found: how often it said that there is a connection again.
        others: other warnings that name certificates or connections.
    """

    played: Played
    struck: int
    lost: list[str]
    found: int
    others: list[str]

    def wrong(self, measure: Played) -> list[str]:
        """What should not be."""
        wrong = self.played.differences(measure) + self.played.out_of_order(measure) + self.played.errors
        if (len(self.lost), self.found) != (TIMES, TIMES):
            wrong.append(f"said {len(self.lost)} and {self.found} times, not {TIMES}: {'; '.join(self.lost)}")
        if len(set(self.lost)) > 1:
            wrong.append(f"said differently: {'; '.join(self.lost)}")
        return wrong + [f"said besides: {line}" for line in self.others]


def life(fault: TlsFault | None) -> Life:
    """A job that is suspended while nobody can connect to the API server, and resumed afterwards."""

    async def course(place: Site) -> None:
        assert place.door is not None
        if fault is not None:
            await _said(place, LOST, 1)
            place.door.change(None, cut=False)  # no handshake is cut by its end
        await place.create(retry={"backoffSeconds": 1})
        await place.run(await place.pod("job-train-1"))
        await place.phase("Running")
        if fault is not None:
            place.door.change(fault)
            await _said(place, LOST, 2)
        await place.change(suspend=True)
        place.door.change(None, cut=False)  # no handshake is cut by its end
        await place.backed_off()
        await place.change(suspend=False)
        pod = await place.pod("job-train-2")
        await place.run(pod)
        await place.phase("Running", attempt=2)
        await place.end(pod)
        await place.phase("Succeeded")

    return Life(name=fault or "no fault", course=course)


async def broken(
    plane: Plane, folder: Path, certificates: Certificates, fault: TlsFault | None, measure: Played | None
) -> Broken:
    """The life with a fault, or without."""
    async with site(plane, folder, certificates) as place:
        assert place.door is not None
        place.door.change(fault)
        place.start()
        played = await play(place, life(fault), measure)
        said = [item["message"] for item in place.log() if item["level"] in ("WARNING", "ERROR", "CRITICAL")]
        lost = [line.removeprefix(LOST).partition(": ")[2] for line in said if line.startswith(LOST)]
        others = [line for line in said if not line.startswith(LOST) and any(word in line for word in _OF_CONNECTIONS)]
        return Broken(
            played=played, struck=place.door.struck, lost=lost, found=await _count(place, FOUND), others=others
        )


async def _said(place: Site, words: str, times: int) -> None:
    async def look() -> bool:
        return await _count(place, words) >= times

    await place.until(f"the log to say {times} times: {words}", look)


async def _count(place: Site, words: str) -> int:
    log = await asyncio.to_thread(place.log)
    return sum(item["message"].startswith(words) for item in log)


async def table(
    plane: Plane, folder: Path, faults: Sequence[TlsFault] = tuple(TlsFault), *, at_a_time: int
) -> tuple[Table, bool]:
    """The table, and whether everything in it is as it should be."""
    certificates = Certificates(folder / "certificates")
    [measure] = await each(
        [None],
        lambda fault: broken(plane, folder, certificates, fault, None),
        1,
        wrong=lambda _, item: item.played.troubles,
    )
    found = await each(
        faults,
        lambda fault: broken(plane, folder, certificates, fault, measure.played),
        at_a_time,
        wrong=lambda _, item: item.wrong(measure.played),
    )
    good = sum(not item.wrong(measure.played) for item in found)
    result = Table(
        title="Faults of TLS", heads=["fault", "handshakes", "the operator says, once each time", "converged"]
    )
    for fault, item in zip(faults, found, strict=True):
        verdict = "**no**" if item.wrong(measure.played) else "yes"
        result.rows.append((str(fault), str(item.struck), "; ".join(dict.fromkeys(item.lost)), verdict))
    result.note = (
        f"{good} of {len(faults)} converged to the end of the undisturbed life. Each fault comes twice: when the "
        "operator starts, and while the job trains and is suspended."
    )
    return result, good == len(faults) and not measure.played.troubles
