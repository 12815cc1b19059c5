"""The listening socket: many connections, one greedy peer, heads that never end."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from finetune_operator.listener import Listener

pytestmark = pytest.mark.extras

REQUEST = b"GET / HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n"


@asynccontextmanager
async def serving(**limits: float) -> AsyncIterator[int]:
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def read(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def fail(_: web.Request) -> web.Response:
        raise LookupError("a fault of the operator")

    application = web.Application()
    application.router.add_get("/", hello)
    application.router.add_post("/", read)
    application.router.add_get("/fault", fail)
    listener = Listener(application, **limits)  # type: ignore[arg-type]
    port = await listener.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await listener.close()


async def ask(port: int, host: str = "127.0.0.1") -> bytes:
    """The answer to a request from an address of loopback; empty when the connection was closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(host, 0))
    try:
        writer.write(REQUEST)
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_head_that_does_not_end_ends_its_connection() -> None:
    async with serving(head_seconds=0.2) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST[:20])
        assert await reader.read() == b""
        writer.close()
        assert b"hello" in await ask(port)


async def test_a_peer_with_too_many_connections_gets_no_more_and_others_do() -> None:
    async with serving(max_of_peer=3) as port:
        held = [await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)) for _ in range(3)]
        for _, writer in held:
            writer.write(REQUEST[:20])
        assert await ask(port, "127.0.0.2") == b""
        assert b"hello" in await ask(port, "127.0.0.3")
        for _, writer in held:
            writer.close()


async def test_too_many_connections_in_all_are_closed() -> None:
    async with serving(max_connections=2) as port:
        held = [await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.0.0.{n}", 0)) for n in (2, 3)]
        assert await ask(port, "127.0.0.4") == b""
        for _, writer in held:
            writer.close()


MALFORMED = {
    "a header of 9,000 bytes": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer secret" + b"a" * 9000 + b"\r\n\r\n",
    "too many headers": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: secret\r\n" * 200 + b"\r\n",
    "a length below 0": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nsecret",
    "a chunk without a size": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n",
    "control characters": b"GET /\x1b[2J HTTP/1.1\r\n\r\n",
    "no host": b"GET http://[::1/secret HTTP/1.1\r\nHost: a\r\n\r\n",
    "another version": b"GET /secret HTTP/9.9\r\n\r\n",
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_a_malformed_request_is_answered_and_not_logged(caplog: pytest.LogCaptureFixture, what: str) -> None:
    async with serving() as port:
        assert b" 400 " in await send(port, MALFORMED[what])
    assert caplog.text == ""


async def test_a_body_that_breaks_off_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n{")
        await writer.drain()
        writer.transport.abort()
        assert b"hello" in await ask(port)
    assert caplog.text == ""


async def test_a_fault_of_the_operator_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as port:
        assert b" 500 " in await send(port, b"GET /fault HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert "a fault of the operator" in caplog.text


async def test_a_body_is_not_decompressed() -> None:
    body = gzip.compress(b"0" * 10_000)
    head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n"
    async with serving() as port:
        assert body in await send(port, head.encode() + b"Connection: close\r\n\r\n" + body)


async def send(port: int, data: bytes) -> bytes:
    """The answer to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await reader.read()
    finally:
        writer.close()
