"""Data by https, from a server on loopback with a certificate of its own."""

import gzip
import hashlib
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.storage.https import HttpsStore
from finetune_trainer.storage.low_speed_limit import LowSpeedLimit
from finetune_trainer.storage.retry import RetryPolicy
from finetune_trainer.storage.timing import Timing

pytestmark = pytest.mark.extras

ROWS = b'{"text": "a row"}\n' * 10_000
QUICK = RetryPolicy(seconds=5.0, tries=4, first_pause=0.0, sleep=lambda _: None)
TIMING = Timing(reading=QUICK, unreachable_seconds=0.0, low_speed_limit=LowSpeedLimit(seconds=5.0))


@dataclass
class Answer:
    """An answer of the server.

    Attributes:
        cut: number of the body's bytes after which the connection ends; None sends all.
        sized: whether the length is announced.
        ranges: whether a part of the body can be requested.
    """

    status: int = 200
    body: bytes = ROWS
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    sized: bool = True
    ranges: bool = True


@dataclass
class Server:
    """The server: its answers, of which the last one is repeated, and the requests."""

    url: str = ""
    certificate: str = ""
    answers: list[Answer] = field(default_factory=lambda: [Answer()])
    requests: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def server(certificate: tuple[Path, Path]) -> Iterator[Server]:
    state = Server(certificate=certificate[0].read_text())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append({"path": self.path, **dict(self.headers)})
            answer = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            start = 0
            if (part := self.headers.get("Range")) and answer.ranges:
                start = int(part.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if start else answer.status)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(answer.body) - 1}/{len(answer.body)}")
            if answer.sized:
                self.send_header("Content-Length", str(len(answer.body) - start))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body[start : answer.cut])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing: requests are kept instead."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.socket = context.wrap_socket(listening.socket, server_side=True)
    state.url = f"https://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield state
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


@dataclass
class Fetch:
    """What a user asks for: a file with a checksum."""

    server: Server
    cache: Path
    path: str = "/train.jsonl"
    expected: str = hashlib.sha256(ROWS).hexdigest()
    most_bytes: int = 1 << 30

    def store(self, *, trusted: bool = True) -> HttpsStore:
        return HttpsStore(
            {parse_uri(self.server.url + self.path): self.expected},
            most_bytes=self.most_bytes,
            cache=self.cache,
            ca_bundle=self.server.certificate if trusted else None,
            timing=TIMING,
        )

    def content(self) -> bytes:
        store = self.store()
        [found] = store.stat(parse_uri(self.server.url + self.path))
        assert (found.size, found.sha256) == (len(ROWS), self.expected)
        with store.open(found) as stream:
            return stream.read()

    def error(self, *, trusted: bool = True) -> TrainerError:
        with pytest.raises(TrainerError) as raised:
            self.store(trusted=trusted).stat(parse_uri(self.server.url + self.path))
        assert [path for path in self.cache.glob("*") if not path.name.startswith(".")] == []
        return raised.value


def test_a_file_is_fetched_once_and_by_its_checksum(server: Server, tmp_path: Path) -> None:
    fetch = Fetch(server, tmp_path, path="/a/train.jsonl?signature=secret")
    assert fetch.content() == fetch.content() == ROWS
    assert [item["path"] for item in server.requests] == ["/a/train.jsonl?signature=secret"]
    assert server.requests[0]["Accept-Encoding"] == "identity"
    [found] = fetch.store().stat(parse_uri(server.url + fetch.path))
    assert found.uri == f"{server.url}/a/train.jsonl", "a query may hold a signature"
    (tmp_path / fetch.expected).write_bytes(b"damaged")
    assert fetch.content() == ROWS


@pytest.mark.parametrize("validator", [{"ETag": '"1"'}, {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}])
def test_a_download_that_breaks_off_goes_on(server: Server, tmp_path: Path, validator: dict[str, str]) -> None:
    server.answers = [Answer(headers=validator, cut=100_000), Answer(headers=validator)]
    assert Fetch(server, tmp_path).content() == ROWS
    [value] = validator.values()
    assert (server.requests[1]["Range"], server.requests[1]["If-Range"]) == ("bytes=100000-", value)


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"1"'}])
def test_without_a_validator_a_download_starts_again(server: Server, tmp_path: Path, headers: dict[str, str]) -> None:
    server.answers = [Answer(headers=headers, cut=100_000), Answer(headers=headers)]
    assert Fetch(server, tmp_path).content() == ROWS
    assert "Range" not in server.requests[1]


def test_parts_of_two_files_are_no_file(server: Server, tmp_path: Path) -> None:
    """A server that ignores If-Range: the file is fetched once more, as a whole."""
    tag = {"ETag": '"1"'}
    server.answers = [Answer(headers=tag, body=b"x" * len(ROWS), cut=1000), Answer(headers=tag)]
    assert Fetch(server, tmp_path).content() == ROWS
    assert len(server.requests) == 3


