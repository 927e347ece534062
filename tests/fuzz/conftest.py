"""Schemathesis' plugin makes tests of a schema.  It takes seconds to load, so that it is loaded here only."""

from __future__ import annotations

import pytest
from schemathesis.pytest import plugin


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(plugin)
