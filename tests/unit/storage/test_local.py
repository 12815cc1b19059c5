"""Directories: what file:// and pvc:// promise."""

import os
import threading
from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.storage.base import (
    AlreadyExistsError,
    ObjectChangedError,
    ObjectNotFoundError,
    ObjectReplacedError,
)
from finetune_trainer.storage.local import LocalStore, _reasons


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "pvc")


def test_stat_of_a_file_and_of_a_folder(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/z").write_bytes(b"12")
    (tmp_path / "a/b/c").write_bytes(b"123")
    [found] = store.stat(parse_uri(f"file://{tmp_path}/a/z"))
    assert (found.uri, found.size) == (f"file://{tmp_path}/a/z", 2)
    for uri in (f"file://{tmp_path}/a", f"file://{tmp_path}/a/"):
        assert [item.uri for item in store.stat(parse_uri(uri))] == [
            f"file://{tmp_path}/a/b/c",
            f"file://{tmp_path}/a/z",
        ]


def test_a_claim_is_a_folder_of_the_root(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "pvc/models/llama").mkdir(parents=True)
    (tmp_path / "pvc/models/llama/config.json").write_text("{}")
    [found] = store.stat(parse_uri("pvc://models/llama"))
    assert found.uri == "pvc://models/llama/config.json"
    with store.open(found) as stream:
        assert stream.read() == b"{}"
    with pytest.raises(ObjectNotFoundError, match="claim other is not mounted"):
        store.stat(parse_uri("pvc://other/llama"))


def test_a_link_does_not_lead_out_of_the_claim(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "pvc/models").mkdir(parents=True)
    (tmp_path / "secret").write_text("s")
    (tmp_path / "pvc/models/out").symlink_to(tmp_path / "secret")
    with pytest.raises(TrainerError, match="leads out of its claim") as raised:
        store.read(parse_uri("pvc://models/out"))
    assert raised.value.reason is FailureReason.STORAGE_ACCESS_DENIED


def test_a_folder_is_read_through_its_links(store: LocalStore, tmp_path: Path) -> None:
    folder, far = tmp_path / "data", tmp_path / "far/deep"
    folder.mkdir()
    far.mkdir(parents=True)
    (far / "x").write_text("x")
    (folder / "shard").symlink_to(tmp_path / "far")
    (folder / "loop").symlink_to(folder)
    (folder / ".#x").symlink_to("user@host.1234")  # an editor's lock
    uri = parse_uri(f"file://{folder}")
    assert [item.uri for item in store.stat(uri)] == [f"file://{folder}/shard/deep/x"]

    (folder / "y").symlink_to(tmp_path / "gone")
    with pytest.raises(ObjectNotFoundError, match="data/y is a symbolic link that leads nowhere"):
        store.stat(uri)


def test_a_folder_is_not_read_through_links_out_of_the_claim(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "pvc/data/a").mkdir(parents=True)
    (tmp_path / "pvc/data/a/root").symlink_to("/")
    with pytest.raises(TrainerError, match="pvc://data/a/root leads out of its claim"):
        store.stat(parse_uri("pvc://data/a"))


def test_a_file_that_changes_while_it_is_read(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a" * (3 << 20))
    [source] = store.stat(parse_uri(f"file://{path}"))
    with store.open(source) as stream:
        stream.read(10)
        path.write_bytes(b"b" * (3 << 20))
        with pytest.raises(ObjectReplacedError):
            stream.read()
    with pytest.raises(ObjectReplacedError):
        store.download(source, tmp_path / "target", lambda _: None)
    assert not (tmp_path / "target").exists()


def test_of_racing_writers_exactly_one_wins(store: LocalStore, tmp_path: Path) -> None:
    uri = parse_uri(f"file://{tmp_path}/out/manifest.json")
    won: list[int] = []

    def write(number: int) -> None:
        try:
            store.create(uri, str(number).encode())
        except AlreadyExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read(uri) == str(won[0]).encode()
    store.create(uri, str(won[0]).encode())  # the same bytes are this call's own
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]


def test_of_racing_replacers_exactly_one_wins(store: LocalStore, tmp_path: Path) -> None:
    uri = parse_uri(f"file://{tmp_path}/out/manifest.json")
    store.create(uri, b"before")
    won: list[int] = []

    def write(number: int) -> None:
        try:
            store.replace(uri, str(number).encode(), b"before")
        except ObjectChangedError:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read(uri) == str(won[0]).encode()
    store.replace(uri, str(won[0]).encode(), b"before")  # the same bytes are this call's own
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]


def test_upload_replace_delete(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content")
    uri = parse_uri(f"file://{tmp_path}/new/deep/x")
    moved: list[int] = []
    store.upload(tmp_path / "source", uri, moved.append)
    assert (store.read(uri), sum(moved)) == (b"content", 7)
    store.replace(uri, b"other")
    assert store.read(uri) == b"other"
    store.delete(uri)
    store.delete(uri)
    assert store.read(uri) is None
    assert not (tmp_path / "new").exists(), "folders made for the object go with it"


def test_deleting_leaves_folders_of_others(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    uri = parse_uri(f"file://{tmp_path}/theirs/x")
    store.create(uri, b"x")
    store.delete(uri)
    assert (tmp_path / "theirs").is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(TrainerError) as raised:
        store.create(parse_uri(f"file://{tmp_path}/closed/x"), b"x")
    assert raised.value.reason is FailureReason.STORAGE_ACCESS_DENIED


def test_a_full_disk_has_its_reason() -> None:
    with pytest.raises(TrainerError) as raised, _reasons("writing", parse_uri("file:///dev/full")):
        Path("/dev/full").write_bytes(b"x")
    assert raised.value.reason is FailureReason.DISK_FULL
