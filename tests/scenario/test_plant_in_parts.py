"""BMS and PCS as two simulators that know of each other only what is on the bus; and what becomes of a killed one."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ess_can.bus.clock import pause, until
from ess_can.can.timing import BitTiming
from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import Event
from ess_can.gateway.report import Report
from ess_can.gateway.run import GatewaySetup, upgrade_station
from ess_can.identity import NodeType
from ess_can.journal.journal import Journal
from ess_can.signals.messages import PcsState, RackState
from ess_can.sim.bridge import Bridge
from ess_can.sim.controller import QueueOrder
from ess_can.sim.loop import run_virtual
from ess_can.sim.pcs import PcsFaultCode
from ess_can.sim.plant import Part, Plant, PlantSpec
from ess_can.sim.state_files import StateFiles
from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
from ess_can.sim.wire import Wire
from ess_can.uds.access import CmacAccess
from tests.scenario.support import BMU1, BMU2, COMM_GATEWAY, NEW, OLD, QUICK, image, release, station_codec, verify

IMAGES = {node_type: image(node_type, OLD, 4) for node_type in (NodeType.BMU, NodeType.COMM_GATEWAY)}
ONE_RACK = replace(QUICK, racks=1)
CONFIG = GatewayConfig((BMU1, COMM_GATEWAY))


class Simulator:
    """A process: a plant, or a part of one, on its own wire, and the bridge to the station's."""

    def __init__(self, station: Wire, spec: PlantSpec, folder: Path | None = None) -> None:
        self._folder = folder
        files = None if folder is None else StateFiles(folder, sorted(part.value for part in spec.parts))
        self.plant = Plant(spec, station_codec(), IMAGES, verify, files)
        self._edge = station.controller("simulator", depth=64, order=QueueOrder.PRIORITY)
        self._bridge = Bridge(self.plant.wire, self._edge)
        self.plant.start()

    def kill(self) -> Path | None:
        """Nothing more is heard of it, whatever it did just now.  Gives its files as they are at this instant."""
        self._bridge.close()
        self._edge.detach()
        if self._folder is None:
            return None
        left = self._folder.with_name(self._folder.name + " left")
        shutil.copytree(self._folder, left)
        return left


class Station:
    """The wire between the processes, and a gateway on it."""

    def __init__(self) -> None:
        self.wire = Wire(BitTiming(500_000))
        self.gateway = self.wire.controller("EMS")
        self.events: list[Event] = []

    def simulate(self, *parts: Part, spec: PlantSpec = ONE_RACK, folder: Path | None = None) -> Simulator:
        return Simulator(self.wire, replace(spec, parts=frozenset(parts)), folder)

    async def upgrade(self, config: GatewayConfig = CONFIG, kib: int = 20) -> Report:
        setup = GatewaySetup(station_codec(), config, CmacAccess(TEST_ONLY_ACCESS_SECRET), BitTiming(500_000))
        return await upgrade_station(
            self.gateway, release(kib=kib), setup, journal=Journal.in_memory(), on_progress=self.events.append
        )


def on_station(script: Callable[[Station], Awaitable[None]]) -> None:
    async def run() -> None:
        await script(Station())

    run_virtual(run())


def require_shared_truth(bms: Plant, pcs: Plant) -> None:
    """Both sides see the same circuit."""
    for seen, true in zip(pcs.circuit.racks, bms.circuit.racks, strict=True):
        assert [c.closed for c in seen.contactors] == [c.closed for c in true.contactors]
    assert bms.circuit.pcs_contactor.closed == pcs.circuit.pcs_contactor.closed
    assert bms.circuit.link_voltage_v == pytest.approx(pcs.circuit.link_voltage_v, abs=4.0)
    assert bms.circuit.bridge_current_a == pytest.approx(pcs.circuit.bridge_current_a, abs=0.5)


def rack_states(bms: Plant) -> list[RackState]:
    return [rack.rack_state for rack in bms.racks]


@pytest.mark.parametrize("order", [(Part.BMS, Part.PCS), (Part.PCS, Part.BMS)])
def test_an_upgrade_succeeds_whoever_starts_first(order: tuple[Part, Part]) -> None:
    async def script(station: Station) -> None:
        first = station.simulate(order[0])
        await pause(3.0)
        second = station.simulate(order[1])
        await pause(2.0)
        bms, pcs = (first.plant, second.plant) if order[0] is Part.BMS else (second.plant, first.plant)
        require_shared_truth(bms, pcs)
        assert pcs.pcs.state is PcsState.RUNNING
        assert bms.circuit.racks[0].current_a == pytest.approx(-30_000 / bms.circuit.link_voltage_v, abs=1.0)
        report = await station.upgrade()
        assert (report.result, report.error) == (Phase.DONE, None)
        await pause(2.0)
        require_shared_truth(bms, pcs)
        assert bms.versions() == {BMU1: NEW, COMM_GATEWAY: OLD}
        assert pcs.pcs.state is PcsState.RUNNING
        assert bms.racks[0].rack_state is RackState.CLOSED
        for contactor in (*bms.circuit.contactors, *pcs.circuit.contactors):
            assert contactor.arcs == 0
        assert bms.circuit.racks[0].inrush_a < 300.0  # precharged: 5 % of the voltage across 0.15 Ohm

    on_station(script)


