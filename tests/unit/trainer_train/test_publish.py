"""Publishing into a real directory: the manifest is the commit, and of two writers one wins."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import Manifest, ManifestFile
from finetune_trainer.contract.recipe.output import OnExisting
from finetune_trainer.contract.uri import Uri, parse_uri
from finetune_trainer.output.publish import RunLocation, publish
from finetune_trainer.storage.base import ByteCount
from finetune_trainer.storage.local import LocalStore
from finetune_trainer.storage.retry import RetryPolicy
from sleeping import SleepingClock

RUN = "support-bot/0123456789ab"


def _publish(
    root: Path,
    writer: str,
    on_existing: OnExisting = OnExisting.REUSE,
    *,
    job: str | None = None,
    store: LocalStore | None = None,
    time: SleepingClock | None = None,
) -> None:
    folder = root / f"local-{writer}"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights of " + writer.encode())
    place = RunLocation(store=store or LocalStore(root), run=parse_uri(f"file://{root}/out/{RUN}"))

    def describe(files: list[ManifestFile]) -> Manifest:
        return Manifest(
            fingerprint="0" * 64, adapter=writer, files=files, base_model="org/name", dataset=[], rank=8,
            target_modules=["q_proj"], attempt=1, writer=writer, job_uid=job, created=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip

    publish(place, {writer: folder}, describe, on_existing, lambda _: None, (time or SleepingClock()).retry_policy())


def _manifest(root: Path) -> Manifest:
    return Manifest.model_validate(json.loads((root / "out" / RUN / "manifest.json").read_text()))


def test_second_writer_is_superseded_and_takes_its_files_away(tmp_path: Path) -> None:
    _publish(tmp_path, "1-first")

    with pytest.raises(TrainerError) as caught:
        _publish(tmp_path, "1-second")

    assert caught.value.reason is FailureReason.SUPERSEDED
    assert _manifest(tmp_path).adapter == "1-first"
    assert sorted(path.name for path in (tmp_path / "out" / RUN).iterdir()) == ["1-first", "manifest.json"]


def test_replace_puts_the_new_manifest_over_the_old_one(tmp_path: Path) -> None:
    _publish(tmp_path, "1-first")

    _publish(tmp_path, "1-second", OnExisting.REPLACE)

    assert _manifest(tmp_path).adapter == "1-second"
    assert (tmp_path / "out" / RUN / "1-second" / "adapter_model.safetensors").exists()


def _not_reached(files: list[ManifestFile]) -> Manifest:
    raise AssertionError(files)


class DiskThatFills(LocalStore):
    """A directory whose disk is full from the second object on."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.uploads = 0

    def upload(self, path: Path, uri: Uri, on_bytes: ByteCount) -> None:
        self.uploads += 1
        if self.uploads > 1:
            raise TrainerError(FailureReason.DISK_FULL, f"writing {uri}: no space left on device")
        super().upload(path, uri, on_bytes)


def test_failed_upload_leaves_neither_manifest_nor_files(tmp_path: Path) -> None:
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "a").write_text("a")
    (folder / "b").write_text("b")
    place = RunLocation(store=DiskThatFills(tmp_path), run=parse_uri(f"file://{tmp_path}/out/{RUN}"))

    with pytest.raises(TrainerError) as caught:
        publish(place, {"1-first": folder}, _not_reached, OnExisting.REUSE, lambda _: None, RetryPolicy())

    assert caught.value.reason is FailureReason.DISK_FULL
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


class Outage(LocalStore):
    """A directory behind a connection: from the manifest's first write on, `failing` requests in a row get no answer.

    The first of them is carried out all the same when `written`.
    """

    def __init__(self, root: Path, *, failing: int, written: bool) -> None:
        super().__init__(root)
        self.failing, self.written, self.writes = failing, written, 0

    def create(self, uri: Uri, content: bytes) -> None:
        if self.written and not self.writes:
            super().create(uri, content)
        self._write()
        super().create(uri, content)

    def replace(self, uri: Uri, content: bytes, expected: bytes | None = None) -> None:
        if self.written and not self.writes:
            super().replace(uri, content, expected)
        self._write()
        super().replace(uri, content, expected)

    def read(self, uri: Uri) -> bytes | None:
        if self.writes:
            self._generate_answer()
        return super().read(uri)

    def delete(self, uri: Uri) -> None:
        if uri.path.endswith("manifest.json"):
            raise AssertionError(uri)
        super().delete(uri)

    def _write(self) -> None:
        self.writes += 1
        self._generate_answer()

    def _generate_answer(self) -> None:
        if self.failing:
            self.failing -= 1
            raise TrainerError(FailureReason.STORAGE_UNAVAILABLE, "the connection broke")


