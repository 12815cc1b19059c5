"""A real S3 server behind a proxy that misbehaves: what goes on, what is given up, and what is left then."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

import httpfaults
import s3server
from finetune_trainer.checkpoints import CheckpointStore
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import Manifest, ManifestFile
from finetune_trainer.contract.recipe.output import OnExisting, StorageSpec
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.output.publish import RunLocation, publish
from finetune_trainer.storage.base import ObjectReplacedError
from finetune_trainer.storage.low_speed_limit import LowSpeedLimit
from finetune_trainer.storage.retry import RetryNotifier, RetryPolicy
from finetune_trainer.storage.s3 import S3Store
from finetune_trainer.storage.timing import Timing
from httpfaults import Fault, Faults, Plan
from localcluster.seaweedfs import new_keys
from s3server import S3Server

pytestmark = pytest.mark.extras

HASTY = Timing(
    silence_seconds=1.0,
    repeat_seconds=20,
    low_speed_limit=LowSpeedLimit(seconds=1.0, least=4096),
    reading=RetryPolicy(seconds=20, first_pause=0.05),
)
"""As in a pod, but in a hurry."""
RESIGNED = Timing(
    attempts=50,
    silence_seconds=1.5,
    repeat_seconds=0.5,
    low_speed_limit=LowSpeedLimit(seconds=0.5, least=4096),
    reading=RetryPolicy(seconds=0.5, first_pause=0.1),
)
"""Gives up soon."""
ONCE, MANY = Timing(attempts=1), Timing()
Open = Callable[[Timing], S3Store]


@pytest.fixture(scope="module")
def proxy(s3: S3Server) -> Iterator[Faults]:
    with httpfaults.running(s3.endpoint) as faults:
        yield faults


@pytest.fixture(scope="module")
def store(s3: S3Server, proxy: Faults, tmp_path_factory: pytest.TempPathFactory) -> Open:
    """The store behind the proxy; each timing's client is made once."""
    keys = s3server.mount(tmp_path_factory.mktemp("keys"), s3.admin)
    return cache(lambda timing: S3Store(StorageSpec(endpoint=proxy.endpoint), keys, timing=timing))


@pytest.fixture
def faults(proxy: Faults) -> Iterator[Faults]:
    """The proxy, without faults and without memory."""
    proxy.calm()
    yield proxy
    proxy.calm()


def always(fault: Fault) -> Plan:
    return lambda _: fault


def ignore(_: int) -> None:
    return


@pytest.mark.parametrize("fault", [Fault.CUT_ANSWER, Fault.RESET_ANSWER, Fault.DRIP])
def test_a_listing_that_breaks_off_is_asked_for_again(s3: S3Server, faults: Faults, store: Open, fault: Fault) -> None:
    for name in "abc":
        s3.put(f"torn-list/{fault}/{name}", b"x")
    faults.plan = httpfaults.first(fault)
    found = store(HASTY).stat(parse_uri(f"s3://data/torn-list/{fault}/"))
    assert [item.uri[-1] for item in found] == ["a", "b", "c"]
    assert faults.counts() == {fault: 1}


@pytest.mark.parametrize("fault", [Fault.CUT_ANSWER, Fault.RESET_ANSWER, Fault.DRIP])
def test_a_small_object_that_breaks_off_is_read_again(s3: S3Server, faults: Faults, store: Open, fault: Fault) -> None:
    uri = parse_uri(f"s3://data/torn-read/{fault}")
    s3.put(f"torn-read/{fault}", b"manifest" * 100)
    faults.plan = httpfaults.first(fault, fault)
    assert store(HASTY).read(uri) == b"manifest" * 100
    faults.plan = httpfaults.first(fault, fault)
    store(HASTY).replace(uri, b"another", b"manifest" * 100)
    faults.plan = httpfaults.first(fault, fault)
    assert store(HASTY).read(parse_uri("s3://data/torn-read/absent")) is None
    assert s3.get(f"torn-read/{fault}") == b"another"


def test_a_torn_stream_goes_on_where_it_broke(s3: S3Server, faults: Faults, store: Open) -> None:
    content = random.Random(1).randbytes(4 << 20)
    s3.put("torn/x", content)
    [source] = store(HASTY).stat(parse_uri("s3://data/torn/x"))
    faults.plan = httpfaults.first(*[Fault.CUT_ANSWER] * 3)
    with store(HASTY).open(source) as stream:
        assert stream.read() == content
    asked = [request.first for request, _ in faults.seen if request.method == "GET"]
    assert asked[0] == 0
    assert asked == sorted(set(asked)), "what has come is not asked for again"
    assert len(asked) == 4


