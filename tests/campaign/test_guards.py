"""Each safety guard is switched off in turn, and the run that is directed at it must say so.

The quick form has a part of them; the slice has all.
"""

from __future__ import annotations

import pytest

from tests.campaign.counts import Count
from tests.campaign.guard import Guard, with_all_guards
from tests.campaign.guards import GUARDS, guards_table
from tests.campaign.scale import chosen


@pytest.mark.parametrize("guard", chosen(GUARDS, quick=120, slice_=len(GUARDS)), ids=lambda guard: guard.name)
def test_a_guard_that_is_off_is_missed(guard: Guard, monkeypatch: pytest.MonkeyPatch, count: Count) -> None:
    assert with_all_guards(guard.run) == "", "with the guard in its place"
    guard.off(monkeypatch)
    wrong = guard.run.wrong()
    assert guard.mark in wrong, wrong or "nobody misses it"
    count("guards switched off, each caught", 1)


def test_no_guard_is_named_twice() -> None:
    names = [guard.name for guard in GUARDS]
    assert len(set(names)) == len(names)


def test_the_table_has_a_row_for_each() -> None:
    assert guards_table().count("\n") == len(GUARDS) + 1
