"""Verdicts about tokens: what is asked of the cluster, what is kept, and for how long.

The cluster is a table of pods and jobs; that real tokens are understood is tested against a real API server
(tests/component/test_progress.py).
"""

import base64
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJobRef
from finetune_operator.api.status import ProgressStatus
from finetune_operator.progress.auth import (
    KEPT_REFUSAL_SECONDS,
    KEPT_SECONDS,
    REVIEWS_OF_PEER,
    REVIEWS_OF_SUBJECT,
    Authenticator,
    Denied,
    TooManyReviews,
    Unauthenticated,
    UnknownJob,
)
from finetune_operator.progress.ports import FineTuneJobState, PodIdentity, Unavailable

pytestmark = pytest.mark.extras

REF = FineTuneJobRef(namespace="team", name="job", uid="uid-1")
POD = PodIdentity(namespace="team", name="pod", uid="pod-uid")


@dataclass
class Table:
    """A cluster of known tokens, jobs and pods."""

    tokens: dict[str, PodIdentity] = field(default_factory=dict)
    jobs: set[FineTuneJobRef] = field(default_factory=lambda: {REF})
    attempts: dict[tuple[FineTuneJobRef, PodIdentity], int] = field(default_factory=dict)
    down: bool = False
    reviews: int = 0

    async def review(self, token: str, audience: str) -> PodIdentity | None:  # noqa: ARG002 (the port's)
        self.reviews += 1
        if self.down:
            raise Unavailable("down")
        return self.tokens.get(token)

    async def finetunejob(self, ref: FineTuneJobRef) -> FineTuneJobState | None:
        return FineTuneJobState(finished=False, attempt=1, heartbeat_time=None) if ref in self.jobs else None

    async def attempt_of(self, ref: FineTuneJobRef, pod: PodIdentity) -> int | None:
        return self.attempts.get((ref, pod))

    async def write(self, ref: FineTuneJobRef, attempt: int, progress: ProgressStatus) -> None:
        raise NotImplementedError


def now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def a_token(
    audience: object = names.progress_audience(REF.uid), name: str = "x", more: dict[str, object] | None = None
) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"aud": audience, **(more or {})}).encode()).rstrip(b"=").decode()
    return f"header.{claims}.{name}"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_pod_of_the_job_is_authenticated_and_reviewed_once_a_minute() -> None:
    clock = Clock()
    table = Table(tokens={a_token(): POD}, attempts={(REF, POD): 2})
    auth = Authenticator(table, clock=clock, now=now)
    for _ in range(3):
        reporter = await auth.authenticate(a_token(), REF)
        assert (reporter.pod_name, reporter.attempt) == ("pod", 2)
    assert table.reviews == 1
    clock.now = KEPT_SECONDS
    table.tokens.clear()
    with pytest.raises(Unauthenticated):
        await auth.authenticate(a_token(), REF)


def a_segment(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "claims",
    ["b", "bm90IGpzb24", a_segment("[]"), a_segment("[" * 5000), a_segment("{}"), a_segment('{"aud": 7}')],
)
async def test_text_that_is_not_a_token_is_not_reviewed(claims: str) -> None:
    table = Table()
    for token in ("", "x", claims, f"a.{claims}.c"):
        with pytest.raises(Unauthenticated):
            await Authenticator(table, clock=Clock(), now=now).authenticate(token, REF)
    assert table.reviews == 0


@pytest.mark.parametrize("audience", ["finetune.dev/other", ["https://kubernetes.default.svc"], [], [7]])
async def test_another_jobs_token_is_denied_without_a_review(audience: object) -> None:
    table = Table(tokens={a_token(audience): POD}, attempts={(REF, POD): 1})
    with pytest.raises(Denied):
        await Authenticator(table, clock=Clock(), now=now).authenticate(a_token(audience), REF)
    assert table.reviews == 0


