"""Emergencies in every step, a gateway that is starved or asleep, a bus that others flood."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from ess_can.bus.clock import now, pause
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.cli.embedded import simulated_setup
from ess_can.gateway.config import GatewayConfig, PolicyLimits, TimeLimits
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.gateway.run import GatewaySetup, upgrade_station
from ess_can.journal.journal import Journal
from ess_can.signals.messages import BmsHvStatus, PcsStatus
from ess_can.sim.loop import run_virtual
from ess_can.sim.plant import Plant
from ess_can.sim.process import SimulatedProcess
from ess_can.sim.wire import WireFault
from tests.campaign.counts import Count
from tests.campaign.scale import chosen
from tests.scenario.emergencies import Course, Strike, require_aborted, struck
from tests.scenario.support import (
    BMU1,
    NEW,
    QUICK,
    SETTLED_S,
    Scene,
    fill_inactive_banks,
    play,
    release,
    small_plant,
)
from tests.scenario.test_interlock_times import writes

# --- emergencies ----------------------------------------------------------------------------------


def at_pcs(plant: Plant) -> None:
    plant.pcs.press_emergency_stop(plant.wire.loop.time())


def at_rack(rack: int) -> Callable[[Plant], None]:
    return lambda plant: setattr(plant.hardware[rack], "emergency_stop", True)


def fire(rack: int) -> Callable[[Plant], None]:
    return lambda plant: setattr(plant.hardware[rack], "fire", True)


def insulation(rack: int) -> Callable[[Plant], None]:
    return lambda plant: setattr(plant.hardware[rack], "insulation_fault", True)


def hvil(rack: int) -> Callable[[Plant], None]:
    return lambda plant: setattr(plant.hardware[rack], "hvil_closed", False)


SOURCES: dict[str, tuple[Callable[[Plant], None], int | None]] = {
    "emergency stop at the PCS": (at_pcs, None),
    **{f"emergency stop at rack {n + 1}": (at_rack(n), n) for n in (0, 1)},
    **{f"fire in rack {n + 1}": (fire(n), n) for n in (0, 1)},
    **{f"insulation of rack {n + 1}": (insulation(n), n) for n in (0, 1)},
    **{f"HVIL of rack {n + 1}": (hvil(n), n) for n in (0, 1)},
}
UP, BAD, HELD, RES, BACK = Course.UPGRADE, Course.BAD_FIRMWARE, Course.HELD_OPEN, Course.RESUME, Course.ROLL_BACK
MOMENTS: dict[str, Strike] = {
    "ramp-down": Strike(Phase.RAMP_DOWN, 0.02),
    "contactors": Strike(Phase.OPEN_CONTACTORS, 0.01),
    "proof": Strike(Phase.PROVE_HV_OFF, 0.2),
    "program": Strike(Phase.PROGRAM, 0.0),
    "announce": Strike(NodeStep.ANNOUNCE, 0.001),
    "transfer": Strike(NodeStep.TRANSFER, 0.05),
    "erase": Strike(NodeStep.TRANSFER, 0.4),
    "verify": Strike(NodeStep.VERIFY, 0.001),
    "activate": Strike(Phase.TRIAL_BOOT, 0.001),
    "restart": Strike(Phase.TRIAL_BOOT, 0.3),
    "soak": Strike(Phase.TRIAL_BOOT, 1.5),
    "confirm": Strike(Phase.CONFIRM, 0.003),
    "confirmed": Strike(Phase.CONFIRM, 0.1),
    "reconnect": Strike(Phase.RECONNECT, 0.05),
    "unlocked": Strike(Phase.RECONNECT, 0.15),
    "closing": Strike(Phase.RECONNECT, 0.5),
    "the second rack closes": Strike(Phase.RECONNECT, 1.3),
    **{f"roll back, after {s} s": Strike(Phase.ROLL_BACK, s, BAD) for s in (0.0, 0.005, 0.02, 0.06, 0.3, 0.7)},
    "rolled back, reconnect": Strike(Phase.RECONNECT, 0.05, BAD),
    "rolled back, closing": Strike(Phase.RECONNECT, 0.6, BAD),
    **{f"hold open, after {s} s": Strike(Phase.HOLD_OPEN, s, HELD) for s in (0.0, 0.02)},
    "before it is held open": Strike(Phase.RECONNECT, 0.02, HELD),
    "resume, ramp-down": Strike(Phase.RAMP_DOWN, 0.02, RES),
    "resume, proof": Strike(Phase.PROVE_HV_OFF, 0.1, RES),
    **{f"resume, leftovers, after {s} s": Strike(Phase.ROLL_BACK, s, RES) for s in (0.0, 0.02, 0.06, 0.3, 0.8)},
    "resume, program": Strike(Phase.PROGRAM, 0.05, RES),
    "resume, soak": Strike(Phase.TRIAL_BOOT, 1.5, RES),
    "resume, closing": Strike(Phase.RECONNECT, 0.5, RES),
    **{f"giving up, after {s} s": Strike(Phase.ROLL_BACK, s, BACK) for s in (0.0, 0.02, 0.06, 0.3, 0.8)},
    "given up, reconnect": Strike(Phase.RECONNECT, 0.05, BACK),
    "given up, closing": Strike(Phase.RECONNECT, 0.5, BACK),
}
EMERGENCIES = [(source, moment) for source in SOURCES for moment in MOMENTS]


@pytest.mark.parametrize(("source", "moment"), chosen(EMERGENCIES, quick=60, slice_=90))
def test_an_emergency_at_any_moment_ends_it_within_200_ms_and_is_never_reconnected(
    source: str, moment: str, count: Count
) -> None:
    count("emergencies at a moment of an upgrade", 1)
    press, rack = SOURCES[source]
    seen = struck(MOMENTS[moment], press, None if rack is None else replace(BMU1, index=rack + 1))
    require_aborted(seen)
    assert seen.monitors.closings == 0 or "clos" in moment


@pytest.mark.parametrize("moment", [name for name in MOMENTS if "ll back" in name or "iving" in name or "left" in name])
def test_an_emergency_stop_in_every_kind_of_rollback(moment: str) -> None:
    require_aborted(struck(MOMENTS[moment], at_pcs))


@pytest.mark.parametrize("after_s", [0.05, 1.0, 30.0])
def test_an_emergency_does_not_wait_for_a_node_that_died_in_the_rollback(after_s: float) -> None:
    seen = struck(Strike(Phase.ROLL_BACK, after_s, Course.NODE_DIES), at_pcs, racks=1)
    require_aborted(seen)
    assert "perhaps still on trial, which a node gives up by itself: bmu1" in str(seen.report.error)


@pytest.mark.parametrize("course", [RES, BACK])
@pytest.mark.parametrize("after_s", [0.1, 0.765])
def test_an_emergency_in_the_check_before_a_second_attempt_is_a_refusal(course: Course, after_s: float) -> None:
    seen = struck(Strike(Phase.STATUS_CHECK, after_s, course), at_pcs)
    assert seen.report.result is Phase.REFUSED
    assert seen.report.error is not None
    assert seen.report.error.name == "EMERGENCY_STOP"
    began_at = seen.entered_at(Phase.STATUS_CHECK)
    assert not seen.orders_since(began_at)
    assert not seen.requests_since(began_at)


# --- starved and asleep ---------------------------------------------------------------------------


@dataclass
class Machine:
    """The gateway's computer: its process, and for how long it slept."""

    process: SimulatedProcess
    slept_s: float = 0.0


