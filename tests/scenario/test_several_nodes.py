"""Several nodes programmed at the same time, and what one of them, or the plant, does to the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ess_can.bus.clock import pause
from ess_can.can.frame import CanFrame
from ess_can.gateway.config import BusLimits, GatewayConfig
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.gateway.progress import Noted
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.messages import BmsHvStatus, EmsUpgradeNotice, UpgradePhase
from ess_can.sim.flash import SectorDefect
from ess_can.sim.plant import Plant
from ess_can.sim.wire import WireFault
from tests.scenario.support import BMU1, BMU2, NEW, OLD, PART, QUICK, Outcome, Scene, play, release

FOUR = replace(QUICK, racks=4)
BMUS = tuple(NodeAddress(NodeType.BMU, rack) for rack in range(1, 5))
LARGE = release(kib=60)
"""Long enough for something to happen to all four in the middle of it."""
WORN = PART.geometry.protected_sectors + 40 * 1024 // PART.geometry.sector_size
"""The sector that the image's 40th KiB comes to."""


async def all_verified(scene: Scene, offset: int = 6000) -> None:
    for node in BMUS:
        await scene.verified(offset, node)


def requests_between(scene: Scene, begin: float, end: float) -> list[CanFrame]:
    return [sent.frame for sent in scene.diagnostic_requests if begin < sent.at <= end]


def resumable(scene: Scene, node: NodeAddress) -> int:
    """How many bytes of the release's image the node would not have to be sent again."""
    state = scene.plant.nodes[node].memory.resume_state()
    return state.verified_offset if state.image_sha256 == LARGE.images[0].sha256 else 0


def require_all(outcome: Outcome) -> None:
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    assert outcome.scene.all_connected


def test_they_are_erased_and_programmed_at_the_same_time() -> None:
    outcome = play(spec=FOUR, upgrade=LARGE)
    require_all(outcome)
    scene = outcome.scene
    transfers = [scene.steps(NodeStep.TRANSFER, node)[0].at for node in BMUS]
    verifies = [scene.steps(NodeStep.VERIFY, node)[0].at for node in BMUS]
    assert max(transfers) < min(verifies)
    assert max(verifies) - min(verifies) < 0.1 * (max(verifies) - min(transfers))  # the wire is shared fairly
    for node in outcome.report.nodes:
        assert node.wire_efficiency is not None
        assert 0.95 < node.wire_efficiency <= 1.0


def test_a_site_may_want_one_after_the_other() -> None:
    def config(plant: Plant) -> GatewayConfig:
        return GatewayConfig(plant.addresses, bus=BusLimits(nodes_at_once=1))

    outcome = play(config=config)
    require_all(outcome)
    assert outcome.scene.steps(NodeStep.VERIFY, BMU1)[0].at < outcome.scene.steps(NodeStep.IDENTIFY, BMU2)[1].at


def test_every_node_is_announced_while_it_is_programmed() -> None:
    outcome = play(spec=FOUR, upgrade=LARGE)
    route = outcome.scene.plant.codec.route(EmsUpgradeNotice).can_id
    notices = [
        outcome.scene.plant.codec.decode(s.frame.can_id, s.frame.data)
        for s in outcome.scene.frames
        if s.frame.can_id == route
    ]
    named = {
        phase: [
            n.message.target_index
            for n in notices
            if n is not None and isinstance(n.message, EmsUpgradeNotice) and n.message.phase is phase
        ]
        for phase in (UpgradePhase.PROGRAMMING, UpgradePhase.ACTIVATING)
    }
    programming, activating = named.values()
    assert all(set(programming[at : at + 4]) == {1, 2, 3, 4} for at in range(8))  # each in turn
    assert activating[:4] == [1, 2, 3, 4]  # each before it restarts


# --- one of them ----------------------------------------------------------------------------------


def test_one_that_fails_for_good_stops_the_others_where_they_can_be_resumed() -> None:
    async def wear(scene: Scene) -> None:
        await all_verified(scene)
        scene.plant.nodes[BMU1].flash.inject_defect(1, WORN, SectorDefect.REPORTED)

    async def mend(scene: Scene) -> None:
        assert scene.all_connected
        for node in BMUS[1:]:
            assert resumable(scene, node) >= 6000
        erases = [scene.erased(node) for node in BMUS]
        flash = scene.plant.nodes[BMU1].flash
        flash.inject_defect(1, WORN, None)
        report = await scene.run_upgrade(LARGE)
        assert report.error is None, report.error
        assert [scene.erased(node) for node in BMUS[1:]] == erases[1:]

    outcome = play(wear, spec=FOUR, upgrade=LARGE, after=mend)
    outcome.require(Phase.FAILED, "FLASH_WRITE_FAILED", 91)
    assert "bmu1" in str(outcome.report.error)
    scene = outcome.scene
    failed_at = scene.entered_at(Phase.RECONNECT)
    assert not [s for s in scene.steps(NodeStep.VERIFY, BMU2) if s.at < failed_at]
    outcome.require_confirmed(NEW)


