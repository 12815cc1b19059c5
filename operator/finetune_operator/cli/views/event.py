"""Events about an object, for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finetune_operator.cli.views.duration import time_of
from finetune_trainer.contract.text import printable, readable


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """One event.

    Attributes:
        last: when it was last seen.
        count: how often.
    """

    type: str
    reason: str
    message: str
    last: datetime | None
    count: int


def events_of(items: Sequence[Mapping[str, Any]]) -> list[EventView]:
    """Events of the core API, oldest first."""
    found = []
    for item in items:
        series = item.get("series") or {}
        times = (series.get("lastObservedTime"), item.get("lastTimestamp"), item.get("eventTime"))
        found.append(
            EventView(
                type=printable(str(item.get("type", ""))),
                reason=printable(str(item.get("reason", ""))),
                message=readable(str(item.get("message", ""))),
                last=next((time for value in times if (time := time_of(value)) is not None), None),
                count=int(series.get("count") or item.get("count") or 1),
            )
        )
    return sorted(found, key=lambda event: event.last.timestamp() if event.last else 0.0)
