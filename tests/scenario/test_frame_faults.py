"""Frames that are lost, doubled, swapped or changed unseen, at places of an upgrade: no wrong image ever runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from ess_can.can.frame import CanFrame
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.identity import NodeType
from ess_can.sim.wire import Delayed, FaultHook, WireFault
from tests.scenario.support import BMU1, NEW, OLD, QUICK, Outcome, Scene, play, release

SPEC = replace(QUICK, racks=1)
SMALL = release(NodeType.BMU, kib=6)


def diagnostic(scene: Scene) -> frozenset[int]:
    return frozenset(scene.plant.codec.diagnostic_ids(BMU1))


def at_indices(
    wanted: frozenset[int], fault: Callable[[CanFrame], WireFault | CanFrame]
) -> Callable[[Scene], FaultHook]:
    """The fault at these indices, counted over the diagnostic frames of rack 1."""

    def install(scene: Scene) -> FaultHook:
        ids = diagnostic(scene)
        count = 0

        def hook(_index: int, frame: CanFrame) -> WireFault | CanFrame | None:
            nonlocal count
            if frame.can_id not in ids:
                return None
            count += 1
            return fault(frame) if count in wanted else None

        return hook

    return install


def corrupted(frame: CanFrame) -> CanFrame:
    """One bit of the last byte is wrong, and no CRC of the bus noticed."""
    return CanFrame(frame.can_id, frame.data[:-1] + bytes((frame.data[-1] ^ 0x08,)))


def run(install: Callable[[Scene], FaultHook]) -> Outcome:
    async def script(scene: Scene) -> None:
        scene.plant.wire.fault = install(scene)

    return play(script, spec=SPEC, upgrade=SMALL)


def require_whole(outcome: Outcome) -> None:
    """Whatever happened: the old or the new image, confirmed, and the report tells which."""
    if outcome.report.error is None:
        outcome.require(Phase.DONE)
        outcome.require_confirmed(NEW)
        assert outcome.scene.all_connected
    elif outcome.versions[BMU1] == NEW:
        outcome.require_confirmed(NEW)
    else:
        outcome.require_confirmed(OLD)
        assert outcome.report.result in (Phase.FAILED, Phase.REFUSED, Phase.ROLLED_BACK, Phase.HELD_OPEN)


FAULTS: dict[str, Callable[[CanFrame], WireFault | CanFrame]] = {
    "lost": lambda _: WireFault.LOSE,
    "doubled": lambda _: WireFault.DUPLICATE,
    "swapped": lambda _: WireFault.SWAP,
    "corrupted and found": lambda _: WireFault.CORRUPT,
}
PLACES = (3, 14, 30, 41, 47, 52, 60, 300, 640, 655, 990, 1010)
"""In the identification, the session and its unlocking, the announcement, in the blocks, the verification and later."""


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("place", PLACES)
def test_one_bad_diagnostic_frame_does_no_harm(name: str, place: int) -> None:
    require_whole(run(at_indices(frozenset({place}), FAULTS[name])))


@pytest.mark.parametrize("name", FAULTS)
def test_many_bad_frames_do_no_harm(name: str) -> None:
    wanted = frozenset(random.Random(name).sample(range(80, 1100), 8))
    require_whole(run(at_indices(wanted, FAULTS[name])))


@pytest.mark.parametrize("place", [120, 400, 800])
def test_a_data_frame_that_is_changed_unseen_never_becomes_an_image(place: int) -> None:
    """Neither CAN's CRC nor ISO-TP see it; the node does, over what it reads back."""
    outcome = run(at_indices(frozenset({place}), corrupted))
    outcome.require(Phase.FAILED, "VERIFICATION_FAILED", 90)
    outcome.require_confirmed(OLD)
    assert outcome.scene.all_connected
    assert outcome.scene.plant.nodes[BMU1].boots == 1


def test_a_resumed_part_that_is_not_the_image_is_sent_again_in_the_same_run() -> None:
    """The node is told of the damage only when all of the image is there."""

    async def corrupt_and_reset(scene: Scene) -> None:
        scene.plant.wire.fault = at_indices(frozenset({300}), corrupted)(scene)
        await scene.verified(4093)
        scene.plant.nodes[BMU1].reset(scene.plant.wire.loop.time())

    outcome = play(corrupt_and_reset, spec=SPEC, upgrade=release(NodeType.BMU, kib=20))
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    assert "was not the image" in outcome.scene.notes
    assert len(outcome.scene.steps(NodeStep.ANNOUNCE)) == 2


def test_after_a_corrupted_transfer_the_next_run_sends_the_image_again() -> None:
    async def corrupt(scene: Scene) -> None:
        scene.plant.wire.fault = at_indices(frozenset({400}), corrupted)(scene)

    async def again(scene: Scene) -> None:
        report = await scene.run_upgrade(SMALL)
        assert report.result is Phase.DONE, report.error

    play(corrupt, spec=SPEC, upgrade=SMALL, after=again).require_confirmed(NEW)


def test_a_bus_on_which_every_tenth_frame_is_lost_ends_in_a_defined_state() -> None:
    def install(_scene: Scene) -> FaultHook:
        chance = random.Random(3)
        return lambda _index, _frame: WireFault.LOSE if chance.random() < 0.1 else None

    outcome = run(install)
    assert outcome.report.error is not None
    assert outcome.versions[BMU1] == OLD


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("delay_s", [0.16, 0.3, 0.9, 1.3])
def test_a_late_challenge_is_no_reason_to_refuse_the_right_key(which: int, delay_s: float) -> None:
    """The answers to 27 11 and to its repetition look alike, and only the last challenge counts."""

    def install(scene: Scene) -> FaultHook:
        challenges = 0

        def hook(_index: int, frame: CanFrame) -> Delayed | None:
            nonlocal challenges
            if frame.can_id not in diagnostic(scene) or frame.data[:4] != bytes.fromhex("10126711"):
                return None
            challenges += 1
            return Delayed(delay_s) if challenges == which + 1 else None

        return hook

    outcome = run(install)
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
