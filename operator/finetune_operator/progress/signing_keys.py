"""The cluster's public keys: they tell a forged token from a real one without a TokenReview.

The API server publishes them as a JSON web key set, which by default every ServiceAccount may read. This is only a
filter: TokenReview also knows whether the pod still exists, and it decides. Where the keys cannot be read, or sign in
another way than RS256, the filter does not know, and TokenReviews are limited instead.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from finetune_operator.progress.ports import Unavailable
from finetune_operator.progress.token import Token, decoded

logger = logging.getLogger(__name__)

FETCH_SECONDS = 10.0
"""Least time between two reads of the keys. An unknown key ID leads to a read, and an attacker can make up many."""
_RS256 = "RS256"
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
"""DER encoding of the hash's name (RFC 8017, 9.2)."""


class Signature(Enum):
    """What the keys say about a token."""

    VALID = auto()
    FORGED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class RsaKey:
    """A public key for RS256 (RSASSA-PKCS1-v1_5 with SHA-256)."""

    modulus: int
    exponent: int

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature of a message is valid: the padded hash is made and compared as a whole."""
        size = (self.modulus.bit_length() + 7) // 8
        number = int.from_bytes(signature)
        if len(signature) != size or number >= self.modulus:
            return False
        found = pow(number, self.exponent, self.modulus).to_bytes(size)
        digest = _SHA256_PREFIX + hashlib.sha256(message).digest()
        return found == b"\0\1" + b"\xff" * (size - 3 - len(digest)) + b"\0" + digest


class SigningKeys:
    """The keys, read when a token names one that is not known.

    Args:
        fetch: reads the JSON web key set; may raise `Unavailable`.
        own_token: reads the operator's own token; None outside of a cluster.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Mapping[str, Any]]],
        *,
        own_token: Callable[[], str | None],
        clock: Callable[[], float],
    ) -> None:
        self._fetch = fetch
        self._own_token = own_token
        self._clock = clock
        self._keys: dict[str, RsaKey | None] = {}  # None: of a kind that is not checked here
        self._fetched: float | None = None
        self._is_complete = False
        self._has_failed = False
        self._lock = asyncio.Lock()

    @property
    def issuer(self) -> str:
        """Issuer of the operator's own token; empty if there is none."""
        own = self._own()
        return "" if own is None else own.issuer

    async def check(self, token: Token) -> Signature:
        """Checks a token's signature."""
        if token.key_id not in self._keys:
            async with self._lock:
                if token.key_id not in self._keys and self._may_fetch():
                    await self._update()
        return self._check(token)

    def _check(self, token: Token) -> Signature:
        if token.key_id not in self._keys:
            return Signature.FORGED if self._is_complete else Signature.UNKNOWN
        key = self._keys[token.key_id]
        if key is None:
            return Signature.UNKNOWN
        is_valid = token.algorithm == _RS256 and key.verifies(token.signed, token.signature)
        return Signature.VALID if is_valid else Signature.FORGED

    def _may_fetch(self) -> bool:
        return self._fetched is None or self._clock() >= self._fetched + FETCH_SECONDS

    async def _update(self) -> None:
        self._fetched = self._clock()
        self._is_complete = False
        try:
            self._keys = _parse(await self._fetch())
        except Unavailable as error:
            level = logging.DEBUG if self._has_failed else logging.WARNING
            logger.log(level, "the cluster's signing keys cannot be read: TokenReviews are limited instead: %s", error)
            self._has_failed = True
            return
        self._has_failed = False
        # A key set that does not verify our own token may be another one than that of the pods' tokens.
        own = self._own()
        self._is_complete = own is not None and self._check(own) is Signature.VALID

    def _own(self) -> Token | None:
        text = self._own_token()
        return None if text is None else Token.parse(text)


def _parse(answer: Mapping[str, Any]) -> dict[str, RsaKey | None]:
    """Parses a JSON web key set (RFC 7517). Keys without an ID are left out."""
    keys: dict[str, RsaKey | None] = {}
    for item in answer.get("keys") or ():
        if not (key_id := item.get("kid")):
            continue
        keys[key_id] = None
        if item.get("kty") == "RSA" and item.get("alg", _RS256) == _RS256:
            keys[key_id] = RsaKey(int.from_bytes(decoded(item["n"])), int.from_bytes(decoded(item["e"])))
    return keys
