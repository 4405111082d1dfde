"""A bus that loses frames: blocks get shorter until they get through."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ess_can.can.frame import CanFrame
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.sim.parts import STM32H743
from ess_can.sim.wire import WireFault
from tests.scenario.support import NEW, QUICK, Scene, play, release


@pytest.mark.parametrize("lost_per_frame", [3e-4, 1e-3, 5e-3])
def test_a_bus_that_loses_frames_costs_time_only(lost_per_frame: float) -> None:
    chance = random.Random(1)

    async def lose_some(scene: Scene) -> None:
        await scene.step(NodeStep.TRANSFER)
        diagnostics = {can_id for node in scene.plant.nodes for can_id in scene.plant.codec.diagnostic_ids(node)}

        def fault(_index: int, frame: CanFrame) -> WireFault | None:
            return WireFault.LOSE if frame.can_id in diagnostics and chance.random() < lost_per_frame else None

        scene.plant.wire.fault = fault

    outcome = play(lose_some, spec=replace(QUICK, racks=1, flash=STM32H743), upgrade=release(kib=96))
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    assert outcome.scene.plant.wire.loop.time() < 90
