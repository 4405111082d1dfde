"""Typed messages on a bus."""

from __future__ import annotations

from contextlib import suppress

from ess_can.bus.station import Received, Rejected, StationLink
from ess_can.can.frame import CanFrame
from ess_can.errors import BusOff, TransmitQueueFull
from ess_can.signals.e2e import Verdict
from ess_can.signals.messages import BmsCellGroup, BmsCellSummary, BmsHvStatus, BmsState, Message, NodeInfo, PcsStatus
from ess_can.sim.loop import run_virtual
from tests.support.memory_bus import bus_pair
from tests.support.scripted_plant import BMU2, CELLS, CODEC, PCS_OFF, RACK_OFF, STATE, node_info

PCS_ID = CODEC.route(PcsStatus).can_id


class Station:
    """A sender, a receiver, and what the receiver got."""

    def __init__(self) -> None:
        self.bus, peer = bus_pair()
        self.sender = StationLink(self.bus, CODEC)
        self.receiver = StationLink(peer, CODEC)
        self.peer = peer
        self.got: list[tuple[type[Message], int, Verdict | None]] = []
        self.rejected: list[Rejected] = []

    def hear(self, message_type: type[Message]) -> None:
        def receive(received: Received[Message]) -> None:
            self.got.append((type(received.message), received.index, received.verdict))

        self.receiver.subscribe(message_type, receive, self.rejected.append)

    def frames(self, message: Message, count: int, index: int = 1) -> list[CanFrame]:
        """What the sender would send, kept from the receiver."""
        self.bus.peer, before = None, len(self.bus.sent)
        for _ in range(count):
            self.sender.send(message, index)
        self.bus.peer = self.peer
        return self.bus.sent[before:]

    def verdicts(self) -> list[Verdict | None]:
        return [verdict for _, _, verdict in self.got]


def test_every_message_of_the_type_arrives_with_its_index() -> None:
    async def scenario() -> None:
        s = Station()
        s.hear(BmsState)
        s.sender.send(STATE, 1)
        s.sender.send(STATE, 2)
        s.sender.send_node_info(node_info(), BMU2)
        for frame in s.bus.sent:
            s.peer.deliver(frame)
        assert s.got == [(BmsState, 1, None), (BmsState, 2, None)]

    run_virtual(scenario())


def test_node_info_arrives_from_its_own_identifier() -> None:
    async def scenario() -> None:
        s = Station()
        s.hear(NodeInfo)
        s.sender.send_node_info(node_info(), BMU2)
        s.peer.deliver(s.bus.sent[0])
        assert s.got == [(NodeInfo, 2, None)]

    run_virtual(scenario())


def run_pcs(*pick: int, tamper: int | None = None) -> Station:
    """Deliver these of eight PCS_Status frames, one of them damaged."""

    async def scenario() -> Station:
        s = Station()
        s.hear(PcsStatus)
        frames = s.frames(PCS_OFF, 8)
        for position, number in enumerate(pick):
            frame = frames[number]
            if position == tamper:
                frame = CanFrame(frame.can_id, frame.data[:-1] + bytes((frame.data[-1] ^ 1,)))
            s.peer.deliver(frame)
        return s

    return run_virtual(scenario())


def test_a_sequence_is_ok() -> None:
    s = run_pcs(0, 1, 2)
    assert s.verdicts() == [Verdict.OK, Verdict.OK, Verdict.OK]
    assert s.rejected == []


def test_up_to_two_lost_frames_are_usable() -> None:
    s = run_pcs(0, 1, 4)
    assert s.verdicts() == [Verdict.OK, Verdict.OK, Verdict.OK_SOME_LOST]


def test_three_lost_frames_are_a_wrong_sequence() -> None:
    s = run_pcs(0, 1, 5)
    assert s.verdicts() == [Verdict.OK, Verdict.OK]
    assert [r.verdict for r in s.rejected] == [Verdict.WRONG_SEQUENCE]


