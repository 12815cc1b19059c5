"""The cache's own promises: whole or not there, whoever fills it, and whatever dies meanwhile."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from finetune_trainer.contract.failure import FailureReason, TrainerError
from finetune_trainer.contract.manifest import SourceObject
from finetune_trainer.contract.uri import parse_uri
from finetune_trainer.storage.model_cache import CacheUnusableError, ModelCache, entry_name
from finetune_trainer.storage.model_view import COPIED_BYTES, ChangedError, model_view

CONTENT = {"config.json": b"{}", "model.safetensors": b"weights" * 1000}
COMMIT = "f5db02db724555f92da89c216ac04704f23d4590"
MODEL = parse_uri("hf://meta-llama/Llama-2-7b-hf")
OBJECTS = [
    SourceObject(uri=f"{MODEL}/{name}", size=len(content), sha256=hashlib.sha256(content).hexdigest(), revision=COMMIT)
    for name, content in CONTENT.items()
]


def cache(root: Path, *, later: timedelta = timedelta(0), leave: Callable[[], object] = lambda: None) -> ModelCache:
    return ModelCache(root=root, now=lambda: datetime.now(UTC) + later, raise_if_stopping=leave)


def fill(folder: Path) -> None:
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)


def never(folder: Path) -> None:
    raise AssertionError("it is there already")


def whole(folder: Path) -> bool:
    return {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT


def test_the_name_of_an_entry_tells_model_and_commit(tmp_path: Path) -> None:
    folder = cache(tmp_path).entry(MODEL, OBJECTS, fill)

    assert folder.name.startswith("meta-llama--Llama-2-7b-hf--f5db02db7245-")
    assert cache(tmp_path).entry(MODEL, list(reversed(OBJECTS)), never) == folder
    names = {
        entry_name(MODEL, objects)
        for objects in (
            OBJECTS,
            OBJECTS[:1],
            [item.model_copy(update={"revision": "a" * 40}) for item in OBJECTS],
            [item.model_copy(update={"sha256": "b" * 64}) for item in OBJECTS],
            [item.model_copy(update={"size": 1}) for item in OBJECTS],
        )
    }
    assert len(names) == 5
    odd = entry_name(parse_uri("s3://bucket/.hidden/a b/é" + "x" * 300), OBJECTS)
    assert len(odd.encode()) < 200
    assert not set(odd) & set("/ \0é")


@pytest.mark.parametrize("length", [1, 7000])
def test_damage_is_seen_by_content_where_it_is_known(tmp_path: Path, length: int) -> None:
    folder = cache(tmp_path).entry(MODEL, OBJECTS, fill)
    (folder / "model.safetensors").write_bytes(b"x" * length)
    before = folder.stat().st_ino

    assert cache(tmp_path).entry(MODEL, OBJECTS, fill) == folder
    assert whole(folder)
    assert folder.stat().st_ino == before, "a pod that is about to open files finds them"


def test_of_two_that_fill_at_once_one_is_first(tmp_path: Path) -> None:
    both, filled, found = threading.Barrier(2), [], []

    def slowly(folder: Path) -> None:
        fill(folder)
        filled.append(folder)
        both.wait(30)

    def pod() -> None:
        found.append(cache(tmp_path).entry(MODEL, OBJECTS, slowly))

    threads = [threading.Thread(target=pod) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(filled)) == 2
    assert found == [tmp_path / entry_name(MODEL, OBJECTS)] * 2
    assert whole(found[0])
    assert list(tmp_path.iterdir()) == [found[0]]


def test_of_two_that_repair_at_once_one_is_first(tmp_path: Path) -> None:
    entry = tmp_path / entry_name(MODEL, OBJECTS)
    entry.mkdir()
    (entry / "config.json").write_bytes(b"damaged")

    test_of_two_that_fill_at_once_one_is_first(tmp_path)


def test_a_pod_that_dies_half_way_leaves_no_model(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from unit.storage.test_model_cache import *\n"
        "def dies(folder):\n"
        "    (folder / 'config.json').write_bytes(b'{}')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "cache(Path(sys.argv[1])).entry(MODEL, OBJECTS, dies)\n"
    )
    tests = str(Path(__file__).parents[2])
    path = os.pathsep.join([tests, str(Path(tests).parent / "trainer")])
    dead = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert dead.returncode == -signal.SIGKILL
    [part] = tmp_path.iterdir()

    folder = cache(tmp_path).entry(MODEL, OBJECTS, fill)

    assert whole(folder)
    assert part.exists(), "another pod may still be at it"
    (folder / "config.json").unlink()
    cache(tmp_path, later=timedelta(hours=25)).entry(MODEL, OBJECTS, fill)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_volume_that_fails_meanwhile_is_unusable(tmp_path: Path, code: int) -> None:
    def fails(folder: Path) -> None:
        (folder / "config.json").write_bytes(b"{}")
        raise OSError(code, os.strerror(code))

    with pytest.raises(CacheUnusableError, match=os.strerror(code)):
        cache(tmp_path).entry(MODEL, OBJECTS, fails)

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_under_the_store_is_the_caches(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        raise TrainerError(FailureReason.DISK_FULL, f"no space left for {MODEL}")

    with pytest.raises(CacheUnusableError, match="no space left for hf://meta-llama"):
        cache(tmp_path).entry(MODEL, OBJECTS, fails)


def test_a_model_that_cannot_fit_is_not_begun(tmp_path: Path) -> None:
    huge = [item.model_copy(update={"size": 1 << 60}) for item in OBJECTS]

    with pytest.raises(CacheUnusableError, match="No space left"):
        cache(tmp_path).entry(MODEL, huge, never)


def test_a_pod_that_is_told_to_go_stops_checking(tmp_path: Path) -> None:
    cache(tmp_path).entry(MODEL, OBJECTS, fill)

    def leave() -> None:
        raise TrainerError(FailureReason.PREEMPTED, "told to stop")

    with pytest.raises(TrainerError, match="told to stop"):
        cache(tmp_path, leave=leave).entry(MODEL, OBJECTS, never)


LINKED = {**CONTENT, "model.safetensors": b"w" * (COPIED_BYTES + 1)}


def objects_of(content: dict[str, bytes]) -> list[SourceObject]:
    return [
        SourceObject(uri=f"{MODEL}/{name}", size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in content.items()
    ]


def entry_of(root: Path, content: dict[str, bytes]) -> Path:
    def put(folder: Path) -> None:
        for name, data in content.items():
            (folder / name).write_bytes(data)

    return cache(root).entry(MODEL, objects_of(content), put)


def test_a_loader_sees_the_files_that_the_source_names_and_no_others(tmp_path: Path) -> None:
    parts = {
        "config.json": b"{}",
        "model.safetensors.index.json": b"{}",
        "model-00001-of-00001.safetensors": b"w" * (COPIED_BYTES + 1),
    }
    entry = entry_of(tmp_path / "cache", parts)
    for name in ("model.safetensors", "adapter_config.json", "tokenizer_config.json", "modeling_evil.py"):
        (entry / name).write_bytes(b"added")
    (entry / "folder").mkdir()
    os.mkfifo(entry / "pipe")
    (entry / "chat_template.jinja").symlink_to("/etc/hostname")

    folder = cache(tmp_path / "cache").view(MODEL, objects_of(parts), never, tmp_path / "pod")

    assert {path.name for path in folder.iterdir()} == set(parts)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == parts
    large = {path.name for path in folder.iterdir() if path.is_symlink()}
    assert large == {"model-00001-of-00001.safetensors"}, "weights are not copied"


def test_what_decides_how_a_model_is_loaded_cannot_change_any_more(tmp_path: Path) -> None:
    entry = entry_of(tmp_path / "cache", CONTENT)
    folder = cache(tmp_path / "cache").view(MODEL, objects_of(CONTENT), never, tmp_path / "pod")

    (entry / "config.json").write_bytes(b'{"auto_map": "evil"}')

    assert (folder / "config.json").read_bytes() == CONTENT["config.json"]


@pytest.mark.parametrize("name", LINKED)
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_is_not_taken_for_one(tmp_path: Path, name: str, kind: str) -> None:
    """A link on a shared volume leads into the file system of this pod."""
    entry, same = entry_of(tmp_path / "cache", LINKED), tmp_path / "same"
    (entry / name).rename(same)
    if kind == "link":
        (entry / name).symlink_to(same)
    else:
        os.mkfifo(entry / name)
    filled = []

    def put(folder: Path) -> None:
        filled.append(folder)
        for name, data in LINKED.items():
            (folder / name).write_bytes(data)

    folder = cache(tmp_path / "cache").view(MODEL, objects_of(LINKED), put, tmp_path / "pod")

    assert len(filled) == 1, "it was seen, and replaced"
    assert all((folder / name).is_file() for name in LINKED)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == LINKED
    assert (entry / name).is_file()
    assert not (entry / name).is_symlink()


@pytest.mark.parametrize("name", LINKED)
@pytest.mark.parametrize("what", ["a link", "other content", "gone"])
def test_what_changes_between_check_and_use_is_not_used(tmp_path: Path, name: str, what: str) -> None:
    entry = entry_of(tmp_path / "cache", LINKED)
    match what:
        case "a link":
            (entry / name).rename(tmp_path / "same")
            (entry / name).symlink_to(tmp_path / "same")
        case "other content":
            (entry / name).write_bytes(b"others")
        case _:
            (entry / name).unlink()

    with pytest.raises((ChangedError, FileNotFoundError)):
        model_view(entry, objects_of(LINKED), tmp_path / "pod")


def test_an_entry_that_is_a_link_is_no_entry(tmp_path: Path) -> None:
    elsewhere = entry_of(tmp_path / "elsewhere", CONTENT)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / entry_name(MODEL, OBJECTS)).symlink_to(elsewhere)
    before = {path.name: path.stat().st_ino for path in elsewhere.iterdir()}

    with pytest.raises(CacheUnusableError):
        cache(tmp_path / "cache").view(MODEL, OBJECTS, fill, tmp_path / "pod")

    assert {path.name: path.stat().st_ino for path in elsewhere.iterdir()} == before, "nothing is written through it"


def test_a_filled_entry_needs_no_right_to_write(tmp_path: Path) -> None:
    folder = cache(tmp_path).entry(MODEL, OBJECTS, fill)
    before = [(path, path.stat().st_mtime_ns) for path in (tmp_path, folder, *folder.iterdir())]

    cache(tmp_path, later=timedelta(days=9)).entry(MODEL, OBJECTS, never)

    assert before == [(path, path.stat().st_mtime_ns) for path in (tmp_path, folder, *folder.iterdir())]
