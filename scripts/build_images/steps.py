"""Prints the start and the duration of each long step."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_SHOWN_LINES = 30


class BuildError(Exception):
    """A build cannot continue. The message is for the user."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Prints `what`, and at the end the seconds that it took."""
    print(f"{what} ...", flush=True)
    start = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - start:.1f} s", flush=True)


def run(command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> str:
    """Runs a program to its end. Returns its output.

    Args:
        command: program and arguments.
        environment: the whole environment; None is the caller's.

    Raises:
        BuildError: the program failed. The message has its last lines.
    """
    done = subprocess.run(
        [str(part) for part in command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        last = "\n".join(done.stdout.splitlines()[-_SHOWN_LINES:])
        raise BuildError(f"{Path(command[0]).name} failed with exit code {done.returncode}:\n{last}")
    return done.stdout


def answers(command: Sequence[str], *, seconds: float) -> bool:
    """Returns True when a program exists and succeeds within the time limit."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def fail(message: str) -> int:
    """Prints the message as an error. Returns the exit status."""
    print(f"build-images: {message}", file=sys.stderr)
    return 1