def upgraded(disturb: Callable[[Machine], None]) -> Scene:
    """An upgrade during whose transfer something happens to its machine."""

    async def run() -> Scene:
        plant = small_plant(replace(QUICK, racks=1))
        fill_inactive_banks(plant)
        plant.start()
        scene = Scene(plant)
        await pause(SETTLED_S)
        machine = Machine(SimulatedProcess("gateway"))
        usual = simulated_setup(plant)
        setup: GatewaySetup = replace(usual, slept_s=lambda: machine.slept_s)
        upgrade = upgrade_station(
            scene.gateway, release(), setup, on_progress=scene.events.append, journal=Journal.in_memory()
        )
        task = machine.process.start(upgrade)
        await scene.verified()
        disturb(machine)
        report = await task
        assert report.error is None, report.error
        assert plant.versions()[BMU1] == NEW
        plant.stop()
        return scene

    return run_virtual(run())


@pytest.mark.parametrize("starved_s", [0.3, 1.0, 10.0])
def test_a_starved_gateway_writes_nothing_before_the_proof_is_renewed(starved_s: float) -> None:
    woken: list[float] = []

    def starve(machine: Machine) -> None:
        machine.process.stall(starved_s)
        woken.append(now() + starved_s)

    scene = upgraded(starve)
    proved_s = 0.45  # ten good statuses
    early = [sent for sent in writes(scene.diagnostic_requests) if woken[0] <= sent.at < woken[0] + proved_s]
    assert not early, f"{len(early)} frames, the first {early[0].at - woken[0]:.4f} s after waking"
    assert "HV_PERMIT_REVOKED" in scene.notes
    assert "resumed at" in scene.steps(NodeStep.TRANSFER)[-1].detail


