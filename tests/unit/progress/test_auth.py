"""Verdicts about tokens: what is asked of the cluster, what is kept, and for how long.

The cluster is a table of pods and jobs; that real tokens are understood is tested against a real API server
(tests/component/test_progress.py).
"""

import base64
import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest

from finetune_operator.api import names
from finetune_operator.api.finetunejob import FineTuneJobRef
from finetune_operator.api.status import ProgressStatus
from finetune_operator.progress.auth import (
    KEPT_REFUSAL_SECONDS,
    KEPT_SECONDS,
    REVIEWS_OF_PEER,
    REVIEWS_OF_POD,
    Authenticator,
    Denied,
    TooManyReviews,
    Unauthenticated,
    UnknownJob,
)
from finetune_operator.progress.ports import FineTuneJobState, PodIdentity, Unavailable
from finetune_operator.progress.signing_keys import FETCH_SECONDS

pytestmark = pytest.mark.extras

REF = FineTuneJobRef(namespace="team", name="job", uid="uid-1")
POD = PodIdentity(namespace="team", name="pod", uid="pod-uid")


@dataclass
class Table:
    """A cluster of known tokens, jobs and pods."""

    tokens: dict[str, PodIdentity] = field(default_factory=dict)
    jobs: set[FineTuneJobRef] = field(default_factory=lambda: {REF})
    attempts: dict[tuple[FineTuneJobRef, PodIdentity], int] = field(default_factory=dict)
    keys: list[dict[str, str]] | None = None
    down: bool = False
    reviews: int = 0
    fetches: int = 0

    async def review(self, token: str, audience: str) -> PodIdentity | None:  # noqa: ARG002 (the port's)
        self.reviews += 1
        if self.down:
            raise Unavailable("down")
        return self.tokens.get(token)

    async def signing_keys(self) -> Mapping[str, Any]:
        self.fetches += 1
        if self.keys is None:
            raise Unavailable("forbidden")
        return {"keys": self.keys}

    async def finetunejob(self, ref: FineTuneJobRef) -> FineTuneJobState | None:
        return FineTuneJobState(finished=False, attempt=1, heartbeat_time=None) if ref in self.jobs else None

    async def attempt_of(self, ref: FineTuneJobRef, pod: PodIdentity) -> int | None:
        return self.attempts.get((ref, pod))

    async def write(self, ref: FineTuneJobRef, attempt: int, progress: ProgressStatus) -> None:
        raise NotImplementedError


def now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


ISSUER = "https://kubernetes.default.svc.cluster.local"
CLAIMS: dict[str, object] = {
    "iss": ISSUER,
    "aud": [names.progress_audience(REF.uid)],
    "exp": now().timestamp() + 3600,
    "kubernetes.io": {"namespace": "team", "pod": {"name": "pod", "uid": "pod-uid"}},
}


