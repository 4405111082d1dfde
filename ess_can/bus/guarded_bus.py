"""A bus on which streams go on only while somebody says so: a `Bus` around a `Bus`.

A program that was not run for a while goes on where it stood: with the next frame of a message, before any timer of its
own has fired.  So whoever looks after the reason why it may be sent is asked with each frame.
"""

from __future__ import annotations

from collections.abc import Callable

from ess_can.bus.around import BusAround
from ess_can.bus.port import Bus, Sent
from ess_can.can.frame import CanFrame
from ess_can.errors import TransmitQueueFull


class GuardedBus(BusAround):
    """See the module.  `may_go_on` is asked before each bulk frame; None lets all pass."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus)
        self.may_go_on: Callable[[], bool] | None = None

    def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        """Queue a frame, as `Bus.send` says.  Raises TransmitQueueFull for a bulk frame that must not leave now."""
        if bulk and self.may_go_on is not None and not self.may_go_on():
            raise TransmitQueueFull("what allowed this message has ended")
        super().send(frame, on_sent, bulk=bulk)
