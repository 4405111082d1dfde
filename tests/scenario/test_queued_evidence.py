"""A bus that is jammed while the proof is collected: what waited in the senders' queues comes at once, and is old."""

from __future__ import annotations

import pytest

from ess_can.bus.clock import now, pause
from ess_can.can.frame import CanFrame
from ess_can.gateway.config import HvLimits
from ess_can.gateway.phases import Phase
from tests.scenario.support import NEW, Scene, play

CYCLE_S = 0.05
JAM_S = 0.6
URGENT = CanFrame(0x001, bytes(8))


async def jam(scene: Scene, seconds: float) -> float:
    """Nobody else gets a frame through for so long; gives when it ended."""
    babbler = scene.plant.wire.controller("babbler")
    end = now() + seconds

    def babble(_at: float) -> None:
        if now() < end:
            babbler.send(URGENT, babble)

    for _ in range(3):
        babble(0.0)
    await pause(seconds)
    return end


@pytest.mark.parametrize("since_off_s", [0.05, 0.2, 0.3, 0.5])
def test_a_burst_of_old_statuses_is_no_settling_time(since_off_s: float) -> None:
    ended_at: list[float] = []

    async def disturb(scene: Scene) -> None:
        await scene.phase(Phase.PROVE_HV_OFF)
        await scene.until(lambda: not scene.monitors.hv_is_on)
        await pause(since_off_s)
        ended_at.append(await jam(scene, JAM_S))

    outcome = play(disturb)
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    settling_s = (HvLimits().consecutive_good - 1.5) * CYCLE_S
    assert outcome.scene.entered_at(Phase.PROGRAM) - ended_at[0] >= settling_s
