"""The metrics' port: the formats, TLS, clients with a certificate, and a certificate that is renewed."""

import gzip
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from component.plane import free_port
from finetune_operator.config import read_config
from finetune_operator.metrics.endpoint import Endpoint, load_certificate, tls_context

pytestmark = pytest.mark.extras

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def certificate(folder: Path, name: str) -> None:
    """Writes a self-signed certificate for localhost, as the files of a Secret of type kubernetes.io/tls."""
    folder.mkdir(exist_ok=True)
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-days", "1", *kind, *subject, *files], check=True, capture_output=True
    )


@asynccontextmanager
async def serving(**environment: str) -> AsyncIterator[int]:
    registry = CollectorRegistry()
    Gauge("a_gauge", "A gauge.", registry=registry).set(3)
    variables = {
        "FINETUNE_OPERATOR_IMAGE": "o",
        "FINETUNE_TRAINER_IMAGE": "t",
        "FINETUNE_HTTP_HOST": "localhost",
        "FINETUNE_METRICS_PORT": str(free_port()),
        **environment,
    }
    endpoint = Endpoint(registry, read_config(variables, fallback_identity="x"))
    await endpoint.start()
    try:
        yield endpoint.port
    finally:
        await endpoint.close()


async def scrape(
    url: str, tls: ssl.SSLContext | None = None, accept: str = "*/*", encoding: str = "identity"
) -> tuple[str, str]:
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(url, headers={"Accept": accept, "Accept-Encoding": encoding}, ssl=tls or True) as answer,
    ):
        body = await answer.read()
        if answer.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        return answer.headers["Content-Type"], body.decode()


async def test_the_format_is_the_one_that_the_client_prefers() -> None:
    async with serving() as port:
        url = f"http://localhost:{port}/metrics"
        kind, text = await scrape(url)
        assert kind.startswith("text/plain; version=")
        assert "a_gauge 3.0" in text
        kind, text = await scrape(url, accept=OPENMETRICS)
        assert kind.startswith(OPENMETRICS)
        families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        assert [family.name for family in families] == ["a_gauge"]
        _, compressed = await scrape(url, encoding="gzip")
        assert "a_gauge 3.0" in compressed


async def test_without_a_port_nothing_listens() -> None:
    async with serving(FINETUNE_METRICS_PORT="0") as port:
        assert port == 0


async def test_tls_and_a_client_certificate(tmp_path: Path) -> None:
    certificate(tmp_path, "server")
    certificate(tmp_path / "client", "prometheus")
    (tmp_path / "ca.crt").write_text((tmp_path / "client/tls.crt").read_text())
    trusting = ssl.create_default_context(cafile=tmp_path / "tls.crt")
    known = ssl.create_default_context(cafile=tmp_path / "tls.crt")
    known.load_cert_chain(tmp_path / "client/tls.crt", tmp_path / "client/tls.key")
    async with serving(FINETUNE_METRICS_TLS=str(tmp_path)) as port:
        assert "a_gauge" in (await scrape(f"https://localhost:{port}/metrics", trusting))[1]
        with pytest.raises(aiohttp.ClientError):
            await scrape(f"http://localhost:{port}/metrics")
    async with serving(FINETUNE_METRICS_TLS=str(tmp_path), FINETUNE_METRICS_CLIENT_CERTIFICATES="true") as port:
        assert "a_gauge" in (await scrape(f"https://localhost:{port}/metrics", known))[1]
        with pytest.raises(aiohttp.ClientError):
            await scrape(f"https://localhost:{port}/metrics", trusting)


async def test_a_certificate_that_is_missing_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        async with serving(FINETUNE_METRICS_TLS=str(tmp_path)):
            pass


async def test_a_renewed_certificate_is_used_for_new_connections(tmp_path: Path) -> None:
    certificate(tmp_path, "old")
    context = tls_context(tmp_path, client_certificates=False)
    certificate(tmp_path, "new")
    load_certificate(context, tmp_path)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    trusting = ssl.create_default_context(cafile=tmp_path / "tls.crt")
    client = trusting.wrap_bio(incoming, outgoing, server_hostname="localhost")
    server = context.wrap_bio(outgoing, incoming, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    certificate_seen = client.getpeercert()
    assert certificate_seen is not None
    assert certificate_seen["subject"] == ((("commonName", "new"),),)
