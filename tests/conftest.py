"""What all tests share: how properties are tried, and settings that are known without their plugin."""

import pytest
from hypothesis import settings

# A run of CI tries what the last one tried, and no example is judged by the clock.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=400)
settings.register_profile("explore", deadline=None, max_examples=10_000)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """The settings of pytest-asyncio are known where it is not installed: `make test-unit` has no asynchronous test."""
    if not pluginmanager.has_plugin("asyncio"):
        parser.addini("asyncio_mode", "of pytest-asyncio")
        parser.addini("asyncio_default_fixture_loop_scope", "of pytest-asyncio")
