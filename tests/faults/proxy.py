"""A proxy between one operator and the API server. It decides for each request what becomes of it, and keeps a journal.

The operator reaches it by plain HTTP; it reaches the API server by TLS, with the operator's own token.
"""

import asyncio
import json
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import aiohttp
from aiohttp import web

from faults.calls import Call, call

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "content-length"})
SLOW_SECONDS = 3.0
"""How long a slow answer takes, and each event of a slow watch."""
SILENT_SECONDS = 5.0
"""How long there is no answer, before the connection is reset."""
RETRY_AFTER_SECONDS = 1


class Fault(StrEnum):
    """What becomes of a request."""

    CONFLICT = "409"
    GONE = "410 Gone"
    TOO_MANY = "429 with Retry-After"
    ERROR = "500"
    UNAVAILABLE = "503"
    TIMEOUT = "504"
    EXPIRED = "401, an expired token"
    RESET = "connection reset"
    LOST = "carried out, then reset"
    TRUNCATED = "truncated answer"
    SLOW = "slow answer"
    SILENT = "no answer"
    STALE = "stale list"
    DUPLICATED = "events twice, and old ones again"
    DROPPED = "events lost"
    KILLED_BEFORE = "killed before the write"
    KILLED_AFTER = "killed after the write, before its answer"


STATUS_CODES = {
    Fault.CONFLICT: (409, "Conflict"),
    Fault.GONE: (410, "Expired"),
    Fault.TOO_MANY: (429, "TooManyRequests"),
    Fault.ERROR: (500, "InternalError"),
    Fault.UNAVAILABLE: (503, "ServiceUnavailable"),
    Fault.TIMEOUT: (504, "Timeout"),
    Fault.EXPIRED: (401, "Unauthorized"),
}
ON_EVENTS = frozenset({Fault.DUPLICATED, Fault.DROPPED})
"""Faults of the events of a watch that is open."""

