"""Latches that live as long as the test."""

from __future__ import annotations

from ess_can.sim.latches import Latch


class MemoryLatchStore:
    """A store that outlives the control object, not the process."""

    def __init__(self) -> None:
        self._latches: frozenset[Latch] = frozenset()

    def load(self) -> frozenset[Latch]:
        """See `LatchStore`."""
        return self._latches

    def save(self, latches: frozenset[Latch]) -> None:
        """See `LatchStore`."""
        self._latches = latches
