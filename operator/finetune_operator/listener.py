"""The operator's listening socket, with limits, so that no pod can use up the connections of the others.

aiohttp limits neither the connections in all nor those of one peer. If the headers of a request do not arrive within
`HEAD_SECONDS`, the connection is closed. That is aiohttp's keep-alive timeout, which starts with the connection.

For every malformed request aiohttp logs a traceback, which quotes the request: anybody could fill the log, and tokens
would be in it. Such a request is answered and not logged. Bodies are not decompressed: no report is compressed.
"""

import asyncio
import logging
import ssl
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

HEAD_SECONDS = 15.0
MAX_CONNECTIONS = 2048
MAX_OF_PEER = MAX_CONNECTIONS // 2
"""Connections of one address. Some networks give all pods of a node the node's address, hence so many."""


def _is_no_fault_of_the_peer(record: logging.LogRecord) -> bool:
    """Whether an error is the operator's own: the request was well-formed, and the connection is not broken."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)


_requests = logging.getLogger("finetune_operator.requests")
"""aiohttp's log of requests that failed."""
_requests.addFilter(_is_no_fault_of_the_peer)


class Listener:
    """Serves an application, on one event loop.

    Args:
        application: the application.
        max_connections: limit of open connections; a further one is closed at once.
        max_of_peer: limit of open connections of one address.
        head_seconds: seconds until the headers of a request must have arrived.
        tls: the TLS settings; None for plain HTTP.
    """

    def __init__(
        self,
        application: web.Application,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_of_peer: int = MAX_OF_PEER,
        head_seconds: float = HEAD_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._runner = web.AppRunner(
            application,
            access_log=None,
            shutdown_timeout=2.0,
            keepalive_timeout=head_seconds,
            logger=_requests,
            auto_decompress=False,
        )
        self._max_connections = max_connections
        self._max_of_peer = max_of_peer
        self._server: asyncio.Server | None = None

    async def start(self, host: str | None, port: int) -> int:
        """Listens on an address, or on all of IPv4 and IPv6 where `host` is None; returns the port.

        Raises:
            OSError: cannot listen on the port.
        """
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Gate(self), host, port, ssl=self._tls)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Accepts no more connections and lets current requests finish."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def admit(self, transport: asyncio.Transport) -> web.RequestHandler | None:
        """The protocol for a new connection; None if there are too many."""
        server = self._runner.server
        assert server is not None
        peers = [_peer(connection.transport) for connection in server.connections]
        if len(peers) >= self._max_connections or peers.count(_peer(transport)) >= self._max_of_peer:
            return None
        return server()


class _Gate(asyncio.Protocol):
    """The protocol of a connection until it is admitted: only then is the peer's address known."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Passes the connection to aiohttp, or closes it."""
        stream = cast("asyncio.Transport", transport)
        handler = self._listener.admit(stream)
        if handler is None:
            stream.abort()
            return
        stream.set_protocol(handler)
        handler.connection_made(stream)


def _peer(transport: asyncio.BaseTransport | None) -> str | None:
    """The address at the other end."""
    name = None if transport is None else transport.get_extra_info("peername")
    return str(name[0]) if name else None
