"""Authentication of reports: a pod of the job, by its projected service account token.

The token's audience contains the job's UID, so the token is valid for no other job and no other server. A TokenReview
returns the pod that it was issued to, if that pod still exists. The pod must belong to the job. Verdicts are cached for
a minute, because a pod reports a few times a minute for hours.
"""

import asyncio
import base64
import binascii
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJobRef
from finetune_operator.progress.ports import Cluster
from finetune_operator.progress.ratelimit import Rate, RateLimit

KEPT_SECONDS = 60.0
KEPT_REFUSAL_SECONDS = 10.0
KEPT_VERDICTS = 10_000
REVIEWS_AT_ONCE = 16
REVIEWS_OF_PEER = Rate(per_second=20, burst=500)
"""TokenReviews for one address. Some networks give all pods of a node one address, hence the burst."""
REVIEWS_OF_SUBJECT = Rate(per_second=1, burst=10)
"""TokenReviews for one pod from one address. A pod gets a new token twice an hour."""


class Unauthenticated(Exception):  # noqa: N818 (an HTTP answer)
    """There is no valid token."""


class Denied(Exception):  # noqa: N818 (an HTTP answer)
    """The token is for another job, or for a pod that does not belong to the job."""


class TooManyReviews(Exception):  # noqa: N818 (an HTTP answer)
    """One address sends too many tokens that are not in the cache.

    Attributes:
        retry_after: seconds until the next TokenReview is allowed.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__("too many tokens")
        self.retry_after = retry_after


class UnknownJob(Exception):  # noqa: N818 (an HTTP answer)
    """There is no FineTuneJob with that name and UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """A pod that may report.

    Attributes:
        attempt: the attempt that it belongs to.
    """

    pod_name: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The claims of a token, not verified.

    Attributes:
        audiences: its audiences.
        namespace: namespace of its pod; None if the claim is missing.
        pod_uid: UID of its pod; empty if the claim is missing.
        expires: seconds since the epoch; None if the claim is missing.
    """

    audiences: tuple[str, ...]
    namespace: str | None
    pod_uid: str
    expires: float | None

    @classmethod
    def read(cls, token: str) -> "Claims | None":
        """The claims; None if it is not a JSON web token, or has no audience."""
        parts = token.split(".")
        if len(parts) != 3:
            return None
        try:
            payload = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        except (binascii.Error, ValueError, RecursionError):
            return None
        payload = payload if isinstance(payload, dict) else {}
        audience = payload.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience
        if not isinstance(audiences, list):
            return None
        pod = _section(_section(payload, "kubernetes.io"), "pod")
        namespace, pod_uid = _section(payload, "kubernetes.io").get("namespace"), pod.get("uid")
        expires = payload.get("exp")
        return cls(
            audiences=tuple(item for item in audiences if isinstance(item, str)),
            namespace=namespace if isinstance(namespace, str) else None,
            pod_uid=pod_uid if isinstance(pod_uid, str) else "",
            expires=float(expires) if isinstance(expires, int | float) and abs(expires) < 1 << 53 else None,
        )


def _section(payload: dict[str, Any], key: str) -> dict[str, Any]:
    section = payload.get(key)
    return section if isinstance(section, dict) else {}


Verdict = Reporter | Unauthenticated | Denied


class Authenticator:
    """Authenticates tokens by TokenReview.

    Args:
        cluster: reviews tokens and knows jobs and pods.
        clock: seconds, monotonic.
        now: the current time, with a time zone.
    """

    def __init__(self, cluster: Cluster, *, clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._now = now
        self._peers = RateLimit(REVIEWS_OF_PEER, clock=clock)
        self._subjects = RateLimit(REVIEWS_OF_SUBJECT, clock=clock)
        self._verdicts: OrderedDict[bytes, tuple[float, Verdict]] = OrderedDict()
        self._reviews = asyncio.Semaphore(REVIEWS_AT_ONCE)

    async def authenticate(self, token: str, ref: FineTuneJobRef, *, peer: str = "") -> Reporter:
        """The pod that a token was issued to.

        Args:
            token: a JSON web token.
            ref: the FineTuneJob that the report is about.
            peer: the address that sent the token.

        Raises:
            Unauthenticated: the token is not valid.
            Denied: the token does not belong to a pod of this job.
            UnknownJob: the job does not exist.
            TooManyReviews: the address has sent too many tokens.
            Unavailable: the cluster does not answer.
        """
        audience = names.progress_audience(ref.uid)
        claims = Claims.read(token)
        # The claims are not verified yet. This only saves a TokenReview of tokens that could not pass.
        if claims is None:
            raise Unauthenticated("the token is not a JSON web token")
        if audience not in claims.audiences:
            raise Denied(f"the token is not for this job: its audience is not {audience}")
        if claims.namespace not in (None, ref.namespace):
            raise Denied(f"the token belongs to namespace {claims.namespace!r}, not {ref.namespace}")
        if claims.expires is not None and claims.expires <= self._now().timestamp():
            raise Unauthenticated("the token has expired")
        key = hashlib.sha256(f"{ref.namespace}/{ref.name}/{ref.uid}/{token}".encode()).digest()
        verdict = self._kept(key)
        if verdict is None:
            self._admit_review(peer, claims.pod_uid)
            async with self._reviews:
                verdict = self._kept(key) or await self._judge(token, audience, ref)
            self._keep(key, verdict)
        if isinstance(verdict, Reporter):
            return verdict
        raise type(verdict)(*verdict.args)

    def _admit_review(self, peer: str, pod_uid: str) -> None:
        """Limits TokenReviews: forged tokens must not delay those of real pods."""
        wait = max(self._peers.seconds_to_wait(peer), self._subjects.seconds_to_wait(f"{peer} {pod_uid}"))
        if wait > 0:
            raise TooManyReviews(wait)

    async def _judge(self, token: str, audience: str, ref: FineTuneJobRef) -> Verdict:
        pod = await self._cluster.review(token, audience)
        if pod is None:
            return Unauthenticated("the token is not valid, has expired, or its pod is gone")
        if pod.namespace != ref.namespace:
            return Denied(f"pod {pod.namespace}/{pod.name} is not in namespace {ref.namespace}")
        if await self._cluster.finetunejob(ref) is None:
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
