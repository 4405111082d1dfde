"""Connects the simulated wire with a bus outside: what happens on one happens on the other."""

from __future__ import annotations

from contextlib import suppress

from ess_can.bus.port import Bus
from ess_can.can.frame import CanFrame
from ess_can.errors import BusError
from ess_can.sim.controller import QueueOrder
from ess_can.sim.wire import Wire

_DEPTH = 4096


class Bridge:
    """Repeats every frame of the simulated wire on `bus`, and every frame of `bus` on the wire.

    The plant keeps its own pace: a frame from outside takes its time on the simulated wire, too.  Frames from outside
    that wait take part in arbitration by their identifiers, as those of the several nodes that may be there.  `lost`
    counts frames that one side could not take.
    """

    def __init__(self, wire: Wire, bus: Bus) -> None:
        self.lost = 0
        self._inside = wire.controller("outside", depth=_DEPTH, order=QueueOrder.PRIORITY)
        self._outside = bus
        self._unsubscribes = (
            self._inside.subscribe(None, self._to_outside),
            bus.subscribe(None, self._to_inside),
        )

    def close(self) -> None:
        """Disconnect."""
        for unsubscribe in self._unsubscribes:
            unsubscribe()
        self._inside.detach()

    def _to_outside(self, frame: CanFrame, _at: float) -> None:
        self.lost += 1
        with suppress(BusError):
            self._outside.send(frame)
            self.lost -= 1

    def _to_inside(self, frame: CanFrame, _at: float) -> None:
        self.lost += 1
        with suppress(BusError):
            self._inside.send(frame)
            self.lost -= 1
