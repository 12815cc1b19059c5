"""The listening socket: many connections, one greedy peer, heads that never end."""

import asyncio
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

    application = web.Application()
    application.router.add_get("/", hello)
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
