"""What the tests in the QEMU guest share: interfaces that are up, and figures that are printed at the end."""

from __future__ import annotations

import pytest

from tests.bench.kernel.links import CONTROLLERS, VCAN, link

_figures: list[str] = []


@pytest.fixture(autouse=True)
def links() -> None:
    """Every interface is up, whatever a test before left."""
    for name in (*CONTROLLERS, VCAN):
        link(name, "up")


@pytest.fixture
def figures() -> list[str]:
    """Lines to be printed at the end."""
    return _figures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Each on a line of its own, for `run_kernel.py --figures`."""
    for figure in _figures:
        terminalreporter.write_line(f"FIGURE {figure}")
