"""Publishing into a real directory: the manifest is the commit, and of two writers one wins."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import Manifest, ManifestFile
from finetune_trainer.contract.recipe.output import OnExisting
from finetune_trainer.contract.uri import Uri, parse_uri
from finetune_trainer.publish import Place, publish
from finetune_trainer.storage.base import ByteCount
from finetune_trainer.storage.local import LocalStore

RUN = "support-bot/0123456789ab"


def _publish(root: Path, writer: str, on_existing: OnExisting = OnExisting.REUSE) -> None:
    folder = root / f"local-{writer}"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights of " + writer.encode())
    place = Place(store=LocalStore(root), run=parse_uri(f"file://{root}/out/{RUN}"), folder=writer)

    def describe(files: list[ManifestFile]) -> Manifest:
        return Manifest(
            fingerprint="0" * 64, adapter=writer, files=files, base_model="org/name", dataset=[], rank=8,
            target_modules=["q_proj"], attempt=1, writer=writer, created=datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip

    publish(place, folder, sorted(folder.iterdir()), describe, on_existing, lambda _: None)


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

    def upload(self, path: Path, uri: Uri, moved: ByteCount) -> None:
        self.uploads += 1
        if self.uploads > 1:
            raise TrainerError(FailureReason.DISK_FULL, f"writing {uri}: no space left on device")
        super().upload(path, uri, moved)


def test_failed_upload_leaves_neither_manifest_nor_files(tmp_path: Path) -> None:
    folder = tmp_path / "local"
    folder.mkdir()
    (folder / "a").write_text("a")
    (folder / "b").write_text("b")
    place = Place(store=DiskThatFills(tmp_path), run=parse_uri(f"file://{tmp_path}/out/{RUN}"), folder="1-first")

    with pytest.raises(TrainerError) as caught:
        publish(place, folder, sorted(folder.iterdir()), _not_reached, OnExisting.REUSE, lambda _: None)

    assert caught.value.reason is FailureReason.DISK_FULL
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []
