"""Writes files that appear only when they are complete: a temporary file in the same directory is renamed."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Yields an unused path in the target's directory. At the end, removes a file that is at this path.

    The directory is created when it is missing.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def partial_file(target: Path) -> Iterator[Path]:
    """Yields a temporary path. At the end, renames the file to `target`. After an exception, removes the file."""
    with beside(target) as path:
        yield path
        path.replace(target)
