"""Fetching a base model of many files: past a server's faults, and through a cache that jobs share."""

import os
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import httpfaults
import s3server
from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.inputs.sources import model_objects
from finetune_trainer.progress.reporter import Reporter
from finetune_trainer.storage.registry import StoreRegistry
from finetune_trainer.train.context import Context
from finetune_trainer.train.fetch import fetch_model
from finetune_trainer.train.inputs import Inputs
from httpfaults import BRIEF, Fault
from s3server import S3Server
from unit.trainer_train.recipes import recipe

pytestmark = pytest.mark.extras

_MIB = 1 << 20
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    **{f"model-{number}.safetensors": random.Random(number).randbytes((18 + number) * _MIB) for number in range(4)},
}
SIZE = sum(map(len, FILES.values()))
NO_CLAIM = "no-claim"


class Pod:
    """A training pod that has looked the model up: a disk of its own, and the claims of the cluster."""

    def __init__(self, s3: S3Server, folder: Path, name: str, endpoint: str | None = None, **model: Any) -> None:
        self.recipe = recipe(model=model, storage={"endpoint": endpoint or s3.endpoint})
        places = StoreRegistry(self.recipe.storage, s3server.mount(folder / "keys", s3.admin))
        self.objects = model_objects(self.recipe, places)
        self.stop, self.reporter = threading.Event(), Reporter()
        self.disk = folder / name
        self.disk.mkdir()
        if name != NO_CLAIM:
            (folder / "cache").mkdir(exist_ok=True)
        self.context = Context(
            work=self.disk,
            open_store=places,
            writer=name,
            pvc_root=folder / "claims",
            cache_root=folder / "cache",
            reporter=self.reporter,
            stop=self.stop,
        )

    def fetch_inputs(self) -> Path:
        return fetch_model(
            self.recipe,
            Inputs(dataset=[], validation=[], model=self.objects, adapter=[], fingerprint="f" * 64),
            self.context,
        )

    @property
    def downloaded(self) -> int:
        return self.reporter.progress.bytes_downloaded or 0


@pytest.fixture(scope="module")
def model(s3: S3Server) -> str:
    """The place of a model of six files."""
    for name, content in FILES.items():
        s3.put(f"fetch/base/{name}", content)
    return "s3://data/fetch/base"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_model_comes_whole_past_refusals_and_torn_and_slow_answers(s3: S3Server, model: str, tmp_path: Path) -> None:
    happen = [*BRIEF, Fault.SLOW_ANSWER, Fault.RESET_ANSWER, Fault.SLOW_DOWN]
    with httpfaults.running(s3.endpoint) as faults:
        pod = Pod(s3, tmp_path, "pod", faults.endpoint, uri=model)
        faults.plan = httpfaults.first(*happen)
        folder = pod.fetch_inputs()
        assert faults.counts() == Counter(happen)
    assert contents(folder) == FILES
    assert folder.is_relative_to(pod.disk)
    assert pod.downloaded == SIZE


def test_a_file_that_is_gone_ends_all_downloads(s3: S3Server, model: str, tmp_path: Path) -> None:
    pod = Pod(s3, tmp_path, "pod", uri=model, cache="pvc://models/hub")
    lost = pod.objects[-1].model_copy(update={"uri": pod.objects[-1].uri + ".gone"})
    pod.objects = [lost, *pod.objects]

    reason, message = _failure(pod)

    assert reason is FailureReason.STORAGE_NOT_FOUND
    assert lost.uri in message
    assert pod.downloaded < SIZE
    assert list((tmp_path / "cache/hub").iterdir()) == [], "nothing half-filled stays"


def test_a_pod_that_is_told_to_go_leaves_nothing_behind(s3: S3Server, model: str, tmp_path: Path) -> None:
    pod = Pod(s3, tmp_path, "pod", uri=model, cache="pvc://models/hub")
    pod.stop.set()

    reason, _ = _failure(pod)

    assert reason is FailureReason.PREEMPTED
    assert list((tmp_path / "cache/hub").iterdir()) == []


def _failure(pod: Pod) -> tuple[FailureReason, str]:
    with pytest.raises(TrainerError) as caught:
        pod.fetch_inputs()
    return caught.value.reason, caught.value.message


def test_the_second_pod_finds_the_model_in_the_cache(s3: S3Server, model: str, tmp_path: Path) -> None:
    asked = {"uri": model, "cache": "pvc://models/hub"}
    first, second = (Pod(s3, tmp_path, name, **asked) for name in ("first", "second"))
    folder = first.fetch_inputs()
    [entry] = (tmp_path / "cache/hub").iterdir()
    (entry / "adapter_config.json").write_bytes(b"added by another job")
    again = second.fetch_inputs()

    assert entry.name.startswith("data--fetch--base-")
    assert contents(folder) == contents(again) == FILES
    assert (first.downloaded, second.downloaded) == (SIZE, 0)
    assert (folder.parent, again.parent) == (first.disk, second.disk)


def test_another_content_is_another_entry(s3: S3Server, tmp_path: Path) -> None:
    for content in (b'{"a": 1}', b'{"a": 2}'):
        s3.put("fetch/changing/config.json", content)
        pod = Pod(s3, tmp_path, content.hex(), uri="s3://data/fetch/changing", cache=f"file://{tmp_path}/mine")
        assert contents(pod.fetch_inputs()) == {"config.json": content}

    assert len(list((tmp_path / "mine").iterdir())) == 2


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_damaged_entry_is_filled_anew(s3: S3Server, model: str, tmp_path: Path, how: str) -> None:
    asked = {"uri": model, "cache": "pvc://models"}
    Pod(s3, tmp_path, "first", **asked).fetch_inputs()
    [entry] = (tmp_path / "cache").iterdir()
    file = entry / "model-2.safetensors"
    if how == "cut":
        os.truncate(file, 1000)
    else:
        file.unlink()

    second = Pod(s3, tmp_path, "second", **asked)

    assert contents(second.fetch_inputs()) == FILES
    assert contents(entry) == FILES
    assert second.downloaded == SIZE
    assert list((tmp_path / "cache").iterdir()) == [entry]


@pytest.mark.parametrize("place", ["file:///dev/null/cache", "file:///proc/cache", "pvc://models/cache"])
def test_a_cache_that_cannot_be_written_is_passed_over(
    s3: S3Server, model: str, tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    pod = Pod(s3, tmp_path, NO_CLAIM, uri=model, cache=place)

    folder = pod.fetch_inputs()

    assert folder.is_relative_to(pod.disk)
    assert contents(folder) == FILES
    assert f"cache place={place} " in caplog.text
    assert "fetched to the pod's own disk" in caplog.text
    assert not (tmp_path / "cache").exists()
