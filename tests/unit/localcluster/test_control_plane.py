"""Planes that stand side by side: each component has a port of its own, and one that ends is noticed."""

import contextlib
import shutil
import socket
from pathlib import Path

import pytest

from localcluster import control_plane, processes
from localcluster.errors import ClusterError
from localcluster.home import Home

SHELL = shutil.which("sh") or "/bin/sh"


def test_no_two_components_share_a_port_beside_other_planes() -> None:
    with contextlib.ExitStack() as stack:
        # The controller manager must go on to where the scheduler would begin, and etcd to where its peers would.
        for port in (10257, 10258, 12379):
            other = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):  # another plane has it: just as well
                other.bind(("127.0.0.1", port))
        ports = control_plane.choose_ports("127.0.0.1")
    assert sorted(ports) == ["api", "controllers", "etcd", "etcd-peer", "scheduler"]
    assert len(set(ports.values())) == len(ports), ports


def test_a_component_that_ends_is_named_with_its_last_words(tmp_path: Path) -> None:
    home = Home(tmp_path / "plane")
    home.create()
    process = processes.start(home, "kube-scheduler", [SHELL, "-c", "echo bind: address already in use; exit 1"])
    with pytest.raises(ClusterError, match=r"(?s)kube-scheduler has ended.*bind: address already in use"):
        control_plane.wait_serving(home, process, "https://127.0.0.1:1/healthz", tmp_path / "missing.crt")
