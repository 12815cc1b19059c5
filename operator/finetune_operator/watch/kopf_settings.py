"""The settings of kopf, which is used only for its watches.

Its storage, event posting, resource scanning and peering are off. State in annotations would be lost by
`kubectl replace` and restored by a backup. The operator's state is the status and the children.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from finetune_operator.api import names

FINALIZER = f"{names.GROUP}/unused"
"""Never set, because no handler needs one. If one appears by mistake, its name shows that it is ours."""


def kopf_settings(*, children: str) -> kopf.OperatorSettings:
    """Settings for one run of kopf.

    Args:
        children: label selector of the Jobs and pods that are ours.
    """
    settings = kopf.OperatorSettings()
    # Only our Jobs and pods should reach the process: kopf's handler filters act after parsing.
    settings.watching.label_selectors["batch", "v1", "jobs"] = children
    settings.watching.label_selectors["", "v1", "pods"] = children
    settings.watching.connect_timeout = 10.0
    settings.watching.reconnect_backoff = 1.0  # the default is a hot loop while the API server is down
    settings.watching.chunk_size = 100  # an object may have 1.5 MB
    settings.networking.request_timeout = 30.0  # the default lets a hung request block an object for five minutes
    settings.networking.connect_timeout = 10.0
    settings.networking.error_backoffs = Backoffs()  # when a list of back-offs ends, kopf.operator() raises
    settings.queueing.idle_timeout = 1.0
    # worker_limit stays unset: with a limit each object would keep its slot for the idle time.
    settings.posting.enabled = False
    settings.scanning.disabled = True  # needs no rights on namespaces and CRDs
    settings.peering.standalone = True  # otherwise an object named "default" turns peering on
    settings.persistence.finalizer = FINALIZER
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()
    settings.process.ultimate_exiting_timeout = None  # it would kill the whole process
    return settings


class NoMemories(ResourceMemories):
    """Keeps no memory of objects: kopf would keep 9 KB for each object, finished jobs and their pods included.

    The memories serve handlers that we do not have (changes, daemons, indexes). The class is private to kopf, but the
    argument `kopf.spawn_tasks(memories=…)` is public. kopf is pinned to the minor version.
    """

    async def recall(self, raw_body: kopf.RawBody, **options: Any) -> ResourceMemory:
        """A memory for this event alone."""
        return await super().recall(raw_body, **{**options, "ephemeral": True})


@dataclass(frozen=True)
class Backoffs(Iterable[float]):
    """Endless back-offs: 1 s doubling to 60 s, each up to half longer by jitter, so that replicas spread out."""

    first: float = 1.0
    longest: float = 60.0

    def __iter__(self) -> Iterator[float]:
        """A fresh sequence."""
        delay = self.first
        while True:
            yield delay * (1 + random.random() / 2)  # noqa: S311 (jitter)
            delay = min(self.longest, 2 * delay)


class NoDiffBase(kopf.DiffBaseStorage):
    """Stores and builds no last-handled configuration. Building it is 40 % of kopf's CPU time for an event."""

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
