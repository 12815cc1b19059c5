"""The HTTP session that kopf lists and watches through. It drops events that bring nothing new.

kopf spends half a millisecond of CPU on each object, for handlers that the operator does not have. To drop an event
here costs a tenth of that. In place of dropped events kopf gets a bookmark, as the API server sends them too: it has
the resourceVersion to continue from. Known objects are removed from kopf's lists. After a start these are all objects,
because the resync has listed them (control/informer/resync.py).

kopf takes an aiohttp session from its login handler, and aiohttp takes a response class from its session. Both are
documented.
"""

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import aiohttp
import kopf
from aiohttp.connector import Connection
from pydantic_core import from_json

from finetune_operator.kube.api import MAX_PAGE_BYTES, fewer
from finetune_operator.kube.contact import Contact
from finetune_operator.kube.limited_body import body_within
from finetune_operator.watch.streams import Streams

SHORTEST_SECONDS = 1.0
"""From the begin of a watch to the begin of the next one, at least."""


class EventFilter(Protocol):
    """See `control.informer.event_filter.EventFilter`."""

    def is_new(self, type_: str | None, raw: Any) -> bool:
        """Whether an event, or an object of a list (type None), must be handled."""
        ...


EventFilterFor = Callable[[str], EventFilter | None]
"""Makes an `EventFilter` for a kind, by its plural; None to let everything through."""


def session(
    info: kopf.ConnectionInfo,
    event_filter_for: EventFilterFor,
    contact: Contact | None = None,
    streams: Streams | None = None,
) -> kopf.AiohttpSession:
    """A session with kopf's own settings, whose lists and watches are filtered.

    Args:
        info: the cluster.
        event_filter_for: makes the filter for a kind.
        contact: what is told whether the API server can be reached; by default nobody is.
        streams: what is told which filtered watches are open; by default nobody is.
    """

    class Response(_Response):
        _event_filter_for = staticmethod(event_filter_for)
        _streams = streams or Streams()

    http = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        # To decompress a list takes longer than to read it from a server in the same cluster.
        headers={**info.as_http_headers(), "Accept-Encoding": "identity"},
        proxy=info.proxy_url,
        trust_env=info.trust_env,
        response_class=Response,
        trace_configs=[contact.trace()] if contact is not None else [],
    )
    Response.http = http
    return kopf.AiohttpSession(
        server=info.server,
        default_namespace=info.default_namespace,
        priority=info.priority,
        expiration=info.expiration,
        aiohttp_session=http,
    )


class _Response(aiohttp.ClientResponse):
    """A response of the API server."""

    _event_filter_for: EventFilterFor
    _streams: Streams
    http: aiohttp.ClientSession

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Called by aiohttp when the headers are read; the body of a watch comes later."""
        await super().start(connection)
        if self.ok and "watch" in self.url.query and (event_filter := self._event_filter()) is not None:
            opened = functools.partial(self._streams.open, self.url.name)
            self.content = _FilteredContent(self.content, event_filter, opened)  # type: ignore[assignment]
        return self

    async def json(self, **options: Any) -> Any:
        """The parsed body. A list is without the known objects, and a page that is too large becomes a smaller one.

        kopf goes on after it.
        """
        event_filter = self._event_filter() if self.ok else None
        if event_filter is None:
            return await super().json(**options)
        limit = int(self.url.query.get("limit", 0))
        body = await body_within(self, MAX_PAGE_BYTES if limit > 1 else None)
        if body is None:
            async with self.http.get(self.url.update_query(limit=str(fewer(limit)))) as smaller:
                smaller.raise_for_status()
                return await smaller.json(**options)
        answer = from_json(body)
        if isinstance(answer, dict) and "items" in answer:
            answer["items"] = [item for item in answer["items"] or () if event_filter.is_new(None, item)]
        return answer

    def _event_filter(self) -> EventFilter | None:
        return self._event_filter_for(self.url.name)


class _FilteredContent:
    """The lines of a watch, without events that bring nothing new.

    Args:
        content: aiohttp's stream; everything but `iter_chunked` is delegated to it.
        opened: makes the block inside which the watch is open.
    """

    def __init__(
        self,
        content: aiohttp.StreamReader,
        event_filter: EventFilter,
        opened: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._opened = opened
        self._content = content
        self._event_filter = event_filter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Whole lines, as they arrive. A line that was cut is left out: the next watch brings it again."""
        began = time.monotonic()
        rest = b""
        try:
            with self._opened():
                async for chunk in self._content.iter_chunked(size):
                    *lines, rest = (rest + chunk).split(b"\n")
                    if passed := self._filter(lines):
                        yield passed
        except (aiohttp.ClientError, TimeoutError):
            await _wait_since(began)
            raise
        await _wait_since(began)

    def _filter(self, lines: list[bytes]) -> bytes:
        passed: list[bytes] = []
        withheld = None
        for line in lines:
            version = self._known_version(line)
            if version is None:
                passed += line, b"\n"
            withheld = version
        # Only the last dropped version is one to continue from, and only if no event that passed came after it.
        if withheld is not None:
            passed += _bookmark(withheld), b"\n"
        return b"".join(passed)

    def _known_version(self, line: bytes) -> str | None:
        """The resourceVersion of an event to drop; None for an event that kopf must get."""
        event = from_json(line, cache_strings="keys") if line else {}
        if event.get("type") not in ("ADDED", "MODIFIED", "DELETED"):
            return None
        raw = event["object"]
        version: str | None = raw["metadata"].get("resourceVersion")
        return None if self._event_filter.is_new(event["type"], raw) else version


async def _wait_since(began: float) -> None:
    """Waits before kopf opens the next watch, if this one was short.

    kopf opens it at once (1.45, `continuous_watch`). A server that ends every watch would be asked without a pause.
    """
    await asyncio.sleep(max(0.0, began + SHORTEST_SECONDS - time.monotonic()))


def _bookmark(version: str) -> bytes:
    return json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}).encode()
