"""The pods of a job, and which of them is meant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune_operator.api import names
from finetune_trainer.contract.text import printable

_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """One pod of a job.

    Attributes:
        role: preflight or train.
        attempt: number of the attempt.
        index: its index, of a training on several nodes.
        container: the container that is the operator's; a service mesh may add others.
        created: when, as the API server writes it.
        has_log: whether its container has begun.
        ended: whether it has ended.
    """

    name: str
    uid: str
    role: str
    attempt: int
    index: int
    container: str
    created: str
    has_log: bool
    ended: bool

    @property
    def title(self) -> str:
        """Its name, and what it is."""
        return f"{self.name} ({self.role}, attempt {self.attempt})"


def pods_of(items: Sequence[Mapping[str, Any]]) -> list[PodView]:
    """The pods that are the operator's, oldest first: preflight before training, attempt by attempt."""
    found = [pod for item in items if (pod := _pod(item)) is not None]
    return sorted(found, key=lambda pod: (pod.attempt, pod.role != names.PREFLIGHT_ROLE, pod.created, pod.name))


def _pod(item: Mapping[str, Any]) -> PodView | None:
    metadata, status = item.get("metadata", {}), item.get("status", {})
    labels = metadata.get("labels", {})
    role, attempt = labels.get(names.ROLE_LABEL), labels.get(names.ATTEMPT_LABEL, "")
    if role not in names.CONTAINERS or not attempt.isdecimal():
        return None
    container = names.CONTAINERS[role]
    states = [one.get("state", {}) for one in status.get("containerStatuses", []) if one.get("name") == container]
    index = labels.get(names.INDEX_LABEL, "0")
    return PodView(
        name=printable(metadata.get("name", "")),
        uid=metadata.get("uid", ""),
        role=role,
        attempt=int(attempt),
        index=int(index) if index.isdecimal() else 0,
        container=container,
        created=metadata.get("creationTimestamp", ""),
        has_log=any("running" in state or "terminated" in state for state in states),
        ended=status.get("phase") in _ENDED,
    )


def chosen(
    pods: Sequence[PodView],
    *,
    role: str | None = None,
    attempt: int | None = None,
    index: int = 0,
    every: bool = False,
) -> list[PodView]:
    """The pods that are meant.

    Args:
        pods: all, oldest first.
        role: of this stage only.
        attempt: of this attempt only.
        index: of this index only.
        every: all of them; otherwise the newest, and with `attempt` the newest of that attempt.
    """
    found = [
        pod
        for pod in pods
        if (role is None or pod.role == role) and (attempt is None or pod.attempt == attempt) and pod.index == index
    ]
    return found if every else found[-1:]
