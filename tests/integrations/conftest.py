"""Programs of others, as they are shipped: Prometheus. A real API server, with the fixtures of tests/component."""

from pathlib import Path

import pytest

from component.conftest import admin, namespace, plane
from prometheus.programs import Programs, programs

__all__ = ["admin", "namespace", "plane"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def prometheus_programs() -> Programs:
    """prometheus and promtool."""
    return programs()