def test_a_gateway_that_slept_writes_nothing_before_the_proof_is_renewed() -> None:
    woken: list[float] = []

    def sleep(machine: Machine) -> None:
        machine.slept_s += 10.0
        woken.append(now())

    scene = upgraded(sleep)
    early = [sent for sent in writes(scene.diagnostic_requests) if woken[0] + 0.001 <= sent.at < woken[0] + 0.45]
    assert not early
    assert "this machine slept for 10.0 s" in scene.notes


# --- a bus that others flood ------------------------------------------------------------------------


async def babble(scene: Scene, share: float) -> None:
    """Frames that win against everybody's."""
    controller = scene.plant.wire.controller("babbler")
    frame = CanFrame(0x001, bytes(8))
    frame_s = 125 / scene.plant.spec.bit_timing.bitrate
    while True:
        if controller.pending < 8:
            controller.send(frame)
        await pause(frame_s / share)


@pytest.mark.parametrize(("share", "error"), [(0.5, ""), (0.85, "BUS_OVERLOADED"), (1.2, "BUS_OVERLOADED")])
def test_a_flooded_bus_is_refused_before_anything_is_sent(share: float, error: str) -> None:
    def flood(plant: Plant) -> None:
        scene = Scene(plant)
        asyncio.get_running_loop().call_soon(lambda: tasks.append(asyncio.ensure_future(babble(scene, share))))

    tasks: list[asyncio.Task[None]] = []
    outcome = play(prepare=flood, dry_run=True)
    assert outcome.error == error
    if error:
        assert not outcome.scene.frames


def test_a_bus_that_is_flooded_for_a_while_is_a_pause() -> None:
    """High voltage is not proved off any more: nothing is written until it is again, and then the transfer goes on."""
    times: list[float] = []

    async def script(scene: Scene) -> None:
        await scene.verified()
        babbler = asyncio.ensure_future(babble(scene, 2.0))
        times.append(now())
        await pause(3.0)
        babbler.cancel()
        times.append(now())

    outcome = play(script)
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    began_at, ended_at = times
    scene = outcome.scene
    assert not [sent for sent in writes(scene.diagnostic_requests) if began_at + 0.5 <= sent.at <= ended_at]
    assert [step.detail for step in scene.steps(NodeStep.TRANSFER)][-1].startswith("resumed at")


