"""Who reports: a pod of that very job, by its projected token.

The token's audience names the job's UID, so it serves no other job and no other server. TokenReview says which pod it
was issued to, and whether that pod still exists; the pod must belong to the job. Verdicts are kept for a minute: a pod
reports a few times a minute for hours.
"""

import asyncio
import base64
import binascii
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from finetune_operator.api import names
from finetune_operator.progress.ports import Cluster, FineTuneJobRef

KEPT_SECONDS = 60.0
KEPT_REFUSAL_SECONDS = 10.0
KEPT_VERDICTS = 10_000
REVIEWS_AT_ONCE = 16


class Unauthenticated(Exception):  # noqa: N818 (an HTTP answer)
    """There is no valid token."""


class Denied(Exception):  # noqa: N818 (an HTTP answer)
    """The token is of another job, or of a pod that is none of the job's."""


class UnknownJob(Exception):  # noqa: N818 (an HTTP answer)
    """There is no such job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """A pod that may report.

    Attributes:
        attempt: the attempt that it works on.
    """

    pod_name: str
    attempt: int


Verdict = Reporter | Unauthenticated | Denied


class Authenticator:
    """Decides about tokens.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, cluster: Cluster, *, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._verdicts: OrderedDict[bytes, tuple[float, Verdict]] = OrderedDict()
        self._reviews = asyncio.Semaphore(REVIEWS_AT_ONCE)

    async def authenticate(self, token: str, ref: FineTuneJobRef) -> Reporter:
        """The reporter that a token stands for.

        Raises:
            Unauthenticated, Denied, UnknownJob: why not.
            Unavailable: it can not be told now.
        """
        audience = names.progress_audience(ref.uid)
        claimed = _claimed_audiences(token)
        # Not verified yet: this only saves the API server a review of what could not pass anyway.
        if claimed is None:
            raise Unauthenticated("the token is no JSON web token")
        if audience not in claimed:
            raise Denied(f"the token is not for this job: its audience is not {audience}")
        key = hashlib.sha256(f"{ref.namespace}/{ref.name}/{ref.uid}/{token}".encode()).digest()
        verdict = self._kept(key)
        if verdict is None:
            async with self._reviews:
                verdict = self._kept(key) or await self._judge(token, audience, ref)
            self._keep(key, verdict)
        if isinstance(verdict, Reporter):
            return verdict
        raise type(verdict)(*verdict.args)

    async def _judge(self, token: str, audience: str, ref: FineTuneJobRef) -> Verdict:
        pod = await self._cluster.review(token, audience)
        if pod is None:
            return Unauthenticated("the token is not valid, has expired, or its pod is gone")
        if pod.namespace != ref.namespace:
            return Denied(f"pod {pod.namespace}/{pod.name} is not in namespace {ref.namespace}")
        if await self._cluster.job(ref) is None:
            raise UnknownJob(f"there is no FineTuneJob {ref.namespace}/{ref.name} with UID {ref.uid}")
        attempt = await self._cluster.attempt_of(ref, pod)
        if attempt is None:
            return Denied(f"pod {pod.name} does not belong to FineTuneJob {ref.name}")
        return Reporter(pod_name=pod.name, attempt=attempt)

    def _kept(self, key: bytes) -> Verdict | None:
        entry = self._verdicts.get(key)
        if entry is None or entry[0] <= self._clock():
            return None
        return entry[1]

    def _keep(self, key: bytes, verdict: Verdict) -> None:
        kept = KEPT_SECONDS if isinstance(verdict, Reporter) else KEPT_REFUSAL_SECONDS
        self._verdicts[key] = self._clock() + kept, verdict
        self._verdicts.move_to_end(key)
        while len(self._verdicts) > KEPT_VERDICTS:
            self._verdicts.popitem(last=False)


def _claimed_audiences(token: str) -> list[str] | None:
    """The audiences that a token says it is for, without proof; None when it is no JSON web token."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    audience = claims.get("aud") if isinstance(claims, dict) else None
    if isinstance(audience, str):
        return [audience]
    return [item for item in audience if isinstance(item, str)] if isinstance(audience, list) else None