def test_a_repeated_frame_is_rejected() -> None:
    s = run_pcs(0, 0)
    assert [(r.message_type, r.index, r.verdict) for r in s.rejected] == [(PcsStatus, 1, Verdict.REPEATED)]


def test_a_damaged_frame_is_rejected_and_counted() -> None:
    s = run_pcs(0, 1, tamper=1)
    assert s.verdicts() == [Verdict.OK]
    assert [r.verdict for r in s.rejected] == [Verdict.ERROR]
    assert (s.receiver.counters.e2e_rejected, s.receiver.counters.undecodable) == (1, 0)


def test_frames_of_another_shape_are_undecodable_not_evidence() -> None:
    async def scenario() -> Station:
        s = Station()
        s.hear(PcsStatus)
        frame = s.frames(PCS_OFF, 1)[0]
        s.peer.deliver(CanFrame(frame.can_id, frame.data[:-1]))
        s.peer.deliver(CanFrame(frame.can_id, frame.data, fd=True))
        s.peer.deliver(CanFrame(PCS_ID, bytes(8), remote=True))
        return s

    s = run_virtual(scenario())
    assert s.got == []
    assert [r.verdict for r in s.rejected] == [None, None, None]
    assert s.receiver.counters.undecodable == 3


def test_without_a_reject_callback_bad_frames_are_only_counted() -> None:
    async def scenario() -> Station:
        s = Station()
        s.receiver.subscribe(PcsStatus, lambda _: None)
        s.peer.deliver(CanFrame(PCS_ID, bytes(8)))
        return s

    assert run_virtual(scenario()).receiver.counters.e2e_rejected == 1


def test_another_page_of_a_multiplexed_message_is_neither_delivered_nor_rejected() -> None:
    async def scenario() -> Station:
        s = Station()
        s.hear(BmsCellSummary)
        for frame in (s.frames(BmsCellGroup(1, 3.3, 3.3, 3.3), 1)[0], s.frames(CELLS, 1)[0]):
            s.peer.deliver(frame)
        return s

    s = run_virtual(scenario())
    assert s.got == [(BmsCellSummary, 1, None)]
    assert s.rejected == []


def test_each_identifier_has_its_own_counter_and_monitor() -> None:
    async def scenario() -> Station:
        s = Station()
        s.hear(BmsHvStatus)
        for frame in (*s.frames(RACK_OFF, 2, 1), *s.frames(RACK_OFF, 2, 2)):
            s.peer.deliver(frame)
        return s

    s = run_virtual(scenario())
    assert s.got == [(BmsHvStatus, i, Verdict.OK) for i in (1, 1, 2, 2)]


def test_what_is_sent_is_told_and_what_was_not_sent_is_not() -> None:
    async def scenario() -> None:
        s = Station()
        told: list[CanFrame] = []
        s.sender.on_send = told.append
        s.sender.send(STATE)
        assert told == s.bus.sent
        s.bus.failure = BusOff("off")
        with suppress(BusOff):
            s.sender.send(STATE)
        assert len(told) == 1

    run_virtual(scenario())


def test_a_protected_frame_that_the_bus_refused_leaves_no_gap() -> None:
    async def scenario() -> None:
        s = Station()
        s.hear(PcsStatus)
        s.sender.send(PCS_OFF)
        s.bus.failure = TransmitQueueFull("no room")
        for _ in range(5):
            with suppress(TransmitQueueFull):
                s.sender.send(PCS_OFF)
        s.bus.failure = None
        s.sender.send(PCS_OFF)
        for frame in s.bus.sent:
            s.peer.deliver(frame)
        assert s.verdicts() == [Verdict.OK, Verdict.OK]

    run_virtual(scenario())


def test_after_close_nothing_arrives() -> None:
    async def scenario() -> None:
        s = Station()
        s.hear(BmsState)
        s.receiver.close()
        s.peer.deliver(s.frames(STATE, 1)[0])
        assert s.got == []
        assert s.peer.listeners == 0

    run_virtual(scenario())