async def test_an_invalid_token_is_refused_and_not_reviewed_again_at_once() -> None:
    clock = Clock()
    table = Table()
    auth = Authenticator(table, clock=clock, now=now)
    for _ in range(5):
        with pytest.raises(Unauthenticated):
            await auth.authenticate(a_token(), REF)
    assert table.reviews == 1
    clock.now = KEPT_REFUSAL_SECONDS
    table.tokens[a_token()] = POD
    table.attempts[REF, POD] = 1
    assert (await auth.authenticate(a_token(), REF)).attempt == 1


async def test_a_pod_of_another_namespace_or_job_is_denied() -> None:
    foreign = PodIdentity(namespace="other", name="pod", uid="pod-uid")
    table = Table(tokens={a_token(name="f"): foreign, a_token(name="n"): POD}, attempts={(REF, foreign): 1})
    auth = Authenticator(table, clock=Clock(), now=now)
    for token in (a_token(name="f"), a_token(name="n")):
        with pytest.raises(Denied):
            await auth.authenticate(token, REF)


async def test_a_verdict_for_one_job_does_not_hold_for_another() -> None:
    both = a_token([names.progress_audience("uid-1"), names.progress_audience("uid-2")])
    other = FineTuneJobRef(namespace="team", name="job-2", uid="uid-2")
    table = Table(tokens={both: POD}, attempts={(REF, POD): 1}, jobs={REF, other})
    auth = Authenticator(table, clock=Clock(), now=now)
    await auth.authenticate(both, REF)
    with pytest.raises(Denied):
        await auth.authenticate(both, other)


async def test_an_unknown_job_and_an_unavailable_cluster_are_not_cached() -> None:
    table = Table(tokens={a_token(): POD}, attempts={(REF, POD): 1}, jobs=set())
    auth = Authenticator(table, clock=Clock(), now=now)
    with pytest.raises(UnknownJob):
        await auth.authenticate(a_token(), REF)
    table.down = True
    with pytest.raises(Unavailable):
        await auth.authenticate(a_token(), REF)
    table.down = False
    table.jobs.add(REF)
    assert (await auth.authenticate(a_token(), REF)).attempt == 1


@pytest.mark.parametrize(
    ("claims", "refusal"),
    [
        ({"kubernetes.io": {"namespace": "attacker"}}, Denied),
        ({"exp": now().timestamp() - 1}, Unauthenticated),
    ],
)
async def test_a_token_whose_own_claims_are_wrong_is_not_reviewed(
    claims: dict[str, object], refusal: type[Exception]
) -> None:
    token = a_token(more=claims)
    table = Table(tokens={token: POD}, attempts={(REF, POD): 1})
    with pytest.raises(refusal):
        await Authenticator(table, clock=Clock(), now=now).authenticate(token, REF)
    assert table.reviews == 0


@pytest.mark.parametrize("odd", [{"exp": "soon"}, {"exp": 1e300}, {"kubernetes.io": 7}, {"kubernetes.io": {"pod": []}}])
async def test_odd_claims_are_decided_by_the_review(odd: dict[str, object]) -> None:
    token = a_token(more=odd)
    table = Table(tokens={token: POD}, attempts={(REF, POD): 1})
    assert (await Authenticator(table, clock=Clock(), now=now).authenticate(token, REF)).attempt == 1


@pytest.mark.parametrize("one_subject", [True, False])
async def test_reviews_of_forged_tokens_are_limited_and_real_pods_are_authenticated(one_subject: bool) -> None:
    table = Table(tokens={a_token(): POD}, attempts={(REF, POD): 1})
    auth = Authenticator(table, clock=Clock(), now=now)
    refused = 0
    for number in range(3000):
        forged = {"pod": {"uid": "pod-uid" if one_subject else f"uid-{number}"}}
        token = a_token(name=f"forged{number}", more={"kubernetes.io": forged})
        try:
            await auth.authenticate(token, REF, peer="attacker")
        except TooManyReviews:
            refused += 1
        except Unauthenticated:
            continue
    limit = (REVIEWS_OF_SUBJECT if one_subject else REVIEWS_OF_PEER).burst
    assert table.reviews == 3000 - refused <= limit
    assert table.reviews >= limit - 1, "the limit is in numbers that are not whole"
    assert (await auth.authenticate(a_token(), REF, peer="honest")).attempt == 1
