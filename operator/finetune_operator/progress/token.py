"""A pod's token as it can be read without a key: header and claims of a JSON web token. Nothing of it is verified."""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

_MAX_TIME = 1 << 53
"""Seconds since the epoch. Beyond it a float has no seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token that is well-formed and not verified.

    Attributes:
        text: the token itself.
        algorithm: algorithm of the signature; empty if the header has none.
        key_id: ID of the key that signed it; empty if the header has none.
        issuer: who says to have issued it; empty if the claim is missing.
        audiences: its audiences.
        expires: seconds since the epoch; None if the claim is missing or odd.
        namespace: namespace of its pod; empty if the claim is missing.
        pod_uid: UID of its pod; empty if the claim is missing.
        signed: the bytes that the signature is about.
        signature: the signature.
    """

    text: str
    algorithm: str
    key_id: str
    issuer: str
    audiences: tuple[str, ...]
    expires: float | None
    namespace: str
    pod_uid: str
    signed: bytes
    signature: bytes

    @classmethod
    def parse(cls, text: str) -> "Token | None":
        """Parses a token; None if it is not a JSON web token."""
        parts = text.split(".")
        if len(parts) != 3 or not text.isascii():
            return None
        try:
            header, payload = (json.loads(decoded(part)) for part in parts[:2])
            signature = decoded(parts[2])
        except (binascii.Error, ValueError, RecursionError):
            return None
        if not isinstance(header, dict) or not isinstance(payload, dict):
            return None
        audience, expires = payload.get("aud"), payload.get("exp")
        audiences = audience if isinstance(audience, list) else [audience]
        bound = _section(payload, "kubernetes.io")
        return cls(
            text=text,
            algorithm=_text(header, "alg"),
            key_id=_text(header, "kid"),
            issuer=_text(payload, "iss"),
            audiences=tuple(item for item in audiences if isinstance(item, str)),
            expires=float(expires) if isinstance(expires, int | float) and abs(expires) < _MAX_TIME else None,
            namespace=_text(bound, "namespace"),
            pod_uid=_text(_section(bound, "pod"), "uid"),
            signed=f"{parts[0]}.{parts[1]}".encode(),
            signature=signature,
        )


def decoded(part: str) -> bytes:
    """Decodes base64 as JSON web tokens and keys have it: URL-safe, without padding.

    Raises:
        binascii.Error: it is not base64.
    """
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _section(values: dict[str, Any], key: str) -> dict[str, Any]:
    section = values.get(key)
    return section if isinstance(section, dict) else {}


def _text(values: dict[str, Any], key: str) -> str:
    text = values.get(key)
    return text if isinstance(text, str) else ""
