"""The cluster of these tests: that of KUBECONFIG, or a local one that is started here."""

import json
import os
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from cluster.lab import Lab, namespace
from demo import installation
from demo.s3 import s3_client
from finetune_trainer.contract.version import __version__
from localcluster import Target, UnsupportedError, up
from trainer.tiny_model import make_tiny_model

IMAGES = Path(__file__).resolve().parents[2] / "build/images"
ROWS = 64


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """Skips a test that must act on the machine when the cluster is that of KUBECONFIG."""
    try:
        yield
    except UnsupportedError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    """The cluster with S3 and the operator. `make cluster-down`, or the test script, takes a local cluster down."""
    if not os.environ.get("KUBECONFIG"):
        names = ("finetune-operator", "finetune-trainer", "finetune-scripted-trainer", "finetune-test-s3")
        archives = [IMAGES / f"{name}.tar" for name in names]
        missing = [str(path) for path in archives if not path.exists()]
        if missing:
            pytest.fail(f"`make images` has not been run: {', '.join(missing)} missing")
        up(images=archives)
    with Target.current().with_s3(installation.S3_IMAGE) as target:
        installation.install(target)
        yield target
        installation.uninstall(target)


@pytest.fixture(scope="session")
def bucket(target: Target, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bucket with the tiny model and a small data set."""
    name = f"finetune-{uuid.uuid4().hex[:8]}"
    client = s3_client(target.s3)
    client.create_bucket(Bucket=name)
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_model(folder)
    for path in folder.iterdir():
        client.upload_file(str(path), name, f"models/tiny/{path.name}")
    rows = [{"text": f"Question {n}: what is {n} plus one? Answer: {n + 1}."} for n in range(ROWS)]
    body = "".join(json.dumps(row) + "\n" for row in rows)
    client.put_object(Bucket=name, Key="data/train.jsonl", Body=body.encode())
    return name


@pytest.fixture
def lab(target: Target, bucket: str) -> Iterator[Lab]:
    """A new namespace."""
    with namespace(target, f"lab-{uuid.uuid4().hex[:6]}", bucket) as lab:
        yield lab


@pytest.fixture(scope="module")
def shared_lab(target: Target, bucket: str) -> Iterator[Lab]:
    """A namespace for all tests of a module."""
    with namespace(target, f"lab-{uuid.uuid4().hex[:6]}", bucket) as lab:
        yield lab


@pytest.fixture(scope="module")
def scripted(target: Target) -> Iterator[None]:
    """Makes the operator start the scripted trainer instead of the real one, for all tests of a module."""
    installation.set_environment(
        target,
        FINETUNE_TRAINER_IMAGE=target.image(f"finetune-scripted-trainer:{__version__}"),
        FINETUNE_JOB_ENV="FINETUNE_SCENARIO",
    )
    yield
    installation.set_environment(target, FINETUNE_TRAINER_IMAGE=target.image(f"finetune-trainer:{__version__}"))
