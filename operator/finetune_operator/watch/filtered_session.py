"""The connection that kopf watches through: what is no news ends here, as a bookmark.

kopf takes half a millisecond of CPU for each object that it is given, for handlers that the operator does not have. An
event without news costs a tenth of that here. In its place kopf gets a bookmark, as the API server sends them too: the
version to go on from, and nothing to handle. The objects of kopf's lists that are known already are left out: after a
start that is all of them (control/informer/resync.py).

kopf takes a session of aiohttp from its login handler, and aiohttp takes a class of responses from its session; both
are documented.
"""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import aiohttp
import kopf
from aiohttp.connector import Connection
from pydantic_core import from_json


class EventFilter(Protocol):
    """See `control.informer.event_filter.EventFilter`."""

    def is_new(self, type_: str | None, raw: Any) -> bool:
        """Whether an event, or an object of a list (None), has any."""
        ...


EventFilterFor = Callable[[str], EventFilter | None]
"""For a kind, by its plural, a fresh `EventFilter`; None when all of it is to go through."""


def session(info: kopf.ConnectionInfo, event_filter_for: EventFilterFor) -> kopf.AiohttpSession:
    """A session with kopf's own settings; what it reads goes through the sieve."""

    class Response(_Response):
        _event_filter_for = staticmethod(event_filter_for)

    return kopf.AiohttpSession(
        server=info.server,
        default_namespace=info.default_namespace,
        priority=info.priority,
        expiration=info.expiration,
        aiohttp_session=aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            # Unpacking a list takes longer than reading it from a server in the same cluster.
            headers={**info.as_http_headers(), "Accept-Encoding": "identity"},
            proxy=info.proxy_url,
            trust_env=info.trust_env,
            response_class=Response,
        ),
    )


class _Response(aiohttp.ClientResponse):
    """An answer of the API server."""

    _event_filter_for: EventFilterFor

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Called by aiohttp when the head has come; the body of a watch comes later."""
        await super().start(connection)
        if self.ok and "watch" in self.url.query and (event_filter := self._event_filter()) is not None:
            self.content = _FilteredContent(self.content, event_filter)  # type: ignore[assignment]
        return self

    async def json(self, **options: Any) -> Any:
        """The parsed body; of a list without the objects that are known."""
        event_filter = self._event_filter() if self.ok else None
        if event_filter is None:
            return await super().json(**options)
        answer = await super().json(**options, loads=from_json)
        if isinstance(answer, dict) and "items" in answer:
            answer["items"] = [item for item in answer["items"] or () if event_filter.is_new(None, item)]
        return answer

    def _event_filter(self) -> EventFilter | None:
        return self._event_filter_for(self.url.name)


class _FilteredContent:
    """The lines of a watch, of which those without news are left out.

    Args:
        content: what aiohttp reads; all but `iter_chunked` is asked of it.
    """

    def __init__(self, content: aiohttp.StreamReader, event_filter: EventFilter) -> None:
        self._content = content
        self._event_filter = event_filter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Whole lines, as they come."""
        rest = b""
        async for chunk in self._content.iter_chunked(size):
            *lines, rest = (rest + chunk).split(b"\n")
            if passed := self._filter(lines):
                yield passed
        if rest:
            yield rest

    def _filter(self, lines: list[bytes]) -> bytes:
        passed: list[bytes] = []
        withheld = None
        for line in lines:
            version = self._known_version(line)
            if version is None:
                passed += line, b"\n"
            withheld = version
        # Of the versions that were withheld only the last is one to go on from, and only if nothing came after it.
        if withheld is not None:
            passed += _bookmark(withheld), b"\n"
        return b"".join(passed)

    def _known_version(self, line: bytes) -> str | None:
        """The version of an event that has no news; None for one that kopf must have."""
        event = from_json(line, cache_strings="keys") if line else {}
        if event.get("type") not in ("ADDED", "MODIFIED", "DELETED"):
            return None
        raw = event["object"]
        version: str | None = raw["metadata"].get("resourceVersion")
        return None if self._event_filter.is_new(event["type"], raw) else version


def _bookmark(version: str) -> bytes:
    return json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}).encode()
