"""An upgrade in real time, in one process, over python-can's virtual interface."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ess_can.bus.clock import pause
from ess_can.bus.python_can import open_bus
from ess_can.cli.embedded import simulated_setup
from ess_can.gateway.phases import Phase
from ess_can.gateway.run import upgrade_station
from ess_can.journal.journal import Journal
from ess_can.sim.bridge import Bridge
from tests.scenario.support import NEW, OLD, QUICK, SETTLED_S, release, small_plant


def test_upgrade_over_a_bridge() -> None:
    async def run() -> None:
        inside, outside = open_bus("virtual", "test_virtual_bus"), open_bus("virtual", "test_virtual_bus")
        try:
            inside.start()
            outside.start()
            plant = small_plant(replace(QUICK, racks=1))
            bridge = Bridge(plant.wire, inside)
            plant.start()
            await pause(SETTLED_S)
            report = await upgrade_station(outside, release(kib=8), simulated_setup(plant), journal=Journal.in_memory())
            assert (report.result, report.error) == (Phase.DONE, None)
            assert {str(node): version for node, version in plant.versions().items()} == {
                "bmu1": NEW,
                "comm_gateway": OLD,
            }
            assert bridge.lost == 0
            for node in report.nodes:
                assert node.wire_efficiency is not None
                assert 0 < node.wire_efficiency < 1.2
            plant.stop()
            bridge.close()
        finally:
            inside.close()
            outside.close()

    asyncio.run(run())
