"""Look at a station, real or simulated, without changing it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ess_can.cli.bus_options import BusOptions
from ess_can.cli.station_options import StationOptions
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.run import GatewaySetup
from ess_can.gateway.station_master import StationMaster
from ess_can.uds.access import NoAccess

T = TypeVar("T")
Look = Callable[[StationMaster], Awaitable[T]]


def visit(options: BusOptions, station: StationOptions, look: Look[T], *, sim: bool, isotp: str = "auto") -> T:
    """Open the station and look.  The simulated one runs in virtual time."""
    codec = station.codec()
    if sim:
        from ess_can.bus.clock import pause
        from ess_can.cli.embedded import SETTLED_S, make_plant, plant_spec, plant_trace, simulated_setup
        from ess_can.sim.loop import run_virtual

        async def in_simulation() -> T:
            spec = plant_spec(options.bitrate, options.fd, options.data_bitrate, station.racks or 2, seed=1)
            plant = make_plant(spec, codec)
            with plant_trace(plant, options.trace):
                plant.start()
                await pause(SETTLED_S)
                async with simulated_setup(plant).master(plant.gateway_controller()) as master:
                    result = await look(master)
                plant.stop()
            return result

        return run_virtual(in_simulation())

    async def on_bus() -> T:
        config = GatewayConfig(station.expected())
        setup = GatewaySetup(
            codec,
            config,
            NoAccess(),
            options.bit_timing(),
            isotp=options.isotp(),
            transport=options.transport(isotp),
        )
        async with options.opened() as bus, setup.master(bus) as master:
            return await look(master)

    return asyncio.run(on_bus())
