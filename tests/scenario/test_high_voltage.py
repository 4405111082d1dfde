"""High voltage that does not go off, or does not stay off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from ess_can.bus.clock import now, pause
from ess_can.campaign.monitors import Invariant
from ess_can.can.frame import CanFrame
from ess_can.gateway.config import GatewayConfig, TimeLimits
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.signals.messages import BmsHvNotice, BmsHvStatus, PcsState, PcsStatus
from ess_can.sim.electrical import ContactorFault, LinkSpec
from ess_can.sim.latches import Latch
from ess_can.sim.parts import STM32H743, FlashPart
from ess_can.sim.pcs import PcsFaultCode, PcsFaults
from ess_can.sim.plant import Plant
from ess_can.sim.wire import WireFault
from tests.scenario.emergencies import Course, Strike, require_aborted, struck
from tests.scenario.support import BMU1, NEW, OLD, PART, QUICK, Outcome, Scene, fill_inactive_banks, play


def quick_times(plant: Plant) -> GatewayConfig:
    """A gateway that is less patient, where how long it waits is not the point."""
    times = TimeLimits(ramp_down_s=2.0, discharge_s=2.0, prove_off_s=2.0, permit_regain_s=3.0)
    return GatewayConfig(plant.addresses, times=times)


def require_held_open(outcome: Outcome, cause: str) -> None:
    """Locked and open, whatever the plant would like to do by itself."""
    outcome.require(Phase.HELD_OPEN, "HELD_OPEN", 101)
    assert cause in outcome.why, outcome.why
    outcome.require_confirmed(OLD)
    assert not outcome.scene.all_steps(NodeStep.TRIAL_BOOT)


# --- it does not go off ---------------------------------------------------------------------------


def test_a_pcs_that_ignores_the_ramp_is_not_opened_and_gets_the_plant_back() -> None:
    def prepare(plant: Plant) -> None:
        plant.pcs.faults = PcsFaults(ignores_ramp=True)

    outcome = play(prepare=prepare, config=quick_times)
    outcome.require(Phase.FAILED, "PCS_NOT_STOPPING", 52)
    assert outcome.scene.all_connected
    assert not outcome.scene.monitors.operations
    assert not any(contactor.broken_a for contactor in outcome.scene.plant.circuit.contactors)
    assert not outcome.scene.plant.pcs.remote_control


def test_a_current_sensor_that_sticks_at_zero_during_the_ramp_opens_nothing() -> None:
    async def stick(scene: Scene) -> None:
        await scene.phase(Phase.RAMP_DOWN)
        scene.plant.pcs.faults = PcsFaults(ignores_ramp=True, current_sensor_stuck=True)

    outcome = play(stick, config=quick_times)
    outcome.require(Phase.FAILED, "CURRENT_MISMATCH", 53)
    assert outcome.scene.all_connected
    assert not any(contactor.broken_a for contactor in outcome.scene.plant.circuit.contactors)


@pytest.mark.parametrize("pole", ["main_plus", "main_minus"])
@pytest.mark.parametrize("rack", [0, 1])
def test_a_contactor_that_welds_at_opening_is_found_and_latched(rack: int, pole: str) -> None:
    async def weld(scene: Scene) -> None:
        await scene.phase(Phase.RAMP_DOWN)
        getattr(scene.plant.circuit.racks[rack], pole).fault = ContactorFault.WELDED

    outcome = play(weld)
    require_held_open(outcome, "CONTACTOR_WELDED")
    expected = Latch.WELD_PLUS if pole == "main_plus" else Latch.WELD_MINUS
    assert expected in outcome.scene.plant.racks[rack].latches
    assert not outcome.scene.monitors.operations
    assert outcome.scene.plant.pcs.state is PcsState.STANDBY


def test_a_pcs_contactor_that_does_not_open_ends_the_upgrade() -> None:
    def prepare(plant: Plant) -> None:
        plant.circuit.pcs_contactor.fault = ContactorFault.WELDED

    outcome = play(prepare=prepare)
    outcome.require(Phase.HELD_OPEN, "HELD_OPEN", 101)
    assert not outcome.scene.monitors.operations
    outcome.require_confirmed(OLD)


def test_a_link_that_does_not_discharge_is_held_open() -> None:
    outcome = play(spec=replace(QUICK, link=LinkSpec(bleeder_ohm=1e6)), config=quick_times)
    require_held_open(outcome, "DISCHARGE_TIMEOUT")
    assert not outcome.scene.monitors.operations


def test_a_frozen_link_sensor_is_never_read_as_discharged() -> None:
    async def freeze(scene: Scene) -> None:
        await scene.phase(Phase.OPEN_CONTACTORS)
        for hardware in scene.plant.hardware:
            hardware.freeze_link_sensor()

    outcome = play(freeze, config=quick_times)
    outcome.require(Phase.HELD_OPEN, "HELD_OPEN", 101)
    assert not outcome.scene.monitors.operations


def test_without_the_bmus_notification_nothing_is_programmed_and_the_plant_is_given_back() -> None:
    async def mute(scene: Scene) -> None:
        scene.lose(BmsHvNotice)

    outcome = play(mute, config=quick_times)
    outcome.require(Phase.FAILED, "HV_OFF_NOT_PROVED", 56)
    assert "BMS_HvNotice" in outcome.why
    assert not outcome.scene.monitors.operations
    assert outcome.scene.all_connected


# --- it does not stay off -------------------------------------------------------------------------


def close_rack(scene: Scene) -> None:
    """Somebody closes a rack by hand, through its precharge resistor."""
    plant, at = scene.plant, scene.plant.wire.loop.time()
    plant.circuit.step(at)
    plant.circuit.racks[0].main_minus.drive(True, at)
    plant.circuit.racks[0].precharge.drive(True, at)


def energise_link(scene: Scene) -> None:
    """A foreign source on the link."""
    scene.plant.circuit.step(scene.plant.wire.loop.time())
    scene.plant.circuit.external_source_v = 780.0


def test_a_rack_closed_by_hand_ends_the_upgrade_for_good() -> None:
    async def close(scene: Scene) -> None:
        await scene.verified()
        close_rack(scene)
        await pause(0.2)
        requests = len(scene.diagnostic_requests)
        await scene.phase(Phase.HOLD_OPEN)
        assert len(scene.diagnostic_requests) == requests, "it went on with a rack closed"

    outcome = play(close, breaks=frozenset({Invariant.HEARTBEAT, Invariant.LOCK}))
    require_held_open(outcome, "HV_CLOSED")
    assert outcome.scene.plant.pcs.locked
    assert not outcome.scene.plant.circuit.pcs_contactor.closed


@pytest.mark.parametrize("part", [PART, STM32H743], ids=lambda part: part.name)
@pytest.mark.parametrize("after_s", [0.01, 0.2, 0.5])
def test_a_link_energised_from_outside_stops_all_flash_work(part: FlashPart, after_s: float) -> None:
    """Erasing ahead and programming: the monitors see to it that nothing begins under high voltage."""
    working: list[bool] = []

    async def energise(scene: Scene) -> None:
        await scene.step(NodeStep.TRANSFER)
        await pause(after_s)
        node = scene.plant.nodes[BMU1]
        working.append(node.memory.is_working(scene.plant.wire.loop.time()))
        energise_link(scene)

    outcome = play(energise, spec=replace(QUICK, flash=part), prepare=fill_inactive_banks, config=quick_times)
    assert working == [True]
    outcome.require_confirmed(OLD)
    assert outcome.report.error is not None
    assert not outcome.scene.all_steps(NodeStep.TRIAL_BOOT)
    assert outcome.scene.all_open
    assert outcome.error in ("HELD_OPEN", "HV_CLOSED")


def by_hand(plant: Plant) -> None:
    """Somebody pushes two contactors of rack 1 shut: its BMU drives no coil."""
    for contactor in (plant.circuit.racks[0].main_minus, plant.circuit.racks[0].precharge):
        plant.circuit.step(now())
        plant.circuit.place(contactor, closed=True)


def let_go(plant: Plant) -> None:
    for contactor in (plant.circuit.racks[0].main_minus, plant.circuit.racks[0].precharge):
        plant.circuit.step(now())
        plant.circuit.place(contactor, closed=False)


def energise(plant: Plant) -> None:
    plant.circuit.step(now())
    plant.circuit.external_source_v = 780.0


def cut_off(plant: Plant) -> None:
    plant.circuit.step(now())
    plant.circuit.external_source_v = None


def deafen(plant: Plant) -> None:
    """Nobody hears the PCS for a while: the permit is lost, and the work tried again."""
    can_id = plant.codec.route(PcsStatus).can_id
    plant.wire.fault = lambda _index, frame: WireFault.LOSE if frame.can_id == can_id else None
    asyncio.get_running_loop().call_later(0.3, setattr, plant.wire, "fault", None)


HANDS = {"by hand": (by_hand, let_go), "from outside": (energise, cut_off)}
COMES_BACK = {
    "transfer": Strike(NodeStep.TRANSFER, 0.05),
    "between two tries": Strike(NodeStep.TRANSFER, 0.55),
    "verified": Strike(Phase.TRIAL_BOOT, 0.001),
    "activated": Strike(Phase.TRIAL_BOOT, 0.02),
    "all restart": Strike(Phase.TRIAL_BOOT, 0.3),
    "soak": Strike(Phase.TRIAL_BOOT, 1.4),
    "proof after the soak": Strike(Phase.TRIAL_BOOT, 1.65),
    "confirm": Strike(Phase.CONFIRM, 0.001),
    "roll back": Strike(Phase.ROLL_BACK, 0.02, Course.BAD_FIRMWARE),
    "rolled back": Strike(Phase.ROLL_BACK, 0.9, Course.BAD_FIRMWARE),
    "to be held open": Strike(Phase.RECONNECT, 0.005, Course.HELD_OPEN),
    "resume, leftovers": Strike(Phase.ROLL_BACK, 0.3, Course.RESUME),
    "giving up": Strike(Phase.ROLL_BACK, 0.05, Course.ROLL_BACK),
}


@pytest.mark.parametrize("lasts_s", [0.15, 3.0])
@pytest.mark.parametrize("hand", list(HANDS))
@pytest.mark.parametrize("moment", list(COMES_BACK))
def test_high_voltage_that_comes_back_at_any_moment_after_the_proof_ends_it_for_good(
    moment: str, hand: str, lasts_s: float
) -> None:
    """With a permit or without, and however soon it is gone again: nothing is written, activated or restarted after."""
    comes, goes = HANDS[hand]
    restarting = moment in ("all restart", "resume, leftovers")
    ahead = (0.4, deafen) if moment == "between two tries" else None
    over = (3.0 if restarting else lasts_s, goes)  # of the one that restarts nobody can know what it did not see
    require_aborted(struck(COMES_BACK[moment], comes, BMU1, over=over, ahead=ahead), "HV_CLOSED")


@pytest.mark.parametrize("hand", list(HANDS))
def test_before_the_first_proof_high_voltage_that_comes_and_goes_is_waited_for(hand: str) -> None:
    comes, goes = HANDS[hand]
    seen = struck(Strike(Phase.PROVE_HV_OFF, 0.1), comes, over=(0.2, goes))
    assert seen.report.result is Phase.DONE, seen.report.error


def test_once_the_gateway_ordered_it_back_high_voltage_is_no_surprise() -> None:
    """Nor is a link that somebody charged meanwhile."""
    seen = struck(Strike(Phase.RECONNECT, 0.3), energise, over=(0.5, cut_off))
    assert seen.report.result is Phase.DONE, seen.report.error


@pytest.mark.parametrize("lost", [BmsHvStatus, BmsHvNotice, PcsStatus])
def test_status_lost_for_a_second_pauses_and_resumes(lost: type[BmsHvStatus | BmsHvNotice | PcsStatus]) -> None:
    async def lose(scene: Scene) -> None:
        await scene.verified()
        scene.lose(lost)
        await pause(1.0)
        scene.heal()

    outcome = play(lose, spec=replace(QUICK, racks=1))
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    assert "HV_PERMIT_REVOKED, trying again (1)" in outcome.scene.notes
    assert len(outcome.scene.steps(NodeStep.ANNOUNCE)) == 1
    assert "resumed at" in outcome.scene.steps(NodeStep.TRANSFER)[1].detail


@pytest.mark.parametrize("lost", [BmsHvStatus, PcsStatus])
def test_status_lost_for_ever_aborts(lost: type[BmsHvStatus | PcsStatus]) -> None:
    async def lose(scene: Scene) -> None:
        await scene.verified()
        scene.lose(lost)

    outcome = play(lose, config=quick_times)
    require_held_open(outcome, "HV_OFF_NOT_PROVED")
    assert outcome.scene.all_open
    assert outcome.scene.plant.pcs.locked


@pytest.mark.parametrize("bad", [BmsHvStatus, BmsHvNotice, PcsStatus])
def test_one_corrupted_status_revokes_the_permit_and_the_work_is_resumed(
    bad: type[BmsHvStatus | BmsHvNotice | PcsStatus],
) -> None:
    async def corrupt(scene: Scene) -> None:
        await scene.verified()
        ids = scene.can_ids(bad)
        done = False

        def once(_index: int, frame: CanFrame) -> CanFrame | None:
            nonlocal done
            if done or frame.can_id not in ids:
                return None
            done = True
            return CanFrame(frame.can_id, frame.data[:-1] + bytes((frame.data[-1] ^ 0x01,)))

        scene.plant.wire.fault = once
        await scene.until(lambda: done, 1.0)

    outcome = play(corrupt, spec=replace(QUICK, racks=1))
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    assert "HV_PERMIT_REVOKED, trying again (1)" in outcome.scene.notes


# --- emergencies ----------------------------------------------------------------------------------


def press_at_pcs(scene: Scene) -> None:
    scene.plant.pcs.press_emergency_stop(scene.plant.wire.loop.time())


def press_at_rack(scene: Scene) -> None:
    scene.plant.hardware[1].emergency_stop = True


def burn(scene: Scene) -> None:
    scene.plant.hardware[0].fire = True


def lose_insulation(scene: Scene) -> None:
    scene.plant.hardware[0].insulation_fault = True


def open_interlock_loop(scene: Scene) -> None:
    scene.plant.hardware[1].hvil_closed = False


@pytest.mark.parametrize("stop", [press_at_pcs, press_at_rack, burn, lose_insulation, open_interlock_loop])
def test_an_emergency_in_mid_transfer_ends_the_upgrade_within_200_ms(stop: Callable[[Scene], None]) -> None:
    await_open: list[bool] = []

    async def emergency(scene: Scene) -> None:
        await scene.verified()
        at = scene.plant.wire.loop.time()
        stop(scene)
        await scene.phase(Phase.HOLD_OPEN)
        assert scene.entered_at(Phase.HOLD_OPEN) - at < 0.2

    async def after(scene: Scene) -> None:
        await pause(10.0)
        await_open.append(scene.all_open)

    outcome = play(emergency, after=after)
    require_held_open(outcome, "EMERGENCY_STOP")
    assert await_open == [True]
    assert outcome.scene.monitors.closings == 0


@pytest.mark.parametrize(
    "phase", [Phase.RAMP_DOWN, Phase.OPEN_CONTACTORS, Phase.PROVE_HV_OFF, Phase.TRIAL_BOOT, Phase.CONFIRM]
)
def test_an_emergency_in_any_phase_is_never_reconnected(phase: Phase) -> None:
    async def emergency(scene: Scene) -> None:
        await scene.phase(phase)
        press_at_pcs(scene)

    async def after(scene: Scene) -> None:
        await pause(5.0)
        assert scene.all_open or phase is Phase.RAMP_DOWN

    outcome = play(emergency, after=after)
    outcome.require(Phase.HELD_OPEN, "HELD_OPEN", 101)
    assert outcome.scene.monitors.closings == 0


def test_a_pcs_fault_in_mid_transfer_holds_the_plant_open() -> None:
    async def trip(scene: Scene) -> None:
        await scene.verified()
        scene.plant.pcs.trip(PcsFaultCode.INTERNAL, scene.plant.wire.loop.time())

    require_held_open(play(trip), "PCS_FAULT")


def test_a_pcs_that_restarts_loses_its_lock_and_is_locked_again() -> None:
    async def restart(scene: Scene) -> None:
        await scene.verified()
        scene.plant.pcs_node.restart(scene.plant.wire.loop.time())

    outcome = play(restart, spec=replace(QUICK, racks=1))
    outcome.require(Phase.DONE)
    assert "HV_PERMIT_REVOKED, trying again (1)" in outcome.scene.notes
    assert outcome.scene.plant.nodes[BMU1].boots == 2


def test_a_rack_that_cannot_precharge_is_held_open_with_its_new_firmware() -> None:
    async def stick(scene: Scene) -> None:
        await scene.phase(Phase.CONFIRM)
        scene.plant.circuit.racks[0].precharge.fault = ContactorFault.STUCK_OPEN

    outcome = play(stick, spec=replace(QUICK, racks=1))
    outcome.require(Phase.HELD_OPEN, "HELD_OPEN", 101)
    assert "PRECHARGE_FAILED" in outcome.why, outcome.why
    outcome.require_confirmed(NEW)
    assert outcome.scene.monitors.closings == 0