def test_an_object_replaced_while_it_is_read_is_noticed(s3: S3Server, faults: Faults, store: Open) -> None:
    s3.put("replaced/while", b"a" * (4 << 20))
    [source] = store(HASTY).stat(parse_uri("s3://data/replaced/while"))
    faults.plan = httpfaults.first(Fault.CUT_ANSWER)
    with store(HASTY).open(source) as stream:
        assert stream.read(1000) == b"a" * 1000
        s3.put("replaced/while", b"b" * (4 << 20))
        with pytest.raises(ObjectReplacedError, match="s3://data/replaced/while was replaced"):
            stream.read()


@pytest.mark.parametrize("fault", [Fault.CUT_ANSWER, Fault.RESET_ANSWER, Fault.DRIP, Fault.SILENCE])
def test_a_download_goes_on_after_faults(
    s3: S3Server, faults: Faults, store: Open, tmp_path: Path, fault: Fault
) -> None:
    content = random.Random(3).randbytes(17 << 20)  # two parts
    s3.put("going-on/x", content)
    calm = store(HASTY)
    [source] = calm.stat(parse_uri("s3://data/going-on/x"))
    faults.plan = httpfaults.first(fault, fault)
    moved: list[int] = []
    calm.download(source, tmp_path / "target", moved.append)
    assert (tmp_path / "target").read_bytes() == content
    assert sum(moved) == len(content)
    assert faults.counts() == {fault: 2}


_SILENT = "the server sent nothing for too long, or its answer came too slowly"
_TORN = "the connection broke off before the answer was whole"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.DRIP, _SILENT),
        (Fault.SILENCE, _SILENT),
        (Fault.CUT_ANSWER, _TORN),
        (Fault.RESET_ANSWER, _TORN),
        (Fault.SLOW_DOWN, "HTTP 503 SlowDown please wait"),
    ],
)
def test_what_never_comes_is_given_up(
    s3: S3Server, faults: Faults, store: Open, tmp_path: Path, fault: Fault, said: str
) -> None:
    s3.put("never/x", b"x" * 5000)
    [source] = store(HASTY).stat(parse_uri("s3://data/never/x"))
    faults.plan = always(fault)
    with pytest.raises(TrainerError) as caught:
        store(RESIGNED).download(source, tmp_path / "target", ignore)
    assert caught.value.reason is FailureReason.STORAGE_UNAVAILABLE
    assert caught.value.message.startswith("reading s3://data/never/x at http")
    assert caught.value.message.endswith(f": {said}")
    assert list(tmp_path.iterdir()) == []


def test_a_silent_server_does_not_take_all_tries_at_their_full_length(faults: Faults, store: Open) -> None:
    faults.plan = always(Fault.SILENCE)
    with pytest.raises(TrainerError) as caught:
        store(RESIGNED).read(parse_uri("s3://data/silent"))
    assert caught.value.reason is FailureReason.STORAGE_UNAVAILABLE
    assert 1 <= len(faults.seen) <= 3


