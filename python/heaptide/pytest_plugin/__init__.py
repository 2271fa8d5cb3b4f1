"""The pytest plugin: ``pytest --heaptide``.

Each test is tracked while its function runs. Markers hold tests to limits (``limit_memory``, ``limit_leaks``,
``limit_leaked_objects``, as in pytest-memray), and a baseline that is committed beside the tests holds them to what
they took before. Options and settings have the names of pytest-memray as well, where that is not installed.
"""

from __future__ import annotations

import pytest

from heaptide.pytest_plugin import _options
from heaptide.pytest_plugin._limits import LeakedObjectsFilterFunction, LeaksFilterFunction, Stack, StackFrame
from heaptide.pytest_plugin._plugin import MARKERS, Plugin

__all__ = ["LeakedObjectsFilterFunction", "LeaksFilterFunction", "Stack", "StackFrame"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options."""
    _options.add(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Markers are always known; tests are tracked when that was asked for."""
    for description in MARKERS.values():
        config.addinivalue_line("markers", description)
    options = _options.Options(config)
    if options.on:
        config.pluginmanager.register(Plugin(config, options), "heaptide_plugin")
