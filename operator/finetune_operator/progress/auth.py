"""Authentication of reports: a pod of the job, by its projected service account token.

The token's audience contains the job's UID, so the token is valid for no other job and no other server. A TokenReview
returns the pod that it was issued to, if that pod still exists. The pod must belong to the job. Verdicts are cached for
a minute, because a pod reports a few times a minute for hours.

A token that can only be forged is refused before the TokenReview, by its claims and its signature. So limits for a pod
count only tokens that are really the pod's: nobody can use them up by writing another pod's name into a token.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJobRef
from finetune_operator.progress.ports import Cluster
from finetune_operator.progress.ratelimit import Rate, RateLimit
from finetune_operator.progress.signing_keys import Signature, SigningKeys
from finetune_operator.progress.token import Token
from finetune_trainer.contract.text import printable

KEPT_SECONDS = 60.0
KEPT_REFUSAL_SECONDS = 10.0
KEPT_VERDICTS = 10_000
REVIEWS_AT_ONCE = 16
REVIEWS_OF_POD = Rate(per_second=1, burst=10)
"""TokenReviews of one pod's tokens. A pod gets a new token twice an hour."""
REVIEWS_OF_PEER = Rate(per_second=20, burst=500)
"""TokenReviews for one address, of tokens whose signature cannot be checked. Some networks give all pods of a node one
address, hence the burst."""


class Unauthenticated(Exception):  # noqa: N818 (an HTTP answer)
    """There is no valid token."""


class Denied(Exception):  # noqa: N818 (an HTTP answer)
    """The token is for another job, or for a pod that does not belong to the job."""


class TooManyReviews(Exception):  # noqa: N818 (an HTTP answer)
    """A pod, or an address, sends too many tokens that are not in the cache.

    Attributes:
        retry_after: seconds until the next TokenReview is allowed.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__("too many tokens")
        self.retry_after = retry_after


class UnknownJob(Exception):  # noqa: N818 (an HTTP answer)
    """There is no FineTuneJob with that name and UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportingPod:
    """A pod that may report.

    Attributes:
        attempt: the attempt that it belongs to.
    """

    pod_name: str
    attempt: int


Verdict = ReportingPod | Unauthenticated | Denied


class Authenticator:
    """Authenticates tokens by TokenReview.

    Args:
        cluster: reviews tokens and knows jobs and pods.
        own_token: reads the operator's own token; None outside of a cluster.
        clock: seconds, monotonic.
        now: the current time, with a time zone.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        own_token: Callable[[], str | None],
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._cluster = cluster
        self._keys = SigningKeys(cluster.signing_keys, own_token=own_token, clock=clock)
        self._clock = clock
        self._now = now
        self._pods = RateLimit(REVIEWS_OF_POD, clock=clock)
        self._peers = RateLimit(REVIEWS_OF_PEER, clock=clock)
        self._unchecked_pods = RateLimit(REVIEWS_OF_POD, clock=clock)
        self._verdicts: OrderedDict[bytes, tuple[float, Verdict]] = OrderedDict()
        self._reviews = asyncio.Semaphore(REVIEWS_AT_ONCE)

    async def authenticate(self, token: str, ref: FineTuneJobRef, *, peer: str = "") -> ReportingPod:
        """The pod that a token was issued to.

        Args:
            token: a JSON web token.
            ref: the FineTuneJob that the report is about.
            peer: the address that sent the token.

        Raises:
            Unauthenticated: the token is not valid.
            Denied: the token does not belong to a pod of this job.
            UnknownJob: the job does not exist.
            TooManyReviews: the pod, or the address, has sent too many tokens.
            Unavailable: the cluster does not answer.
        """
        audience = names.progress_audience(ref.uid)
        claimed = Token.parse(token)
        if claimed is None:
            raise Unauthenticated("the token is not a JSON web token")
        self._check_claims(claimed, audience, ref)
        key = hashlib.sha256(f"{ref.namespace}/{ref.name}/{ref.uid}/{token}".encode()).digest()
        verdict = self._kept(key)
        if verdict is None:
            if not self._has_passed(key):
                await self._admit_review(claimed, peer)
            async with self._reviews:
                verdict = self._kept(key) or await self._judge(token, audience, ref)
            self._keep(key, verdict)
        if isinstance(verdict, ReportingPod):
            return verdict
        raise type(verdict)(*verdict.args)

    def _check_claims(self, claimed: Token, audience: str, ref: FineTuneJobRef) -> None:
        """Refuses a token that could not pass the TokenReview, by what it says itself."""
        if audience not in claimed.audiences:
            raise Denied(f"the token is not for this job: its audience is not {audience}")
        if not claimed.namespace or not claimed.pod_uid:
            raise Unauthenticated("the token is not bound to a pod")
        if claimed.namespace != ref.namespace:
            raise Denied(f"the token belongs to namespace {printable(claimed.namespace)}, not {ref.namespace}")
        if claimed.expires is None or claimed.expires <= self._now().timestamp():
            raise Unauthenticated("the token has expired")

    async def _admit_review(self, claimed: Token, peer: str) -> None:
        """Refuses forged tokens, and limits TokenReviews of the others.

        The issuer counts only where the signature does not tell: while a cluster's issuer changes, tokens of both are
        good. The limits of unchecked tokens are by address too, so that others cannot use up a pod's.
        """
        match await self._keys.check(claimed):
            case Signature.VALID:
                wait = self._pods.seconds_to_wait(claimed.pod_uid)
            case Signature.FORGED:
                raise Unauthenticated("the token is not signed by this cluster")
            case Signature.UNKNOWN:
                if self._keys.issuer not in ("", claimed.issuer):
                    raise Unauthenticated("the token is not of this cluster's issuer")
                pod = self._unchecked_pods.seconds_to_wait(f"{peer} {claimed.pod_uid}")
                wait = max(self._peers.seconds_to_wait(peer), pod)
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
        return ReportingPod(pod_name=pod.name, attempt=attempt)

    def _kept(self, key: bytes) -> Verdict | None:
        entry = self._verdicts.get(key)
        if entry is None or entry[0] <= self._clock():
            return None
        return entry[1]

    def _has_passed(self, key: bytes) -> bool:
        """Whether this token passed some time ago: then it is no forged one."""
        entry = self._verdicts.get(key)
        return entry is not None and isinstance(entry[1], ReportingPod)

    def _keep(self, key: bytes, verdict: Verdict) -> None:
        kept = KEPT_SECONDS if isinstance(verdict, ReportingPod) else KEPT_REFUSAL_SECONDS
        self._verdicts[key] = self._clock() + kept, verdict
        self._verdicts.move_to_end(key)
        while len(self._verdicts) > KEPT_VERDICTS:
            self._verdicts.popitem(last=False)
