"""Where the clients of S3 and of the Hub connect to, and how often: names that change their address, endless redirects.

127.0.0.9 plays a cloud's metadata service: it is on the list of refused addresses, and a server listens there.
"""

import ipaddress
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import s3server
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.output import StorageSpec
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.storage import endpoint
from finetune_trainer.storage.s3 import S3Store
from localcluster.seaweedfs import new_keys

pytestmark = pytest.mark.extras

METADATA, HARMLESS, NAME = "127.0.0.9", "127.0.0.1", "rebinding.test"
OBJECT = parse_uri("s3://data/key")


@dataclass
class Server:
    """A server that gives every request the same answer."""

    port: int = 0
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@contextmanager
def serving(host: str, server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append(f"{self.command} {self.path}")
            self.send_response(server.status)
            for name, value in {"Content-Length": str(len(server.body)), **server.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(server.body)

        do_HEAD = do_PUT = do_GET  # noqa: N815 (the names that http.server calls)

        def log_message(self, *_: object) -> None:
            """Nothing: requests are kept instead."""

    listening = ThreadingHTTPServer((host, server.port), Handler)
    server.port = listening.server_port
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


@pytest.fixture
def both() -> Iterator[tuple[Server, Server]]:
    """The harmless server and the metadata service, on the same port."""
    with ExitStack() as stack:
        harmless = stack.enter_context(serving(HARMLESS, Server()))
        yield harmless, stack.enter_context(serving(METADATA, Server(port=harmless.port)))


def a_store(folder: Path, url: str) -> S3Store:
    return S3Store(StorageSpec(endpoint=url), s3server.mount(folder, new_keys()))


@pytest.mark.parametrize("harmless_answers", [1, 2])
def test_an_endpoint_whose_name_changes_its_address_gets_no_request(
    tmp_path: Path, both: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch, harmless_answers: int
) -> None:
    """The name is harmless when the endpoint is checked, and (2) when the connection's name is checked too."""
    resolve, answers = socket.getaddrinfo, iter([HARMLESS] * harmless_answers)

    def rebinding(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve(next(answers, METADATA) if host == NAME else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(endpoint, "_METADATA_ADDRESSES", {ipaddress.ip_address(METADATA)})
    with pytest.raises(TrainerError, match=rf"to {NAME} is refused: {METADATA} is a link-local, metadata") as raised:
        a_store(tmp_path, f"http://{NAME}:{both[0].port}").read(OBJECT)
    assert raised.value.reason is FailureReason.INVALID_SPEC
    assert both[1].requests == []


_LOOK = f"""
import ipaddress, itertools, json, socket, sys
from pathlib import Path
from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.storage import endpoint
from finetune_trainer.storage.hub import HubStore

endpoint._METADATA_ADDRESSES = {{ipaddress.ip_address("{METADATA}")}}
resolve, answers = socket.getaddrinfo, itertools.cycle(["{HARMLESS}", "{METADATA}"])
def rebinding(host, *arguments, **options):
    return resolve(next(answers) if host == "{NAME}" else host, *arguments, **options)
socket.getaddrinfo = rebinding
try:
    HubStore(cache=Path(sys.argv[1]), sleep=lambda _: None).stat(parse_uri("hf://org/name"))
except TrainerError as error:
    print(json.dumps([error.reason, error.message]))
"""


@pytest.mark.parametrize(("host", "refused"), [(NAME, METADATA), (HARMLESS, "metadata.google.internal")])
def test_a_hub_that_leads_to_a_metadata_service_is_not_followed(
    tmp_path: Path, both: tuple[Server, Server], host: str, refused: str
) -> None:
    """It leads there by the address of its name, and by a redirect."""
    harmless, metadata = both
    harmless.status, harmless.headers = 307, {"Location": "http://metadata.google.internal/latest/meta-data"}
    looked = subprocess.run(
        [sys.executable, "-c", _LOOK, str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[3] / "trainer"),
            "HF_ENDPOINT": f"http://{host}:{harmless.port}",
            "HF_HUB_OFFLINE": "0",
        },
        check=True,
        capture_output=True,
        text=True,
    )
    assert metadata.requests == []
    reason, message = json.loads(looked.stdout)
    assert f"a connection to {refused} is refused" in message
    assert reason == "ModelNotFound"


@pytest.mark.parametrize("region", [{}, {"x-amz-bucket-region": "eu-west-1"}])
def test_redirects_without_end_are_an_error_of_the_storage(tmp_path: Path, region: dict[str, str]) -> None:
    with serving(HARMLESS, Server(status=301, headers={"Location": "/", **region})) as server:
        store = a_store(tmp_path, f"http://{HARMLESS}:{server.port}")
        for action in (lambda: store.stat(OBJECT), lambda: store.read(OBJECT), lambda: store.create(OBJECT, b"x")):
            server.requests.clear()
            with pytest.raises(TrainerError, match="wrong region or endpoint for the bucket") as raised:
                action()
            assert raised.value.reason is FailureReason.STORAGE_NOT_FOUND
            assert len(server.requests) <= 5


_LISTING = (
    b"""<ListBucketResult><Name>data</Name><Contents><Key>key/a</Key><Size>1</Size></Contents></ListBucketResult>"""
)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (400, "KMS.NotFoundException", "Key 'arn:aws:kms:eu:1:key/2' does not exist"),
        (400, "KMS.DisabledException", "arn:aws:kms:eu:1:key/2 is disabled."),
        (409, "KMS.KMSInvalidStateException", "arn:aws:kms:eu:1:key/2 is pending deletion."),
        (403, "AccessDenied", "User: arn:aws:iam::1:user/a is not authorized to perform: kms:Decrypt on resource: x"),
    ],
)
def test_a_key_that_cannot_decrypt_is_no_outage(tmp_path: Path, status: int, code: str, words: str) -> None:
    """It is not asked again: an outage would be, for a minute. The SDK looks up the bucket's region once."""
    body = f"<Error><Code>{code}</Code><Message>{words}</Message></Error>".encode()
    with serving(HARMLESS, Server(status=status, body=body, headers={"Content-Type": "application/xml"})) as server:
        store = a_store(tmp_path, f"http://{HARMLESS}:{server.port}")
        for action in (lambda: store.stat(OBJECT), lambda: store.read(OBJECT), lambda: store.create(OBJECT, b"x")):
            server.requests.clear()
            with pytest.raises(TrainerError, match=rf"{code}, the encryption key .KMS. cannot be used") as raised:
                action()
            assert raised.value.reason is FailureReason.STORAGE_ACCESS_DENIED
            assert f"the server says: {words}" in raised.value.message
            assert "kms:Decrypt and kms:GenerateDataKey" in raised.value.message
            assert len(server.requests) <= 3


def test_a_busy_key_service_may_answer_later(tmp_path: Path) -> None:
    body = b"<Error><Code>KMS.ThrottlingException</Code><Message>Rate exceeded</Message></Error>"
    throttled = Server(status=400, body=body)
    match = r"KMS\.ThrottlingException Rate exceeded"
    with serving(HARMLESS, throttled) as server, pytest.raises(TrainerError, match=match) as raised:
        a_store(tmp_path, f"http://{HARMLESS}:{server.port}").read(OBJECT)
    assert raised.value.reason is FailureReason.STORAGE_UNAVAILABLE


def test_an_answer_without_an_etag_is_no_answer_of_s3(tmp_path: Path) -> None:
    with serving(HARMLESS, Server(body=b"<html>a console</html>")) as server:
        store = a_store(tmp_path, f"http://{HARMLESS}:{server.port}")
        for action in (
            lambda: store.stat(OBJECT),
            lambda: store.read(OBJECT),
            lambda: store.replace(OBJECT, b"new", expected=b"<html>a console</html>"),
        ):
            with pytest.raises(TrainerError, match="something answers, but not as S3 does"):
                action()
        server.body = _LISTING
        with pytest.raises(TrainerError, match="something answers, but not as S3 does"):
            store.stat(parse_uri("s3://data/key/"))
