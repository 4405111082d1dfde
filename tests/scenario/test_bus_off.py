"""The gateway's controller goes bus-off: once, three times, once too often, in every phase."""

from __future__ import annotations

import pytest

from ess_can.bus.clock import pause
from ess_can.can.frame import CanFrame
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.sim.wire import WireFault
from tests.scenario.support import BMU1, BMU2, NEW, OLD, Outcome, Scene, Script, play

PHASES = (Phase.RAMP_DOWN, Phase.OPEN_CONTACTORS, Phase.PROVE_HV_OFF, Phase.PROGRAM, Phase.TRIAL_BOOT, Phase.CONFIRM)
DELAYS_S = (0.0, 0.013, 0.4)


async def go_bus_off(scene: Scene) -> None:
    """Every frame of ours is destroyed, until our controller gives up."""
    ours = {sent.frame.can_id for sent in scene.frames}
    scene.plant.wire.fault = lambda _index, frame: WireFault.CORRUPT if frame.can_id in ours else None
    await scene.until(lambda: not scene.gateway.online, 5.0)
    scene.heal()


async def back(scene: Scene) -> None:
    await scene.until(lambda: scene.gateway.online, 5.0)


def writes_between(scene: Scene, began: float, ended: float) -> list[CanFrame]:
    return [sent.frame for sent in scene.diagnostic_requests if began < sent.at < ended and len(sent.frame.data) == 8]


@pytest.mark.parametrize("delay_s", DELAYS_S)
@pytest.mark.parametrize("phase", PHASES)
def test_bus_off_once_in_any_phase_is_survived(phase: Phase, delay_s: float) -> None:
    async def script(scene: Scene) -> None:
        await scene.phase(phase)
        await pause(delay_s)
        await go_bus_off(scene)

    outcome = play(script)
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    assert outcome.scene.all_connected
    assert "BUS_INTERRUPTED: the controller went bus-off" in outcome.scene.notes


def test_bus_off_while_high_voltage_is_closed_again_is_survived() -> None:
    async def script(scene: Scene) -> None:
        await scene.phase(Phase.RECONNECT)
        await pause(0.3)
        await go_bus_off(scene)

    outcome = play(script)
    outcome.require(Phase.DONE)
    assert outcome.scene.all_connected


@pytest.mark.parametrize("times", [1, 2, 3])
def test_high_voltage_is_proved_off_again_and_the_transfer_is_resumed_where_it_was_verified(times: int) -> None:
    online_at: list[float] = []

    async def script(scene: Scene) -> None:
        await scene.verified()
        for _ in range(times):
            await go_bus_off(scene)
            await back(scene)
            online_at.append(scene.plant.wire.loop.time())

    outcome = play(script)
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    scene = outcome.scene
    assert len(scene.steps(NodeStep.ANNOUNCE)) == 1
    assert "resumed at" in scene.steps(NodeStep.TRANSFER)[-1].detail
    assert "HV_PERMIT_REVOKED, trying again" in scene.notes
    # Ten good statuses take 0.45 s: no frame of an image before that.
    assert not writes_between(scene, online_at[-1], online_at[-1] + 0.45)
    assert [f"restart {n} of 3" in scene.notes for n in (1, 2, 3)] == [n <= times for n in (1, 2, 3)]


@pytest.mark.parametrize("phase", PHASES)
def test_the_fourth_time_the_bus_is_unusable_and_the_plant_is_safe_by_itself(phase: Phase) -> None:
    async def script(scene: Scene) -> None:
        await scene.phase(phase)
        for number in range(4):
            await go_bus_off(scene)
            if number < 3:
                await back(scene)

    async def after(scene: Scene) -> None:
        await pause(70.0)  # trials revert by themselves
        assert scene.plant.pcs.state.name == "STANDBY"
        if phase not in (Phase.RAMP_DOWN, Phase.OPEN_CONTACTORS):
            assert scene.plant.pcs.locked
            assert scene.all_open

    outcome = play(script, after=after)
    if phase is Phase.OPEN_CONTACTORS:  # they did not open in time, which is said first
        outcome.require(Phase.HELD_OPEN, "HELD_OPEN", 101)
        assert "CONTACTORS_NOT_OPENING" in outcome.why
    else:
        outcome.require(Phase.HELD_OPEN, "BUS_UNUSABLE", 109)
    if phase is not Phase.CONFIRM:
        assert {outcome.versions[BMU1], outcome.versions[BMU2]} == {OLD}
    assert outcome.versions[BMU1] == outcome.versions[BMU2]
    assert outcome.scene.monitors.closings == 0


def test_error_passive_is_told_with_its_counters_and_the_upgrade_goes_on() -> None:
    outcome = play(_disturb(20))
    outcome.require(Phase.DONE)
    assert "ERROR_PASSIVE: EMS is error passive: TEC" in outcome.scene.notes
    assert "BUS_INTERRUPTED" not in outcome.scene.notes
    _require_one_transfer(outcome)


def _disturb(frames: int) -> Script:
    async def script(scene: Scene) -> None:
        await scene.verified()
        left = frames
        ours = {sent.frame.can_id for sent in scene.frames}

        def destroy(_index: int, frame: CanFrame) -> WireFault | None:
            nonlocal left
            if frame.can_id not in ours or not left:
                return None
            left -= 1
            return WireFault.CORRUPT

        scene.plant.wire.fault = destroy
        await scene.until(lambda: not left, 5.0)

    return script


def _require_one_transfer(outcome: Outcome) -> None:
    assert len(outcome.scene.steps(NodeStep.TRANSFER)) == 1
