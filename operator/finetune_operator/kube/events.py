"""Events about FineTuneJobs (events.k8s.io/v1): for people, never for decisions.

A repeated event raises the series count of the existing one, as Kubernetes' own components do. An event that cannot be
posted is only logged: no job may fail because of it.
"""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJobRef
from finetune_operator.kube.api import EVENTS, Kube
from finetune_operator.kube.errors import KubeError, NotFound
from finetune_operator.reconcile.plan import Event
from finetune_trainer.contract.text import readable

logger = logging.getLogger(__name__)

MAX_NOTE_BYTES = 1024  # the API server counts bytes, although its message says characters
REMEMBERED = 4096
SAME_SERIES_SECONDS = 3600.0  # how long the API server keeps an event by default (--event-ttl)


@dataclass(slots=True)
class _Series:
    name: str
    count: int
    started: datetime


class EventRecorder:
    """Posts events.

    Args:
        instance: name of this replica, for `reportingInstance`.
        now: the current time, with a time zone.
    """

    def __init__(self, kube: Kube, *, instance: str, now: Callable[[], datetime]) -> None:
        self._kube = kube
        self._instance = instance
        self._now = now
        self._series: OrderedDict[tuple[str, Event], _Series] = OrderedDict()

    async def post(self, regarding: FineTuneJobRef, events: Iterable[Event]) -> None:
        """Posts the events. Errors are logged; it never raises a KubeError."""
        for event in events:
            try:
                await self._post(regarding, event)
            except KubeError as error:
                logger.log(
                    error.level,
                    "event %s not posted: %s",
                    event.reason,
                    error.message,
                    extra={"job": f"{regarding.namespace}/{regarding.name}"},
                )

    async def _post(self, regarding: FineTuneJobRef, event: Event) -> None:
        now = self._now()
        series = self._series.get((regarding.uid, event))
        if series is not None and (now - series.started).total_seconds() < SAME_SERIES_SECONDS:
            series.count += 1
            patch = {"series": {"count": series.count, "lastObservedTime": _micro(now)}}
            try:
                await self._kube.merge(
                    EVENTS, regarding.namespace, series.name, patch, field_manager=names.FIELD_MANAGER
                )
            except NotFound:
                pass  # expired or deleted: create a new one
            else:
                return
        name = self._name(regarding, event, now)
        await self._kube.create(EVENTS, regarding.namespace, self._body(name, regarding, event, now))
        self._series[regarding.uid, event] = _Series(name, 1, now)
        while len(self._series) > REMEMBERED:
            self._series.popitem(last=False)

    def _body(self, name: str, regarding: FineTuneJobRef, event: Event, now: datetime) -> dict[str, object]:
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": regarding.namespace, "name": name},
            "regarding": {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "namespace": regarding.namespace,
                "name": regarding.name,
                "uid": regarding.uid,
            },
            "eventTime": _micro(now),
            "type": event.type,
            "reason": event.reason,
            "action": "Reconcile",
            "note": _cut(event.message),
            "reportingController": names.CONTROLLER_NAME,
            "reportingInstance": self._instance,
        }

    def _name(self, regarding: FineTuneJobRef, event: Event, now: datetime) -> str:
        seed = f"{regarding.uid}/{event.reason}/{event.message}/{now.timestamp()}"
        return f"{regarding.name[:200]}.{hashlib.sha256(seed.encode()).hexdigest()[:16]}"


def _cut(text: str) -> str:
    text = readable(text)
    encoded = text.encode()
    if len(encoded) <= MAX_NOTE_BYTES:
        return text
    return encoded[: MAX_NOTE_BYTES - len("…".encode())].decode(errors="ignore") + "…"


def _micro(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"
