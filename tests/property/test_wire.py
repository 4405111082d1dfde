"""What holds for any traffic on the simulated wire."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ess_can.can.frame import EXTENDED_FLAG, CanFrame, arbitration_field
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.sim.controller import QueueOrder
from ess_can.sim.loop import run_virtual
from ess_can.sim.trace import TraceHash
from ess_can.sim.wire import Wire, WireFault

TIMING = BitTiming(500_000)
NODES = 3


@dataclass(frozen=True)
class Sent:
    """A frame that a node sends at a time; its data names it."""

    node: int
    at_s: float
    frame: CanFrame


@dataclass
class Run:
    """What came of it."""

    deliveries: list[tuple[int, CanFrame, float]] = field(default_factory=list)  # receiver, frame, time
    confirmed: dict[CanFrame, float] = field(default_factory=dict)
    busy_s: float = 0.0
    digest: str = ""

    def deliver(self, receiver: int, frame: CanFrame, now: float) -> None:
        self.deliveries.append((receiver, frame, now))

    def confirm(self, frame: CanFrame, now: float) -> None:
        self.confirmed[frame] = now


# Each node has identifiers of its own (two nodes must not share one), 11-bit and 29-bit with equal leading bits.
offsets = st.integers(0, 3)
moments = st.integers(0, 12).map(lambda n: n * 0.0001)


@st.composite
def traffic(draw: st.DrawFn) -> list[Sent]:
    sends = []
    for n in range(draw(st.integers(1, 25))):
        node, extended = draw(st.integers(0, NODES - 1)), draw(st.booleans())
        base = draw(offsets) * NODES + node
        can_id = EXTENDED_FLAG | base << 18 | draw(st.integers(0, 1)) if extended else base
        sends.append(Sent(node, draw(moments), CanFrame(can_id, bytes([n]) + draw(st.binary(max_size=7)))))
    return sorted(sends, key=lambda sent: sent.at_s)


def play(sends: list[Sent], order: QueueOrder, faults: dict[int, WireFault] | None = None) -> Run:
    async def main() -> Run:
        run, trace = Run(), TraceHash()
        loop = asyncio.get_running_loop()
        wire = Wire(TIMING, on_frame=trace.record)
        wire.fault = lambda index, _: (faults or {}).get(index)
        nodes = [wire.controller(str(n), depth=100, order=order) for n in range(NODES)]
        for n, node in enumerate(nodes):
            node.subscribe(None, partial(run.deliver, n))
        for sent in sends:
            loop.call_at(sent.at_s, nodes[sent.node].send, sent.frame, partial(run.confirm, sent.frame))
        end = loop.create_future()
        loop.call_at(1.0, end.set_result, None)
        await end
        run.busy_s, run.digest = wire.busy_s(), trace.hexdigest()
        return run

    return run_virtual(main())


orders = st.sampled_from(QueueOrder)


@settings(max_examples=60, deadline=None)
@given(traffic(), orders)
def test_every_accepted_frame_is_delivered_once_to_every_other_node(sends: list[Sent], order: QueueOrder) -> None:
    run = play(sends, order)
    expected = sorted((n, str(s.frame)) for s in sends for n in range(NODES) if n != s.node)
    assert sorted((n, str(frame)) for n, frame, _ in run.deliveries) == expected
    assert set(run.confirmed) == {sent.frame for sent in sends}


@settings(max_examples=60, deadline=None)
@given(traffic(), orders)
def test_busy_time_is_the_sum_of_the_durations_and_frames_do_not_overlap(sends: list[Sent], order: QueueOrder) -> None:
    run = play(sends, order)
    assert run.busy_s == pytest.approx(sum(frame_duration_s(sent.frame, TIMING) for sent in sends), abs=1e-12)
    intervals = sorted(
        (end - (frame_duration_s(frame, TIMING) - 6e-6), end + 6e-6) for frame, end in run.confirmed.items()
    )
    for (_, end), (start, _) in pairwise(intervals):
        assert start >= end - 1e-12


@settings(max_examples=100, deadline=None)
@given(traffic(), orders)
def test_whoever_starts_at_bus_idle_beats_all_that_were_offered(sends: list[Sent], order: QueueOrder) -> None:
    run = play(sends, order)
    started = {frame: end - (frame_duration_s(frame, TIMING) - 6e-6) for frame, end in run.confirmed.items()}
    for winner in sends:
        start = started[winner.frame]
        for node in range(NODES):
            waiting = [s for s in sends if s.node == node and s.at_s < start - 1e-9 and started[s.frame] > start + 1e-9]
            # a FIFO offers its oldest frame; one whose own frame is on the wire offers nothing
            offered = waiting[:1] if order is QueueOrder.FIFO else waiting
            if order is QueueOrder.FIFO and node == winner.node:
                offered = []
            for other in offered:
                assert arbitration_field(winner.frame) <= arbitration_field(other.frame)


@settings(max_examples=60, deadline=None)
@given(traffic(), orders)
def test_frames_of_one_node_and_identifier_keep_their_order(sends: list[Sent], order: QueueOrder) -> None:
    run = play(sends, order)
    for can_id in {sent.frame.can_id for sent in sends}:
        in_order = [sent.frame for sent in sends if sent.frame.can_id == can_id]
        assert sorted(in_order, key=lambda frame: run.confirmed[frame]) == in_order


harmless = st.dictionaries(st.integers(0, 30), st.sampled_from([WireFault.CORRUPT, WireFault.DUPLICATE]), max_size=8)


@settings(max_examples=60, deadline=None)
@given(traffic(), orders, harmless)
def test_detected_errors_lose_nothing(sends: list[Sent], order: QueueOrder, faults: dict[int, WireFault]) -> None:
    run = play(sends, order, faults)
    clean = play(sends, order)
    received = {(n, frame) for n, frame, _ in run.deliveries}
    assert received == {(n, frame) for n, frame, _ in clean.deliveries}
    assert set(run.confirmed) == set(clean.confirmed)


@settings(max_examples=30, deadline=None)
@given(traffic(), orders, harmless)
def test_the_same_run_has_the_same_trace(sends: list[Sent], order: QueueOrder, faults: dict[int, WireFault]) -> None:
    assert play(sends, order, faults).digest == play(sends, order, faults).digest
