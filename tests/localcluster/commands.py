"""Runs a program to its end, and turns a failure into a message with the program's own words."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from localcluster.errors import ClusterError

_WORDS = 2000
"""Characters of a failed program's output that its error quotes."""


def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> str:
    """Runs `argv` and returns its standard output; raises `ClusterError` when it fails."""
    try:
        done = subprocess.run(argv, input=stdin, env=env, timeout=timeout, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise ClusterError(f"{argv[0]} is not installed") from missing
    except subprocess.TimeoutExpired as late:
        raise ClusterError(f"{' '.join(argv)} did not end within {timeout:.0f} s") from late
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip())[-_WORDS:]
        raise ClusterError(f"{' '.join(argv)} failed with {done.returncode}: {words}")
    return done.stdout


def try_run(argv: Sequence[str], *, timeout: float = 120) -> str | None:
    """Like `run`, for questions whose failure is an answer: returns None then."""
    try:
        return run(argv, timeout=timeout)
    except ClusterError:
        return None
