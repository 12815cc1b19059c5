"""A machine that cannot carry a cluster is told why, in one line and without a traceback."""

import os
import platform
from pathlib import Path

import pytest

from localcluster import binaries, cli, cluster, commands, machine, mounts, waiting
from localcluster.errors import ClusterError


def test_not_linux(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert cli.main(["up"]) == 1
    assert "KUBECONFIG" in capsys.readouterr().err


def test_not_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setenv("LOCALCLUSTER_STATE", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for command in ("up", "down"):
        assert cli.main([command]) == 1
        assert "sudo" in capsys.readouterr().err


def test_another_node_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_programs", lambda: iter([(7, "bash"), (8, "kubelet")]))
    with pytest.raises(ClusterError, match="pid 8"):
        machine.require_no_other_node(ours=set())
    machine.require_no_other_node(ours={8})


def test_no_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOCALCLUSTER_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"Go 1\.26 or newer"):
        binaries.build(binaries.COREDNS)


def test_go_that_is_too_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho go1.19.8\n")
    go.chmod(0o755)
    monkeypatch.setenv("LOCALCLUSTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ClusterError, match=r"not go1\.19\.8"):
        binaries.build(binaries.COREDNS)


def test_programs_are_cached_by_their_pins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOCALCLUSTER_CACHE", str(tmp_path))
    monkeypatch.setattr(binaries, "_MODULES", tmp_path)
    (tmp_path / "coredns").mkdir()
    (tmp_path / "coredns" / "go.mod").write_text("module a")
    (tmp_path / "coredns" / "go.sum").write_text("one")
    before = binaries.COREDNS.folder
    assert before == binaries.COREDNS.folder
    (tmp_path / "coredns" / "go.sum").write_text("two")
    assert binaries.COREDNS.folder != before


def test_no_cluster_is_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setenv("LOCALCLUSTER_STATE", str(tmp_path))
    assert cluster.find() is None
    assert cli.main(["env"]) == 1
    assert "make cluster" in capsys.readouterr().err


def test_a_failed_program_is_quoted() -> None:
    with pytest.raises(ClusterError, match="failed with 3: the reason"):
        commands.run(["sh", "-c", "echo the reason >&2; exit 3"])


def test_a_program_that_takes_too_long_is_ended() -> None:
    with pytest.raises(ClusterError, match="did not end"):
        commands.run(["sleep", "60"], timeout=0.1)
    with pytest.raises(ClusterError, match="did not end"):
        commands.run(["sleep", "60"], timeout=0.1, tick=lambda _: None)


def test_output_is_whole_while_ticking() -> None:
    ticks: list[int] = []
    out = commands.run(["sh", "-c", "cat; sleep 1.2; echo end"], stdin="begin\n", tick=ticks.append)
    assert out == "begin\nend\n"
    assert ticks


def test_waiting_says_what_it_saw_last() -> None:
    with pytest.raises(ClusterError, match="for the moon; it is day"):
        waiting.wait_for("the moon", lambda: None, timeout=0, seen=lambda: "it is day")


def test_mount_points_with_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "1 0 0:1 / /x rw - tmpfs t rw\n2 1 0:2 / /x/a\\040b rw - tmpfs t rw\n3 1 0:2 / /xy rw - tmpfs t rw\n"
    monkeypatch.setattr(Path, "read_text", lambda _: lines)
    assert mounts.below(Path("/x")) == [Path("/x/a b")]
