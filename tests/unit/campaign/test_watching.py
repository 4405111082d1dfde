from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ess_can.bus.clock import pause
from ess_can.campaign.plants import SMALLEST
from ess_can.campaign.releases import make_plant
from ess_can.campaign.timeline import Timeline
from ess_can.campaign.watching import EDGES, Edges, PlantLines, entry_text
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import PhaseEntered
from ess_can.identity import NodeAddress, NodeType
from ess_can.journal.entries import Deed, Entry, Kind
from ess_can.sim.loop import run_virtual

BMU1 = NodeAddress(NodeType.BMU, 1)
AT = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_plant_that_starts_stops_and_trips_is_seen_to() -> None:
    timeline = Timeline()

    async def play() -> set[str]:
        plant = make_plant(SMALLEST.plant)
        edges, lines = Edges(plant), PlantLines(plant, timeline)
        plant.start()
        await pause(1.0)
        edges.of_upgrade([PhaseEntered(1.0, Phase.STATUS_CHECK), PhaseEntered(2.0, Phase.REFUSED)])
        plant.hardware[0].emergency_stop = True
        await pause(1.0)
        plant.hardware[0].emergency_stop = False
        plant.nodes[BMU1].reset(plant.wire.loop.time())
        await pause(2.0)
        plant.racks[0].clear_latches("A. Person", plant.wire.loop.time())
        await pause(1.0)
        lines.finish()
        return edges.seen

    seen = run_virtual(play())
    assert seen <= EDGES
    assert {"phase STATUS_CHECK REFUSED", "rack CLOSED LATCH", "rack FAULT RESTART", "pcs STANDBY START"} <= seen
    told = [f"{line.who}: {line.what}" for line in timeline.lines]
    assert "rack 1: fault (a latched fault)" in told
    assert any(line.startswith("rack 1: contactor main+ opened at ") for line in told)
    assert "bmu1: boots 1.0.0 from bank 0, confirmed (the confirmed image)" in told
    assert "rack 1: latches cleared by A. Person" in told


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (Entry(1, "1", AT, Kind.BEGAN, text="Release"), "began: Release"),
        (Entry(1, "1", AT, Kind.PHASE, text="program"), "phase: program"),
        (Entry(1, "1", AT, Kind.INTENT, Deed.OPEN_CONTACTORS), "intent open contactors"),
        (Entry(1, "1", AT, Kind.INTENT, Deed.CONFIRM, "bmu1", "version 1.1.0"), "intent confirm bmu1: version 1.1.0"),
        (Entry(1, "1", AT, Kind.RESULT, Deed.CONFIRM, "bmu1", ok=True), "result confirm bmu1 done"),
        (Entry(1, "1", AT, Kind.RESULT, Deed.LOCK, ok=False, text="BUS_OFF"), "result lock NOT done: BUS_OFF"),
    ],
)
def test_the_journals_entries_in_words(entry: Entry, text: str) -> None:
    assert entry_text(entry) == text
