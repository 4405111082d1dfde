"""The faults that a BMU remembers across restarts until a named person clears them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Latch(Enum):
    """One remembered fault."""

    WELD_PLUS = "weld_plus"
    WELD_MINUS = "weld_minus"
    EMERGENCY_STOP = "emergency_stop"
    FIRE = "fire"
    INSULATION = "insulation"
    HVIL_OPEN = "hvil_open"
    PRECHARGE_FAILED = "precharge_failed"


WELDS = frozenset({Latch.WELD_PLUS, Latch.WELD_MINUS})


@dataclass(frozen=True, slots=True)
class Clearing:
    """Who cleared which latches, and when (loop seconds)."""

    at: float
    by: str
    latches: frozenset[Latch]


class LatchStore(Protocol):
    """Memory that outlives a restart."""

    def load(self) -> frozenset[Latch]:
        """What was saved last; empty if nothing ever was."""

    def save(self, latches: frozenset[Latch]) -> None:
        """Replace what is stored, at once and as a whole."""
