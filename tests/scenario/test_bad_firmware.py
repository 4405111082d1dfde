"""New firmware that is signed and intact, and does not work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.errors import PlantLocked
from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.signals.messages import ImageState
from ess_can.sim.node import Behaviour
from ess_can.sim.plant import Plant
from ess_can.uds.target import Nrc
from tests.scenario.support import BMU1, BMU2, NEW, OLD, QUICK, Scene, play


@pytest.mark.parametrize("behaviour", [Behaviour.HANGS, Behaviour.NO_HV_STATUS, Behaviour.WRONG_SCALE])
def test_bad_firmware_is_reverted_everywhere_and_the_plant_given_back(behaviour: Behaviour) -> None:
    outcome = play(spec=replace(QUICK, behaviours={NEW: behaviour}))
    outcome.require(Phase.ROLLED_BACK, "ROLLED_BACK", 100)
    outcome.require_confirmed(OLD)
    assert outcome.scene.all_connected
    assert not outcome.scene.all_steps(NodeStep.CONFIRM)
    for node in outcome.scene.plant.nodes.values():
        record = node.records.boot.load()
        assert record is not None
        assert record.trial is None
        assert record.security_counter == 1


def test_a_node_that_leaves_its_trial_before_anybody_is_confirmed_rolls_all_back() -> None:
    async def lose_power(scene: Scene) -> None:
        await scene.step(NodeStep.CONFIRM, BMU2)
        scene.plant.nodes[BMU2].reset(scene.plant.wire.loop.time())

    outcome = play(lose_power)
    outcome.require(Phase.ROLLED_BACK, "ROLLED_BACK", 100)
    outcome.require_confirmed(OLD)
    assert outcome.scene.all_connected


def second_rack_fails_between_the_confirmations(plant: Plant) -> None:
    """The first rack is confirmed, and in the same instant the second one restarts."""
    first, second = plant.nodes[BMU1], plant.nodes[BMU2]
    confirm = first.confirm

    def confirm_and_reset(now: float) -> Nrc | None:
        refusal = confirm(now)
        plant.wire.loop.call_soon(second.reset, now)
        return refusal

    first.confirm = confirm_and_reset  # type: ignore[method-assign] # this one node only


def test_a_mixed_plant_is_never_closed() -> None:
    outcome = play(prepare=second_rack_fails_between_the_confirmations)
    outcome.require(Phase.HELD_OPEN, "HELD_OPEN", 101)
    assert (outcome.versions[BMU1], outcome.versions[BMU2]) == (NEW, OLD)
    assert outcome.scene.all_open
    assert outcome.scene.plant.pcs.locked
    assert outcome.scene.monitors.closings == 0


def test_a_mixed_plant_is_mended_by_the_next_run() -> None:
    async def again(scene: Scene) -> None:
        refused = await scene.run_upgrade()
        assert (refused.result, refused.exit_code) == (Phase.REFUSED, PlantLocked.exit_code)
        config = GatewayConfig(scene.plant.addresses, afterwards=Afterwards.CONNECT)
        report = await scene.run_upgrade(config=config)
        assert report.result is Phase.DONE, report.error
        assert scene.all_connected

    play(prepare=second_rack_fails_between_the_confirmations, after=again).require_confirmed(NEW)


def test_a_node_that_resets_during_its_trial_rolls_all_back() -> None:
    async def lose_power(scene: Scene) -> None:
        await scene.phase(Phase.TRIAL_BOOT)
        node = scene.plant.nodes[BMU2]
        await scene.until(lambda: node.running and node.memory.standing is ImageState.TRIAL, 10.0)
        node.reset(scene.plant.wire.loop.time())

    outcome = play(lose_power)
    outcome.require(Phase.ROLLED_BACK, "ROLLED_BACK", 100)
    outcome.require_confirmed(OLD)
    assert outcome.scene.all_connected
