"""Fixtures of the tests that need a GPU. Without one they are skipped, and nothing heavy is imported."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

ON_CPU = os.environ.get("GPU_TESTS_ON") == "cpu"
"""Tries the tests themselves on a CPU, but for those that ask for the GPU's memory or its clock."""
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of this folder, and skips them where there is no GPU."""
    here = Path(__file__).parent
    own = [item for item in items if here in item.path.parents]
    for item in own:
        item.add_marker(pytest.mark.gpu)
        if not ON_CPU and not any(Path(driver).exists() for driver in _DRIVERS):
            item.add_marker(pytest.mark.skip(reason="this machine has no GPU; GPU_TESTS_ON=cpu tries the tests"))


@pytest.fixture(scope="session")
def device() -> "torch.device":
    """The GPU. One that torch cannot use is a failure, not a reason to skip."""
    import torch

    if ON_CPU:
        return torch.device("cpu")
    assert torch.cuda.is_available(), "there is a GPU, and torch cannot use it: see nvidia-smi for the driver's version"
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def gpu(device: "torch.device") -> "torch.device":
    """The GPU, for what a CPU cannot stand for."""
    if device.type != "cuda":
        pytest.skip("a CPU has no such memory")
    return device


@pytest.fixture(autouse=True)
def _libraries_quiet() -> Iterator[None]:
    """Ignores the libraries' warnings about each other. The project's own warnings stay errors."""
    from finetune_trainer.runtime import log

    with log.libraries_quiet():
        yield


@pytest.fixture(autouse=True)
def _memory_is_given_back(device: "torch.device") -> Iterator[None]:
    yield
    if device.type == "cuda":
        import gc

        import torch

        gc.collect()
        torch.cuda.empty_cache()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny base model, which is only read."""
    from trainer.tiny_model import make_tiny_model

    folder = tmp_path_factory.mktemp("tiny-model")
    make_tiny_model(folder)
    return folder


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path) -> Any:
    """Returns a function that makes a run of the tiny model; its keyword arguments are sections of the recipe."""
    from trainer.running import QUESTIONS, LocalRun

    def make(**sections: Any) -> LocalRun:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return LocalRun.make(tiny_model, folder, QUESTIONS, **sections)

    return make
