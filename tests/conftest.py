"""What all tests share."""

from __future__ import annotations

import pytest

_WITHOUT_COVERAGE = ("tests/interop/", "tests/scenario/", "tests/unit/cli/")
"""Whole upgrades: the cores' coverage has to come from the cores' own tests, and measuring here takes a minute."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(_WITHOUT_COVERAGE):
            item.add_marker(pytest.mark.no_cover)
