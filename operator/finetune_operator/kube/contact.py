"""Whether the API server can be connected to: said once when that changes, with the reason in clear words.

Lists, watches, the Lease and every job notice it at the same time, and try again for as long as it lasts. So none of
them says it. A connection that is open goes on working when a certificate expires. So only a new one shows that the
server can be connected to again.
"""

import logging
import os
import ssl
from typing import Any

import aiohttp

from finetune_operator.kube.errors import Unreachable

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
"""Limit for a new connection."""

_Failure = aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorCertificateError
FAILURES = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""What aiohttp raises if it gets no connection."""


class Contact:
    """The contact of one process. Sessions of several threads may share it."""

    def __init__(self) -> None:
        self._reason: str | None = None

    def trace(self) -> aiohttp.TraceConfig:
        """What an aiohttp session needs to tell of its connections."""
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._connected)
        trace.on_request_exception.append(self._failed)
        return trace

    async def _connected(self, *_: Any) -> None:
        reason, self._reason = self._reason, None
        if reason is not None:
            logger.info("the API server can be reached again")

    async def _failed(self, _: aiohttp.ClientSession, __: object, params: aiohttp.TraceRequestExceptionParams) -> None:
        if not isinstance(params.exception, FAILURES):
            return
        reason = why(params.exception)
        before, self._reason = self._reason, reason
        if reason != before:
            logger.warning("the API server cannot be reached at %s: %s", params.url.origin(), reason)


def unreachable(error: _Failure) -> Unreachable:
    """The error of a request that got no connection."""
    return Unreachable(f"the API server cannot be reached: {why(error)}")


def why(error: BaseException) -> str:
    """Why there is no connection, in one sentence without the words of Python."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            cause = error.certificate_error
            said = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else str(cause)
            return f"its certificate is refused: {said.rstrip('.')}"
        case aiohttp.ClientConnectorError(os_error=ssl.SSLError(reason=reason)):
            return f"the TLS handshake failed: {str(reason).replace('_', ' ').lower()}"
        case aiohttp.ClientConnectorDNSError():
            return f"its name {error.host} is not known: {error.strerror}"
        case aiohttp.ClientConnectorError():
            return os.strerror(error.errno).lower() if error.errno else "the connection ended in the handshake"
        case _:
            return f"no connection within {CONNECT_SECONDS:.0f} s"
