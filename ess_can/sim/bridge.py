"""Connects the simulated wire with a bus outside: what happens on one happens on the other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush

from ess_can.bus.clock import Cycle
from ess_can.bus.port import Bus
from ess_can.can.frame import CanFrame, arbitration_field
from ess_can.errors import BusError, TransmitQueueFull
from ess_can.sim.controller import QueueOrder
from ess_can.sim.wire import Wire

OUTSIDE = "outside"
"""What the controller of everybody on the bus outside is called on the simulated wire."""

_DEPTH_INSIDE = 4096
_DEPTH_OUTSIDE = 256
_IN_FLIGHT = 4
"""Frames given to the bus outside and not confirmed: they keep it busy, and a more urgent one waits for no more."""
_RETRY_S = 0.002
_PATIENCE_S = 0.25
"""A frame that has waited for so long is dropped: what it says may not be true any more."""


class Bridge:
    """Repeats every frame of the simulated wire on `bus`, and every frame of `bus` on the wire.

    The plant keeps its own pace: a frame from outside takes its time on the simulated wire, too.  Frames that wait, on
    either side, do so in the order of their identifiers, as those of several nodes.  While the bus outside has no room
    they are offered again.  `lost` counts the frames that one side could not take.

    `on_traffic` is called with the loop time of every frame that came from the bus outside, or that it confirmed.
    """

    def __init__(self, wire: Wire, bus: Bus) -> None:
        self.lost = 0
        self.on_traffic: Callable[[float], None] | None = None
        self._inside = wire.controller(OUTSIDE, depth=_DEPTH_INSIDE, order=QueueOrder.PRIORITY)
        self._outside = bus
        self._waiting: list[tuple[int, int, float, CanFrame]] = []  # a heap: field, order, since when
        self._accepted = 0
        self._in_flight = 0
        self._epoch = 0  # of the bus outside: what was under way before it failed is never confirmed
        self._retry = Cycle(_RETRY_S, self._offer)
        self._retrying = False
        self._cancels = (
            self._inside.subscribe(None, self._to_outside),
            bus.subscribe(None, self._to_inside),
            bus.watch(self._on_error),
        )

    def close(self) -> None:
        """Disconnect."""
        for cancel in self._cancels:
            cancel()
        self._retry.stop()
        self._inside.detach()

    def _to_inside(self, frame: CanFrame, at: float) -> None:
        if self.on_traffic is not None:
            self.on_traffic(at)
        self.lost += 1
        with suppress(BusError):
            self._inside.send(frame)
            self.lost -= 1

    def _to_outside(self, frame: CanFrame, at: float) -> None:
        if len(self._waiting) >= _DEPTH_OUTSIDE:
            self.lost += 1
            return
        self._accepted += 1
        heappush(self._waiting, (arbitration_field(frame), self._accepted, at, frame))
        self._offer(at)

    def _offer(self, at: float) -> None:
        """Give the bus outside what it has room for."""
        while self._waiting and self._in_flight < _IN_FLIGHT:
            entry = heappop(self._waiting)
            if at - entry[2] > _PATIENCE_S:
                self.lost += 1
                continue
            self._in_flight += 1
            epoch = self._epoch
            try:
                self._outside.send(entry[3], partial(self._sent, epoch))
            except BusError as error:
                if epoch != self._epoch:
                    continue  # the bus failed under it, and it was counted then
                self._in_flight -= 1
                if isinstance(error, TransmitQueueFull):
                    heappush(self._waiting, entry)
                    self._offer_again_later()
                    return
                self.lost += 1
        if self._retrying:
            self._retrying = False
            self._retry.stop()

    def _offer_again_later(self) -> None:
        if not self._retrying:
            self._retrying = True
            self._retry.start(delay_s=_RETRY_S)

    def _sent(self, epoch: int, at: float) -> None:
        if epoch == self._epoch:
            self._in_flight -= 1
            if self.on_traffic is not None:
                self.on_traffic(at)
            self._offer(at)

    def _on_error(self, error: BusError) -> None:
        if error.ends_use:
            self.lost += self._in_flight
            self._in_flight = 0
            self._epoch += 1
