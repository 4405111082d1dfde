"""Power that can be taken away at one counted operation of a node's non-volatile memories.

One `PowerCut` is shared by a node's flash and FRAM.  Each programmed flash unit, each erased sector and each written
FRAM byte is one operation, counted in the order in which they take effect, so that a test can enumerate every cut
instead of sampling them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class CutMode(Enum):
    """What becomes of the operation at which power is lost."""

    BEFORE = "before"  # it never began
    PREFIX = "prefix"  # its first part is done, the rest untouched; reads without error
    BITS = "bits"  # a random subset of its bits is done; reads without error
    UNSTABLE = "unstable"  # undecided: reads with an error, or as one value or the other, anew each time
    AFTER = "after"  # it is done, but nobody was told


TEARING = (CutMode.PREFIX, CutMode.BITS, CutMode.UNSTABLE)
"""The modes in which an operation begins and does not end."""


@dataclass(frozen=True, slots=True)
class Admission:
    """How many of the operations asked for take place entirely, and how the one after them is torn, if it is."""

    whole: int
    torn: CutMode | None = None


class PowerCut:
    """A node's supply: unlimited unless armed.  After the cut nothing takes effect until `restore`.

    Whoever depends on it is in `on_cut`, called in the middle of the operation at which power is lost.
    """

    def __init__(self) -> None:
        self.operations = 0
        """Operations that took effect, a torn one included."""
        self.powered = True
        self.on_cut: list[Callable[[], None]] = []
        self._at: int | None = None
        self._mode = CutMode.BEFORE

    def arm(self, at: int, mode: CutMode) -> None:
        """Lose power at the operation with index `at`, counted from now, from 0.  Raises ValueError if negative."""
        if at < 0:
            raise ValueError(f"operation {at} is in the past")
        self._at = self.operations + at
        self._mode = mode

    def disarm(self) -> None:
        """Forget an armed cut."""
        self._at = None

    def restore(self) -> None:
        """Give power back, and forget an armed cut."""
        self.powered = True
        self._at = None

    def admit(self, count: int) -> Admission:
        """Account for `count` operations in a row, as far as power lasts."""
        if not self.powered:
            return Admission(0)
        if self._at is None or self._at >= self.operations + count:
            self.operations += count
            return Admission(count)
        whole = self._at - self.operations + (self._mode is CutMode.AFTER)
        torn = self._mode if self._mode in TEARING else None
        self.operations += whole + (torn is not None)
        self.powered = False
        for tell in self.on_cut:
            tell()
        return Admission(whole, torn)
