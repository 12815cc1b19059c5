"""S3 against a real server: what is found, what is denied, what is torn."""

import random
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import s3server
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.recipe.output import Checksums, StorageSpec
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.storage.base import (
    AlreadyExistsError,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectReplacedError,
    Store,
)
from finetune_trainer.storage.parallel import download_all
from finetune_trainer.storage.registry import open_store
from finetune_trainer.storage.retry import RetryNotifier, RetryPolicy
from finetune_trainer.storage.s3 import S3Store
from finetune_trainer.storage.s3_client import S3Connection
from finetune_trainer.storage.timing import Timing
from localcluster.records import Keys
from localcluster.seaweedfs import new_keys
from s3server import S3Server

pytestmark = pytest.mark.extras

ONCE = Timing(attempts=1)
DENIED = FailureReason.STORAGE_ACCESS_DENIED


@pytest.fixture
def store(s3: S3Server, tmp_path: Path) -> Store:
    return store_of(s3, s3.admin, tmp_path)


def store_of(s3: S3Server, keys: Keys, folder: Path, **spec: object) -> S3Store:
    return S3Store(StorageSpec.model_validate({"endpoint": s3.endpoint, **spec}), s3server.mount(folder / "keys", keys))


def ignore(_: int) -> None:
    return


def test_stat_tells_an_object_from_a_prefix(s3: S3Server, store: Store) -> None:
    s3.put("stat/a.jsonl", b"12345")
    s3.put("stat/b/c.jsonl", b"1")
    s3.put("stat/folder/", b"")
    [found] = store.stat(parse_uri("s3://data/stat/a.jsonl"))
    assert (found.uri, found.size) == ("s3://data/stat/a.jsonl", 5)
    for uri in ("s3://data/stat", "s3://data/stat/"):
        names = [item.uri for item in store.stat(parse_uri(uri))]
        assert names == ["s3://data/stat/a.jsonl", "s3://data/stat/b/c.jsonl"]


def test_keys_with_odd_characters(s3: S3Server, store: Store) -> None:
    key = "odd/a b%20c+d é#?&=.jsonl"
    s3.put(key, b"x")
    [found] = store.stat(parse_uri(f"s3://data/{key}"))
    with store.open(found) as stream:
        assert stream.read() == b"x"


def test_missing_object_and_missing_bucket_differ(store: Store) -> None:
    with pytest.raises(ObjectNotFoundError, match="s3://data/nothing/here"):
        store.stat(parse_uri("s3://data/nothing/here"))
    with pytest.raises(TrainerError, match="no such bucket") as raised:
        store.stat(parse_uri("s3://no-such-bucket/x"))
    assert raised.value.reason is FailureReason.STORAGE_NOT_FOUND
    assert not isinstance(raised.value, ObjectNotFoundError)
    assert store.read(parse_uri("s3://data/nothing/here")) is None


@pytest.mark.parametrize(
    ("wrong", "code"), [("key", "InvalidAccessKeyId"), ("secret", "SignatureDoesNotMatch"), ("policy", "AccessDenied")]
)
def test_the_three_denials_are_told_apart(s3: S3Server, tmp_path: Path, wrong: str, code: str) -> None:
    keys = {
        "key": Keys("NOSUCHKEY1234", s3.admin.secret_key),
        "secret": Keys(s3.admin.access_key, "not-the-secret-at-all"),
        "policy": s3.reader,
    }[wrong]
    store = store_of(s3, keys, tmp_path)
    s3.put("denied/x", b"x")
    actions: list[Callable[[], object]] = [lambda: store.create(parse_uri("s3://data/denied/y"), b"y")]
    if wrong != "policy":
        actions.append(lambda: store.stat(parse_uri("s3://data/denied/x")))  # HEAD: a 403 without a body
    for action in actions:
        with pytest.raises(TrainerError, match=code) as raised:
            action()
        assert raised.value.reason is DENIED
        assert f"key ending in {keys.access_key[-4:]}" in raised.value.message
        assert s3.endpoint in raised.value.message
        assert keys.secret_key not in raised.value.message
        assert keys.access_key not in raised.value.message


