"""However reading a large answer ends, its connection is given back at once, and not by the garbage collector."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from finetune_operator.kube.limited_body import body_within

pytestmark = pytest.mark.extras
HALF = b'{"items": ['


@asynccontextmanager
async def half_an_answer(*, cut: bool, seconds: float | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
    """An answer whose server has sent half of it, and then closes the connection or says no more."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + HALF)
        await writer.drain()
        if not cut:
            await done.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with server, aiohttp.ClientSession(timeout=timeout) as session:
        yield await session.get(f"http://127.0.0.1:{port}")
        done.set()


async def test_an_answer_that_is_cut() -> None:
    async with half_an_answer(cut=True) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await body_within(response, 10_000)
        assert response.connection is None


async def test_an_answer_that_takes_too_long() -> None:
    async with half_an_answer(cut=False, seconds=0.2) as response:
        with pytest.raises(TimeoutError):
            await body_within(response, 10_000)
        assert response.connection is None


async def test_a_reader_that_is_cancelled() -> None:
    async with half_an_answer(cut=False) as response:
        reading = asyncio.create_task(body_within(response, 10_000))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert response.connection is None


async def test_an_answer_that_is_too_large() -> None:
    async with half_an_answer(cut=False) as response:
        assert await body_within(response, len(HALF) - 1) is None
        assert response.connection is None
