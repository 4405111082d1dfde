"""Upgrades in which nothing goes wrong, on every kind of bus and station."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can import resources
from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Invariant
from ess_can.can.timing import BitTiming
from ess_can.cli.embedded import open_sample_upgrade, plant_spec, upgrade_simulated_plant
from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.gateway.plant_view import Connection
from ess_can.gateway.progress import ignore
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.isotp import IsoTpParams
from ess_can.signals.messages import PcsState
from ess_can.sim.parts import FASTER_THAN_WIRE
from ess_can.sim.plant import Plant, PlantSpec
from tests.scenario.support import (
    BMU1,
    BMU2,
    COMM_GATEWAY,
    NEW,
    NODE_INFO_S,
    OLD,
    QUICK,
    Outcome,
    Scene,
    changes_plant,
    play,
    release,
)

WIRE_LIMITS = replace(FASTER_THAN_WIRE, block_bytes=4096)
BUSES = {
    "125k": replace(QUICK, bit_timing=BitTiming(125_000)),
    "250k": replace(QUICK, bit_timing=BitTiming(250_000)),
    "500k": QUICK,
    "1M": replace(QUICK, bit_timing=BitTiming(1_000_000)),
    "FD 500k/2M": replace(
        QUICK, bit_timing=BitTiming(500_000, 2_000_000), isotp=IsoTpParams(tx_dl=64, fd=True, brs=True)
    ),
}


def require_done(outcome: Outcome) -> None:
    outcome.require(Phase.DONE)
    assert outcome.report.error is None
    outcome.require_confirmed(NEW)
    outcome.require_confirmed(OLD, NodeType.COMM_GATEWAY)
    assert outcome.scene.all_connected
    assert not outcome.scene.plant.pcs.locked
    assert not outcome.scene.plant.pcs.remote_control


@pytest.mark.parametrize("bus", BUSES)
def test_every_bit_rate(bus: str) -> None:
    async def after(scene: Scene) -> None:
        await scene.until(lambda: scene.plant.pcs.state is PcsState.RUNNING, 5.0)

    outcome = play(spec=replace(BUSES[bus], flash=WIRE_LIMITS), after=after)
    require_done(outcome)
    for node in outcome.report.nodes:
        assert node.bytes_sent == node.image_bytes
        assert node.wire_efficiency is not None
        assert 0.85 < node.wire_efficiency <= 1.0  # of an image of 21 kB: the fixed costs weigh
    assert all(not contactor.arcs for contactor in outcome.scene.plant.circuit.contactors)


@pytest.mark.parametrize("racks", [1, 3, 4])
def test_every_number_of_racks(racks: int) -> None:
    outcome = play(spec=replace(QUICK, racks=racks))
    require_done(outcome)
    assert len(outcome.report.nodes) == racks
    assert outcome.scene.monitors.closings == racks


def test_as_many_racks_as_the_dbc_has() -> None:
    outcome = play(spec=replace(QUICK, racks=8, speed=20.0), upgrade=release(kib=4))
    require_done(outcome)
    bmus = [node for node in outcome.scene.plant.codec.nodes() if node.node_type is NodeType.BMU]
    assert [node.address for node in outcome.report.nodes] == bmus
    assert outcome.scene.monitors.closings == len(bmus) == 8
    assert all(not contactor.arcs for contactor in outcome.scene.plant.circuit.contactors)


def test_a_comm_gateway_is_upgraded() -> None:
    outcome = play(upgrade=release(NodeType.COMM_GATEWAY))
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW, NodeType.COMM_GATEWAY)
    outcome.require_confirmed(OLD)
    assert outcome.scene.all_connected


def test_a_release_for_both_node_types_programs_in_its_order() -> None:
    outcome = play(upgrade=release(NodeType.COMM_GATEWAY, NodeType.BMU))
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW, NodeType.COMM_GATEWAY)
    outcome.require_confirmed(NEW)
    transfers = [
        scene_step.at for node in (COMM_GATEWAY, BMU1) for scene_step in outcome.scene.steps(NodeStep.TRANSFER, node)
    ]
    assert transfers == sorted(transfers)


def test_nothing_new_boots_before_every_node_is_verified() -> None:
    outcome = play(spec=replace(QUICK, racks=3))
    verified = [step.at for step in outcome.scene.all_steps(NodeStep.VERIFY)]
    trial = [step.at for step in outcome.scene.all_steps(NodeStep.TRIAL_BOOT)]
    confirmed = [step.at for step in outcome.scene.all_steps(NodeStep.CONFIRM)]
    assert (len(verified), len(trial), len(confirmed)) == (3, 3, 3)
    assert max(verified) < min(trial) <= max(trial) < min(confirmed)


def test_the_same_version_again_does_nothing() -> None:
    async def again(scene: Scene) -> None:
        await pause(2.0)
        erased, sent = scene.erased(), len(scene.frames)
        report = await scene.run_upgrade()
        assert (report.result, report.exit_code) == (Phase.NOTHING_TO_DO, 0)
        assert [node.bytes_sent for node in report.nodes] == [0, 0]
        assert scene.erased() == erased
        assert len(scene.frames) > sent
        assert not changes_plant(scene, scene.frames[sent:])
        assert scene.all_connected

    require_done(play(after=again))


def boots(scene: Scene, node: NodeAddress) -> int:
    return scene.plant.nodes[node].boots


def test_a_station_of_which_one_rack_is_up_to_date_upgrades_the_other() -> None:
    async def replace_a_board(scene: Scene) -> None:
        await pause(2.0)
        node, at = scene.plant.nodes[BMU1], scene.plant.wire.loop.time()
        record = node.records.boot.load()
        assert record is not None
        node.power_off(at)
        node.records.boot.store(replace(record, active_bank=1 - record.active_bank, security_counter=1))
        node.power_on()
        await pause(3.0)
        assert scene.plant.versions()[BMU1] == OLD
        report = await scene.run_upgrade(config=GatewayConfig(scene.plant.addresses, afterwards=Afterwards.CONNECT))
        assert report.result is Phase.DONE
        assert {str(node.address): node.from_version for node in report.nodes} == {"bmu1": OLD, "bmu2": NEW}
        assert (boots(scene, BMU1), boots(scene, BMU2)) == (4, 2)

    outcome = play(config=held_open, after=replace_a_board, breaks=frozenset({Invariant.ROLLBACK_COUNTER}))
    outcome.require_confirmed(NEW)
    assert outcome.scene.all_connected


def held_open(plant: Plant) -> GatewayConfig:
    return GatewayConfig(plant.addresses, afterwards=Afterwards.HOLD_OPEN)


def test_a_plant_that_was_held_open_is_reconnected_when_asked_even_with_nothing_to_upgrade() -> None:
    async def reconnect(scene: Scene) -> None:
        report = await scene.run_upgrade(config=GatewayConfig(scene.plant.addresses, afterwards=Afterwards.CONNECT))
        assert report.error is None, report.error
        assert report.result is Phase.DONE
        assert (report.hv_before, report.hv_after) == (Connection.OPEN, Connection.CONNECTED)

    outcome = play(config=held_open, after=reconnect)
    assert outcome.scene.all_connected
    assert outcome.scene.plant.pcs.state is PcsState.RUNNING


def test_a_partly_connected_plant_is_refused() -> None:
    def open_one(plant: Plant) -> None:
        plant.racks[1].power_cycle(0.0)

    outcome = play(prepare=open_one)
    outcome.require(Phase.REFUSED, "PARTLY_CONNECTED", 62)
    assert not changes_plant(outcome.scene)


def test_a_dry_run_changes_nothing() -> None:
    outcome = play(dry_run=True)
    outcome.require(Phase.CHECKED)
    assert outcome.report.dry_run
    assert outcome.report.expected is not None
    assert outcome.report.expected.transfer_s > 0.5
    assert outcome.scene.frames
    assert not changes_plant(outcome.scene)
    assert not outcome.scene.monitors.operations
    outcome.require_confirmed(OLD)
    assert outcome.scene.plant.pcs.state is PcsState.RUNNING


def test_a_plant_that_was_open_stays_open() -> None:
    outcome = play(spec=replace(QUICK, running=False))
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    assert outcome.scene.all_open
    assert outcome.scene.monitors.closings == 0
    assert not outcome.scene.plant.pcs.locked


def test_high_voltage_is_held_open_when_asked() -> None:
    outcome = play(config=held_open)
    outcome.require(Phase.HELD_OPEN, "HELD_OPEN_BY_CHOICE", 102)
    outcome.require_confirmed(NEW)
    assert outcome.scene.all_open
    assert outcome.scene.plant.pcs.locked


def test_the_notice_announces_every_silence() -> None:
    """Whoever watches Node_Info of a node that restarts was told before."""
    outcome = play(spec=replace(QUICK, racks=1))
    require_done(outcome)
    assert outcome.scene.gaps(BMU1), "the restart was not seen"
    for silent_from, silent_to in outcome.scene.gaps(BMU1):
        assert any(begin <= silent_from + NODE_INFO_S and silent_to <= end for begin, end in outcome.scene.announced)


def test_the_real_samples_on_a_quick_bus() -> None:
    upgrade = open_sample_upgrade(resources.sample_path("bmu-1.1.0.essup"))
    spec = replace(plant_spec(1_000_000, True, 8_000_000, 1, 7), link=QUICK.link)
    assert isinstance(spec, PlantSpec)
    run = upgrade_simulated_plant(upgrade, spec, ignore)
    assert run.report.result is Phase.DONE
    assert run.report.nodes[0].to_version == Version(1, 1, 0)
    assert run.report.nodes[0].bytes_sent > 200_000