def _adapter(root: Path, writer: str) -> Path:
    return root / "out" / RUN / writer / "adapter_model.safetensors"


@pytest.mark.parametrize("on_existing", [OnExisting.REUSE, OnExisting.REPLACE])
@pytest.mark.parametrize("failing", [1, 2, 7])
@pytest.mark.parametrize("written", [True, False])
def test_commit_whose_answer_was_lost_is_a_success(
    tmp_path: Path, on_existing: OnExisting, failing: int, written: bool
) -> None:
    _publish(tmp_path, "1-first", on_existing, store=Outage(tmp_path, failing=failing, written=written))

    assert _manifest(tmp_path).adapter == "1-first"
    assert _adapter(tmp_path, "1-first").exists()


@pytest.mark.parametrize("on_existing", [OnExisting.REUSE, OnExisting.REPLACE])
def test_files_stay_when_nobody_knows_whether_the_manifest_is_there(tmp_path: Path, on_existing: OnExisting) -> None:
    time = SleepingClock()

    with pytest.raises(TrainerError) as caught:
        _publish(tmp_path, "1-first", on_existing, store=Outage(tmp_path, failing=10_000, written=True), time=time)

    assert caught.value.reason is FailureReason.STORAGE_UNAVAILABLE
    assert _manifest(tmp_path).adapter == "1-first"
    assert _adapter(tmp_path, "1-first").exists()
    assert 240 <= time.now <= 300, "minutes of retries, no more"


class NoManifests(LocalStore):
    """A directory where manifests may not be written."""

    def create(self, uri: Uri, content: bytes) -> None:
        del content
        raise TrainerError(FailureReason.STORAGE_ACCESS_DENIED, f"writing {uri}: refused")

    def replace(self, uri: Uri, content: bytes, expected: bytes | None = None) -> None:
        del expected
        self.create(uri, content)


def test_files_go_when_the_manifest_is_known_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(TrainerError) as caught:
        _publish(tmp_path, "1-first", store=NoManifests(tmp_path))

    assert caught.value.reason is FailureReason.STORAGE_ACCESS_DENIED
    assert not _adapter(tmp_path, "1-first").exists()


def test_files_go_and_the_others_stay_when_a_refused_manifest_is_anothers(tmp_path: Path) -> None:
    _publish(tmp_path, "1-first")

    with pytest.raises(TrainerError):
        _publish(tmp_path, "1-second", OnExisting.REPLACE, store=NoManifests(tmp_path))

    assert _adapter(tmp_path, "1-first").exists()
    assert not _adapter(tmp_path, "1-second").exists()


class Overtaken(LocalStore):
    """A directory where another writer replaces the manifest between this one's look and its write, `times` times."""

    def __init__(self, root: Path, other: Callable[[], None], times: int = 1) -> None:
        super().__init__(root)
        self.other, self.times = other, times

    def replace(self, uri: Uri, content: bytes, expected: bytes | None = None) -> None:
        if self.times:
            self.times -= 1
            self.other()
        super().replace(uri, content, expected)


def test_of_two_pods_that_replace_at_once_the_first_one_stands(tmp_path: Path) -> None:
    _publish(tmp_path, "0-before")
    store = Overtaken(tmp_path, lambda: _publish(tmp_path, "1-faster", OnExisting.REPLACE, job="uid-1"))

    with pytest.raises(TrainerError) as caught:
        _publish(tmp_path, "1-slower", OnExisting.REPLACE, store=store, job="uid-1")

    assert caught.value.reason is FailureReason.SUPERSEDED
    assert _manifest(tmp_path).adapter == "1-faster"
    assert not _adapter(tmp_path, "1-slower").exists()


def test_of_two_jobs_that_replace_at_once_the_last_one_stands(tmp_path: Path) -> None:
    _publish(tmp_path, "0-before")
    store = Overtaken(tmp_path, lambda: _publish(tmp_path, "1-faster", OnExisting.REPLACE, job="uid-1"))

    _publish(tmp_path, "1-slower", OnExisting.REPLACE, store=store, job="uid-2")

    assert _manifest(tmp_path).adapter == "1-slower"
