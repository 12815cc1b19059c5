"""The client says once that it gets no connection, and why, and once that it gets one again. A real TLS server."""

import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from faults.door import Certificates, Door, TlsFault
from finetune_operator.kube.api import FINETUNEJOBS
from finetune_operator.kube.client import ClientKube, connect
from finetune_operator.kube.contact import Contact
from finetune_operator.kube.errors import Unavailable, Unreachable

pytestmark = pytest.mark.extras

WORDS = {
    TlsFault.OTHER_AUTHORITY: "its certificate is refused: unable to get local issuer certificate",
    TlsFault.OTHER_NAME: "its certificate is refused: IP address mismatch, certificate is not valid for '127.0.0.1'",
    TlsFault.EXPIRED: "its certificate is refused: certificate has expired",
    TlsFault.CUT: "connection reset by peer",
    TlsFault.PLAIN: "the TLS handshake failed: wrong version number",
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("door") / "certificates")


@pytest.fixture
async def door(certificates: Certificates) -> AsyncIterator[Door]:
    """The door of a server that has every object."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"metadata": {"name": "job"}})

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    door = Door(certificates, f"http://127.0.0.1:{runner.addresses[0][1]}")
    async with door.running():
        yield door
    await runner.cleanup()


@asynccontextmanager
async def client(url: str, authority: Path, folder: Path, contact: Contact | None = None) -> AsyncIterator[ClientKube]:
    config = folder / "kubeconfig"
    named = {"name": "a"}
    parts = {
        "clusters": [{**named, "cluster": {"server": url, "certificate-authority": str(authority)}}],
        "users": [{**named, "user": {"token": "t"}}],
        "contexts": [{**named, "context": {"cluster": "a", "user": "a"}}],
    }
    config.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "a", **parts}))
    async with connect({"KUBECONFIG": str(config)}, contact=contact or Contact()) as kube:
        yield kube


@pytest.mark.parametrize("fault", TlsFault)
async def test_a_fault_of_tls_is_said_once_and_so_is_its_end(
    door: Door, certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: TlsFault
) -> None:
    caplog.set_level(logging.INFO, "finetune_operator")
    async with client(door.url, certificates.authority, tmp_path) as kube:
        for _ in range(2):
            caplog.clear()
            await kube.get(FINETUNEJOBS, "a", "job")
            door.change(fault)
            for _ in range(3):
                with pytest.raises(Unreachable) as refused:
                    await kube.get(FINETUNEJOBS, "a", "job")
                assert refused.value.message == f"the API server cannot be reached: {WORDS[fault]}"
            assert caplog.messages[-1] == f"the API server cannot be reached at {door.url}: {WORDS[fault]}"
            door.change(None)
            await kube.get(FINETUNEJOBS, "a", "job")
            assert caplog.messages[-1] == "the API server can be reached again"
            assert len(caplog.messages) in (2, 3)  # the second time it begins with the end of the first


async def test_an_open_connection_that_goes_on_is_no_end(
    door: Door, certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As with a certificate that expires: open connections still work, new ones do not."""
    contact = Contact()
    async with (
        client(door.url, certificates.authority, tmp_path, contact) as early,
        client(door.url, certificates.authority, tmp_path, contact) as late,
    ):
        await early.get(FINETUNEJOBS, "a", "job")
        door.change(TlsFault.EXPIRED, cut=False)
        for _ in range(2):
            await early.get(FINETUNEJOBS, "a", "job")
            with pytest.raises(Unreachable):
                await late.get(FINETUNEJOBS, "a", "job")
    assert len(caplog.messages) == 1


async def test_a_server_that_is_not_there_and_a_name_that_is_unknown(
    certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for url, words in ((f"https://127.0.0.1:{port}", "refused"), ("https://nowhere.invalid", "is not known")):
            async with client(url, certificates.authority, tmp_path) as kube:
                with pytest.raises(Unreachable, match=words):
                    await kube.get(FINETUNEJOBS, "a", "job")
    assert len(caplog.messages) == 2


async def test_a_server_that_hangs_up_is_no_lost_contact(
    door: Door, certificates: Certificates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The request had a connection, which ended before the answer: an error to retry, and not an unexpected one."""

    async def hang_up(_: web.Request) -> web.Response:
        door.change(None)
        return web.Response()

    application = web.Application()
    application.router.add_get("/{path:.*}", hang_up)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    door.lead_to(runner.addresses[0][1])
    async with client(door.url, certificates.authority, tmp_path) as kube:
        with pytest.raises(Unavailable) as refused:
            await kube.get(FINETUNEJOBS, "a", "job")
    assert not isinstance(refused.value, Unreachable)
    assert caplog.messages == []
    await runner.cleanup()
