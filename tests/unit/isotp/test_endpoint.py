"""Both directions and both ends together."""

from __future__ import annotations

import random

import pytest

from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.errors import IsoTpError, NTimeoutA, NTimeoutBs, NTimeoutCr, NWrongSn
from ess_can.isotp import Endpoint, IsoTpAddress, IsoTpParams, MessageReceived, MessageSent, ReceiveFailed, SendFailed
from tests.unit.isotp.line import NODE, TESTER, Line, cf, drain, fc, ff, payload_of

CLASSIC = IsoTpParams(max_payload=10_000)


@pytest.mark.parametrize("tx_dl", [8, 12, 16, 20, 24, 32, 48, 64])
@pytest.mark.parametrize("padding", [None, 0xAA])
def test_every_length_around_the_edges_arrives(tx_dl: int, padding: int | None) -> None:
    params = IsoTpParams(tx_dl=tx_dl, fd=True, brs=True, padding=padding, max_payload=10_000)
    for length in (*range(1, 3 * tx_dl), 4094, 4095, 4096, 4097):
        line = Line(params)
        line.tester.send(payload_of(length), line.now)
        line.run()
        assert line.received(1) == [payload_of(length)]
        assert line.sent(0) == 1
        assert all(len(frame.data) <= tx_dl and frame.fd and frame.brs for _, frame in line.log)
        full = [frame.data for _, frame in line.log if frame.data[0] >> 4 in (1, 2)][:-1]
        assert all(len(data) == tx_dl for data in full)


def test_every_classic_length_arrives() -> None:
    for length in (*range(1, 130), 4095, 4096):
        line = Line(CLASSIC)
        line.tester.send(payload_of(length), line.now)
        line.run()
        assert line.received(1) == [payload_of(length)]
        assert all(len(frame.data) == 8 and not frame.fd for _, frame in line.log)


def test_both_directions_at_once() -> None:
    line = Line(IsoTpParams(block_size=4), IsoTpParams(block_size=3))
    line.tester.send(payload_of(500), line.now)
    line.node.send(payload_of(600, seed=9), line.now)
    line.run()
    assert line.received(1) == [payload_of(500)]
    assert line.received(0) == [payload_of(600, seed=9)]
    assert line.errors(0) == line.errors(1) == []
    assert line.tester.counters.ignored == line.node.counters.ignored == 0


def test_normal_fixed_addressing_is_two_29_bit_identifiers() -> None:
    tester = IsoTpAddress(EXTENDED_FLAG | 0x18DA10F1, EXTENDED_FLAG | 0x18DAF110)
    one, other = Endpoint(tester, CLASSIC), Endpoint(IsoTpAddress(tester.rx_id, tester.tx_id), CLASSIC)
    one.send(b"\x22\xf1\x89", 0.0)
    (frame,) = drain(one, 0.0)
    assert frame.extended
    assert other.receive(frame, 0.0) == (MessageReceived(b"\x22\xf1\x89"),)
    assert other.receive(CanFrame(0x0F1, frame.data), 0.0) == ()


def test_flow_control_takes_the_next_free_place() -> None:
    endpoint = Endpoint(TESTER, CLASSIC)
    endpoint.send(payload_of(1000), 0.0)
    drain(endpoint, 0.0)
    endpoint.receive(fc(), 0.0)
    first, second = endpoint.next_frame(0.0), endpoint.next_frame(0.0)
    assert first is not None
    assert second is not None
    endpoint.receive(ff(100, can_id=TESTER.rx_id), 0.0)
    assert endpoint.next_frame(0.0) is None, "two in flight"
    endpoint.frame_sent(first, 0.1)
    third = endpoint.next_frame(0.1)
    assert third is not None
    assert third.data[0] == 0x30
    assert endpoint.receiving
    assert endpoint.sending


def test_giving_up_unconfirmed_frames_fails_both_directions() -> None:
    endpoint = Endpoint(TESTER, CLASSIC)
    endpoint.send(payload_of(1000), 0.0)
    endpoint.next_frame(0.0)
    endpoint.receive(ff(100, can_id=TESTER.rx_id), 0.0)
    endpoint.next_frame(0.0)
    sending, receiving = endpoint.give_up_unconfirmed(0.5, "the adapter is gone")
    assert isinstance(sending, SendFailed)
    assert isinstance(sending.error, NTimeoutA)
    assert sending.error.why == "the adapter is gone"
    assert isinstance(receiving, ReceiveFailed)
    assert isinstance(receiving.error, NTimeoutA)


