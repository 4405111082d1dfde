from __future__ import annotations

from ess_can.campaign.timeline import Repeated, Timeline, event_text
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.gateway.progress import NodeStepEntered, Noted, PhaseEntered, Transferred
from ess_can.identity import NodeAddress, NodeType

BMU1 = NodeAddress(NodeType.BMU, 1)


def test_lines_are_in_the_order_of_their_times_and_of_one_instant_as_they_came() -> None:
    timeline = Timeline()
    timeline.add(2.0, "b", "second")
    timeline.add(1.0, "a", "first")
    timeline.add(2.0, "a", "third")
    assert [line.what for line in timeline.lines] == ["first", "second", "third"]


def test_what_repeats_is_folded() -> None:
    timeline = Timeline()
    for at in (1.0, 2.0, 3.0):
        timeline.add(at, "rack 1", "boots")
    timeline.add(4.0, "rack 2", "boots")
    timeline.add(5.0, "rack 1", "boots")
    folded = list(timeline.folded())
    assert [(one.line.at, one.line.who, one.times, one.until) for one in folded] == [
        (1.0, "rack 1", 3, 3.0),
        (4.0, "rack 2", 1, 4.0),
        (5.0, "rack 1", 1, 5.0),
    ]
    assert isinstance(folded[0], Repeated)


def test_an_empty_timeline() -> None:
    assert list(Timeline().folded()) == []


def test_the_gateways_events_in_words() -> None:
    timeline = Timeline()
    for event in (
        PhaseEntered(1.0, Phase.PROGRAM),
        PhaseEntered(2.0, Phase.HOLD_OPEN, "BUS_OFF"),
        NodeStepEntered(3.0, BMU1, NodeStep.TRANSFER),
        NodeStepEntered(4.0, BMU1, NodeStep.TRANSFER, "resumed at 4096"),
        Noted(5.0, "trying again"),
        Transferred(6.0, BMU1, 1, 2, 3.0),
    ):
        timeline.on_event(event)
    assert [(line.at, line.who, line.what) for line in timeline.lines] == [
        (1.0, "gateway", "phase program"),
        (2.0, "gateway", "phase hold open (BUS_OFF)"),
        (3.0, "gateway", "bmu1: transfer"),
        (4.0, "gateway", "bmu1: transfer (resumed at 4096)"),
        (5.0, "gateway", "note: trying again"),
    ]
    assert event_text(Transferred(6.0, BMU1, 1, 2, 3.0)) == ""
