"""How kopf is used: as a watch and nothing else.

Everything that kopf would store, post, scan or lead is off. What it keeps in annotations would be state that a
`kubectl replace` wipes and a backup brings back; our state is the status and the children.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from finetune_operator.api import names

FINALIZER = f"{names.GROUP}/unused"
"""Never set: there is no handler that needs one. Under this name a stray one could be recognised as ours."""


def kopf_settings(*, children: str) -> kopf.OperatorSettings:
    """Settings for one run of kopf.

    Args:
        children: label selector of the Jobs and pods that are ours.
    """
    settings = kopf.OperatorSettings()
    # Of all Jobs and pods of the cluster only ours should reach the process: handler filters act after parsing.
    settings.watching.label_selectors["batch", "v1", "jobs"] = children
    settings.watching.label_selectors["", "v1", "pods"] = children
    settings.watching.connect_timeout = 10.0
    settings.watching.reconnect_backoff = 1.0  # the default is a hot loop while the API server is down
    settings.watching.chunk_size = 100  # an object may have 1.5 MB
    settings.networking.request_timeout = 30.0  # the default lets a hung request block an object for five minutes
    settings.networking.connect_timeout = 10.0
    settings.networking.error_backoffs = Backoffs()  # when they end, kopf.operator() raises
    settings.queueing.idle_timeout = 1.0
    # worker_limit stays unset: with one, each object holds its slot for the idle time.
    settings.posting.enabled = False
    settings.scanning.disabled = True  # needs no rights on namespaces and CRDs
    settings.peering.standalone = True  # else an object named "default" turns peering on
    settings.persistence.finalizer = FINALIZER
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()
    settings.process.ultimate_exiting_timeout = None  # it would kill the whole process
    return settings


class NoMemories(ResourceMemories):
    """Remembers no object: kopf would keep 9 KB for each it has seen, finished jobs and their pods included.

    What it remembers is for handlers that we do not have (changes, daemons, indexes). The class is private to kopf, its
    place in `kopf.spawn_tasks(memories=…)` is not; kopf is pinned to the minor version.
    """

    async def recall(self, raw_body: kopf.RawBody, **options: Any) -> ResourceMemory:
        """A memory for this event alone."""
        return await super().recall(raw_body, **{**options, "ephemeral": True})


@dataclass(frozen=True)
class Backoffs(Iterable[float]):
    """Endless back-offs: 1 s doubling to 60 s, each up to half longer, so that replicas do not come back together."""

    first: float = 1.0
    longest: float = 60.0

    def __iter__(self) -> Iterator[float]:
        """A fresh sequence."""
        delay = self.first
        while True:
            yield delay * (1 + random.random() / 2)  # noqa: S311 (jitter)
            delay = min(self.longest, 2 * delay)


class NoDiffBase(kopf.DiffBaseStorage):
    """Stores no last-handled configuration, and builds none: that alone is 40 % of kopf's CPU per event."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Nothing."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Nothing."""
        return None

    def store(self, **_: Any) -> None:
        """Stores nothing."""


class NoProgress(kopf.ProgressStorage):
    """Stores no progress of handlers."""

    def fetch(self, **_: Any) -> kopf.ProgressRecord | None:
        """Nothing."""
        return None

    def store(self, **_: Any) -> None:
        """Stores nothing."""

    def purge(self, **_: Any) -> None:
        """Removes nothing."""

    def touch(self, **_: Any) -> None:
        """Touches nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """The essence as it is."""
        return essence
