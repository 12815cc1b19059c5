# ruff: noqa: N818 (the names are those of the API's reasons)
"""The errors of requests to the API server.

All are a `KubeError`:

- NotFound: 404: the object does not exist; usually nothing is left to do
- Conflict: 409: another client wrote first, or the object has another UID
- Expired: 410: a page of a list is too old; list again
- Forbidden: 403: rights, quota or an admission policy; a person must act
- Invalid: 400, 405, 413, 415, 422: the server rejects the object; a retry does not help
- Throttled: 429: retry after `retry_after` seconds
- Unavailable: 401, 5xx, timeouts, broken connections: retry later. A token that expires is renewed, and says nothing
  about what was asked for.
- Unreachable: the same, and there was no connection at all
"""

import json
import logging
from collections.abc import Mapping

from finetune_trainer.contract.text import readable


class KubeError(Exception):
    """A request that failed.

    Attributes:
        status: HTTP status; 0 if there was no response.
        message: the server's message, made readable, or the error of the connection.
        retry_after: seconds of the Retry-After header; 0 without one.
        level: with which it is logged if it is retried.
    """

    level = logging.WARNING

    def __init__(self, message: str, *, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


class NotFound(KubeError):
    """The object does not exist."""


class Conflict(KubeError):
    """The object has another resourceVersion or UID than expected, or exists already."""


class Expired(KubeError):
    """The continue token of the list has expired."""


class Forbidden(KubeError):
    """The request is not allowed: rights, quota or admission policy."""


class Invalid(KubeError):
    """The server rejects the object."""


class Throttled(KubeError):
    """Too many requests."""


class Unavailable(KubeError):
    """There was no response, or one that cannot be used."""


class Unreachable(Unavailable):
    """There was no connection. `kube.contact` has said so, so nobody else does."""

    level = logging.DEBUG


_BY_STATUS: dict[int, type[KubeError]] = {
    400: Invalid,
    401: Unavailable,
    403: Forbidden,
    404: NotFound,
    405: Invalid,
    409: Conflict,
    410: Expired,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: Throttled,
}


def from_response(status: int, headers: Mapping[str, str], body: bytes) -> KubeError:
    """The error for a response whose status is not 2xx."""
    return _BY_STATUS.get(status, Unavailable)(
        _message(status, body), status=status, retry_after=_seconds(headers.get("Retry-After", ""))
    )


def _message(status: int, body: bytes) -> str:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    message = answer.get("message") if isinstance(answer, dict) else None
    if isinstance(message, str):
        return readable(message)
    text = readable(body.decode(errors="replace").strip()[:500])
    return f"HTTP {status}: {text}" if text else f"HTTP {status}"


def _seconds(text: str) -> float:
    return float(text) if text.isdecimal() else 0.0
