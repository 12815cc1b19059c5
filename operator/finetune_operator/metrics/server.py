"""The HTTP server of `/metrics`, on a port of its own: pods that report progress need not reach it.

It asks for no password. A NetworkPolicy says who may connect. With TLS, clients may have to show a certificate.
"""

import asyncio
import gzip
from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family

_COMPRESSION_LEVEL = 1


class MetricsServer:
    """Answers scrapes.

    Args:
        registry: the metrics.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._one = asyncio.Lock()

    def add_to(self, application: web.Application) -> None:
        """Adds `/metrics`."""
        application.router.add_get("/metrics", self.scrape)

    async def scrape(self, request: web.Request) -> web.Response:
        """Answers in the format that the client prefers: OpenMetrics, or Prometheus' text."""
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        compressed = "gzip" in request.headers.get("Accept-Encoding", "")
        async with self._one:  # scrapes at the same time would only slow each other and the workers down
            # The event loop owns the cache, so it collects. The text takes longer, and is made beside it.
            families = _Collected(list(self._registry.collect()))
            body = await asyncio.to_thread(_body, encode, families, compressed=compressed)
        headers = {"Content-Type": content_type}
        if compressed:
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers)


class _Collected:
    """Families that were collected, as a collector."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        """The families."""
        return self._families


def _body(encode: Callable[[_Collected], bytes], families: _Collected, *, compressed: bool) -> bytes:
    text = encode(families)
    return gzip.compress(text, _COMPRESSION_LEVEL) if compressed else text
