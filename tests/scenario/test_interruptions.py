"""Nodes, gateway or adapter that go away in the middle of an upgrade, and come back or do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.bus.clock import Cycle, pause
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.errors import EssCanError, PlantLocked
from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.gateway.plant_view import Connection
from ess_can.identity import NodeType
from ess_can.signals.messages import EmsPcsCommand, EmsUpgradeNotice, PcsCommandCode, PcsState, UpgradePhase
from ess_can.sim.flash import SectorDefect
from ess_can.sim.plant import Plant
from ess_can.uds.target import Nrc
from tests.scenario.support import BMU1, BMU2, NEW, OLD, QUICK, Scene, changes_plant, fill_inactive_banks, play

ONE_RACK = replace(QUICK, racks=1)
FIRST_SECTOR = QUICK.flash.geometry.protected_sectors


def at(scene: Scene) -> float:
    return scene.plant.wire.loop.time()


# --- a node goes away -----------------------------------------------------------------------------


def test_a_node_that_resets_in_mid_transfer_is_resumed_and_not_erased_again() -> None:
    async def reset(scene: Scene) -> None:
        await scene.verified(9000)
        scene.plant.nodes[BMU1].reset(at(scene))

    outcome = play(reset, spec=ONE_RACK)
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    assert len(outcome.scene.steps(NodeStep.ANNOUNCE)) == 1
    resumed = outcome.scene.steps(NodeStep.TRANSFER)[-1].detail
    assert resumed.startswith("resumed at")
    assert int(resumed.split()[-1]) >= 9000 - 9000 % 4096
    assert outcome.report.nodes[0].bytes_sent < 2 * outcome.report.nodes[0].image_bytes


def test_a_node_without_power_for_five_seconds_is_resumed() -> None:
    async def power_cycle(scene: Scene) -> None:
        await scene.verified(9000)
        node = scene.plant.nodes[BMU1]
        node.power_off(at(scene))
        await pause(5.0)
        node.power_on()

    outcome = play(power_cycle, spec=ONE_RACK)
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    assert len(outcome.scene.steps(NodeStep.ANNOUNCE)) == 1


def test_a_node_that_resets_while_it_erases_goes_on_erasing() -> None:
    async def reset(scene: Scene) -> None:
        await scene.step(NodeStep.TRANSFER)
        await pause(0.05)
        assert scene.plant.nodes[BMU1].memory.is_working(at(scene))
        assert scene.erased() == 2
        scene.plant.nodes[BMU1].reset(at(scene))

    outcome = play(reset, spec=ONE_RACK, prepare=fill_inactive_banks)
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    assert len(outcome.scene.steps(NodeStep.ANNOUNCE)) == 2  # announced again: nothing of the image was there
    assert outcome.scene.erased() == 112  # every page of the slot came to its end once, those before the reset too


def test_a_node_that_dies_in_mid_transfer_leaves_the_plant_open() -> None:
    async def die(scene: Scene) -> None:
        await scene.verified(6000)
        scene.plant.nodes[BMU1].power_off(at(scene))

    outcome = play(die)
    outcome.require(Phase.HELD_OPEN, "HELD_OPEN", 101)
    assert outcome.scene.all_open
    assert outcome.scene.plant.pcs.locked
    assert outcome.versions[BMU2] == OLD
    assert not outcome.scene.all_steps(NodeStep.TRIAL_BOOT)


def test_a_bad_sector_is_reported_and_the_old_image_stays() -> None:
    async def wear(scene: Scene) -> None:
        await scene.step(NodeStep.TRANSFER)
        scene.plant.nodes[BMU1].flash.inject_defect(1, FIRST_SECTOR, SectorDefect.REPORTED)

    outcome = play(wear)
    outcome.require(Phase.FAILED, "FLASH_WRITE_FAILED", 91)
    outcome.require_confirmed(OLD)
    assert outcome.scene.all_connected


def test_a_sector_that_loses_bits_silently_is_found_by_reading_back() -> None:
    async def wear(scene: Scene) -> None:
        await scene.step(NodeStep.TRANSFER)
        scene.plant.nodes[BMU1].flash.inject_defect(1, FIRST_SECTOR, SectorDefect.SILENT)

    outcome = play(wear)
    outcome.require(Phase.FAILED, "FLASH_WRITE_FAILED", 91)
    outcome.require_confirmed(OLD)
    assert outcome.scene.all_connected


# --- the operator -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "phase", [Phase.RAMP_DOWN, Phase.OPEN_CONTACTORS, Phase.PROVE_HV_OFF, Phase.PROGRAM, Phase.TRIAL_BOOT]
)
def test_an_interrupted_upgrade_puts_the_plant_back(phase: Phase) -> None:
    async def interrupt(scene: Scene) -> None:
        await scene.phase(phase)
        if phase is Phase.PROGRAM:
            await scene.verified()
        assert scene.upgrade is not None
        scene.upgrade.cancel()

    outcome = play(interrupt)
    if phase is Phase.TRIAL_BOOT:
        outcome.require(Phase.ROLLED_BACK, "ROLLED_BACK", 100)
    else:
        outcome.require(Phase.FAILED, "INTERRUPTED", 3)
    outcome.require_confirmed(OLD)
    assert outcome.scene.all_connected
    assert not outcome.scene.plant.pcs.locked


def test_an_upgrade_interrupted_while_it_confirms_leaves_no_mixed_plant_closed() -> None:
    async def interrupt(scene: Scene) -> None:
        await scene.step(NodeStep.CONFIRM)
        assert scene.upgrade is not None
        scene.upgrade.cancel()

    outcome = play(interrupt)
    versions = {version for address, version in outcome.versions.items() if address.node_type is NodeType.BMU}
    if outcome.scene.all_connected:
        assert len(versions) == 1
    else:
        assert outcome.scene.all_open
    assert outcome.report.exit_code


@pytest.mark.parametrize("step", [None, NodeStep.IDENTIFY])
def test_an_upgrade_interrupted_during_the_check_has_changed_nothing(step: NodeStep | None) -> None:
    changes: list[int] = []

    async def interrupt(scene: Scene) -> None:
        await (pause(0.4) if step is None else scene.step(step))
        assert scene.upgrade is not None
        scene.upgrade.cancel()
        changes.append(len(changes_plant(scene)))
        await pause(1.0)
        changes.append(len(changes_plant(scene)))

    outcome = play(interrupt, spec=replace(ONE_RACK, bit_timing=BitTiming(125_000)))
    outcome.require(Phase.REFUSED, "INTERRUPTED", 3)
    assert changes == [0, 0]


# --- the gateway --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["vanishes", "unplugged"])
def test_a_gateway_that_is_gone_leaves_the_plant_locked_and_another_run_resumes(how: str) -> None:
    async def vanish(scene: Scene) -> None:
        await scene.verified(9000)
        if how == "vanishes":
            scene.gateway.detach()
        else:
            scene.gateway.unplug()

    async def come_back(scene: Scene) -> None:
        await pause(10.0)
        assert scene.all_open
        assert scene.plant.pcs.locked
        assert scene.plant.pcs.state is PcsState.STANDBY
        scene.gateway.attach()
        erases = scene.erased()
        refused = await scene.run_upgrade()
        assert (refused.result, refused.exit_code) == (Phase.REFUSED, PlantLocked.exit_code)
        config = GatewayConfig(scene.plant.addresses, afterwards=Afterwards.CONNECT)
        report = await scene.run_upgrade(config=config)
        assert report.error is None, report.error
        assert report.result is Phase.DONE
        assert (report.hv_before, report.hv_after) == (Connection.OPEN, Connection.CONNECTED)
        assert scene.erased() == erases
        assert any(step.detail.startswith("resumed at") for step in scene.steps(NodeStep.TRANSFER))

    outcome = play(vanish, spec=ONE_RACK, after=come_back)
    outcome.require(Phase.HELD_OPEN, "ADAPTER_LOST", 12)
    outcome.require_confirmed(NEW)
    assert outcome.scene.all_connected


@pytest.mark.parametrize("phase", [Phase.RAMP_DOWN, Phase.OPEN_CONTACTORS, Phase.TRIAL_BOOT, Phase.CONFIRM])
def test_an_adapter_unplugged_in_any_phase_never_closes_anything(phase: Phase) -> None:
    async def unplug(scene: Scene) -> None:
        await scene.phase(phase)
        scene.gateway.unplug()

    async def after(scene: Scene) -> None:
        await pause(70.0)  # longer than a trial

    outcome = play(unplug, spec=ONE_RACK, after=after)
    outcome.require(Phase.HELD_OPEN, "ADAPTER_LOST", 12)
    assert outcome.scene.monitors.closings == 0
    if phase is Phase.TRIAL_BOOT:
        outcome.require_confirmed(OLD)


def test_a_second_gateway_in_mid_upgrade_ends_it() -> None:
    async def intrude(scene: Scene) -> None:
        await scene.verified()
        link = StationLink(scene.plant.wire.controller("intruder"), scene.plant.codec)
        notice = EmsUpgradeNotice(UpgradePhase.PREPARING, NodeType.BMU, 0, 0.0, 0xBEEF)
        link.send(notice)

    outcome = play(intrude)
    assert isinstance(outcome.report.error, EssCanError)
    assert "OTHER_GATEWAY" in (outcome.error, *outcome.why.replace(":", "").split()), outcome.report.error
    outcome.require_confirmed(OLD)


def test_another_master_in_mid_upgrade_ends_it_and_the_bmus_hold_open() -> None:
    async def intrude(scene: Scene) -> None:
        await scene.verified()
        link = StationLink(scene.plant.wire.controller("intruder"), scene.plant.codec)
        cycle = Cycle(0.05, lambda _: link.send(EmsPcsCommand(PcsCommandCode.CLOSE)))
        cycle.start()
        await pause(1.0)
        assert scene.all_open
        cycle.stop()

    outcome = play(intrude)
    assert "ID_CONFLICT" in (outcome.error, *outcome.why.replace(":", "").split()), outcome.report.error
    outcome.require_confirmed(OLD)


@pytest.mark.parametrize("name", ["EMS_HvStatusPoll", "UDS_Request_BMU2", "UDS_Request_COMM_GATEWAY"])
def test_one_frame_that_only_we_should_send_ends_it(name: str) -> None:
    async def intrude(scene: Scene) -> None:
        await scene.verified()
        can_id = next(can_id for can_id, each in scene.plant.codec.gateway_messages.items() if each == name)
        scene.plant.wire.controller("intruder").send(CanFrame(can_id, b"\x02\x3e\x80"))

    outcome = play(
        intrude, spec=ONE_RACK
    )  # nobody else is just sending on these identifiers: that would be a collision
    outcome.require(Phase.HELD_OPEN, "ID_CONFLICT", 17)
    assert name in str(outcome.report.error)
    assert outcome.report.proved_safe
    outcome.require_confirmed(OLD)


# --- what the report says of a plant that was left -------------------------------------------------------


def test_a_node_that_refuses_activation_rolls_all_back() -> None:
    def refused(now: float) -> Nrc | None:
        return Nrc.GENERAL_PROGRAMMING_FAILURE

    def refuse(plant: Plant) -> None:
        plant.nodes[BMU1].activate_on_trial = refused  # type: ignore[method-assign] # this one node only

    outcome = play(prepare=refuse)
    outcome.require(Phase.ROLLED_BACK, "ROLLED_BACK", 100)
    outcome.require_confirmed(OLD)
    assert outcome.scene.all_connected


@pytest.mark.parametrize("phase", [Phase.RAMP_DOWN, Phase.RECONNECT])
def test_a_plant_that_nobody_hears_any_more_is_not_called_safe(phase: Phase) -> None:
    async def unplug(scene: Scene) -> None:
        await scene.phase(phase)
        scene.gateway.unplug()

    outcome = play(unplug, spec=ONE_RACK)
    outcome.require(Phase.HELD_OPEN, "ADAPTER_LOST", 12)
    assert not outcome.report.proved_safe
    assert outcome.report.hv_after in (Connection.UNKNOWN, outcome.report.hv_before, Connection.OPEN)


def test_a_plant_that_is_held_open_is_proved_so() -> None:
    async def stop(scene: Scene) -> None:
        await scene.verified(9000)
        scene.plant.hardware[0].insulation_fault = True

    outcome = play(stop, spec=ONE_RACK)
    assert outcome.report.result is Phase.HELD_OPEN
    assert outcome.report.proved_safe
    assert (outcome.report.hv_before, outcome.report.hv_after) == (Connection.CONNECTED, Connection.OPEN)
    assert outcome.scene.all_open


@pytest.mark.parametrize("after_s", [0.0, 0.3, 1.0])
def test_a_failure_is_not_hidden_by_holding_open_on_request(after_s: float) -> None:
    async def interrupt(scene: Scene) -> None:
        await scene.step(NodeStep.TRANSFER)
        await pause(after_s)
        assert scene.upgrade is not None
        scene.upgrade.cancel()

    def config(plant: Plant) -> GatewayConfig:
        return GatewayConfig(plant.addresses, afterwards=Afterwards.HOLD_OPEN)

    outcome = play(interrupt, spec=ONE_RACK, config=config)
    outcome.require(Phase.HELD_OPEN, "HELD_OPEN", 101)
    assert "the upgrade was interrupted" in str(outcome.report.error)
    outcome.require_confirmed(OLD)
