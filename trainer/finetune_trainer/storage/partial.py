"""Files that appear only when they are whole: written beside their place, then moved into it."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A free path in the target's directory, which is made; whatever is there at the end goes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def partial_file(target: Path) -> Iterator[Path]:
    """A path to write to; it becomes `target` when the block ends well, and goes when it does not."""
    with beside(target) as path:
        yield path
        path.replace(target)
