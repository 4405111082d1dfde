"""How much of the bus others use, measured by listening."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ess_can.bus.clock import now
from ess_can.bus.port import Bus
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, known_duration_s


class BusLoad:
    """Adds up the wire time of all frames that are heard while its context is open."""

    def __init__(self, bus: Bus, timing: BitTiming | None) -> None:
        self._bus = bus
        self._timing = timing
        self._began_at = 0.0
        self._heard_s = 0.0
        self.load = 0.0
        """Share of the time, 0..1, once the context is left; 0 without a known bit timing."""

    def __enter__(self) -> Self:
        self._began_at = now()
        self._unsubscribe = self._bus.subscribe(None, self._count)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unsubscribe()
        listened_s = now() - self._began_at
        self.load = min(self._heard_s / listened_s, 1.0) if listened_s > 0.0 else 0.0

    def _count(self, frame: CanFrame, _at: float) -> None:
        if self._timing is not None:
            self._heard_s += known_duration_s(frame, self._timing) or 0.0