Plan = Callable[[Call], Fault | None]
"""Says what becomes of a request; and, for an event of an open watch, whether it is one of ON_EVENTS."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """A request in the journal.

    Attributes:
        call: the request.
        fault: what became of it.
        status: the API server's status code; 0 if it was not asked.
        answer: the API server's answer to a write.
    """

    call: Call
    fault: Fault | None
    status: int = 0
    answer: dict[str, Any] = field(default_factory=dict)


class Proxy:
    """The proxy of one operator.

    Args:
        server: address of the API server.
        context: how its certificate is checked.

    Attributes:
        plan: what becomes of requests; change it at any time.
        on_kill: ends the operator; awaited by a request with such a fault.
        on_write: awaited after each write that the API server has carried out, before the operator gets the answer.
        journal: the requests in their order.
        counts: how often each fault has happened.
        url: its own address.
    """

    def __init__(self, server: str, context: ssl.SSLContext) -> None:
        self.plan: Plan = lambda _: None
        self.on_kill: Callable[[], Awaitable[None]] = _nothing
        self.on_write: Callable[[Entry], Awaitable[None]] = _ignore
        self.journal: list[Entry] = []
        self.counts: Counter[Fault] = Counter()
        self.url = ""
        self._server = server.rstrip("/")
        self._context = context
        self._session: aiohttp.ClientSession | None = None
        self._first_lists: dict[str, bytes] = {}
        self._watches: dict[asyncio.Transport, Call] = {}
        self._handling: set[asyncio.Task[web.StreamResponse]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serves on a port of loopback."""
        application = web.Application(client_max_size=1 << 26)
        application.router.add_route("*", "/{path:.*}", self._in_task)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        connector = aiohttp.TCPConnector(limit=0, ssl=self._context)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            self._session = session
            try:
                yield
            finally:
                for task in list(self._handling):
                    task.cancel()
                self.cut()
                await runner.cleanup()

    def cut(self, label: str | None = None) -> None:
        """Ends the open watches of a verb and resource, or all, so that they are opened again."""
        for transport, watched in list(self._watches.items()):
            if label in (None, str(watched)):
                transport.abort()

    async def _in_task(self, request: web.Request) -> web.StreamResponse:
        """Handles a request so that it can be ended with the proxy."""
        task = asyncio.create_task(self._handle(request))
        self._handling.add(task)
        try:
            return await task
        except (asyncio.CancelledError, ConnectionError):  # the proxy ends, or the operator has hung up
            return _reset(request)
        finally:
            self._handling.discard(task)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = call(request.method, request.path, request.query)
        body = await request.read()
        fault = self.plan(asked)
        if fault in ON_EVENTS:
            fault = None  # they are asked for again with each event
        entry = Entry(call=asked, fault=fault)
        self.journal.append(entry)
        if fault is not None:
            self.counts[fault] += 1
        if fault is Fault.KILLED_BEFORE:
            await self.on_kill()
        if fault in (Fault.KILLED_BEFORE, Fault.RESET):
            return _reset(request)
        if fault is Fault.SILENT:
            return await self._stay_silent(request)
        if fault is Fault.GONE and asked.verb == "watch":
            return await _gone(request)
        if fault in STATUS_CODES:
            return _refuse(fault)
        if fault is Fault.SLOW:
            await asyncio.sleep(SLOW_SECONDS)
        if asked.verb == "watch":
            return await self._watch(request, asked, fault)
        return await self._forward(request, body, entry)

    async def _forward(self, request: web.Request, body: bytes, entry: Entry) -> web.StreamResponse:
        assert self._session is not None
        kept = self._first_lists.get(request.path_qs)
        if entry.fault is Fault.STALE and kept is not None:
            return web.Response(body=kept, content_type="application/json")
        try:
            async with self._session.request(
                request.method, self._server + request.path_qs, data=body or None, headers=_headers(request.headers)
            ) as answer:
                content = without_scheduler(entry.call, await answer.read())
                headers = _headers(answer.headers)
        except aiohttp.ClientError:
            return _reset(request)
        if entry.call.verb == "list" and answer.status == 200:
            self._first_lists.setdefault(request.path_qs, content)
        if entry.call.verb not in ("get", "list"):
            entry.status = answer.status
            entry.answer = json.loads(content) if content.startswith(b"{") else {}
            if answer.status < 300:
                await self.on_write(entry)
        if entry.fault is Fault.KILLED_AFTER:
            await self.on_kill()
        if entry.fault in (Fault.KILLED_AFTER, Fault.LOST):
            return _reset(request)
        if entry.fault is Fault.TRUNCATED:
            return await _truncated(request, answer.status, content)
        return web.Response(status=answer.status, body=content, headers=headers)

    async def _watch(self, request: web.Request, asked: Call, fault: Fault | None) -> web.StreamResponse:
        assert self._session is not None
        response = web.StreamResponse()
        if (transport := request.transport) is None:
            return response  # the operator has gone meanwhile
        self._watches[transport] = asked
        try:
            async with self._session.get(
                self._server + request.path_qs,
                headers=_headers(request.headers),
                timeout=aiohttp.ClientTimeout(total=None),
            ) as answer:
                response.set_status(answer.status)
                response.content_type = "application/json"
                response.enable_chunked_encoding()
                await response.prepare(request)
                rest = before = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        seen = without_scheduler(asked, line) + b"\n"
                        if not await self._pass_on(response, asked, fault, seen, before):
                            transport.close()
                            return response
                        before = seen
        except (aiohttp.ClientError, ConnectionError):
            pass  # one of the two ends has gone
        finally:
            self._watches.pop(transport, None)
        return response

    async def _pass_on(
        self, response: web.StreamResponse, asked: Call, fault: Fault | None, line: bytes, before: bytes
    ) -> bool:
        """Gives the operator an event of a watch, and says whether the watch goes on."""
        on_event = self.plan(asked)
        if on_event in ON_EVENTS:
            self.counts[on_event] += 1
        match fault:
            case Fault.TRUNCATED:
                await response.write(line[: len(line) // 2])
                return False
            case Fault.LOST:
                return False
            case Fault.SLOW:
                await asyncio.sleep(SLOW_SECONDS)
        if on_event is not Fault.DROPPED:
            await response.write(line)
        if on_event is Fault.DUPLICATED:
            await response.write(line + before)
        return True

    async def _stay_silent(self, request: web.Request) -> web.StreamResponse:
        """Gives no answer for a while; the client may hang up meanwhile."""
        await asyncio.sleep(SILENT_SECONDS)
        return _reset(request)


def without_scheduler(asked: Call, content: bytes) -> bytes:
    """Pods, or an event of their watch, without what a scheduler says of them.

    No node takes the pods of these tables. Whether a scheduler says so before the stand-in runs a pod is a matter of
    time, so the operator would write one phase more in some lives and not in others.
    """
    if asked.resource != "pods" or b'"PodScheduled"' not in content:
        return content
    answer = json.loads(content)
    for pod in answer.get("items") or [answer.get("object") or answer]:
        status = pod.get("status") or {}
        if "conditions" in status:
            status["conditions"] = [item for item in status["conditions"] if item["type"] != "PodScheduled"]
    return json.dumps(answer, separators=(",", ":")).encode()


def _headers(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in HOP_BY_HOP}


def _reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        raw = request.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()


def _status(fault: Fault) -> dict[str, Any]:
    code, reason = STATUS_CODES[fault]
    message = f"injected: {reason}"
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _refuse(fault: Fault) -> web.Response:
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if fault is Fault.TOO_MANY else {}
    return web.json_response(_status(fault), status=STATUS_CODES[fault][0], headers=headers)


async def _gone(request: web.Request) -> web.StreamResponse:
    """What a real API server says to a watch that begins too early: an event in an answer with code 200."""
    response = web.StreamResponse()
    response.content_type = "application/json"
    await response.prepare(request)
    await response.write(json.dumps({"type": "ERROR", "object": _status(Fault.GONE)}).encode() + b"\n")
    return response


async def _truncated(request: web.Request, status: int, content: bytes) -> web.StreamResponse:
    response = web.StreamResponse(status=status)
    response.content_type = "application/json"
    response.content_length = len(content)
    await response.prepare(request)
    await response.write(content[: len(content) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


async def _nothing() -> None:
    return


async def _ignore(_: Entry) -> None:
    return
