"""The simulated plant as a whole: it runs, it is heard, and it obeys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from ess_can.bus.clock import pause
from ess_can.bus.station import StationLink
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.messages import (
    BmsAlarms,
    BmsCellSummary,
    BmsHvStatus,
    BmsState,
    ContactorState,
    ImageState,
    NodeInfo,
    PcsState,
    PcsStatus,
    RackState,
)
from ess_can.sim.loop import run_virtual
from ess_can.sim.plant import Plant, PlantSpec
from tests.scenario.support import BMU1, BMU2, COMM_GATEWAY, OLD, QUICK, small_plant


def on_plant(script: Callable[[Plant], Awaitable[None]], spec: PlantSpec = QUICK) -> Plant:
    async def run() -> Plant:
        plant = small_plant(spec)
        plant.start()
        await script(plant)
        plant.stop()
        return plant

    return run_virtual(run())


@pytest.mark.parametrize("racks", [1, 2, 3, 4])
def test_a_running_plant_shares_its_current_and_reports_no_alarm(racks: int) -> None:
    async def script(plant: Plant) -> None:
        alarms: list[BmsAlarms] = []
        StationLink(plant.wire.controller("listener"), plant.codec).subscribe(
            BmsAlarms, lambda received: alarms.append(received.message)
        )
        await pause(2.0)
        assert plant.pcs.state is PcsState.RUNNING
        assert all(rack.rack_state is RackState.CLOSED for rack in plant.racks)
        total_a = sum(rack.current_a for rack in plant.circuit.racks)
        assert total_a == pytest.approx(-30_000 / plant.circuit.link_voltage_v, abs=1.0)
        assert len(alarms) >= 15 * racks
        assert not [alarm for alarm in alarms if alarm != BmsAlarms()]

    on_plant(script, replace(QUICK, racks=racks))


def test_an_open_plant_rests() -> None:
    async def script(plant: Plant) -> None:
        await pause(1.0)
        assert plant.pcs.state is PcsState.STANDBY
        assert all(rack.rack_state is RackState.OPEN for rack in plant.racks)
        assert plant.circuit.link_voltage_v < 60.0

    on_plant(script, replace(QUICK, running=False))


def test_everybody_is_heard_with_the_cycle_time_of_the_dbc() -> None:
    async def script(plant: Plant) -> None:
        times: dict[int, list[float]] = {}
        plant.wire.controller("listener").subscribe(
            None, lambda frame, at: times.setdefault(frame.can_id, []).append(at)
        )
        await pause(4.0)
        routes = [plant.codec.node_route(address) for address in plant.addresses]
        routes += [plant.codec.route(kind, rack) for kind in (BmsHvStatus, BmsState, BmsAlarms) for rack in (1, 2)]
        routes.append(plant.codec.route(PcsStatus))
        assert set(times) == {route.can_id for route in routes} | {
            plant.codec.route(BmsCellSummary, rack).can_id for rack in (1, 2)
        }
        for route in routes:
            assert route.cycle_s is not None
            assert len(times[route.can_id]) == pytest.approx(4.0 / route.cycle_s, abs=1.5)

    on_plant(script)


def test_it_says_what_it_is() -> None:
    async def script(plant: Plant) -> None:
        heard: dict[NodeAddress, NodeInfo] = {}
        StationLink(plant.wire.controller("listener"), plant.codec).subscribe(
            NodeInfo,
            lambda received: heard.update({NodeAddress(received.message.node_type, received.index): received.message}),
        )
        await pause(1.0)
        assert set(heard) == {BMU1, BMU2, COMM_GATEWAY} == set(plant.addresses)
        assert {info.version for info in heard.values()} == {OLD}
        assert {info.image_state for info in heard.values()} == {ImageState.CONFIRMED}
        assert {info.dbc_fingerprint for info in heard.values()} == {plant.codec.fingerprint}
        assert {node: info.hardware_id for node, info in heard.items()} == {BMU1: 0x11, BMU2: 0x11, COMM_GATEWAY: 0x21}
        assert plant.versions() == dict.fromkeys(plant.addresses, OLD)

    on_plant(script)


def test_a_stopped_plant_is_silent_open_and_runs_nothing() -> None:
    async def run() -> None:
        plant = small_plant(QUICK)
        plant.start()
        await pause(1.0)
        plant.stop()
        frames = plant.trace.frames
        await pause(2.0)
        assert plant.trace.frames <= frames + 1  # the one that was on the wire
        assert plant.versions() == {}

    run_virtual(run())


def test_the_racks_state_of_charge_repeats_if_there_are_fewer_values_than_racks() -> None:
    async def script(plant: Plant) -> None:
        assert [round(rack.soc_percent) for rack in plant.circuit.racks] == [40, 41, 40]
        await pause(0.1)

    on_plant(script, replace(QUICK, racks=3, soc_percent=(40.0, 41.0)))


def test_a_rack_that_loses_its_bmu_opens() -> None:
    async def script(plant: Plant) -> None:
        await pause(1.0)
        plant.nodes[BMU1].power_off(plant.wire.loop.time())
        await pause(0.1)
        assert plant.circuit.racks[0].main_plus.feedback is ContactorState.OPEN
        assert plant.circuit.racks[1].main_plus.closed

    on_plant(script)


def test_node_addresses_are_those_of_the_dbc() -> None:
    async def script(plant: Plant) -> None:
        assert [str(address) for address in plant.addresses] == ["bmu1", "bmu2", "bmu3", "bmu4", "comm_gateway"]
        assert {address.node_type for address in plant.addresses} == {NodeType.BMU, NodeType.COMM_GATEWAY}
        await pause(0.01)

    on_plant(script, replace(QUICK, racks=4))
