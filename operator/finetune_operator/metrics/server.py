"""The HTTP server of `/metrics`, on a port of its own: pods that report progress need not reach it.

It asks for no password. A NetworkPolicy says who may connect. With TLS, clients may have to show a certificate.
"""

import asyncio
import gzip
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family

_COMPRESSION_LEVEL = 1


class Taking(Protocol):
    """A collector whose `collect` may run in another thread."""

    def take(self) -> None:
        """Takes what `collect` reads, on the event loop."""

    def collect(self) -> Iterable[Family]:
        """The families as of the last `take`."""
        ...


class MetricsServer:
    """Answers scrapes.

    Args:
        registry: the metrics.
        collectors: those of them that take what they read on the event loop.
    """

    def __init__(self, registry: CollectorRegistry, collectors: Sequence[Taking] = ()) -> None:
        self._registry = registry
        self._collectors = collectors
        for collector in collectors:
            registry.register(collector)
        self._one = asyncio.Lock()

    def add_to(self, application: web.Application) -> None:
        """Adds `/metrics`."""
        application.router.add_get("/metrics", self.scrape)

    async def scrape(self, request: web.Request) -> web.Response:
        """Answers in the format that the client prefers: OpenMetrics, or Prometheus' text."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        compressed = "gzip" in request.headers.get("Accept-Encoding", "")
        async with self._one:  # scrapes at the same time would only slow each other and the workers down
            for collector in self._collectors:
                collector.take()
            body = await asyncio.to_thread(self._body, encode, compressed=compressed)
        headers = {"Content-Type": content_type}
        if compressed:
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)

    def _body(self, encode: Callable[[CollectorRegistry], bytes], *, compressed: bool) -> bytes:
        text = encode(self._registry)
        return gzip.compress(text, _COMPRESSION_LEVEL) if compressed else text
