"""What unit tests share: a real S3 server, started for the first test that asks, and the mark `extras`.

`pytestmark = pytest.mark.extras` says that a module needs packages beyond requirements/unit.txt. With `-m "not extras"`
it is not even imported, so that the others run where those packages are not. A module without the mark is imported, and
fails there if it needs more.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import s3server


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out the modules that are marked, before they are imported."""
    if config.option.markexpr != "not extras" or collection_path.suffix != ".py":
        return None
    return True if _is_marked(ast.parse(collection_path.read_text(encoding="utf-8"))) else None


def _is_marked(module: ast.Module) -> bool:
    """Whether the whole module has the mark."""
    marks = [
        ast.unparse(statement.value)
        for statement in module.body
        if isinstance(statement, ast.Assign) and [ast.unparse(target) for target in statement.targets] == ["pytestmark"]
    ]
    return any("pytest.mark.extras" in mark for mark in marks)


@pytest.fixture(scope="session")
def s3() -> "Iterator[s3server.S3Server]":
    """A running S3 server; tests keep apart by their keys' prefixes."""
    import s3server

    with s3server.running() as server:
        yield server
