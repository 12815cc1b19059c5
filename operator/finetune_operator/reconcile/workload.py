"""Kueue's Workload of a child Job: what the queue says of it.

The Workload is Kueue's own object about the Job. Its conditions say why the Job waits, who preempted it, and where it
was admitted. Nothing here decides about quota: the words are Kueue's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from finetune_operator.api.kueue import JOB_UID_LABEL
from finetune_trainer.contract.text import readable

_OUT_OF_TIME = "MaximumExecutionTimeExceeded"
_NAMED_POSITIONS = 10
"""Places in the queue that are named one by one. Behind them a place would change the status of every job in the queue
whenever one leaves it."""


class QueueState(StrEnum):
    """What a queue does with a Job."""

    PENDING = "Pending"
    """It waits for quota."""
    INADMISSIBLE = "Inadmissible"
    """It cannot be admitted as things are: there is no such queue, or the queue is stopped."""
    PREEMPTED = "Preempted"
    """It ran, had to stop for another one, and waits."""
    EVICTED = "Evicted"
    """It ran or was about to, had to stop for another reason, and waits."""
    DEACTIVATED = "Deactivated"
    """It is not considered until its Workload is set active again."""
    OUT_OF_TIME = "OutOfTime"
    """Kueue stopped it at its maximum execution time."""
    RESERVED = "QuotaReserved"
    """It has quota, and waits for an admission check such as new nodes."""
    ADMITTED = "Admitted"
    """It may run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadView:
    """A copy of the fields of a Workload that the policy reads.

    Attributes:
        name: the Workload's name.
        queue: its LocalQueue; empty if it has none.
        state: what the queue does with it.
        words: Kueue's words on that; empty if there are none.
        cluster_queue: the ClusterQueue that gave quota; empty if none has.
        flavors: resource and its flavor, for each resource that was given, in their order.
        position: place in the LocalQueue, from 1; None if it is not known, or behind the tenth.
    """

    name: str
    queue: str
    state: QueueState
    words: str
    cluster_queue: str = ""
    flavors: tuple[tuple[str, str], ...] = ()
    position: int | None = None

    @property
    def admission(self) -> str:
        """Where it was admitted, for people; empty if it was not."""
        if not self.cluster_queue:
            return ""
        flavors = ", ".join(f"{resource} of flavor {flavor}" for resource, flavor in self.flavors)
        return f"ClusterQueue {self.cluster_queue}" + (f" ({flavors})" if flavors else "")


def job_uid(raw: Mapping[str, Any]) -> str:
    """UID of the Job that controls a Workload; empty if none does, or if its label names another Job."""
    metadata = raw["metadata"]
    labelled: str = (metadata.get("labels") or {}).get(JOB_UID_LABEL, "")
    owners = metadata.get("ownerReferences") or ()
    return labelled if any(owner.get("controller") and owner.get("uid") == labelled for owner in owners) else ""


def part_read(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Workload that a view is made of. The pod templates and managed fields are most of it."""
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    return {
        "metadata": {"name": raw["metadata"]["name"]},
        "spec": {key: spec[key] for key in ("queueName", "active") if key in spec},
        "status": {key: status[key] for key in ("conditions", "admission") if key in status},
    }


def positions(pending: Mapping[str, Any]) -> dict[str, int]:
    """Place in the LocalQueue, from 0, by the Workload's name, of a PendingWorkloadsSummary."""
    items = pending.get("items") or ()
    return {item["metadata"]["name"]: item.get("positionInLocalQueue", 0) for item in items}


def workload_view(raw: Mapping[str, Any], places: Mapping[str, int]) -> WorkloadView:
    """The view of a Workload.

    Args:
        raw: the Workload, or its `part_read`.
        places: its LocalQueue's `positions`; empty if they are not known.
    """
    spec, status = raw.get("spec") or {}, raw.get("status") or {}
    state, words = _state(spec, {item.get("type", ""): item for item in status.get("conditions") or ()})
    place = places.get(raw["metadata"]["name"])
    return WorkloadView(
        name=raw["metadata"]["name"],
        queue=readable(spec.get("queueName") or ""),
        state=state,
        words=words,
        position=place + 1 if place is not None and place < _NAMED_POSITIONS else None,
        **_admission(status.get("admission")),
    )


def _state(spec: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> tuple[QueueState, str]:
    evicted, reserved = conditions.get("Evicted", {}), conditions.get("QuotaReserved", {})
    reason = evicted.get("reason", "") if evicted.get("status") == "True" else ""
    waits = _words(reserved)
    if spec.get("active") is False:
        return (QueueState.OUT_OF_TIME if reason.endswith(_OUT_OF_TIME) else QueueState.DEACTIVATED), _words(evicted)
    if reserved.get("status") != "True" and reserved.get("reason") == "Inadmissible":
        return QueueState.INADMISSIBLE, waits
    if reason:
        # The condition stays until quota is reserved again.
        preempted = reason == "Preempted"
        cause = _words(conditions.get("Preempted", evicted) if preempted else evicted)
        both = "; ".join(dict.fromkeys(text for text in (cause, waits) if text))
        return (QueueState.PREEMPTED if preempted else QueueState.EVICTED), both
    if conditions.get("Admitted", {}).get("status") == "True":
        return QueueState.ADMITTED, ""
    if reserved.get("status") == "True":
        return QueueState.RESERVED, _words(conditions.get("Admitted", {}))
    return QueueState.PENDING, waits


def _words(condition: Mapping[str, Any]) -> str:
    return readable(condition.get("message") or "")


def _admission(admission: Mapping[str, Any] | None) -> dict[str, Any]:
    if not admission:
        return {}
    flavors: dict[str, str] = {}
    for assignment in admission.get("podSetAssignments") or ():
        flavors.update(assignment.get("flavors") or {})
    named = tuple((readable(resource), readable(flavor)) for resource, flavor in sorted(flavors.items()))
    return {"cluster_queue": readable(admission.get("clusterQueue") or ""), "flavors": named}