def test_all_racks_of_a_large_plant() -> None:
    async def script(station: Station) -> None:
        spec = replace(ONE_RACK, racks=2)
        bms = station.simulate(Part.BMS, spec=spec).plant
        pcs = station.simulate(Part.PCS, spec=spec).plant
        await pause(2.0)
        require_shared_truth(bms, pcs)
        report = await station.upgrade(GatewayConfig((BMU1, BMU2, COMM_GATEWAY)))
        assert (report.result, report.error) == (Phase.DONE, None)
        await pause(2.0)
        require_shared_truth(bms, pcs)
        assert pcs.pcs.state is PcsState.RUNNING
        assert [rack.rack_state for rack in bms.racks] == [RackState.CLOSED] * 2

    on_station(script)


@pytest.mark.parametrize("killed", [Part.BMS, Part.PCS])
def test_killed_in_mid_transfer_and_started_again_the_upgrade_goes_on(killed: Part, tmp_path: Path) -> None:
    async def script(station: Station) -> None:
        simulators = {part: station.simulate(part, folder=tmp_path / "state") for part in Part}
        await pause(2.0)
        task = asyncio.ensure_future(station.upgrade(kib=60))
        node = simulators[Part.BMS].plant.nodes[BMU1]
        assert await until(lambda: node.running and node.memory.resume_state().verified_offset > 30_000, 60.0)
        left = simulators[killed].kill()
        await pause(2.0)
        again = simulators[killed] = station.simulate(killed, folder=left)
        assert again.plant.restarted
        report = await task
        assert (report.result, report.error) == (Phase.DONE, None)
        bms, pcs = (simulators[part].plant for part in (Part.BMS, Part.PCS))
        await pause(2.0)
        require_shared_truth(bms, pcs)
        assert bms.versions()[BMU1] == NEW
        assert pcs.pcs.state is PcsState.RUNNING
        (told,) = report.nodes
        # The transfer went on where it had ended: little more than the whole was sent, in both attempts together.
        assert told.image_bytes <= told.bytes_sent < told.image_bytes + 20_000

    on_station(script)


def test_a_bms_killed_in_operation_is_an_open_circuit_to_the_pcs(tmp_path: Path) -> None:
    async def script(station: Station) -> None:
        simulators = {part: station.simulate(part, folder=tmp_path / "state") for part in Part}
        pcs = simulators[Part.PCS].plant
        await pause(2.0)
        assert pcs.pcs.state is PcsState.RUNNING
        left = simulators[Part.BMS].kill()
        await pause(0.3)
        assert pcs.pcs.state is PcsState.RUNNING  # nobody can know it yet
        await pause(0.5)
        assert (pcs.pcs.state, pcs.pcs.fault_code) == (PcsState.FAULT, PcsFaultCode.DC_LINK)
        bms = station.simulate(Part.BMS, folder=left).plant
        await pause(8.0)
        require_shared_truth(bms, pcs)
        assert not any(contactor.closed for contactor in bms.circuit.contactors)
        assert bms.circuit.link_voltage_v < 60.0

    on_station(script)


@pytest.mark.parametrize("away_s", [0.8, 7.0])
def test_a_pcs_killed_in_operation_leaves_a_plant_that_opens_and_can_be_upgraded(away_s: float, tmp_path: Path) -> None:
    async def script(station: Station) -> None:
        simulators = {part: station.simulate(part, folder=tmp_path / "state") for part in Part}
        bms = simulators[Part.BMS].plant
        await pause(2.0)
        assert bms.circuit.racks[0].current_a < -30.0
        left = simulators[Part.PCS].kill()
        await pause(0.8)
        assert not bms.circuit.pcs_contactor.closed
        assert abs(bms.circuit.racks[0].current_a) < 1.0  # the bleeder's
        assert rack_states(bms) == [RackState.CLOSED]
        await pause(away_s - 0.8)
        pcs = station.simulate(Part.PCS, folder=left).plant
        await pause(9.0)
        require_shared_truth(bms, pcs)
        assert (pcs.pcs.state, pcs.circuit.pcs_contactor.closed) == (PcsState.STANDBY, False)  # no order, no closing
        assert rack_states(bms) == [RackState.OPEN]
        assert bms.circuit.link_voltage_v < 60.0
        report = await station.upgrade(replace(CONFIG, afterwards=Afterwards.CONNECT))
        assert (report.result, report.error) == (Phase.DONE, None)
        await pause(2.0)
        require_shared_truth(bms, pcs)
        assert bms.versions()[BMU1] == NEW
        assert pcs.pcs.state is PcsState.RUNNING
        assert rack_states(bms) == [RackState.CLOSED]
        assert not any(contactor.arcs for contactor in bms.circuit.contactors)

    on_station(script)


def test_a_plant_in_two_parts_found_open_can_be_connected(tmp_path: Path) -> None:
    async def script(station: Station) -> None:
        first = {part: station.simulate(part, folder=tmp_path / part.value) for part in Part}
        await pause(2.0)
        left = {part: simulator.kill() for part, simulator in first.items()}
        simulators = {part: station.simulate(part, folder=left[part]) for part in Part}
        await pause(2.0)
        report = await station.upgrade(replace(CONFIG, afterwards=Afterwards.CONNECT))
        assert (report.result, report.error) == (Phase.DONE, None)
        await pause(2.0)
        bms, pcs = (simulators[part].plant for part in (Part.BMS, Part.PCS))
        require_shared_truth(bms, pcs)
        assert pcs.pcs.state is PcsState.RUNNING
        assert bms.racks[0].rack_state is RackState.CLOSED

    on_station(script)
