"""What every test is given."""

from __future__ import annotations

from itertools import count

import pytest

from tests.campaign.counts import count_cases, pytest_configure, pytest_terminal_summary

__all__ = ["count_cases", "pytest_configure", "pytest_terminal_summary"]

_NUMBER = count(1)


@pytest.fixture(autouse=True)
def _journal_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No command of a test writes to the journal of whoever runs it, or meets that of another test."""
    monkeypatch.setenv("ESS_CAN_JOURNAL", str(tmp_path_factory.getbasetemp() / f"journal-{next(_NUMBER)}"))