def test_a_server_may_leave_out_the_length_and_ignore_ranges(server: Server, tmp_path: Path) -> None:
    tag = {"ETag": '"1"'}
    server.answers = [Answer(headers=tag, cut=1000), Answer(headers=tag, ranges=False, sized=False)]
    assert Fetch(server, tmp_path).content() == ROWS


def test_stored_compression_is_left_to_the_reader_of_the_data(server: Server, tmp_path: Path) -> None:
    packed = gzip.compress(ROWS, mtime=0)
    server.answers = [Answer(body=packed, headers={"Content-Encoding": "gzip"})]
    fetch = Fetch(server, tmp_path, expected=hashlib.sha256(packed).hexdigest())
    store = fetch.store()
    [found] = store.stat(parse_uri(server.url + fetch.path))
    with store.open(found) as stream:
        assert stream.read() == packed


def test_another_checksum_is_final_and_both_are_named(server: Server, tmp_path: Path) -> None:
    page = b"<html>log in</html>"
    server.answers = [Answer(body=page, headers={"Content-Type": "text/html; charset=utf-8"})]
    error = Fetch(server, tmp_path).error()
    assert error.reason is FailureReason.DATASET_INVALID
    for sum_of in (page, ROWS):
        assert hashlib.sha256(sum_of).hexdigest() in error.message
    assert "web page (text/html)" in error.message
    assert len(server.requests) == 1


@pytest.mark.parametrize("sized", [True, False])
def test_a_file_beyond_the_limit_is_not_fetched(server: Server, tmp_path: Path, sized: bool) -> None:
    server.answers = [Answer(sized=sized)]
    error = Fetch(server, tmp_path, most_bytes=1000).error()
    assert (error.reason, "expected at most 1,000" in error.message) == (FailureReason.DATASET_INVALID, True)


@pytest.mark.parametrize(
    ("location", "reason", "says"),
    [
        ("http://127.0.0.1/a", FailureReason.DATASET_NOT_FOUND, "redirects to http://127.0.0.1/a, and only https://"),
        ("https://169.254.169.254/latest", FailureReason.INVALID_SPEC, "169.254.169.254 is a link-local"),
        ("https://[fe80::1]/", FailureReason.INVALID_SPEC, "fe80::1 is a link-local"),
        ("https://metadata.google.internal/", FailureReason.INVALID_SPEC, "metadata service"),
        ("file:///etc/passwd", FailureReason.DATASET_NOT_FOUND, "only https://"),
        ("https://[", FailureReason.DATASET_NOT_FOUND, "only https://"),
        ("/again", FailureReason.DATASET_NOT_FOUND, "more than 5 redirects"),
    ],
)
def test_redirects_are_few_and_lead_to_allowed_places(
    server: Server, tmp_path: Path, location: str, reason: FailureReason, says: str
) -> None:
    server.answers = [Answer(status=302, body=b"", headers={"Location": location})]
    error = Fetch(server, tmp_path).error()
    assert error.reason is reason
    assert says in error.message
    assert len(server.requests) <= 6


def test_a_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(status=307, body=b"", headers={"Location": "/b?x=1"}), Answer()]
    assert Fetch(server, tmp_path).content() == ROWS
    assert [item["path"] for item in server.requests] == ["/train.jsonl", "/b?x=1"]


@pytest.mark.parametrize(
    ("status", "reason", "says", "requests"),
    [
        (404, FailureReason.DATASET_NOT_FOUND, "answers 404 Not Found (no such thing)", 1),
        (401, FailureReason.DATASET_ACCESS_DENIED, "no login is sent: copy the file to s3://", 1),
        (403, FailureReason.DATASET_ACCESS_DENIED, "answers 403 Forbidden (no such thing)", 1),
        (503, FailureReason.STORAGE_UNAVAILABLE, "answers 503 Service Unavailable (no such thing)", 4),
        (418, FailureReason.DATASET_NOT_FOUND, "answers 418", 1),
    ],
)
def test_what_the_server_says_is_in_the_message(
    server: Server, tmp_path: Path, status: int, reason: FailureReason, says: str, requests: int
) -> None:
    server.answers = [
        Answer(status=status, body=b"no such\x1b thing".replace(b"\x1b", b""), headers={"Content-Type": "text/plain"})
    ]
    error = Fetch(server, tmp_path).error()
    assert (error.reason, says in error.message) == (reason, True), error.message
    assert len(server.requests) == requests


def test_a_server_is_trusted_by_its_certificate(server: Server, tmp_path: Path) -> None:
    error = Fetch(server, tmp_path).error(trusted=False)
    assert error.reason is FailureReason.STORAGE_UNAVAILABLE
    assert "certificate is not trusted: name its authority in storage.caBundle" in error.message


def test_nobody_answers(tmp_path: Path) -> None:
    error = Fetch(Server(url="https://127.0.0.1:1"), tmp_path)
    quick = replace(TIMING, reading=replace(QUICK, tries=1))
    store = HttpsStore(
        {parse_uri(error.server.url + error.path): "0" * 64}, most_bytes=1, cache=tmp_path, ca_bundle=None, timing=quick
    )
    with pytest.raises(TrainerError, match="nothing answers there"):
        store.stat(parse_uri(error.server.url + error.path))
