"""The simulated plant as a whole: it runs, it is heard, and it obeys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

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
    EmsPcsCommand,
    ImageState,
    NodeInfo,
    PcsCommandCode,
    PcsState,
    PcsStatus,
    RackState,
)
from ess_can.sim.loop import run_virtual
from ess_can.sim.parts import STM32H743
from ess_can.sim.plant import Part, Plant, PlantSpec
from ess_can.sim.state_files import StateFiles
from tests.scenario.support import BMU1, BMU2, COMM_GATEWAY, OLD, QUICK, image, small_plant, station_codec, verify


def on_plant(script: Callable[[Plant], Awaitable[None]], spec: PlantSpec = QUICK) -> Plant:
    async def run() -> Plant:
        plant = small_plant(spec)
        plant.start()
        await script(plant)
        plant.stop()
        return plant

    return run_virtual(run())


@pytest.mark.parametrize("racks", [1, 2, 4, 8])
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
        assert plant.addresses == (*plant.codec.nodes()[1:], COMM_GATEWAY)
        assert {address.node_type for address in plant.addresses} == {NodeType.BMU, NodeType.COMM_GATEWAY}
        await pause(0.01)

    on_plant(script, replace(QUICK, racks=8))


# --- memories that outlive the process ------------------------------------------------------------


def with_state(folder: Path, script: Callable[[Plant], Awaitable[None]], spec: PlantSpec = QUICK) -> None:
    """Run a plant whose memories are in `folder`.  It ends as a process that is killed: nothing of it is put away."""

    async def run() -> None:
        images = {node_type: image(node_type, OLD, 4) for node_type in (NodeType.BMU, NodeType.COMM_GATEWAY)}
        files = StateFiles(folder, sorted(part.value for part in spec.parts))
        plant = Plant(spec, station_codec(), images, verify, files)
        plant.start()
        await script(plant)
        files.close()

    run_virtual(run())


async def first_life(plant: Plant) -> None:
    assert not plant.restarted
    await pause(1.0)
    assert plant.pcs.state is PcsState.RUNNING


def test_a_plant_that_finds_its_memories_has_lost_power(tmp_path: Path) -> None:
    async def second_life(plant: Plant) -> None:
        assert plant.restarted
        assert not any(contactor.closed for contactor in plant.circuit.contactors)
        assert plant.versions() == {}
        await pause(0.7)
        assert plant.versions() == {}
        await pause(0.2)
        assert plant.versions() == dict.fromkeys((BMU1, BMU2, COMM_GATEWAY), OLD)
        assert [node.memory.running.record.boot_counter for node in plant.nodes.values()] == [2, 2, 2]
        await pause(60.0)
        # Its own control closes nothing: that takes an order.
        assert plant.pcs.state is PcsState.STANDBY
        assert not plant.pcs.locked
        assert [rack.rack_state for rack in plant.racks] == [RackState.OPEN] * 2

    with_state(tmp_path, first_life)
    with_state(tmp_path, second_life)


def test_without_its_memories_it_is_a_new_plant(tmp_path: Path) -> None:
    with_state(tmp_path / "one", first_life)
    with_state(tmp_path / "other", first_life)


def test_a_locked_pcs_stays_locked(tmp_path: Path) -> None:
    async def lock(plant: Plant) -> None:
        ems = StationLink(plant.gateway_controller(), plant.codec)
        await pause(0.5)
        ems.send(EmsPcsCommand(PcsCommandCode.LOCK))
        await pause(0.1)
        assert plant.pcs.locked

    async def look(plant: Plant) -> None:
        await pause(5.0)
        assert plant.pcs.lock_acknowledged

    with_state(tmp_path, lock)
    with_state(tmp_path, look)


def test_challenges_differ_from_start_to_start(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def note(plant: Plant) -> None:
        await pause(0.01)
        seen.append(plant._entropy.randbytes(16))

    for _ in range(3):
        with_state(tmp_path, note)
    assert len(set(seen)) == 3
    with_state(tmp_path / "other", note)
    assert seen[3] == seen[0]


def test_a_part_keeps_its_own_memories_only(tmp_path: Path) -> None:
    found: list[bool] = []

    async def look(plant: Plant) -> None:
        found.append(plant.restarted)
        await pause(0.1)

    for part, files in ((Part.BMS, {"bmu1.mem", "bmu2.mem", "comm_gateway.mem"}), (Part.PCS, {"pcs.mem"})):
        spec, folder = replace(QUICK, parts=frozenset({part})), tmp_path / part.value
        with_state(folder, look, spec)
        with_state(folder, look, spec)
        assert {path.name for path in folder.iterdir()} == files | {f"{part.value}.lock"}
    assert found == [False, True, False, True]


# --- parts, flash and speed -----------------------------------------------------------------------


def test_only_the_parts_that_are_here_speak() -> None:
    heard: dict[Part, set[int]] = {}

    def listen(part: Part) -> Callable[[Plant], Awaitable[None]]:
        async def script(plant: Plant) -> None:
            ids = heard[part] = set()
            plant.wire.controller("listener").subscribe(None, lambda frame, _: ids.add(frame.can_id))
            await pause(1.0)
            assert plant.addresses == plant.spec.addresses

        return script

    for part in Part:
        on_plant(listen(part), replace(QUICK, parts=frozenset({part})))
    pcs_status = station_codec().route(PcsStatus).can_id
    assert heard[Part.PCS] == {pcs_status}
    assert pcs_status not in heard[Part.BMS]
    assert len(heard[Part.BMS]) == 11


def test_a_pcs_that_is_elsewhere_cannot_be_looked_into() -> None:
    async def script(plant: Plant) -> None:
        await pause(0.1)
        with pytest.raises(RuntimeError, match="elsewhere"):
            _ = plant.pcs

    on_plant(script, replace(QUICK, parts=frozenset({Part.BMS})))


def test_the_flash_is_as_large_as_it_is_told() -> None:
    part = STM32H743.with_slots_of(9 * 128 * 1024)

    async def script(plant: Plant) -> None:
        await pause(0.1)
        assert {node.flash.geometry.slot_size for node in plant.nodes.values()} == {9 * 128 * 1024}

    on_plant(script, replace(QUICK, flash=part))


def test_speed_shortens_flash_and_boot_and_no_cycle() -> None:
    async def script(plant: Plant) -> None:
        times: list[float] = []
        StationLink(plant.wire.controller("listener"), plant.codec).subscribe(
            PcsStatus, lambda received: times.append(received.at)
        )
        await pause(1.0)
        node = plant.nodes[BMU1]
        assert (node.flash.timing.sector_erase_s, node.flash.timing.unit_program_s) == (0.1, 10e-6)
        node.reset(plant.wire.loop.time())
        await pause(0.079)
        assert not node.running
        await pause(0.002)
        assert node.running
        assert len(times) == pytest.approx(1.08 / 0.05, abs=1.5)

    on_plant(script, replace(QUICK, flash=STM32H743, speed=10.0))