def test_upload_and_download_are_equal_bytes(s3: S3Server, store: Store, tmp_path: Path) -> None:
    for size in (0, 1, 20 << 20):
        source, target = tmp_path / "source", tmp_path / f"deep/er/{size}"
        source.write_bytes(random.Random(size).randbytes(size))
        up: list[int] = []
        down: list[int] = []
        store.upload(source, parse_uri(f"s3://data/updown/{size}"), up.append)
        [found] = store.stat(parse_uri(f"s3://data/updown/{size}"))
        store.download(found, target, down.append)
        assert target.read_bytes() == source.read_bytes()
        assert sum(up) == sum(down) == size
        assert [path.name for path in target.parent.iterdir()] == [target.name]
        target.unlink()


def test_a_callback_that_raises_ends_the_download(s3: S3Server, store: Store, tmp_path: Path) -> None:
    s3.put("told/x", b"a" * (1 << 20))
    [found] = store.stat(parse_uri("s3://data/told/x"))

    def leave(count: int) -> None:
        raise TrainerError(FailureReason.PREEMPTED, f"told to go after {count} bytes")

    with pytest.raises(TrainerError, match="told to go") as caught:
        store.download(found, tmp_path / "target", leave)

    assert caught.value.reason is FailureReason.PREEMPTED
    assert list(tmp_path.glob("*target*")) == []


def test_create_is_exclusive_and_repeatable(s3: S3Server, store: Store) -> None:
    uri = parse_uri("s3://data/create/manifest.json")
    store.create(uri, b"writer one")
    store.create(uri, b"writer one")  # the answer to the first try was lost
    with pytest.raises(AlreadyExistsError):
        store.create(uri, b"writer two")
    assert s3.get("create/manifest.json") == b"writer one"
    store.replace(uri, b"writer three")
    assert store.read(uri) == b"writer three"
    store.delete(uri)
    store.delete(uri)
    assert store.read(uri) is None


def test_replacing_what_was_looked_at(s3: S3Server, store: Store) -> None:
    uri = parse_uri("s3://data/replacing/manifest.json")
    with pytest.raises(ObjectChangedError):
        store.replace(uri, b"two", b"one")
    store.create(uri, b"one")
    with pytest.raises(ObjectChangedError):
        store.replace(uri, b"two", b"another one")
    store.replace(uri, b"two", b"one")
    store.replace(uri, b"two", b"one")  # the answer to the first try was lost
    assert s3.get("replacing/manifest.json") == b"two"


def test_of_racing_replacers_exactly_one_wins(s3: S3Server, store: Store) -> None:
    """They all have looked before the first one writes: only the server's condition can tell them apart."""
    uri = parse_uri("s3://data/replacing-race/manifest.json")
    store.create(uri, b"before")
    won: list[int] = []

    def write(number: int) -> None:
        try:
            store.replace(uri, f"writer {number}".encode(), b"before")
        except ObjectChangedError:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert s3.get("replacing-race/manifest.json") == f"writer {won[0]}".encode()


class _WithoutConditions(BaseHTTPRequestHandler):
    """A server that refuses If-Match."""

    puts: list[dict[str, str]]

    def do_GET(self) -> None:
        self._answer(200, b"before", ("ETag", '"e"'))

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.puts.append({name.lower(): value for name, value in self.headers.items()})
        refused = "If-Match" in self.headers
        self._answer(501 if refused else 200, _code("NotImplemented").encode() if refused else b"", ("ETag", '"f"'))

    def _answer(self, status: int, body: bytes, header: tuple[str, str]) -> None:
        self.send_response(status)
        self.send_header(*header)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


