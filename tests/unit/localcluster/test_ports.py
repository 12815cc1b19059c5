"""Planes that start at the same time take different ports."""

import subprocess
import sys
from pathlib import Path

from localcluster.ports import choose

LOOPBACK = "127.0.0.1"
TOOLS = Path(__file__).parents[3] / "tools"
OTHER = "from localcluster.ports import choose; print(choose('127.0.0.1', int(input())), flush=True); input()"


def test_port_that_another_process_has_chosen_is_not_free_though_nobody_listens() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OTHER], cwd=TOOLS, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin
        assert other.stdout
        print(23000, file=other.stdin, flush=True)
        theirs = int(other.stdout.readline())

        ours = choose(LOOPBACK, theirs)

        print(file=other.stdin, flush=True)
    assert ours > theirs
    assert choose(LOOPBACK, theirs) == theirs, "it went with its process"


def test_port_may_be_chosen_again_by_the_process_that_has_it() -> None:
    port = choose(LOOPBACK, 23100)

    assert choose(LOOPBACK, port) == port
    assert choose(LOOPBACK, port, taken=[port]) != port
