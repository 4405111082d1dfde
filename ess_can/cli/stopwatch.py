"""Wall time, for the reader of a report only: no decision rests on it."""

from __future__ import annotations

import time  # noqa: TID251 - the one place for wall time
from datetime import UTC, date, datetime


class Stopwatch:
    """Seconds of wall time since it was made."""

    def __init__(self) -> None:
        self._began_at = time.perf_counter()

    def elapsed_s(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._began_at


def wall_clock_s() -> float:
    """Seconds since 1970-01-01 UTC, for the time stamps of a trace."""
    return time.time()


def today() -> date:
    """Today's date, against which an upgrade file's expiry is checked."""
    return datetime.now(UTC).date()  # noqa: TID251 - an expiry date is a calendar date


def wall_clock() -> datetime:
    """Date and time in UTC, for the entries of a journal."""
    return datetime.now(UTC)  # noqa: TID251 - when something was done, for people