def test_an_outage_does_not_use_up_the_tries_of_later_requests(
    s3: S3Server, faults: Faults, store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    s3.put("budget/x", b"x")
    uri = parse_uri("s3://data/budget/x")
    for _ in range(20):
        faults.plan = always(Fault.ERROR)
        with pytest.raises(TrainerError):
            store(MANY).read(uri)
    faults.plan = httpfaults.first(*[Fault.ERROR] * 5)
    assert store(MANY).read(uri) == b"x"


def put_adapter(store: S3Store, folder: Path, name: str) -> None:
    """Publishes three files as a training does, with retries for seconds."""
    (folder / "adapter").mkdir(exist_ok=True)
    for file in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json"):
        (folder / "adapter" / file).write_bytes(file.encode() * 100)

    def describe(files: list[ManifestFile]) -> Manifest:
        return Manifest(
            fingerprint="0" * 64, adapter="1-pod", files=files, base_model="org/name", dataset=[], rank=8,
            target_modules=["q_proj"], attempt=1, writer="pod", created=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip

    place = RunLocation(store=store, run=parse_uri(f"s3://data/{name}"))
    publish(
        place,
        {"1-pod": folder / "adapter"},
        describe,
        OnExisting.REUSE,
        ignore,
        RetryPolicy(seconds=2, first_pause=0.1),
    )


@pytest.mark.parametrize("seed", range(5))
def test_an_adapter_is_put_whole_through_any_weather(
    s3: S3Server, faults: Faults, store: Open, tmp_path: Path, seed: int
) -> None:
    faults.plan = httpfaults.random_faults(seed, rate=0.3)
    put_adapter(store(HASTY), tmp_path, f"weather/{seed}")
    prefix = f"weather/{seed}"
    manifest = Manifest.model_validate_json(s3.get(f"{prefix}/manifest.json"))
    assert set(s3.keys(f"{prefix}/")) == {f"{prefix}/manifest.json", *(f"{prefix}/{f.path}" for f in manifest.files)}
    for file in manifest.files:
        assert len(s3.get(f"{prefix}/{file.path}")) == file.size


def test_a_manifest_whose_answer_was_lost_counts_as_put(
    s3: S3Server, faults: Faults, store: Open, tmp_path: Path
) -> None:
    left = [Fault.LOST_ANSWER]
    faults.plan = lambda request: left.pop() if left and request.condition else None
    put_adapter(store(HASTY), tmp_path, "lost")
    assert faults.counts() == {Fault.LOST_ANSWER: 1}
    assert len([key for key in s3.keys("lost/") if key.endswith("manifest.json")]) == 1


def test_storage_that_is_gone_is_not_asked_for_every_file_to_be_removed(
    faults: Faults, store: Open, tmp_path: Path
) -> None:
    faults.plan = lambda request: Fault.SILENCE if request.number else None
    with pytest.raises(TrainerError) as caught:
        put_adapter(store(RESIGNED), tmp_path, "gone")
    assert caught.value.reason is FailureReason.STORAGE_UNAVAILABLE
    gone = {request.path for request, _ in faults.seen if request.method == "DELETE"}
    assert len(gone) == 1


def test_checkpoints_of_a_training_that_is_done_go_after_an_outage(
    s3: S3Server, faults: Faults, store: Open, tmp_path: Path
) -> None:
    (tmp_path / "steps.json").write_text("{}")
    checkpoints = CheckpointStore(
        store=store(ONCE),
        uri=parse_uri("s3://data/shelf/checkpoints"),
        fingerprint="0" * 64,
        keep=2,
        attempt=1,
        writer="pod",
        versions={},
        now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        retry=RetryPolicy(seconds=5, first_pause=0.05),
    )
    checkpoints.upload(tmp_path, 3, 12, ignore)
    assert len(s3.keys("shelf/")) == 2
    faults.plan = httpfaults.first(*[Fault.SLOW_DOWN] * 3, method="DELETE")
    checkpoints.delete_all()
    assert s3.keys("shelf/") == []


@pytest.mark.parametrize("step", ["uploads", "uploadId="])
def test_a_large_upload_whose_answers_are_lost_is_there_in_the_end(
    s3: S3Server, faults: Faults, store: Open, tmp_path: Path, step: str
) -> None:
    """Its beginning, and its end: the server knows an upload no more that it has put together."""
    content = random.Random(5).randbytes(17 << 20)
    (tmp_path / "large").write_bytes(content)
    left = [Fault.LOST_ANSWER]
    faults.plan = lambda request: left.pop() if left and request.method == "POST" and step in request.path else None
    uri = parse_uri(f"s3://data/large/{step}")
    RetryPolicy(seconds=5, first_pause=0.05).call(lambda: store(MANY).upload(tmp_path / "large", uri, ignore))
    assert faults.counts() == {Fault.LOST_ANSWER: 1}
    assert s3.get(f"large/{step}") == content


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://127.0.0.1:1", "nothing answers there: the connection is refused"),
        ("http://no-such-host.invalid:9000", "the name does not resolve"),
    ],
)
def test_an_address_where_nobody_is_is_given_up_before_a_server_that_is_troubled(
    faults: Faults, tmp_path: Path, endpoint: str, words: str
) -> None:
    told: list[str | None] = []
    hasty = Timing(attempts=1_000_000, repeat_seconds=1e9, unreachable_seconds=0.5).with_notifier(
        RetryNotifier(told.append)
    )
    keys = s3server.mount(tmp_path, new_keys())
    with pytest.raises(TrainerError, match=words) as caught:
        S3Store(StorageSpec(endpoint=endpoint), keys, timing=hasty).read(parse_uri("s3://data/x"))
    assert caught.value.reason is FailureReason.STORAGE_UNAVAILABLE
    assert told[0] == f"{endpoint}: {words}; retrying"
    assert told[-1] is None
    faults.plan = httpfaults.first(*[Fault.SLOW_DOWN] * 3)
    troubled = replace(hasty, unreachable_seconds=0.0)
    told.clear()
    with pytest.raises(TrainerError, match="InvalidAccessKeyId"):
        S3Store(StorageSpec(endpoint=faults.endpoint), keys, timing=troubled).read(parse_uri("s3://data/x"))
    assert told == [f"{faults.endpoint}: HTTP 503; retrying"] * 3 + [None]
