# ruff: noqa: N818 (the names are those of the API's reasons)
"""What can come back from the API server instead of an answer, classified once.

Under `KubeError`:

- NotFound: 404: the object is gone; usually nothing is left to do
- Conflict: 409: somebody else was first, or the object is another one than was meant
- Expired: 410: a page of a list is too old; list again
- Forbidden: 401, 403: rights, quota or an admission policy; a person must act
- Invalid: 400, 405, 413, 415, 422: the server does not take what was sent; trying again does not help
- Throttled: 429: later, after `retry_after` seconds
- Unavailable: 5xx, timeouts, broken connections: later
"""

import json
from collections.abc import Mapping


class KubeError(Exception):
    """A request that failed.

    Attributes:
        status: HTTP status; 0 when no answer came.
        message: the server's words, or what happened to the connection.
        retry_after: seconds that the server asks to wait; 0 when it does not say.
    """

    def __init__(self, message: str, *, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


class NotFound(KubeError):
    """The object does not exist."""


class Conflict(KubeError):
    """Another writer was first, the object exists already, or it is not the one that was meant."""


class Expired(KubeError):
    """The list can not be continued."""


class Forbidden(KubeError):
    """The request is not allowed: rights, quota or policy."""


class Invalid(KubeError):
    """The server does not take the object."""


class Throttled(KubeError):
    """Too many requests."""


class Unavailable(KubeError):
    """No answer, or none that means anything."""


_BY_STATUS: dict[int, type[KubeError]] = {
    400: Invalid,
    401: Forbidden,
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
    """The error of an answer whose status is not 2xx."""
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
        return message
    text = body.decode(errors="replace").strip()[:500]
    return f"HTTP {status}: {text}" if text else f"HTTP {status}"


def _seconds(text: str) -> float:
    return float(text) if text.isdecimal() else 0.0
