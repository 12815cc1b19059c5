"""Only what was started here is ended, whatever id it has."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster import processes
from localcluster.errors import ClusterError
from localcluster.home import Home

SHELL = shutil.which("sh") or "/bin/sh"
SLEEP = shutil.which("sleep") or "/bin/sleep"

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "plane")
    home.create()
    yield home
    for pid in list(processes.marked(home)):
        processes.kill(pid, processes.start_time(pid))


def wait_marked(home: Home, count: int) -> list[int]:
    deadline = time.monotonic() + 5
    while len(found := list(processes.marked(home))) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_starts_and_ends(home: Home) -> None:
    process = processes.start(home, "sleeper", [SLEEP, "60"])
    assert process.is_running()
    assert processes.recorded(home, "sleeper") == process
    processes.stop(process, grace=5)
    assert not process.is_running()


def test_kills_what_ignores_the_request(home: Home) -> None:
    process = processes.start(home, "stubborn", [SHELL, "-c", "trap '' TERM; echo up; while :; do sleep 1; done"])
    log = processes.log_of(home, "stubborn")
    deadline = time.monotonic() + 5
    while "up" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    processes.stop(process, grace=0.2)
    assert not process.is_running()


def test_another_process_with_the_same_id_lives(home: Home) -> None:
    process = processes.start(home, "sleeper", [SLEEP, "60"])
    path = home.pids / "sleeper.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": process.started - 1}))
    stale = processes.recorded(home, "sleeper")
    assert stale is not None
    assert not stale.is_running()
    processes.stop(stale, grace=0)
    assert not processes.kill(process.pid, process.started - 1)
    assert not processes.send(process.pid, process.started - 1, signal.SIGTERM)
    assert process.is_running()


def test_a_record_of_another_boot_is_stale(home: Home) -> None:
    process = processes.start(home, "sleeper", [SLEEP, "60"])
    path = home.pids / "sleeper.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))
    stale = processes.recorded(home, "sleeper")
    assert stale is not None
    assert not stale.is_running()
    processes.stop(stale, grace=0)
    assert process.is_running()


def test_finds_children_and_the_unrecorded_by_the_marker(home: Home, tmp_path: Path) -> None:
    processes.start(home, "parent", [SHELL, "-c", "sleep 60 & wait"])
    processes.forget(home, "parent")
    assert len(wait_marked(home, 2)) == 2
    assert list(processes.marked(Home(tmp_path / "other"))) == []


def test_starts_again_with_what_it_was_started_with(home: Home) -> None:
    first = processes.start(home, "sleeper", [SLEEP, "60"], {"KEY": "value"})
    assert processes.start_again(home, "sleeper") == first
    processes.stop(first, grace=0)
    second = processes.start_again(home, "sleeper")
    assert (second.argv, second.env) == (first.argv, first.env)
    assert second.is_running()


def test_the_error_of_one_that_ended_quotes_its_last_lines(home: Home) -> None:
    process = processes.start(home, "brief", [SHELL, "-c", "echo the reason; exit 3"])
    deadline = time.monotonic() + 5
    while process.is_running() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(ClusterError, match=r"brief has ended.*\n.*the reason"):
        processes.must_run(home, process)


def test_a_program_that_does_not_exist(home: Home) -> None:
    with pytest.raises(ClusterError, match="cannot start nothing"):
        processes.start(home, "nothing", ["/does/not/exist"])


def test_a_name_with_parentheses_does_not_confuse(home: Home, tmp_path: Path) -> None:
    odd = tmp_path / "a) S (b"
    odd.symlink_to(SLEEP)
    process = processes.start(home, "odd", [str(odd), "60"])
    assert process.is_running()