def test_a_server_without_if_match_gets_a_plain_put(tmp_path: Path) -> None:
    puts: list[dict[str, str]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Server", (_WithoutConditions,), {"puts": puts}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        spec = StorageSpec(endpoint=f"http://127.0.0.1:{server.server_address[1]}", checksums=Checksums.WHEN_REQUIRED)
        store = S3Store(spec, s3server.mount(tmp_path, new_keys()), timing=ONCE)
        store.replace(parse_uri("s3://data/x"), b"after", b"before")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

    assert [put.get("if-match") for put in puts] == ['"e"', None]


def test_of_racing_writers_exactly_one_wins(s3: S3Server, store: Store) -> None:
    uri = parse_uri("s3://data/race/manifest.json")
    won: list[int] = []

    def write(number: int) -> None:
        try:
            store.create(uri, f"writer {number}".encode())
        except AlreadyExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read(uri) == f"writer {won[0]}".encode()


@pytest.mark.parametrize("size", [1000, 20 << 20])
@pytest.mark.parametrize("checksums", list(Checksums))
def test_an_object_replaced_before_the_download(s3: S3Server, tmp_path: Path, size: int, checksums: Checksums) -> None:
    key = f"replaced/{checksums}-{size}"
    s3.put(key, b"a" * size)
    store = store_of(s3, s3.admin, tmp_path, checksums=checksums)
    [source] = store.stat(parse_uri(f"s3://data/{key}"))
    s3.put(key, b"b" * size)
    with pytest.raises(ObjectReplacedError):
        store.download(source, tmp_path / "target", ignore)
    assert not (tmp_path / "target").exists()
    assert list(tmp_path.glob(".target*")) == []


def test_rotated_keys_are_taken_up(s3: S3Server, tmp_path: Path) -> None:
    s3.put("rotated/x", b"x")
    store = store_of(s3, Keys("OLDKEY0000000001", "old"), tmp_path)
    s3server.mount(tmp_path / "keys", s3.admin)
    assert len(store.stat(parse_uri("s3://data/rotated/x"))) == 1


def test_rotated_keys_are_taken_up_by_all_downloads(s3: S3Server, tmp_path: Path) -> None:
    for number in range(8):
        s3.put(f"rotated/many/{number}", b"x" * number)
    store = store_of(s3, s3.admin, tmp_path)
    found = store.stat(parse_uri("s3://data/rotated/many"))
    store = store_of(s3, Keys("OLDKEY0000000001", "old"), tmp_path)
    s3server.mount(tmp_path / "keys", s3.admin)
    download_all(store, found, tmp_path / "target", ignore)
    assert sorted(file.stat().st_size for file in (tmp_path / "target").iterdir()) == list(range(8))


class Rotation:
    """Keys that the server accepted until they were withdrawn; the Secret changes at the second pause, or never."""

    def __init__(self, s3: S3Server, folder: Path, *, changes: bool) -> None:
        old, new = new_keys(), new_keys()
        s3.let_in(old, new)
        self.pauses: list[float] = []
        self.messages: list[str | None] = []

        def pause(seconds: float) -> None:
            self.pauses.append(seconds)
            if changes and len(self.pauses) == 2:
                s3server.mount(folder / "keys", new)

        policy = RetryPolicy(seconds=60, clock=lambda: sum(self.pauses), sleep=pause)
        timing = replace(ONCE, rotation=policy).with_notifier(RetryNotifier(self.messages.append))
        self.store = S3Store(s3.spec, s3server.mount(folder / "keys", old), timing=timing)
        s3.put("rotated/data", b"rows")
        assert self.store.read(parse_uri("s3://data/rotated/data")) == b"rows"
        s3.let_in(new)


def test_keys_that_are_withdrawn_before_the_secret_changes_are_waited_for(s3: S3Server, tmp_path: Path) -> None:
    """As a run sees a rotation: the server refuses the old keys at once, the kubelet shows the new ones later."""
    rotation = Rotation(s3, tmp_path, changes=True)
    rotation.store.create(parse_uri("s3://data/rotated/checkpoint"), b"step 40")
    assert s3.get("rotated/checkpoint") == b"step 40"
    assert len(rotation.pauses) == 2
    assert "does not accept the key ending in" in str(rotation.messages[0])
    assert rotation.messages[-1] is None


def test_keys_that_are_withdrawn_for_good_end_the_run(s3: S3Server, tmp_path: Path) -> None:
    rotation = Rotation(s3, tmp_path, changes=False)
    with pytest.raises(TrainerError, match="InvalidAccessKeyId") as raised:
        rotation.store.create(parse_uri("s3://data/rotated/never"), b"x")
    assert raised.value.reason is DENIED
    assert 30 < sum(rotation.pauses) <= 60


def test_keys_that_never_worked_are_not_waited_for(s3: S3Server, tmp_path: Path) -> None:
    pauses: list[float] = []
    timing = replace(ONCE, rotation=RetryPolicy(sleep=pauses.append))
    store = S3Store(s3.spec, s3server.mount(tmp_path, new_keys()), timing=timing)
    with pytest.raises(TrainerError, match="InvalidAccessKeyId"):
        store.read(parse_uri("s3://data/x"))
    assert pauses == []


def test_a_policy_that_forbids_is_not_waited_for(s3: S3Server, tmp_path: Path) -> None:
    pauses: list[float] = []
    timing = replace(ONCE, rotation=RetryPolicy(sleep=pauses.append))
    store = S3Store(s3.spec, s3server.mount(tmp_path, s3.reader), timing=timing)
    s3.put("rotated/data", b"rows")
    assert store.read(parse_uri("s3://data/rotated/data")) == b"rows"
    with pytest.raises(TrainerError, match="AccessDenied"):
        store.create(parse_uri("s3://data/forbidden"), b"x")
    assert pauses == []


def test_a_dead_endpoint_is_unavailable(tmp_path: Path) -> None:
    spec = StorageSpec(endpoint="http://127.0.0.1:1")
    store = S3Store(spec, s3server.mount(tmp_path, new_keys()), timing=Timing(attempts=2))
    with pytest.raises(TrainerError, match="nothing answers there") as raised:
        store.stat(parse_uri("s3://data/x"))
    assert raised.value.reason is FailureReason.STORAGE_UNAVAILABLE


def test_no_credentials_at_all(monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(TrainerError, match=r"no credentials were found; set storage\.secretRef") as raised:
        open_store(parse_uri("s3://data/x"), s3.spec, None).stat(parse_uri("s3://data/x"))
    assert raised.value.reason is DENIED


def test_the_environment_names_no_endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://169.254.169.254")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://169.254.169.254")
    keys = s3server.mount(tmp_path, new_keys())
    connection = S3Connection(StorageSpec(region="eu-west-1"), keys, ONCE)
    assert "amazonaws.com" in connection.client.meta.endpoint_url


def test_a_bundle_without_certificates_is_refused(tmp_path: Path) -> None:
    keys = s3server.mount(tmp_path, new_keys())
    with pytest.raises(TrainerError, match=r"storage\.caBundle") as raised:
        S3Store(StorageSpec(endpoint="https://127.0.0.1:1", ca_bundle="hello"), keys)
    assert raised.value.reason is FailureReason.INVALID_SPEC


class _Answer(BaseHTTPRequestHandler):
    """Answers everything with one status, as a broken or foreign server would."""

    status = 500
    headers_sent: tuple[tuple[str, str], ...] = ()
    body = b""
    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self.send_response(self.status)
        for name, value in self.headers_sent:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else self.body)

    do_HEAD = do_GET  # noqa: N815 (the base class's name)

    def log_message(self, *_: object) -> None:
        return


def answering(
    status: int, body: str = "", headers: tuple[tuple[str, str], ...] = (), tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []
    fields = {"status": status, "body": body.encode(), "headers_sent": headers, "seen": seen}
    server = HTTPServer(("127.0.0.1", 0), type("Answer", (_Answer,), fields))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _code(code: str, message: str = "") -> str:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"


@pytest.mark.parametrize(
    ("status", "body", "reason", "words"),
    [
        (503, _code("SlowDown"), FailureReason.STORAGE_UNAVAILABLE, "503"),
        (500, "", FailureReason.STORAGE_UNAVAILABLE, "500"),
        (400, _code("ExpiredToken"), DENIED, "have expired"),
        (403, _code("RequestTimeTooSkewed"), FailureReason.STORAGE_UNAVAILABLE, "clocks"),
        (403, _code("InvalidObjectState"), DENIED, "archived"),
        (403, "<html>forbidden by the proxy</html>", DENIED, "403"),
        (501, _code("NotImplemented"), FailureReason.NOT_SUPPORTED, "whenRequired"),
        (200, "<html>hello</html>", FailureReason.STORAGE_UNAVAILABLE, "web console"),
    ],
)
def test_answers_of_other_servers(status: int, body: str, reason: FailureReason, words: str, tmp_path: Path) -> None:
    for endpoint, _ in answering(status, body):
        credentials = s3server.mount(tmp_path, Keys("AKIATEST0001", "the-secret-value"))
        store = S3Store(StorageSpec(endpoint=endpoint), credentials, timing=ONCE)
        with pytest.raises(TrainerError, match=words) as raised:
            store.stat(parse_uri("s3://data/prefix/"))
        assert raised.value.reason is reason


def test_a_page_in_place_of_an_object_is_no_s3(tmp_path: Path) -> None:
    """A console or a proxy's login page answers every request with 200 and no ETag."""
    for endpoint, _ in answering(200, "<html>log in</html>"):
        credentials = s3server.mount(tmp_path, Keys("AKIATEST0001", "the-secret-value"))
        store = S3Store(StorageSpec(endpoint=endpoint), credentials, timing=ONCE)
        with pytest.raises(TrainerError, match=r"not as S3 does; is storage\.endpoint the address of a web console"):
            store.stat(parse_uri("s3://data/train.jsonl"))


def test_the_servers_words_never_carry_the_secret(tmp_path: Path) -> None:
    for endpoint, _ in answering(400, _code("Strange", "you sent the-secret-value&#10;and more")):
        credentials = s3server.mount(tmp_path, Keys("AKIATEST0001", "the-secret-value"))
        with pytest.raises(TrainerError) as raised:
            S3Store(StorageSpec(endpoint=endpoint), credentials, timing=ONCE).stat(parse_uri("s3://data/prefix/"))
        assert raised.value.message.endswith("HTTP 400 Strange you sent *** and more")


def test_redirects_are_not_followed(tmp_path: Path) -> None:
    for elsewhere, seen in answering(200):
        for status in (301, 307):
            headers = (("Location", f"{elsewhere}/stolen"), ("x-amz-bucket-region", "eu-west-1"))
            for endpoint, _ in answering(status, _code("PermanentRedirect"), headers):
                credentials = s3server.mount(tmp_path, new_keys())
                store = S3Store(StorageSpec(endpoint=endpoint), credentials, timing=ONCE)
                with pytest.raises(TrainerError):
                    store.stat(parse_uri("s3://data/prefix/"))
        assert seen == []


def test_tls_with_a_certificate_authority_of_its_own(tmp_path: Path) -> None:
    """A server's certificate is checked with storage.caBundle, and refused without it."""
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    listing = '<ListBucketResult><Name>data</Name><Contents><Key>p/x</Key><Size>1</Size><ETag>"e"</ETag></Contents>'
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    credentials = s3server.mount(tmp_path / "keys", new_keys())
    for address, _ in answering(200, f"{listing}</ListBucketResult>", tls=context):
        endpoint = address.replace("http:", "https:")
        trusting = S3Store(StorageSpec(endpoint=endpoint, ca_bundle=certificate.read_text()), credentials, timing=ONCE)
        assert [item.uri for item in trusting.stat(parse_uri("s3://data/p/"))] == ["s3://data/p/x"]
        with pytest.raises(TrainerError, match=r"TLS failed; set storage\.caBundle") as raised:
            S3Store(StorageSpec(endpoint=endpoint), credentials, timing=ONCE).stat(parse_uri("s3://data/p/"))
        assert raised.value.reason is FailureReason.STORAGE_UNAVAILABLE
