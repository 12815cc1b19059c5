"""The Hub's store: against a real client and a small Hub, and against what a cache holds without one.

Each look happens in a process of its own: the Hub's client reads its switches when it is imported.
"""

import hashlib
import json
import os
import random
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hubserver
from finetune_trainer.contract import layout
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.storage.hub_token import HubToken
from hubserver import Fault, Hub, Repository

pytestmark = pytest.mark.extras

_SCRIPT = """
import hashlib, json, os, sys
from pathlib import Path
from finetune_trainer.contract.failure import TrainerError
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.runtime.log import quieten
quieten()
from finetune_trainer.storage.hub import HubStore
from finetune_trainer.storage.hub_token import HubToken
from finetune_trainer.storage.low_speed_limit import LowSpeedLimit

low_speed_limit = LowSpeedLimit(seconds=2, least=1000)
slept, moved = [], []
token = HubToken.from_environment(os.environ)
cache, revision = Path(sys.argv[1]), sys.argv[3]
store = HubStore(cache=cache, revision=revision, token=token, sleep=slept.append, low_speed_limit=low_speed_limit)
try:
    found = store.stat(parse_uri("hf://org/name"))
    print(json.dumps([item.to_dict() for item in found]), flush=True)
    sys.stdin.readline()
    contents = {}
    for item in found if sys.argv[4] != "open" else []:
        target = Path(sys.argv[2]) / item.uri.rsplit("/", 1)[-1]
        store.download(item, target, moved.append, link=sys.argv[4] == "link")
        content = target.read_bytes()
        contents[target.name] = content.decode() if item.size < 1000 else hashlib.sha256(content).hexdigest()
    opened = store.open(found[0]).read().decode()
    print(json.dumps({"contents": contents, "moved": sum(moved), "opened": opened, "slept": slept}))
except TrainerError as error:
    print(json.dumps({"reason": error.reason, "message": error.message, "slept": slept}))
"""
CONFIG, WEIGHTS = b'{"model_type": "llama"}', b"weights of the first commit"


class Look:
    """A process that lists a model, waits, and fetches what it has listed."""

    def __init__(self, folder: Path, revision: str = "main", how: str = "link", **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, str(folder / "cache"), str(folder / "target"), revision, how],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "trainer"), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.found: Any = json.loads(self.process.stdout.readline())

    def fetch(self) -> dict[str, Any]:
        """What came of it."""
        stdout, self.log = self.process.communicate("\n")
        assert "Traceback" not in self.log, self.log
        answer = json.loads(stdout)
        assert isinstance(answer, dict)
        return answer

    def end(self) -> None:
        self.process.communicate("\n")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with hubserver.running() as hub:
        yield hub


@pytest.fixture
def model(hub: Hub) -> Repository:
    return hub.add("org/name", {"config.json": CONFIG, "model.safetensors": WEIGHTS})


def look(hub: Hub, folder: Path, how: str = "link") -> Look:
    return Look(folder, how=how, HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="0")


def cached(folder: Path, *, blob: str) -> str:
    """A cache with one file, whose blob has that name; returns the commit."""
    commit, root = "1" * 40, folder / "cache/models--org--name"
    (root / "blobs").mkdir(parents=True)
    (root / "blobs" / blob).write_bytes(CONFIG)
    (root / "refs").mkdir()
    (root / "refs/main").write_text(commit)
    (root / "snapshots" / commit).mkdir(parents=True)
    (root / "snapshots" / commit / "config.json").symlink_to(f"../../blobs/{blob}")
    return commit


def test_what_was_listed_is_fetched_wherever_the_branch_moves(hub: Hub, model: Repository, tmp_path: Path) -> None:
    first = model.refs["main"]
    seen = look(hub, tmp_path)
    model.commit({"config.json": b'{"model_type": "other"}', "model.safetensors": b"weights of the second"})
    got = seen.fetch()

    assert [item["revision"] for item in seen.found] == [first, first]
    assert got["contents"] == {"config.json": CONFIG.decode(), "model.safetensors": WEIGHTS.decode()}
    assert got["opened"] == CONFIG.decode()
    assert got["moved"] == len(CONFIG) + len(WEIGHTS)
    assert (tmp_path / "target/model.safetensors").is_symlink(), "weights take their space once"
    assert seen.log == ""


