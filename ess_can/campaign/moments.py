"""When something happens to an upgrade, as text: ``3.5``, ``PROGRAM+0.2``, ``TRIAL_BOOT+1~4``, ``2:ROLL_BACK+0.1``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from ess_can.gateway.phases import Phase


@dataclass(frozen=True, slots=True)
class Moment:
    """`seconds` after the first upgrade began or, with a `phase`, after an upgrade first entered it.

    With an `attempt`, from 1, only that one counts: the second is what is started after the first has ended or died.
    What lasts only for a time does so for `lasts_s`; without, until everything is healed.
    """

    seconds: float
    phase: Phase | None = None
    lasts_s: float | None = None
    attempt: int | None = None

    @property
    def text(self) -> str:
        """As `parse` reads it."""
        phase = "" if self.phase is None else f"{self.phase.name}+"
        lasts = "" if self.lasts_s is None else f"~{number_text(self.lasts_s)}"
        return f"{attempt_text(self.attempt)}{phase}{number_text(self.seconds)}{lasts}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one.  Raises ValueError."""
        attempt, text = split_attempt(text)
        start, tilde, lasts = text.partition("~")
        phase: Phase | None = None
        if start[:1].isalpha():
            name, plus, start = start.partition("+")
            if name not in Phase.__members__:
                raise ValueError(f"{name!r} is no phase; phases are {', '.join(Phase.__members__)}")
            phase = Phase[name]
            start = start if plus else "0"
        return cls(positive(start), phase, positive(lasts) if tilde else None, attempt)


def attempt_text(attempt: int | None) -> str:
    """What stands before whatever is in one attempt only."""
    return "" if attempt is None else f"{attempt}:"


def split_attempt(text: str) -> tuple[int | None, str]:
    """The attempt, None if there is none, and the rest.  Raises ValueError."""
    attempt, colon, rest = text.partition(":")
    if not colon:
        return None, text
    if not (attempt.isascii() and attempt.isdecimal() and int(attempt)):
        raise ValueError(f"{attempt!r} is no attempt; they are numbered from 1")
    return int(attempt), rest


def positive(text: str) -> float:
    """A finite number that is not negative.  Raises ValueError."""
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{text} is no time or amount")
    return value + 0.0  # never a minus before zero


def number_text(value: float) -> str:
    """The shortest text that reads as this number."""
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
