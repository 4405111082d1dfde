"""Whole upgrades between two Kvaser PCI controllers with their real driver: can0 is the gateway's, can1 the plant's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.bus.clock import pause
from ess_can.bus.kernel_isotp import IsoTpTransport, KernelIsoTp, UserIsoTp
from ess_can.cli.embedded import simulated_setup
from ess_can.errors import HeldOpen, InterfaceDown
from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.gateway.progress import Event, NodeStepEntered, Noted
from ess_can.gateway.run import upgrade_station
from ess_can.isotp import IsoTpParams
from ess_can.journal.journal import Journal
from ess_can.sim.parts import STM32H743
from tests.bench.kernel.links import CONTROLLERS, VCAN, link
from tests.bench.kernel.slow_time import FACTOR, run_slowly
from tests.bench.kernel.stations import opened, station
from tests.scenario.support import NEW, QUICK, release

GATEWAY, PLANT = CONTROLLERS
TRANSPORTS = pytest.mark.parametrize(
    "transport", [UserIsoTp(), KernelIsoTp(GATEWAY)], ids=lambda transport: type(transport).__name__
)


@TRANSPORTS
def test_an_upgrade(transport: IsoTpTransport, figures: list[str]) -> None:
    async def run() -> None:
        async with station(PLANT) as behind, opened(GATEWAY) as bus:
            setup = replace(simulated_setup(behind.plant), transport=transport)
            report = await upgrade_station(bus, release(kib=8), setup, journal=Journal.in_memory())
            assert (report.result, report.error) == (Phase.DONE, None)
            (node,) = report.nodes
            assert behind.plant.versions()[node.address] == NEW
            assert behind.bridge.lost == 0
            figures.append(
                f"upgrade of 8 KiB, kvaser_pci, {type(transport).__name__}: transfer {node.transfer_s * FACTOR:.2f} s "
                f"(plant slowed {FACTOR:g} times)"
            )

    run_slowly(run())


def test_two_nodes_at_the_same_time(figures: list[str]) -> None:
    """Each by a channel of its own, in requests that share what may not be stopped."""
    transport = KernelIsoTp(VCAN)
    # vcan takes no time: without flow control a whole request to one node would wait in front of the other's.
    spec = replace(QUICK, racks=2, flash=STM32H743, isotp=IsoTpParams(block_size=8))

    async def run() -> None:
        async with station(VCAN, spec) as behind, opened(VCAN) as bus:
            setup = replace(simulated_setup(behind.plant), transport=transport)
            notes: list[str] = []

            def on_progress(event: Event) -> None:
                if isinstance(event, Noted):
                    notes.append(event.text)

            report = await upgrade_station(
                bus, release(kib=28), setup, journal=Journal.in_memory(), on_progress=on_progress
            )
            assert (report.result, report.error) == (Phase.DONE, None), notes
            assert [behind.plant.versions()[node.address] for node in report.nodes] == [NEW, NEW]
            assert behind.bridge.lost == 0
            first, second = (node.transfers for node in report.nodes)
            assert any(max(a[0], b[0]) < min(a[1], b[1]) for a in first for b in second), "one after the other"
            figures.append(
                f"upgrade of two nodes, 28 KiB each, vcan, {type(transport).__name__}: "
                f"transfers {2 * FACTOR * report.transfer_s:.2f} s (plant slowed {2 * FACTOR:g} times)"
            )

    run_slowly(run(), 2 * FACTOR)


def test_the_interface_goes_down_in_between_and_up_again() -> None:
    transport = KernelIsoTp(GATEWAY)

    async def run() -> None:
        events: list[Event] = []

        def on_progress(event: Event) -> None:
            events.append(event)
            if isinstance(event, NodeStepEntered) and event.step is NodeStep.TRANSFER:
                link(GATEWAY, "down")

        async with station(PLANT) as behind:
            setup = replace(simulated_setup(behind.plant), transport=transport)
            async with opened(GATEWAY) as bus:
                report = await upgrade_station(
                    bus, release(kib=8), setup, journal=Journal.in_memory(), on_progress=on_progress
                )
            assert isinstance(report.error, InterfaceDown | HeldOpen), report.error
            assert "down" in str(report.error)
            assert report.result in (Phase.HELD_OPEN, Phase.FAILED)
            assert any(isinstance(e, NodeStepEntered) and e.step is NodeStep.TRANSFER for e in events)
            link(GATEWAY, "up")
            await pause(1.0)
            config = GatewayConfig(behind.plant.addresses, afterwards=Afterwards.CONNECT)
            again = replace(simulated_setup(behind.plant, config), transport=transport)
            async with opened(GATEWAY) as bus:
                report = await upgrade_station(bus, release(kib=8), again, journal=Journal.in_memory())
            assert (report.result, report.error) == (Phase.DONE, None)

    run_slowly(run())