def test_one_that_is_silent_for_a_while_does_not_stop_the_others() -> None:
    offsets: dict[NodeAddress, tuple[int, int]] = {}

    async def lose_answers(scene: Scene) -> None:
        await all_verified(scene)
        answers = scene.plant.codec.diagnostic_ids(BMU1)[1]
        scene.plant.wire.fault = lambda _index, frame: WireFault.LOSE if frame.can_id == answers else None
        before = {node: resumable(scene, node) for node in BMUS}
        await pause(2.0)
        offsets.update({node: (before[node], resumable(scene, node)) for node in BMUS})
        scene.heal()

    outcome = play(lose_answers, spec=FOUR, upgrade=LARGE)
    require_all(outcome)
    assert offsets[BMU1][1] - offsets[BMU1][0] <= 2 * 4096
    assert all(after - before > 15_000 for node, (before, after) in offsets.items() if node != BMU1)
    assert [len(outcome.scene.steps(NodeStep.ANNOUNCE, node)) for node in BMUS] == [1, 1, 1, 1]
    assert all(len(outcome.scene.steps(NodeStep.TRANSFER, node)) == 1 for node in BMUS[1:])


def test_one_that_resets_takes_its_evidence_along_and_all_are_resumed() -> None:
    """The proof that high voltage is off needs every rack's word, and a BMU that restarts does not give it."""

    async def reset(scene: Scene) -> None:
        await all_verified(scene)
        scene.plant.nodes[BMU1].reset(scene.plant.wire.loop.time())

    outcome = play(reset, spec=FOUR, upgrade=LARGE)
    require_all(outcome)
    for node in BMUS:
        assert len(outcome.scene.steps(NodeStep.ANNOUNCE, node)) == 1
        assert outcome.scene.steps(NodeStep.TRANSFER, node)[-1].detail.startswith("resumed at")


# --- all of them ----------------------------------------------------------------------------------


def revocations(scene: Scene) -> Iterator[Noted]:
    return (e for e in scene.events if isinstance(e, Noted) and "HV_PERMIT_REVOKED" in e.text)


@pytest.mark.parametrize("max_load_percent", [None, 20.0])
def test_a_revoked_permit_stops_all_at_once_and_all_are_resumed(max_load_percent: float | None) -> None:
    def config(plant: Plant) -> GatewayConfig:
        return GatewayConfig(plant.addresses, bus=BusLimits(max_load_percent))

    lost_at: list[float] = []

    async def lose(scene: Scene) -> None:
        await all_verified(scene)
        scene.lose(BmsHvStatus)
        lost_at.append(scene.plant.wire.loop.time())
        await pause(1.5)
        scene.heal()

    outcome = play(lose, spec=FOUR, upgrade=LARGE, config=config)
    require_all(outcome)
    scene = outcome.scene
    notes = list(revocations(scene))
    assert {note.text.split(":")[0] for note in notes} == {str(node) for node in BMUS}
    assert max(note.at for note in notes) - lost_at[0] < 0.3  # the evidence may be 0.2 s old
    revoked_at = min(note.at for note in notes)
    # What was on the wire, and one behind it; then each is told once to begin nothing more.
    later = requests_between(scene, revoked_at + 0.001, lost_at[0] + 1.5)
    assert all(frame.data[:3] == b"\x02\x10\x81" for frame in later)
    assert len(later) <= len(BMUS)
    for node in BMUS:
        assert len(scene.steps(NodeStep.ANNOUNCE, node)) == 1
        assert scene.steps(NodeStep.TRANSFER, node)[-1].detail.startswith("resumed at")


@pytest.mark.parametrize("step", [NodeStep.ANNOUNCE, NodeStep.TRANSFER, NodeStep.VERIFY])
def test_an_operator_who_stops_it_gets_the_plant_back_and_can_go_on_later(step: NodeStep) -> None:
    async def stop(scene: Scene) -> None:
        await scene.step(step, BMUS[2])
        if step is NodeStep.TRANSFER:
            await all_verified(scene)
        assert scene.upgrade is not None
        scene.upgrade.cancel()

    async def go_on(scene: Scene) -> None:
        assert scene.all_connected
        assert set(scene.plant.versions().values()) == {OLD}
        erases = [scene.erased(node) for node in BMUS]
        if step is not NodeStep.ANNOUNCE:
            assert all(resumable(scene, node) >= 6000 for node in BMUS)
        report = await scene.run_upgrade(LARGE)
        assert report.error is None, report.error
        if step is not NodeStep.ANNOUNCE:
            assert [scene.erased(node) for node in BMUS] == erases

    outcome = play(stop, spec=FOUR, upgrade=LARGE, after=go_on)
    outcome.require(Phase.FAILED, "INTERRUPTED", 3)
    outcome.require_confirmed(NEW)
