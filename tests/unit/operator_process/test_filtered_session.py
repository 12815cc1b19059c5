"""What kopf's connection lets through, from a server that answers as the API server does."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import kopf
import pytest
from aiohttp import web

from finetune_operator.kube.api import MAX_PAGE_BYTES
from finetune_operator.watch.filtered_session import EventFilter, session
from finetune_operator.watch.streams import Streams

pytestmark = pytest.mark.extras


class Even:
    """EventFilter are objects whose version is even."""

    def is_new(self, type_: str | None, raw: Any) -> bool:  # noqa: ARG002 (as EventFilter has it)
        return int(raw["metadata"]["resourceVersion"]) % 2 == 0


def event_filter_for(plural: str) -> EventFilter | None:
    return Even() if plural == "pods" else None


def an_object(version: int) -> dict[str, Any]:
    return {"metadata": {"name": "ü" * version, "resourceVersion": str(version)}}


def a_line(version: int, type_: str = "MODIFIED") -> bytes:
    return json.dumps({"type": type_, "object": an_object(version)}, ensure_ascii=False).encode() + b"\n"


class Server:
    """Serves one list or one watch, whatever is asked for."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.items: list[dict[str, Any]] | None = []
        self.status = 200
        self.url = ""
        self.paged = False
        self.limits: list[int] = []

    def _page(self, request: web.Request) -> web.Response:
        first, limit = int(request.query.get("continue", 0)), int(request.query["limit"])
        items = (self.items or [])[first : first + limit]
        end = first + len(items)
        more = {"continue": str(end)} if end < len(self.items or ()) else {}
        return web.json_response({"kind": "PodList", "metadata": more, "items": items})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity"
        assert request.headers["Authorization"] == "Bearer secret"
        self.limits.append(int(request.query.get("limit", 0)))
        if self.paged:
            return self._page(request)
        if "watch" not in request.query:
            return web.json_response({"kind": "PodList", "metadata": {}, "items": self.items}, status=self.status)
        response = web.StreamResponse(status=self.status, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for chunk in self.chunks:
            await response.write(chunk)
            await asyncio.sleep(0.01)  # else they arrive as one
        return response


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    listening = Server()
    application = web.Application()
    application.router.add_get("/{path:.*}", listening.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    listening.url = f"http://{host}:{port}"
    yield listening
    await runner.cleanup()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    made = session(kopf.ConnectionInfo(server=server.url, token="secret"), event_filter_for)
    assert made.server == server.url
    async with made.aiohttp_session as found:
        yield found


async def watch(client: aiohttp.ClientSession, url: str) -> list[Any]:
    """The events as kopf reads them."""
    async with client.get(f"{url}?watch=true") as response:
        text = b"".join([chunk async for chunk in response.content.iter_chunked(1024 * 1024)])
    return [
        (event["type"], event["object"].get("metadata", {}).get("resourceVersion"))
        for event in map(json.loads, text.splitlines())
    ]


async def test_a_run_of_dropped_events_is_one_bookmark(server: Server, client: aiohttp.ClientSession) -> None:
    server.chunks = [
        a_line(1) + a_line(2) + a_line(3),
        a_line(5) + a_line(7),
        a_line(9, "ADDED") + a_line(10),
        a_line(12, "DELETED"),
    ]
    assert await watch(client, f"{server.url}/api/v1/pods") == [
        ("MODIFIED", "2"),
        ("BOOKMARK", "3"),
        ("BOOKMARK", "7"),
        ("MODIFIED", "10"),
        ("DELETED", "12"),
    ]


async def test_a_watch_counts_as_open_while_it_lasts(server: Server) -> None:
    server.chunks = [a_line(2), a_line(4)]
    streams = Streams()
    made = session(kopf.ConnectionInfo(server=server.url, token="secret"), event_filter_for, streams=streams)
    async with (
        made.aiohttp_session as client,
        client.get(f"{server.url}/api/v1/pods?watch=true") as response,
    ):
        chunks = response.content.iter_chunked(1024)
        await anext(chunks)
        assert streams.kinds() == {"pods"}
        async for _ in chunks:
            pass
        assert streams.kinds() == frozenset()


async def test_a_line_may_come_in_pieces(server: Server, client: aiohttp.ClientSession) -> None:
    whole = a_line(3) + a_line(4) + a_line(6)
    server.chunks = [whole[start : start + 7] for start in range(0, len(whole), 7)]
    assert await watch(client, f"{server.url}/api/v1/pods") == [("BOOKMARK", "3"), ("MODIFIED", "4"), ("MODIFIED", "6")]


async def test_bookmarks_and_errors_of_the_server_pass(server: Server, client: aiohttp.ClientSession) -> None:
    error = {"type": "ERROR", "object": {"kind": "Status", "code": 410}}
    server.chunks = [a_line(11, "BOOKMARK"), json.dumps(error).encode() + b"\n"]
    assert await watch(client, f"{server.url}/api/v1/pods") == [("BOOKMARK", "11"), ("ERROR", None)]


async def test_other_kinds_pass_whole(server: Server, client: aiohttp.ClientSession) -> None:
    server.chunks = [a_line(1), a_line(3)]
    assert await watch(client, f"{server.url}/api/v1/namespaces") == [("MODIFIED", "1"), ("MODIFIED", "3")]


async def test_known_objects_are_removed_from_a_list(server: Server, client: aiohttp.ClientSession) -> None:
    server.items = [an_object(version) for version in (1, 2, 3, 4)]
    async with client.get(f"{server.url}/api/v1/pods?limit=500") as response:
        answer = await response.json()
    assert (answer["kind"], answer["items"]) == ("PodList", [an_object(2), an_object(4)])
    server.items = None  # as Go writes an empty list
    async with client.get(f"{server.url}/api/v1/pods?limit=500") as response:
        assert (await response.json())["items"] == []


async def test_a_page_that_is_too_large_becomes_a_smaller_one(server: Server, client: aiohttp.ClientSession) -> None:
    """A tenant makes a hundred objects of a megabyte with our labels: together they would fill the memory."""
    large = {"annotations": {"a": "x" * (MAX_PAGE_BYTES // 8)}}
    server.items = [an_object(2)] + [{"metadata": {**an_object(2)["metadata"], **large}} for _ in range(20)]
    server.paged = True
    seen, token = 0, "0"
    while token:
        async with client.get(f"{server.url}/api/v1/pods?limit=100&continue={token}") as response:
            answer = await response.json()
        assert len(json.dumps(answer)) <= MAX_PAGE_BYTES
        seen, token = seen + len(answer["items"]), answer["metadata"].get("continue")
    assert seen == len(server.items)
    assert server.limits[:3] == [100, 25, 6]


async def test_a_refusal_is_read_as_it_is(server: Server, client: aiohttp.ClientSession) -> None:
    server.status, server.items = 403, [an_object(1)]
    async with client.get(f"{server.url}/api/v1/pods") as response:
        assert len((await response.json())["items"]) == 1


async def test_a_line_that_is_cut_is_left_out(server: Server, client: aiohttp.ClientSession) -> None:
    server.chunks = [a_line(2), a_line(4)[:20]]
    assert await watch(client, f"{server.url}/api/v1/pods") == [("MODIFIED", "2")]
