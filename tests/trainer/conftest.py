"""Fixtures of the training tests: one tiny model per session, and runs in this process."""

import os

# Before the first import of torch and of the Hub's client, here and in child processes.
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.runtime import log
from trainer.running import LocalRun
from trainer.tiny_model import make_tiny_model


@pytest.fixture(autouse=True, scope="session")
def _libraries_load_quietly() -> Iterator[None]:
    with log.libraries_quiet():
        yield


@pytest.fixture(autouse=True)
def _libraries_quiet() -> Iterator[None]:
    """Ignores the libraries' warnings about each other. The project's own warnings stay errors."""
    with log.libraries_quiet():
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny base model, which is only read."""
    folder = tmp_path_factory.mktemp("tiny-model")
    make_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Any:
    """The tiny model's tokenizer."""
    from finetune_trainer.model.tokenizer import load_tokenizer

    return load_tokenizer(tiny_model)


@pytest.fixture
def local_run(tiny_model: Path, tmp_path: Path) -> Callable[..., LocalRun]:
    """Returns a function that makes a run with the tiny model and file:// URIs.

    Its keyword arguments are sections of the recipe.
    """

    def make(rows: list[dict[str, Any]], **sections: Any) -> LocalRun:
        return LocalRun.make(tiny_model, tmp_path, rows, **sections)

    return make


@pytest.fixture(scope="session")
def tiny_files(tiny_model: Path) -> dict[str, bytes]:
    """The tiny base model's files by name."""
    return {path.name: path.read_bytes() for path in tiny_model.iterdir()}
