"""Settings of all tests: Hypothesis profiles, and options of plugins that may not be installed."""

import pytest
from hypothesis import settings

# Every run of CI tries the same examples, and no example has a time limit.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=400)
settings.register_profile("explore", deadline=None, max_examples=10_000)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Registers the settings of pytest-asyncio where it is not installed. `make test-unit` has no asynchronous test."""
    if not pluginmanager.has_plugin("asyncio"):
        parser.addini("asyncio_mode", "of pytest-asyncio")
        parser.addini("asyncio_default_fixture_loop_scope", "of pytest-asyncio")