def segment(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def number(value: int) -> str:
    return segment(value.to_bytes((value.bit_length() + 7) // 8))


@dataclass(frozen=True)
class SigningKey:
    """An RSA key, as an API server signs tokens with."""

    modulus: int
    private: int
    key_id: str = "one"

    @property
    def public(self) -> dict[str, str]:
        return {"kty": "RSA", "alg": "RS256", "kid": self.key_id, "n": number(self.modulus), "e": number(65537)}

    def sign(self, text: str) -> bytes:
        digest = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(text.encode()).digest()
        size = self.modulus.bit_length() // 8
        padded = b"\0\1" + b"\xff" * (size - 3 - len(digest)) + b"\0" + digest
        return pow(int.from_bytes(padded), self.private, self.modulus).to_bytes(size)


@cache
def a_key(seed: int = 1, key_id: str = "one") -> SigningKey:
    """A key of 1,024 bits."""
    numbers = random.Random(seed)
    primes: list[int] = []
    while len(primes) < 2:
        candidate = numbers.getrandbits(512) | 3 << 510 | 1
        if all(pow(base, candidate - 1, candidate) == 1 for base in (2, 3, 5, 7)):
            primes.append(candidate)
    p, q = primes
    return SigningKey(p * q, pow(65537, -1, (p - 1) * (q - 1)), key_id)


def a_token(audience: object = None, name: str = "x", more: dict[str, object] | None = None) -> str:
    """A token whose signature nobody checks."""
    claims = {**CLAIMS, **({} if audience is None else {"aud": audience}), **(more or {})}
    return f"{segment(b'{}')}.{segment(json.dumps(claims).encode())}.{segment(name.encode())}"


@cache
def a_signed_token() -> str:
    return signed(a_key())


def signed(key: SigningKey, header: dict[str, object] | None = None, more: dict[str, object] | None = None) -> str:
    """A token as an API server with that key makes it."""
    heads = {"alg": "RS256", "kid": key.key_id, **(header or {})}
    text = ".".join(segment(json.dumps(part).encode()) for part in (heads, {**CLAIMS, **(more or {})}))
    return f"{text}.{segment(key.sign(text))}"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def an_authenticator(table: Table, *, clock: Clock | None = None, own: str | None = None) -> Authenticator:
    return Authenticator(table, own_token=lambda: own, clock=clock or Clock(), now=now)


async def test_a_pod_of_the_job_is_authenticated_and_reviewed_once_a_minute() -> None:
    clock = Clock()
    table = Table(tokens={a_token(): POD}, attempts={(REF, POD): 2})
    auth = an_authenticator(table, clock=clock)
    for _ in range(3):
        reporter = await auth.authenticate(a_token(), REF)
        assert (reporter.pod_name, reporter.attempt) == ("pod", 2)
    assert table.reviews == 1
    clock.now = KEPT_SECONDS
    table.tokens.clear()
    with pytest.raises(Unauthenticated):
        await auth.authenticate(a_token(), REF)


@pytest.mark.parametrize(
    "claims",
    ["b", "bm90IGpzb24", segment(b"[]"), segment(b"[" * 5000), segment(b"7"), "\u00e9"],
)
async def test_text_that_is_not_a_token_is_not_reviewed(claims: str) -> None:
    table = Table()
    for token in ("", "x", claims, f"e30.{claims}.c", f"{claims}.e30.c"):
        with pytest.raises(Unauthenticated):
            await an_authenticator(table).authenticate(token, REF)
    assert table.reviews == 0


@pytest.mark.parametrize("audience", ["finetune.dev/other", ["https://kubernetes.default.svc"], [], [7], 7, {}])
async def test_another_jobs_token_is_denied_without_a_review(audience: object) -> None:
    table = Table(tokens={a_token(audience): POD}, attempts={(REF, POD): 1})
    with pytest.raises(Denied):
        await an_authenticator(table).authenticate(a_token(audience), REF)
    assert table.reviews == 0


async def test_an_invalid_token_is_refused_and_not_reviewed_again_at_once() -> None:
    clock = Clock()
    table = Table()
    auth = an_authenticator(table, clock=clock)
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
    auth = an_authenticator(table)
    for token in (a_token(name="f"), a_token(name="n")):
        with pytest.raises(Denied):
            await auth.authenticate(token, REF)


async def test_a_verdict_for_one_job_does_not_hold_for_another() -> None:
    both = a_token([names.progress_audience("uid-1"), names.progress_audience("uid-2")])
    other = FineTuneJobRef(namespace="team", name="job-2", uid="uid-2")
    table = Table(tokens={both: POD}, attempts={(REF, POD): 1}, jobs={REF, other})
    auth = an_authenticator(table)
    await auth.authenticate(both, REF)
    with pytest.raises(Denied):
        await auth.authenticate(both, other)


async def test_an_unknown_job_and_an_unavailable_cluster_are_not_cached() -> None:
    table = Table(tokens={a_token(): POD}, attempts={(REF, POD): 1}, jobs=set())
    auth = an_authenticator(table)
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
        ({"kubernetes.io": {"namespace": "attacker", "pod": {"uid": "pod-uid"}}}, Denied),
        ({"kubernetes.io": {"namespace": "team"}}, Unauthenticated),
        ({"kubernetes.io": {"pod": {"uid": "pod-uid"}}}, Unauthenticated),
        ({"kubernetes.io": 7}, Unauthenticated),
        ({"kubernetes.io": {"namespace": "team", "pod": []}}, Unauthenticated),
        ({"exp": now().timestamp() - 1}, Unauthenticated),
        ({"exp": "soon"}, Unauthenticated),
        ({"exp": 1e300}, Unauthenticated),
        ({"exp": None}, Unauthenticated),
        ({"iss": "https://elsewhere"}, Unauthenticated),
        ({"iss": None}, Unauthenticated),
    ],
    ids=str,
)
async def test_a_token_whose_own_claims_are_wrong_is_not_reviewed(
    claims: dict[str, object], refusal: type[Exception]
) -> None:
    token = a_token(more=claims)
    table = Table(tokens={token: POD}, attempts={(REF, POD): 1})
    auth = an_authenticator(table, own=a_token("https://kubernetes.default.svc"))
    with pytest.raises(refusal):
        await auth.authenticate(token, REF)
    assert table.reviews == 0
    table.tokens[a_token()] = POD
    assert (await auth.authenticate(a_token(), REF)).attempt == 1


async def test_without_an_own_token_every_issuer_is_reviewed() -> None:
    token = a_token(more={"iss": "https://elsewhere"})
    table = Table(tokens={token: POD}, attempts={(REF, POD): 1})
    assert (await an_authenticator(table).authenticate(token, REF)).attempt == 1


FORGERIES = {
    "another key": lambda i: signed(a_key(2), more={"jti": i}),
    "an unknown key": lambda i: ".".join(
        [segment(json.dumps({"alg": "RS256", "kid": f"two-{i}"}).encode()), *a_signed_token().split(".")[1:]]
    ),
    "no key": lambda i: signed(a_key(), header={"kid": None}, more={"jti": i}),
    "no signature": lambda i: signed(a_key(), header={"alg": "none"}, more={"jti": i}).rpartition(".")[0] + ".",
    "another algorithm": lambda i: signed(a_key(), header={"alg": "HS256"}, more={"jti": i}),
    "another's signature": lambda i: (
        signed(a_key(), more={"jti": i}).rpartition(".")[0] + "." + a_signed_token().rpartition(".")[2]
    ),
    "a longer signature": lambda i: signed(a_key(), more={"jti": i}) + "AAAA",
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_forged_tokens_are_not_reviewed_and_use_up_no_limit(forgery: str) -> None:
    """Every claim is right, and they come from the honest pod's own address."""
    clock = Clock()
    token = signed(a_key())
    table = Table(tokens={token: POD}, attempts={(REF, POD): 1}, keys=[a_key().public])
    auth = an_authenticator(table, clock=clock, own=signed(a_key(), more={"aud": ["https://kubernetes.default.svc"]}))
    for number_ in range(3000 if forgery == "an unknown key" else 30):
        with pytest.raises(Unauthenticated):
            await auth.authenticate(FORGERIES[forgery](number_), REF, peer="node")
    assert table.reviews == 0
    assert table.fetches == 1
    assert (await auth.authenticate(token, REF, peer="node")).attempt == 1


async def test_a_rotated_key_is_read_when_a_token_names_it() -> None:
    clock = Clock()
    table = Table(attempts={(REF, POD): 1}, keys=[a_key().public])
    auth = an_authenticator(table, clock=clock, own=signed(a_key()))
    token = signed(a_key(2, "two"), more={"iss": "https://a.new.issuer"})
    table.tokens = {token: POD}
    with pytest.raises(Unauthenticated, match="not signed by this cluster"):
        await auth.authenticate(token, REF)
    table.keys = [a_key().public, a_key(2, "two").public]
    clock.now = FETCH_SECONDS
    assert (await auth.authenticate(token, REF)).attempt == 1, "the signature says more than the issuer"


@pytest.mark.parametrize(
    ("keys", "own"),
    [
        (None, signed(a_key())),
        ([{"kty": "EC", "alg": "ES256", "kid": "one"}], signed(a_key())),
        ([a_key(2, "two").public], signed(a_key())),
        ([a_key(2, "two").public], None),
        ([{"kty": "RSA"}], None),
        ([], None),
    ],
    ids=["not readable", "another kind", "not the own token's", "no own token", "no key ID", "empty"],
)
async def test_keys_that_do_not_tell_leave_it_to_the_review(keys: list[dict[str, str]] | None, own: str | None) -> None:
    token = signed(a_key())
    table = Table(tokens={token: POD}, attempts={(REF, POD): 1}, keys=keys)
    assert (await an_authenticator(table, own=own).authenticate(token, REF)).attempt == 1


@pytest.mark.parametrize("one_subject", [True, False])
async def test_reviews_of_unchecked_tokens_are_limited_and_real_pods_are_authenticated(one_subject: bool) -> None:
    clock = Clock()
    passed = a_token(name="passed")
    table = Table(tokens={a_token(): POD, passed: POD}, attempts={(REF, POD): 1})
    auth = an_authenticator(table, clock=clock)
    await auth.authenticate(passed, REF, peer="attacker")
    clock.now = KEPT_SECONDS
    refused = 0
    for count in range(3000):
        forged = {"namespace": "team", "pod": {"uid": "pod-uid" if one_subject else f"uid-{count}"}}
        token = a_token(name=f"forged{count}", more={"kubernetes.io": forged})
        try:
            await auth.authenticate(token, REF, peer="attacker")
        except TooManyReviews:
            refused += 1
        except Unauthenticated:
            continue
    limit = (REVIEWS_OF_POD if one_subject else REVIEWS_OF_PEER).burst
    assert table.reviews - 1 == 3000 - refused <= limit
    assert table.reviews >= limit, "the limit is in numbers that are not whole"
    assert (await auth.authenticate(a_token(), REF, peer="honest")).attempt == 1
    assert (await auth.authenticate(passed, REF, peer="attacker")).attempt == 1, "a token that passed before passes"


async def test_a_pods_own_tokens_are_limited() -> None:
    tokens = [signed(a_key(), more={"jti": count}) for count in range(REVIEWS_OF_POD.burst + 1)]
    other = PodIdentity(namespace="team", name="other", uid="other-uid")
    others = signed(a_key(), more={"kubernetes.io": {"namespace": "team", "pod": {"uid": "other-uid"}}})
    table = Table(
        tokens={others: other, **dict.fromkeys(tokens, POD)},
        attempts={(REF, POD): 1, (REF, other): 1},
        keys=[a_key().public],
    )
    auth = an_authenticator(table)
    for token in tokens[:-1]:
        await auth.authenticate(token, REF, peer="node")
    with pytest.raises(TooManyReviews):
        await auth.authenticate(tokens[-1], REF, peer="another")
    assert (await auth.authenticate(others, REF, peer="node")).attempt == 1
