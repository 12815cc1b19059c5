"""Programs of others, as they are shipped. Prometheus needs an API server, Kueue a whole cluster.

The fixtures are those of tests/component and tests/cluster.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.conftest import IMAGES, bucket, scripted
from component.conftest import admin, namespace, plane
from demo import installation
from localcluster import Target, cluster, up
from prometheus.programs import Programs, programs

__all__ = ["admin", "bucket", "namespace", "plane", "scripted"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    """The cluster of KUBECONFIG, or a local one, with S3 and the operator. Nothing here needs the trainer's image."""
    started = not os.environ.get("KUBECONFIG") and cluster.find() is None
    if started:
        names = ("finetune-operator", "finetune-scripted-trainer", "finetune-test-s3")
        up(gpus=2, images=[IMAGES / f"{name}.tar" for name in names])
    try:
        with Target.current().with_s3(installation.S3_IMAGE) as target:
            installation.install(target)
            yield target
            installation.uninstall(target)
    finally:
        if started:
            cluster.down()


@pytest.fixture(scope="session")
def prometheus_programs() -> Programs:
    """prometheus and promtool."""
    return programs()
