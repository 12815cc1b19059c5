"""The plan that reconcile returns. It is only data; the controller carries it out in this order.

1. `apply` children by server-side apply; 2. `delete` children; 3. patch `status` if it differs from the last one;
4. post `events`; 5. requeue after `requeue_after`.
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
    """A child Job to delete with its pods, only if it still has that UID."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan for one FineTuneJob.

    Attributes:
        apply: complete child manifests for server-side apply with force. All are in the FineTuneJob's namespace.
        delete: children to delete, with background propagation.
        status: the whole desired status, with `progress`. `job_uid` of a Job in `apply` is known only when it has been
            applied (`with_job_uid`).
        events: events to post after the status patch has succeeded.
        requeue_after: seconds until a deadline or back-off needs another reconcile; None when only an event does.
    """

    apply: tuple[dict[str, Any], ...] = ()
    delete: tuple[Deletion, ...] = ()
    status: FineTuneJobStatus
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None

    def with_job_uid(self, job_name: str, uid: str) -> "Plan":
        """The plan after one of its Jobs was applied: the status has the UID, which identifies the Job from now on."""
        if self.status.job_name != job_name:
            return self
        return replace(self, status=self.status.model_copy(update={"job_uid": uid}))
