"""Runs a program to its end. A failure becomes an error with the program's own output."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from localcluster.errors import ClusterError

_WORDS = 2000
"""Number of characters of a failed program's output in its error."""
_TICK_SECONDS = 1.0


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
    tick: Callable[[int], None] | None = None,
) -> str:
    """Runs `argv` and returns its standard output.

    `tick` is called every second with the program's process id, to report progress.

    Raises:
        ClusterError: the program is missing, fails, or exceeds its time limit.
    """
    pipe = subprocess.PIPE
    try:
        program = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=env, text=True)
    except FileNotFoundError as missing:
        raise ClusterError(f"{argv[0]} is not installed") from missing
    with program:
        try:
            out, err = _communicate(program, stdin, timeout, tick)
        except BaseException as failure:
            program.kill()
            if isinstance(failure, subprocess.TimeoutExpired):
                raise ClusterError(f"{' '.join(argv)} did not end within {timeout:.0f} s") from failure
            raise
    if program.returncode != 0:
        words = (err.strip() or out.strip())[-_WORDS:]
        raise ClusterError(f"{' '.join(argv)} failed with {program.returncode}: {words}")
    return out


def try_run(argv: Sequence[str], *, timeout: float = 120) -> str | None:
    """Like `run`, but returns None when the program fails."""
    try:
        return run(argv, timeout=timeout)
    except ClusterError:
        return None


def _communicate(
    program: subprocess.Popen[str], stdin: str | None, timeout: float, tick: Callable[[int], None] | None
) -> tuple[str, str]:
    if tick is None:
        return program.communicate(stdin, timeout)
    end = time.monotonic() + timeout
    while True:
        try:
            return program.communicate(stdin, _TICK_SECONDS)
        except subprocess.TimeoutExpired:
            if time.monotonic() > end:
                raise
            stdin = None  # communicate() takes the input in the first call only, and keeps it for the next
            tick(program.pid)
