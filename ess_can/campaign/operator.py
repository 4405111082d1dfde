"""What a person does on site with a plant that an upgrade does not touch: by the site's own EMS."""

from __future__ import annotations

from contextlib import suppress

from ess_can.bus.clock import Cycle, pause
from ess_can.bus.station import StationLink
from ess_can.errors import BusError
from ess_can.signals.messages import EmsPcsCommand, PcsCommandCode
from ess_can.sim.plant import Plant

_RAMPED_S = 4.0
_OPEN_S = 1.0
_LOCAL_S = 1.0


def partly_connected(plant: Plant) -> bool:
    """Whether some of the plant's main contactors are closed and others are open."""
    circuit = plant.circuit
    closed = {circuit.pcs_contactor.closed}
    for rack in circuit.racks:
        closed |= {rack.main_plus.closed, rack.main_minus.closed}
    return len(closed) > 1


async def disconnect(plant: Plant) -> None:
    """Bring the power to zero and open every contactor, by orders on the station bus; then leave the bus."""
    controller = plant.wire.controller("site EMS")
    link = StationLink(controller, plant.codec)
    order = PcsCommandCode.ZERO_POWER

    def send(_at: float) -> None:
        with suppress(BusError):  # the next one is due shortly
            link.send(EmsPcsCommand(order, upgrade_active=False))

    orders = Cycle(plant.codec.route(EmsPcsCommand).cycle_s or 0.05, send)
    orders.start()
    await pause(_RAMPED_S)
    order = PcsCommandCode.OPEN
    await pause(_OPEN_S)
    orders.stop()
    link.close()
    controller.detach()
    await pause(_LOCAL_S)