def test_a_bus_that_is_flooded_meanwhile_pauses_and_aborts_with_nothing_activated() -> None:
    async def script(scene: Scene) -> None:
        await scene.verified()
        babblers.append(asyncio.ensure_future(babble(scene, 2.0)))
        await scene.phase(Phase.HOLD_OPEN)

    babblers: list[asyncio.Task[None]] = []

    def config(plant: Plant) -> GatewayConfig:
        return GatewayConfig(plant.addresses, times=TimeLimits(permit_regain_s=3.0))

    outcome = play(script, config=config)
    outcome.require(Phase.HELD_OPEN, "HELD_OPEN", 101)
    assert "HV_OFF_NOT_PROVED" in outcome.why
    assert not outcome.scene.all_steps(NodeStep.TRIAL_BOOT)
    assert outcome.scene.all_open


@pytest.mark.parametrize("bitrate", [125_000, 250_000, 500_000, 1_000_000])
def test_eight_racks_leave_room_at_every_bit_rate(bitrate: int) -> None:
    outcome = play(spec=replace(QUICK, racks=8, bit_timing=BitTiming(bitrate)), dry_run=True)
    assert outcome.error == ""
    assert PolicyLimits().bus_load_max_percent == 80.0


# --- H8: each status of a rack while a small image is written ---------------------------------------------

STATUSES = [(message, nth, how) for message in (BmsHvStatus, PcsStatus) for nth in range(30) for how in ("lost", "bad")]


@pytest.mark.parametrize(("message", "nth", "how"), chosen(STATUSES, quick=16, slice_=40))
def test_one_status_lost_or_bad_at_any_place_pauses_at_most(
    message: type[BmsHvStatus | PcsStatus], nth: int, how: str, count: Count
) -> None:
    """The `nth` from the begin of programming on: lost, it is one missed cycle; bad, the proof is renewed."""
    count("one status of a rack or the PCS lost or bad while a node is written", 1)
    spoilt: list[float] = []

    async def script(scene: Scene) -> None:
        await scene.phase(Phase.PROGRAM)
        can_id, seen = scene.plant.codec.route(message).can_id, 0

        def fault(_index: int, frame: CanFrame) -> WireFault | CanFrame | None:
            nonlocal seen
            if frame.can_id != can_id:
                return None
            seen += 1
            if seen != nth + 1:
                return None
            spoilt.append(now())
            return WireFault.LOSE if how == "lost" else frame._replace(data=bytes(8))

        scene.plant.wire.fault = fault

    outcome = play(script, spec=replace(QUICK, racks=1), upgrade=release(kib=12))
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    scene, (at,) = outcome.scene, spoilt
    if how == "lost":
        assert "HV_PERMIT_REVOKED" not in scene.notes
    else:  # ten good ones take 0.45 s; two frames were on their way
        early = [sent for sent in writes(scene.diagnostic_requests) if at + 0.002 < sent.at < at + 0.45]
        assert not early, f"the first {early[0].at - at:.4f} s after"


@pytest.mark.parametrize("regained_s", [1.0, 2.5])
def test_a_permit_regained_within_its_limit_goes_on_where_it_was_verified(regained_s: float) -> None:
    async def script(scene: Scene) -> None:
        await scene.verified()
        scene.lose(PcsStatus)
        await pause(regained_s)
        scene.heal()

    outcome = play(script, spec=replace(QUICK, racks=1), config=_impatient)
    outcome.require(Phase.DONE)
    assert "resumed at" in outcome.scene.steps(NodeStep.TRANSFER)[-1].detail


def test_a_permit_that_is_regained_too_late_has_ended_the_upgrade_safely() -> None:
    async def script(scene: Scene) -> None:
        await scene.verified()
        scene.lose(PcsStatus)
        await pause(4.5)
        scene.heal()

    outcome = play(script, spec=replace(QUICK, racks=1), config=_impatient)
    assert outcome.report.exit_code
    assert "HV_OFF_NOT_PROVED" in outcome.why or outcome.error == "HV_OFF_NOT_PROVED"
    assert not outcome.scene.all_steps(NodeStep.TRIAL_BOOT)


def _impatient(plant: Plant) -> GatewayConfig:
    return GatewayConfig(plant.addresses, times=TimeLimits(permit_regain_s=3.5))
