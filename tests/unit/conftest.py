"""Fixtures of the unit tests: a real S3 server, started by the first test that uses it, and the mark `extras`.

`pytestmark = pytest.mark.extras` says that a module needs packages beyond requirements/unit.txt. With `-m "not extras"`
such a module is not imported, so that the other modules run without these packages. A module that needs them without
the mark fails at its import.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import s3server


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skips modules with the mark before they are imported."""
    if config.option.markexpr != "not extras" or collection_path.suffix != ".py":
        return None
    return True if _is_marked(ast.parse(collection_path.read_text(encoding="utf-8"))) else None


def _is_marked(module: ast.Module) -> bool:
    """Returns whether the whole module has the mark."""
    marks = [
        ast.unparse(statement.value)
        for statement in module.body
        if isinstance(statement, ast.Assign) and [ast.unparse(target) for target in statement.targets] == ["pytestmark"]
    ]
    return any("pytest.mark.extras" in mark for mark in marks)


@pytest.fixture(scope="session")
def s3() -> "Iterator[s3server.S3Server]":
    """A running S3 server. Tests use different prefixes of keys."""
    import s3server

    with s3server.running() as server:
        yield server
