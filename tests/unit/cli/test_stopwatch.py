from __future__ import annotations

import re

from ess_can.cli.stopwatch import Stopwatch, today


def test_it_runs_forward() -> None:
    watch = Stopwatch()
    first = watch.elapsed_s()
    assert 0 <= first <= watch.elapsed_s()


def test_today_is_a_calendar_date() -> None:
    assert re.fullmatch(r"2\d{3}-\d\d-\d\d", today().isoformat())
