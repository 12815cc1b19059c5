"""What reconcile wants done: data, not deeds. The controller carries it out in this order.

1. `apply` children by server-side apply; 2. `delete` children; 3. write `status` if it differs from the last one;
4. post `events`; 5. look again after `requeue_after`.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from finetune_operator.api.status import FineTuneJobStatus


class EventType(StrEnum):
    """Kubernetes event types."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event about the FineTuneJob."""

    type: EventType
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """A child Job to delete with its pods, only if it still is the one that was seen."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan for one FineTuneJob.

    Attributes:
        apply: child manifests, complete, for server-side apply with force. All are in the job's namespace.
        delete: children that must go, with background propagation.
        status: the whole status as it should be, `progress` included, but for `job_uid` of a Job in `apply`: that is
            known when it has been applied (`with_job_uid`).
        events: to be posted when the status write succeeded.
        requeue_after: seconds until a deadline or back-off needs another look; None when only events can change it.
    """

    apply: tuple[dict[str, Any], ...] = ()
    delete: tuple[Deletion, ...] = ()
    status: FineTuneJobStatus
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None

    def with_job_uid(self, job_name: str, uid: str) -> "Plan":
        """The plan after a Job of it was applied: the status names its UID, by which alone it is believed."""
        if self.status.job_name != job_name:
            return self
        return replace(self, status=self.status.model_copy(update={"job_uid": uid}))
