"""What progress reporting needs of the cluster, as it sees it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from finetune_operator.api.finetunejob import FineTuneJobRef
from finetune_operator.api.status import ProgressStatus


class Unavailable(Exception):  # noqa: N818 (a state)
    """The cluster can not answer now; the report is to be sent again later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodIdentity:
    """The pod that a token was issued to."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneJobState:
    """What of a FineTuneJob decides about its reports.

    Attributes:
        finished: its run has ended; no report changes anything any more.
        attempt: the current attempt; reports of an earlier one are out of date.
        shown: heartbeat of the record in the status.
    """

    finished: bool
    attempt: int
    heartbeat_time: datetime | None


class Cluster(Protocol):
    """The cluster. Every method may raise `Unavailable`."""

    async def review(self, token: str, audience: str) -> PodIdentity | None:
        """The pod that a token with this audience was issued to; None when it is not valid, or not a pod's."""
        ...

    async def finetunejob(self, ref: FineTuneJobRef) -> FineTuneJobState | None:
        """The FineTuneJob, or None when there is none with that name and UID."""
        ...

    async def attempt_of(self, ref: FineTuneJobRef, pod: PodIdentity) -> int | None:
        """The attempt of the job that the pod works on; None when the pod is none of the job's."""
        ...

    async def write(self, ref: FineTuneJobRef, attempt: int, progress: ProgressStatus) -> None:
        """Replaces `status.progress`, unless the job has ended, went on to another attempt or shows a later record."""
        ...
