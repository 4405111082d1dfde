"""The port between everything that speaks CAN and whatever carries it.

The simulated wire's controllers and the python-can adapter both implement it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from ess_can.can.frame import CanFrame
from ess_can.errors import BusError

BULK_IN_FLIGHT = 2
"""Bulk frames of all streams together that are on their way and not confirmed: two keep the bus busy, and nothing else
of ours waits behind more."""

Receive = Callable[[CanFrame, float], None]
"""Called with a frame and its receive time in seconds of the running loop."""
Sent = Callable[[float], None]
"""Called with the loop time at which a frame was confirmed as sent on the wire."""


class Bus(Protocol):
    """A CAN bus as one node sees it.  All times are seconds of the running loop; callbacks run on that loop."""

    @property
    def fd(self) -> bool:
        """Whether CAN FD frames may be sent."""

    def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        """Queue a frame.  `on_sent` is called once the frame is confirmed on the wire, and never if it is not.

        `bulk` marks part of a stream: other frames of ours may overtake it, and no more than `BULK_IN_FLIGHT` of all
        streams are with the hardware and not confirmed.  Frames of the same kind leave in the order given.  Raises
        TransmitQueueFull when the queue has no room; AdapterLost, InterfaceDown or BusOff when nothing can be sent.
        """

    def withdraw(self, can_id: int) -> list[CanFrame]:
        """Take back the bulk frames with this identifier that are not with the hardware yet, and give them.

        They are never sent, and `on_sent` is not called: what they are part of was given up.
        """

    def subscribe(self, can_ids: Iterable[int] | None, receive: Receive) -> Callable[[], None]:
        """Deliver frames from others with these identifiers (all if None) until the returned function is called.

        Who subscribed first gets a frame first.
        """

    def adopt(self, can_id: int) -> None:
        """Take frames with this identifier that other sockets of this host send for ours.

        Only who subscribed to everything gets them.  Frames from the bus with it are still those of others.
        """

    def watch(self, on_error: Callable[[BusError], None]) -> Callable[[], None]:
        """Report what goes wrong with the bus, until the returned function is called.

        Errors whose `ends_use` is true (bus-off, adapter lost, interface down, nothing is sent any more) mean that
        what was queued is gone.  The others (error passive) are warnings: the bus goes on.
        """

    def restart(self) -> bool:
        """Have the controller leave bus-off.  False if it neither can be told to from here nor may do so by itself."""
