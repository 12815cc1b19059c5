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

CONTENT = {"config.json": b"{}", "model.safetensors": b"weights" * 1000}
COMMIT = "f5db02db724555f92da89c216ac04704f23d4590"
MODEL = parse_uri("hf://meta-llama/Llama-2-7b-hf")
OBJECTS = [
    SourceObject(uri=f"{MODEL}/{name}", size=len(content), sha256=hashlib.sha256(content).hexdigest(), revision=COMMIT)
    for name, content in CONTENT.items()
]


def cache(root: Path, *, later: timedelta = timedelta(0), leave: Callable[[], object] = lambda: None) -> ModelCache:
    return ModelCache(root=root, now=lambda: datetime.now(UTC) + later, leave=leave)


def fill(folder: Path) -> None:
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)


def never(folder: Path) -> None:
    raise AssertionError("it is there already")


def whole(folder: Path) -> bool:
    return {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT


def test_the_name_of_an_entry_tells_model_and_commit(tmp_path: Path) -> None:
    folder = cache(tmp_path).folder(MODEL, OBJECTS, fill)

    assert folder.name.startswith("meta-llama--Llama-2-7b-hf--f5db02db7245-")
    assert cache(tmp_path).folder(MODEL, list(reversed(OBJECTS)), never) == folder
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
    folder = cache(tmp_path).folder(MODEL, OBJECTS, fill)
    (folder / "model.safetensors").write_bytes(b"x" * length)
    before = folder.stat().st_ino

    assert cache(tmp_path).folder(MODEL, OBJECTS, fill) == folder
    assert whole(folder)
    assert folder.stat().st_ino == before, "a pod that is about to open files finds them"


def test_of_two_that_fill_at_once_one_is_first(tmp_path: Path) -> None:
    both, filled, found = threading.Barrier(2), [], []

    def slowly(folder: Path) -> None:
        fill(folder)
        filled.append(folder)
        both.wait(30)

    def pod() -> None:
        found.append(cache(tmp_path).folder(MODEL, OBJECTS, slowly))

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
        "cache(Path(sys.argv[1])).folder(MODEL, OBJECTS, dies)\n"
    )
    tests = str(Path(__file__).parents[2])
    path = os.pathsep.join([tests, str(Path(tests).parent / "trainer")])
    dead = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert dead.returncode == -signal.SIGKILL
    [part] = tmp_path.iterdir()

    folder = cache(tmp_path).folder(MODEL, OBJECTS, fill)

    assert whole(folder)
    assert part.exists(), "another pod may still be at it"
    (folder / "config.json").unlink()
    cache(tmp_path, later=timedelta(hours=25)).folder(MODEL, OBJECTS, fill)
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_volume_that_fails_meanwhile_is_unusable(tmp_path: Path, code: int) -> None:
    def fails(folder: Path) -> None:
        (folder / "config.json").write_bytes(b"{}")
        raise OSError(code, os.strerror(code))

    with pytest.raises(CacheUnusableError, match=os.strerror(code)):
        cache(tmp_path).folder(MODEL, OBJECTS, fails)

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_under_the_store_is_the_caches(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        raise TrainerError(FailureReason.DISK_FULL, f"no space left for {MODEL}")

    with pytest.raises(CacheUnusableError, match="no space left for hf://meta-llama"):
        cache(tmp_path).folder(MODEL, OBJECTS, fails)


def test_a_model_that_cannot_fit_is_not_begun(tmp_path: Path) -> None:
    huge = [item.model_copy(update={"size": 1 << 60}) for item in OBJECTS]

    with pytest.raises(CacheUnusableError, match="No space left"):
        cache(tmp_path).folder(MODEL, huge, never)


def test_a_pod_that_is_told_to_go_stops_checking(tmp_path: Path) -> None:
    cache(tmp_path).folder(MODEL, OBJECTS, fill)

    def leave() -> None:
        raise TrainerError(FailureReason.PREEMPTED, "told to stop")

    with pytest.raises(TrainerError, match="told to stop"):
        cache(tmp_path, leave=leave).folder(MODEL, OBJECTS, never)


def test_a_filled_entry_needs_no_right_to_write(tmp_path: Path) -> None:
    folder = cache(tmp_path).folder(MODEL, OBJECTS, fill)
    before = [(path, path.stat().st_mtime_ns) for path in (tmp_path, folder, *folder.iterdir())]

    cache(tmp_path, later=timedelta(days=9)).folder(MODEL, OBJECTS, never)

    assert before == [(path, path.stat().st_mtime_ns) for path in (tmp_path, folder, *folder.iterdir())]
