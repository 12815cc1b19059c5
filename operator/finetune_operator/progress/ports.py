"""The Protocol of the cluster that progress reporting needs."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from finetune_operator.api.finetunejob import FineTuneJobRef
from finetune_operator.api.status import ProgressStatus


class Unavailable(Exception):  # noqa: N818 (a state)
    """The cluster does not answer now. The pod should send the report again later.

    Attributes:
        level: with which it is logged.
    """

    def __init__(self, message: str, *, level: int = logging.WARNING) -> None:
        super().__init__(message)
        self.level = level


@dataclass(frozen=True, slots=True, kw_only=True)
class PodIdentity:
    """The pod that a token was issued to."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuneJobState:
    """The part of a FineTuneJob that decides about its reports.

    Attributes:
        finished: whether its run has ended; then no report is written.
        attempt: the current attempt; reports of an earlier attempt are out of date.
        heartbeat_time: heartbeatTime of the record in the status; None if there is none.
    """

    finished: bool
    attempt: int
    heartbeat_time: datetime | None


class Cluster(Protocol):
    """The cluster. Every method may raise `Unavailable`."""

    async def review(self, token: str, audience: str) -> PodIdentity | None:
        """The pod that a token with this audience was issued to; None if the token is not valid or not a pod's."""
        ...

    async def signing_keys(self) -> Mapping[str, Any]:
        """The public keys of service account tokens, as a JSON web key set."""
        ...

    async def finetunejob(self, ref: FineTuneJobRef) -> FineTuneJobState | None:
        """The state of the FineTuneJob; None if there is none with that name and UID."""
        ...

    async def attempt_of(self, ref: FineTuneJobRef, pod: PodIdentity) -> int | None:
        """The attempt that the pod belongs to; None if the pod does not belong to the FineTuneJob."""
        ...

    async def write(self, ref: FineTuneJobRef, attempt: int, progress: ProgressStatus) -> None:
        """Replaces `status.progress`, unless the job has ended, or has a later attempt or a later record."""
        ...