@pytest.mark.parametrize("lost", range(18))
def test_any_one_frame_lost(lost: int) -> None:
    """FF, FC, 16 CFs: the loss is always found, by the receiver at the latest, and nothing partial is delivered."""
    line = Line(CLASSIC)
    count = 0

    def lose(frame: CanFrame) -> list[CanFrame]:
        nonlocal count
        count += 1
        return [] if count - 1 == lost else [frame]

    line.spoil = lose
    line.tester.send(payload_of(6 + 7 * 16), line.now)
    line.run()
    assert line.received(1) == []
    expected: dict[int, tuple[list[type[IsoTpError]], list[type[IsoTpError]]]] = {
        0: ([NTimeoutBs], []),
        1: ([NTimeoutBs], [NTimeoutCr]),
        17: ([], [NTimeoutCr]),
    }
    assert (line.errors(0), line.errors(1)) == expected.get(lost, ([], [NWrongSn]))


@pytest.mark.parametrize("doubled", range(18))
def test_any_one_frame_duplicated(doubled: int) -> None:
    line = Line(CLASSIC)
    count = 0

    def double(frame: CanFrame) -> list[CanFrame]:
        nonlocal count
        count += 1
        return [frame, frame] if count - 1 == doubled else [frame]

    line.spoil = double
    message = payload_of(6 + 7 * 16)
    line.tester.send(message, line.now)
    line.run()
    # a duplicate first frame begins the message anew, one of the flow control or of the last frame is ignored
    whole = doubled in (0, 1, 17)
    assert line.received(1) == ([message] if whole else [])
    assert (NWrongSn in line.errors(1)) is not whole


def test_the_next_message_gets_through_after_any_failure() -> None:
    line = Line(CLASSIC)
    line.spoil = lambda frame: []
    line.tester.send(payload_of(100), line.now)
    line.run()
    line.spoil = lambda frame: [frame]
    line.tester.send(payload_of(100), line.now)
    line.run()
    assert line.received(1) == [payload_of(100)]
    assert line.errors(0) == [NTimeoutBs]
    assert line.sent(0) == 1


def test_random_frames_never_raise_and_are_accounted_for() -> None:
    # FUZZ of T7, T10, T11, T12: three endpoints in different states, 30,000 frames
    rng = random.Random(20)
    idle = Endpoint(NODE, IsoTpParams(fd=True, tx_dl=64))
    sending = Endpoint(NODE, IsoTpParams())
    receiving = Endpoint(NODE, IsoTpParams(block_size=3))
    now = 0.0
    for _ in range(10_000):
        now += rng.choice((0.0, 0.001, 0.3))
        length = rng.choice((0, 1, 2, 3, 7, 8, 8, 8, 12, 64))
        data = rng.randbytes(length)
        if data and rng.random() < 0.7:
            data = bytes((rng.choice((0x00, 0x02, 0x10, 0x11, 0x21, 0x22, 0x30, 0x31, 0x32, 0x3F)),)) + data[1:]
        frame = CanFrame(NODE.rx_id, data, fd=length > 8)
        for endpoint in (idle, sending, receiving):
            if endpoint is sending and not endpoint.sending:
                endpoint.send(payload_of(200), now)
            if endpoint is receiving and not endpoint.receiving:
                endpoint.receive(ff(200), now)
                endpoint.receive(cf(1), now)
            for event in (*endpoint.tick(now), *endpoint.receive(frame, now)):
                if isinstance(event, MessageReceived):
                    assert 1 <= len(event.payload) <= 4095
            drain(endpoint, now)
            deadline = endpoint.next_deadline
            assert deadline is None or deadline > now, "a deadline that has passed would keep a driver spinning"
    assert min(e.counters.ignored for e in (idle, sending, receiving)) > 3000


def test_a_message_sent_is_reported_once() -> None:
    line = Line(CLASSIC)
    line.tester.send(payload_of(50), line.now)
    line.run()
    assert line.events[0] == [MessageSent()]
