"""A bus around a bus that passes everything on: what a `Bus` starts from that only does something of it differently."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ess_can.bus.port import Bus, Receive, Sent
from ess_can.can.frame import CanFrame
from ess_can.errors import BusError


class BusAround:
    """A `Bus` that has everything done by the bus that it is given."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    @property
    def fd(self) -> bool:
        """Whether CAN FD frames may be sent."""
        return self._bus.fd

    def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        """Queue a frame, as `Bus.send` says."""
        self._bus.send(frame, on_sent, bulk=bulk)

    def withdraw(self, can_id: int) -> list[CanFrame]:
        """Take back frames of a stream, as `Bus.withdraw` says."""
        return self._bus.withdraw(can_id)

    def subscribe(self, can_ids: Iterable[int] | None, receive: Receive) -> Callable[[], None]:
        """Deliver frames from others, as `Bus.subscribe` says."""
        return self._bus.subscribe(can_ids, receive)

    def adopt(self, can_id: int) -> None:
        """Take this host's frames with this identifier for ours, as `Bus.adopt` says."""
        self._bus.adopt(can_id)

    def watch(self, on_error: Callable[[BusError], None]) -> Callable[[], None]:
        """Report what goes wrong, as `Bus.watch` says."""
        return self._bus.watch(on_error)

    def restart(self) -> bool:
        """As the bus does it."""
        return self._bus.restart()
