"""The PCS on the station bus."""

from __future__ import annotations

from contextlib import suppress

from ess_can.bus.clock import Cycle
from ess_can.bus.station import Received, StationLink
from ess_can.errors import BusError
from ess_can.signals.dbc import StationCodec
from ess_can.signals.messages import EmsPcsCommand, PcsStatus
from ess_can.sim.controller import Controller
from ess_can.sim.pcs import Pcs


class PcsNode:
    """Gives `Pcs` its orders and sends its status."""

    def __init__(self, pcs: Pcs, controller: Controller, codec: StationCodec) -> None:
        self.pcs = pcs
        self.controller = controller
        self._link = StationLink(controller, codec)
        self._status = Cycle(codec.route(PcsStatus).cycle_s or 0.05, self._send_status)

    def power_on(self) -> None:
        """Begin to listen and to send."""
        self.controller.attach()
        self._link.subscribe(EmsPcsCommand, self._on_command)
        self._status.start(delay_s=0.002)

    def power_off(self) -> None:
        """Fall silent.  The contactor and the lock are the PCS's own matter."""
        self._status.stop()
        self._link.close()
        self.controller.detach()

    def restart(self, now: float) -> None:
        """Restart the PCS's control: see `Pcs.restart`."""
        self.pcs.restart(now)

    def _on_command(self, received: Received[EmsPcsCommand]) -> None:
        self.pcs.receive_command(received.message, received.at)

    def _send_status(self, now: float) -> None:
        with suppress(BusError):  # cyclic: the next one comes
            self._link.send(self.pcs.status(now))