def test_a_token_that_changes_in_the_mounted_secret_is_read_anew(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/name", {"config.json": CONFIG}, gated=True)
    hub.readers = {"hf_old": {"org/name"}}
    token = tmp_path / "token"
    token.write_text("hf_old")
    seen = Look(tmp_path, HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="0", **{layout.HUB_TOKEN_ENV: str(token)})
    hub.readers = {"hf_new": {"org/name"}}
    token.write_text("hf_new")
    assert seen.fetch()["contents"] == {"config.json": CONFIG.decode()}


def test_a_cache_gives_the_identity_that_the_hub_gives(hub: Hub, model: Repository, tmp_path: Path) -> None:
    online = look(hub, tmp_path)
    online.fetch()
    offline = Look(tmp_path, model.refs["main"], HF_HUB_OFFLINE="1")
    offline.end()

    config, weights = online.found
    assert config["etag"] == hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
    assert weights["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    strongest = [[item.get("sha256") or item["etag"] for item in found] for found in (online.found, offline.found)]
    assert strongest[0] == strongest[1]


def test_a_cached_snapshot_is_used(tmp_path: Path) -> None:
    blob = hashlib.sha256(CONFIG).hexdigest()
    commit = cached(tmp_path, blob=blob)
    seen = Look(tmp_path, HF_HUB_OFFLINE="1")
    assert seen.fetch()["contents"] == {"config.json": CONFIG.decode()}
    assert seen.found == [
        {
            "uri": "hf://org/name/config.json",
            "size": len(CONFIG),
            "etag": blob,
            "sha256": blob,
            "revision": commit,
        }
    ]


def test_a_blob_in_the_shared_store_keeps_its_own_identity(tmp_path: Path) -> None:
    blob, name_in_store = hashlib.sha256(CONFIG).hexdigest(), "ab" * 32
    cached(tmp_path, blob=blob)
    place, store = tmp_path / "cache/models--org--name/blobs" / blob, tmp_path / "cache/blobs/ab"
    store.mkdir(parents=True)
    place.rename(store / name_in_store)
    place.symlink_to(f"../../blobs/ab/{name_in_store}")
    seen = Look(tmp_path, HF_HUB_OFFLINE="1")
    seen.end()
    assert [item["sha256"] for item in seen.found] == [blob]


def test_a_cache_without_links_is_read_for_its_identity(tmp_path: Path) -> None:
    commit = cached(tmp_path, blob="0" * 64)
    file = tmp_path / f"cache/models--org--name/snapshots/{commit}/config.json"
    file.unlink()
    file.write_bytes(CONFIG)
    seen = Look(tmp_path, HF_HUB_OFFLINE="1")
    seen.end()
    assert [item["sha256"] for item in seen.found] == [hashlib.sha256(CONFIG).hexdigest()]


def test_an_empty_cache_says_what_to_do(tmp_path: Path) -> None:
    seen = Look(tmp_path, HF_HUB_OFFLINE="1")
    seen.end()
    assert seen.found["reason"] == "ModelNotFound"
    assert "hf://org/name at revision main" in seen.found["message"]
    assert "mirror the model to s3:// or pvc://" in seen.found["message"]


def test_a_connection_that_breaks_is_made_again(hub: Hub, model: Repository, tmp_path: Path) -> None:
    broken = Fault(path="/org/name/" + hashlib.sha256(WEIGHTS).hexdigest(), status=0, times=1)
    busy = Fault(path="/api/models/", status=503, times=1, headers={"Retry-After": "0"})
    hub.faults += [broken, busy]
    assert look(hub, tmp_path).fetch()["contents"]["model.safetensors"] == WEIGHTS.decode()
    assert (broken.times, busy.times) == (0, 0)


LARGE = random.Random(1).randbytes(22 << 20)
"""Longer than two of the pieces in which the client writes a file; what has come of one that is torn is lost."""


@pytest.fixture
def large(hub: Hub) -> str:
    """A model with a large file; returns the end of the path that the file is fetched from."""
    hub.add("org/name", {"config.json": CONFIG, "model.safetensors": LARGE})
    return hashlib.sha256(LARGE).hexdigest()


@pytest.mark.parametrize("how", ["link", "own"])
def test_a_file_goes_on_where_it_broke(hub: Hub, large: str, tmp_path: Path, how: str) -> None:
    hub.faults += [Fault(path=large, status=0, times=1, sent=15 << 20)]
    got = look(hub, tmp_path, how).fetch()

    assert got["contents"]["model.safetensors"] == large
    first, second = (item.first for item in hub.requests if item.path.endswith(large))
    assert (first, second) == (0, 10 << 20)
    assert got["moved"] == len(CONFIG) + len(LARGE)


@pytest.mark.parametrize(
    "fault", [{"status": 0, "sent": 15 << 20, "reset": True}, {"status": 502}, {"status": 500}], ids=str
)
def test_a_file_is_asked_for_again(hub: Hub, large: str, tmp_path: Path, fault: dict[str, Any]) -> None:
    hub.faults += [Fault(path=large, times=2, **fault)]
    seen = look(hub, tmp_path)

    assert seen.fetch()["contents"]["model.safetensors"] == large
    assert len([item for item in hub.requests if item.path.endswith(large)]) == 3
    assert [line.split()[0] for line in seen.log.splitlines()] == ["waiting", "waiting"]


@pytest.mark.parametrize(
    "fault",
    [
        {"path": "/api/resolve-cache/", "status": 0, "sent": 5, "reset": True},
        {"path": "/api/resolve-cache/", "status": 0, "sent": -1},
        {"path": "/resolve/", "status": 500},
        {"path": "/resolve/", "status": 429},
    ],
    ids=str,
)
def test_a_file_that_is_only_looked_into_is_asked_for_again(
    hub: Hub, model: Repository, tmp_path: Path, fault: dict[str, Any]
) -> None:
    """As preflight does with the configuration and the tokenizer."""
    hub.faults += [Fault(times=1, **fault)]
    assert look(hub, tmp_path, "open").fetch()["opened"] == CONFIG.decode()
    assert hub.faults[0].times == 0


def test_the_hub_is_given_the_time_that_it_asks_for_unless_that_is_long(
    hub: Hub, model: Repository, tmp_path: Path
) -> None:
    hub.faults += [Fault(path="/api/models/", status=429, times=2, headers={"Retry-After": "7"})]
    assert look(hub, tmp_path).fetch()["slept"] == [7, 7]
    hub.faults += [Fault(path="/api/models/", status=429, headers={"Retry-After": "300"})]
    refused = look(hub, tmp_path / "other")
    refused.end()
    assert refused.found["reason"] == "StorageUnavailable"
    assert "429, too many requests, try again in 300 s" in refused.found["message"]
    assert refused.found["slept"] == []


def test_an_address_without_a_hub_is_given_up_before_a_hub_that_is_troubled(
    hub: Hub, model: Repository, tmp_path: Path
) -> None:
    nobody = Look(tmp_path, HF_ENDPOINT="http://127.0.0.1:1", HF_HUB_OFFLINE="0")
    hub.faults += [Fault(path="/api/models/", status=503)]
    troubled = look(hub, tmp_path)
    for seen in (nobody, troubled):
        seen.end()
        assert seen.found["reason"] == "StorageUnavailable"
    assert (nobody.found["slept"], troubled.found["slept"]) == ([1, 2, 4], [1, 2, 4, 8, 15])


def test_a_hub_that_is_silent_is_waited_for_as_briefly_as_one_that_drips(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        seen = Look(tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}", HF_HUB_OFFLINE="0")
    seen.end()
    assert seen.found["reason"] == "StorageUnavailable"
    assert seen.found["slept"] == [1, 2, 4, 8, 15], "the policy gave up before the tries were"


def test_a_file_that_drips_is_given_up_and_goes_on(hub: Hub, large: str, tmp_path: Path) -> None:
    hub.faults += [Fault(path=large, status=0, times=1, sent=15 << 20, drips=True)]
    assert look(hub, tmp_path).fetch()["contents"]["model.safetensors"] == large
    assert [item.first for item in hub.requests if item.path.endswith(large)] == [0, 10 << 20]
    assert hub.left == 1


@pytest.mark.parametrize("how", ["link", "own"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_file_is_fetched_once_more(hub: Hub, model: Repository, tmp_path: Path, name: str, how: str) -> None:
    place = {"config.json": "/api/resolve-cache/", "model.safetensors": hashlib.sha256(WEIGHTS).hexdigest()}[name]
    fault = Fault(path=place, status=0, times=1, sent=-1)
    hub.faults.append(fault)
    got = look(hub, tmp_path, how).fetch()

    assert got["contents"] == {"config.json": CONFIG.decode(), "model.safetensors": WEIGHTS.decode()}
    assert fault.times == 0

    fault.times = 1000
    got = look(hub, tmp_path / "other", how).fetch()
    assert got["reason"] == "ModelInvalid"
    kind = {"config.json": "Git name", "model.safetensors": "SHA-256"}[name]
    assert f"hf://org/name/{name} at revision {model.refs['main']} has the {kind} " in got["message"]
    assert "check HF_ENDPOINT and the proxy" in got["message"]
    assert not (tmp_path / "other/target" / name).exists()


def test_files_of_its_own(hub: Hub, model: Repository, tmp_path: Path) -> None:
    got = look(hub, tmp_path, "own").fetch()

    assert got["contents"] == {"config.json": CONFIG.decode(), "model.safetensors": WEIGHTS.decode()}
    files = sorted((tmp_path / "target").iterdir())
    assert [file.name for file in files] == ["config.json", "model.safetensors"]
    assert not any(file.is_symlink() for file in files)

    look(hub, tmp_path).fetch()
    assert (tmp_path / "target/model.safetensors").is_symlink()
    copied = Look(tmp_path, model.refs["main"], "own", HF_HUB_OFFLINE="1")
    assert copied.fetch()["contents"] == got["contents"]
    assert not (tmp_path / "target/model.safetensors").is_symlink()


def test_a_damaged_cache_is_no_model(tmp_path: Path) -> None:
    cached(tmp_path, blob=hashlib.sha256(WEIGHTS).hexdigest())
    got = Look(tmp_path, HF_HUB_OFFLINE="1").fetch()
    assert got["reason"] == "ModelInvalid"
    assert "has the SHA-256 " in got["message"]


def test_a_mirror_without_xet(hub: Hub, model: Repository, tmp_path: Path) -> None:
    model.xet = True
    asked = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}

    without = Look(tmp_path, HF_HUB_DISABLE_XET="1", **asked)
    assert without.fetch()["contents"]["model.safetensors"] == WEIGHTS.decode()

    got = Look(tmp_path / "other", **asked).fetch()
    assert got["reason"] == "ModelNotFound"
    assert "HF_HUB_DISABLE_XET=1" in got["message"]


def test_a_mirror_with_a_certificate_authority_of_its_own(tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with hubserver.running(context) as hub:
        hub.add("org/name", {"config.json": CONFIG, "model.safetensors": WEIGHTS})
        asked = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
        trusting = Look(tmp_path, SSL_CERT_FILE=str(certificate), **asked)
        assert trusting.fetch()["contents"]["model.safetensors"] == WEIGHTS.decode()

        distrusting = Look(tmp_path, **asked)
        distrusting.end()
        assert distrusting.found["reason"] == "StorageUnavailable"
        assert "certificate is not trusted" in distrusting.found["message"]
        assert "hub.caBundle" in distrusting.found["message"]


@pytest.mark.parametrize("text", ["", " \n", "two words", "line\nbreak", "h\u00f6chst geheim"])
def test_a_token_that_is_none_is_refused_unseen(text: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(TrainerError, match=r"model\.tokenSecretRef") as caught:
        HubToken(file).read()
    assert caught.value.reason is FailureReason.MODEL_ACCESS_DENIED
    assert not text.strip() or text.strip() not in caught.value.message


def test_a_tokens_line_end_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_abc\n")
    assert HubToken(tmp_path / "token").read() == "hf_abc"
