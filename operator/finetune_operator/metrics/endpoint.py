"""The metrics' port: listens with or without TLS, and keeps the certificate current."""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry

from finetune_operator.config import Config
from finetune_operator.listener import Listener
from finetune_operator.metrics.server import MetricsServer, Taking

RELOAD_SECONDS = 60.0


class Endpoint:
    """Serves the registry, with more collectors, on the port that the configuration names, if it names one."""

    def __init__(self, registry: CollectorRegistry, config: Config, collectors: Sequence[Taking] = ()) -> None:
        self._server = MetricsServer(registry, collectors)
        self._config = config
        self._listener: Listener | None = None
        self._reloading: asyncio.Task[None] | None = None
        self.port = 0
        """The port that it listens on; 0 before `start`."""

    async def start(self) -> None:
        """Listens.

        Raises:
            OSError: the port is taken, or the certificate's files are missing or damaged (ssl.SSLError).
        """
        config = self._config
        if not config.metrics_port:
            return
        tls = None
        if config.metrics_tls:
            tls = tls_context(Path(config.metrics_tls), client_certificates=config.metrics_client_certificates)
            self._reloading = asyncio.create_task(_reload(tls, Path(config.metrics_tls)))
        application = web.Application()
        self._server.add_to(application)
        self._listener = Listener(application, tls=tls)
        self.port = await self._listener.start(config.http_host or None, config.metrics_port)

    async def close(self) -> None:
        """Closes the port."""
        if self._reloading is not None:
            self._reloading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reloading
            self._reloading = None
        if self._listener is not None:
            await self._listener.close()


def tls_context(folder: Path, *, client_certificates: bool) -> ssl.SSLContext:
    """The TLS settings by the files of a Secret of type kubernetes.io/tls.

    Args:
        folder: has tls.crt and tls.key, and ca.crt for `client_certificates`.
        client_certificates: whether a client must have a certificate that chains to ca.crt.

    Raises:
        OSError: a file is missing or damaged (ssl.SSLError).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_certificate(context, folder)
    if client_certificates:
        context.load_verify_locations(folder / "ca.crt")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def load_certificate(context: ssl.SSLContext, folder: Path) -> None:
    """Loads the certificate that new connections get.

    Raises:
        OSError: a file is missing or damaged (ssl.SSLError).
    """
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")


async def _reload(context: ssl.SSLContext, folder: Path) -> None:
    """Loads renewed certificates, until cancelled."""
    while True:
        await asyncio.sleep(RELOAD_SECONDS)
        with contextlib.suppress(OSError):  # between two files of a renewal: the next try has both
            load_certificate(context, folder)
