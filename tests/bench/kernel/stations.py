"""A small simulated plant behind one controller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from ess_can.bus.clock import Cycle, pause, until
from ess_can.bus.python_can import PythonCanBus, open_bus
from ess_can.bus.station import StationLink
from ess_can.isotp import IsoTpParams
from ess_can.signals.messages import EmsPcsCommand, PcsCommandCode
from ess_can.sim.bridge import Bridge
from ess_can.sim.plant import Plant, PlantSpec
from tests.scenario.support import QUICK, SETTLED_S, small_plant

LIMIT_S = 60.0
PACED = IsoTpParams(block_size=3)
"""QEMU's bus takes no time: longer bursts would overrun the 64-byte receive FIFO of an SJA1000."""
ONE_RACK = replace(QUICK, racks=1, isotp=PACED)


@dataclass
class Station:
    """The plant, and its bridge to the bus outside."""

    plant: Plant
    bridge: Bridge


@asynccontextmanager
async def station(channel: str, spec: PlantSpec = ONE_RACK) -> AsyncIterator[Station]:
    """A running plant, of one rack unless given, on this interface."""
    bus = open_bus("socketcan", channel)
    bus.start()
    plant = small_plant(spec)
    bridge = Bridge(plant.wire, bus)
    plant.start()
    try:
        await pause(SETTLED_S)
        yield Station(plant, bridge)
    finally:
        plant.stop()
        bridge.close()
        bus.close()


@asynccontextmanager
async def opened(channel: str) -> AsyncIterator[PythonCanBus]:
    """A bus on this interface."""
    bus = open_bus("socketcan", channel)
    bus.start()
    try:
        yield bus
    finally:
        bus.close()


@asynccontextmanager
async def high_voltage_off(plant: Plant, bus: PythonCanBus) -> AsyncIterator[None]:
    """Orders alone take high voltage off, and hold it off."""
    link = StationLink(bus, plant.codec)
    order = PcsCommandCode.ZERO_POWER

    def send(_at: float) -> None:
        link.send(EmsPcsCommand(order))

    orders = Cycle(0.05, send)
    orders.start()
    try:
        await pause(1.0)
        order = PcsCommandCode.OPEN
        assert await until(lambda: not any(c.closed for c in plant.circuit.contactors), LIMIT_S)
        order = PcsCommandCode.LOCK
        assert await until(lambda: plant.circuit.link_voltage_v < 60.0, LIMIT_S)
        await pause(0.6)
        yield
    finally:
        orders.stop()
        link.close()
