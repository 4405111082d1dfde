from __future__ import annotations

import sys
import tracemalloc

import pytest

from ess_can.can.frame import CanFrame
from ess_can.errors import IsoTpTooSlow, NTimeoutA, NTimeoutCr, NUnexpPdu, NWftOvrn, NWrongSn
from ess_can.isotp import Endpoint, IsoTpParams, MessageReceived, MessageStarted, ReceiveFailed
from tests.unit.isotp.line import NODE, cf, drain, error_of, ff, hexed, payload_of


def receiving(length: int = 100, params: IsoTpParams | None = None) -> Endpoint:
    """An endpoint that has answered a first frame at t = 0."""
    endpoint = Endpoint(NODE, params if params is not None else IsoTpParams())
    assert endpoint.receive(ff(length), 0.0) == (MessageStarted(length),)
    assert len(drain(endpoint, 0.0)) == 1
    return endpoint


def sf(*data: int) -> CanFrame:
    return CanFrame(NODE.rx_id, bytes(data))


def test_first_frame_is_answered_with_what_we_ask_for() -> None:
    endpoint = Endpoint(NODE, IsoTpParams(block_size=8, st_min=0xF3, padding=None))
    endpoint.receive(ff(100), 0.0)
    assert hexed(*drain(endpoint, 0.0)) == ["3008f3"]


def test_block_size_is_counted_from_each_flow_control() -> None:
    endpoint = receiving(6 + 7 * 5, IsoTpParams(block_size=2))
    answers = []
    for i in range(1, 6):
        endpoint.receive(cf(i), 0.0)
        answers.append(len(drain(endpoint, 0.0)))
    assert answers == [0, 1, 0, 1, 0]
    assert not endpoint.receiving


@pytest.mark.parametrize("last", ["24", "24cc", "24aabbccddeeff11"])
def test_the_last_frame_may_have_any_padding(last: str) -> None:
    # T13
    message = payload_of(6 + 7 * 3 + 1)
    endpoint = Endpoint(NODE, IsoTpParams())
    endpoint.receive(ff(len(message), message[:6]), 0.0)
    for i in range(1, 4):
        endpoint.receive(cf(i, message[7 * i - 1 : 7 * i + 6]), 0.0)
    raw = bytes.fromhex(last)
    events = endpoint.receive(CanFrame(NODE.rx_id, raw[:1] + message[-1:] + raw[1:7]), 0.0)
    assert events == (MessageReceived(message),)


def test_a_consecutive_frame_of_wrong_length_is_ignored() -> None:
    endpoint = receiving(6 + 7 + 3)
    assert endpoint.receive(cf(1, bytes(6)), 0.0) == ()
    endpoint.receive(cf(1), 0.0)
    assert endpoint.receive(cf(2, bytes(2)), 0.0) == (), "too short for what is left"
    assert endpoint.receive(cf(2, bytes(8)), 0.0) == (), "longer than the first frame"
    assert endpoint.counters.consecutive_frame_invalid_length == 3
    assert isinstance(endpoint.receive(cf(2, bytes(3)), 0.0)[0], MessageReceived)


def test_n_timeout_cr_after_the_first_flow_control() -> None:
    # T2
    endpoint = receiving()
    assert endpoint.next_deadline == 1.0
    assert endpoint.tick(0.999) == ()
    assert isinstance(error_of(endpoint.tick(1.0)), NTimeoutCr)
    assert endpoint.next_deadline is None


def test_n_timeout_cr_runs_from_the_last_frame_heard() -> None:
    endpoint = receiving()
    endpoint.receive(cf(1), 0.7)
    assert endpoint.next_deadline == 1.7
    assert isinstance(error_of(endpoint.tick(1.7)), NTimeoutCr)


@pytest.mark.parametrize("late", [cf(1), sf(1, 0x55), ff(50)])
def test_what_comes_after_n_cr_is_too_late_even_without_a_tick(late: CanFrame) -> None:
    assert isinstance(error_of(receiving().receive(late, 1.0)), NTimeoutCr)


def test_n_cr_does_not_run_while_the_move_is_ours() -> None:
    endpoint = Endpoint(NODE, IsoTpParams(n_ar_s=3.0))
    endpoint.receive(ff(100), 0.0)
    flow_control = endpoint.next_frame(0.0)
    assert flow_control is not None
    assert endpoint.tick(2.0) == ()
    endpoint.frame_sent(flow_control, 2.5)
    assert endpoint.next_deadline == 3.5


def test_n_cr_does_not_run_at_the_end_of_a_block_until_our_flow_control_is_confirmed() -> None:
    endpoint = receiving(params=IsoTpParams(n_ar_s=3.0, block_size=2))
    endpoint.receive(cf(1), 0.1)
    endpoint.receive(cf(2), 0.2)
    flow_control = endpoint.next_frame(0.2)
    assert flow_control is not None
    assert endpoint.next_deadline == 3.2
    assert endpoint.tick(2.0) == ()
    endpoint.frame_sent(flow_control, 2.5)
    assert endpoint.next_deadline == 3.5


def test_n_timeout_a_when_flow_control_is_not_confirmed() -> None:
    endpoint = Endpoint(NODE, IsoTpParams(n_ar_s=0.3))
    endpoint.receive(ff(100), 0.0)
    assert endpoint.next_frame(0.0) is not None
    assert endpoint.next_deadline == pytest.approx(0.3)
    assert isinstance(error_of(endpoint.tick(0.3)), NTimeoutA)
    assert not endpoint.receiving


def test_n_timeout_a_when_the_bus_has_no_room_for_flow_control() -> None:
    endpoint = Endpoint(NODE, IsoTpParams())
    endpoint.receive(ff(100), 0.0)
    flow_control = endpoint.next_frame(0.0)
    assert flow_control is not None
    endpoint.frame_refused(flow_control)
    assert isinstance(error_of(endpoint.tick(1.0)), NTimeoutA)


def test_a_new_message_drops_the_refused_flow_control_of_the_old_one() -> None:
    endpoint = Endpoint(NODE, IsoTpParams())
    endpoint.receive(ff(100), 0.0)
    flow_control = endpoint.next_frame(0.0)
    assert flow_control is not None
    endpoint.frame_refused(flow_control)
    endpoint.receive(sf(1, 0x55), 0.1)
    assert endpoint.next_frame(0.1) is None


@pytest.mark.parametrize("wrong", [0, 2, 3, 15])
def test_wrong_sequence_number_ends_reception_without_delivery(wrong: int) -> None:
    # T4
    endpoint = receiving()
    events = endpoint.receive(cf(wrong), 0.0)
    assert isinstance(error_of(events), NWrongSn)
    assert not any(isinstance(event, MessageReceived) for event in events)
    assert endpoint.receive(cf(1), 0.0) == ()
    assert endpoint.counters.consecutive_frame_unsolicited == 1


def test_a_single_frame_ends_reception_and_is_accepted() -> None:
    # T9
    events = receiving().receive(sf(1, 0x55), 0.0)
    assert isinstance(error_of(events), NUnexpPdu)
    assert events[-1] == MessageReceived(b"\x55")


def test_a_first_frame_ends_reception_and_is_accepted() -> None:
    # T9
    endpoint = receiving()
    endpoint.receive(cf(1), 0.0)
    events = endpoint.receive(ff(6 + 7), 0.0)
    assert isinstance(error_of(events), NUnexpPdu)
    assert events[-1] == MessageStarted(13)
    assert len(drain(endpoint, 0.0)) == 1
    assert endpoint.receive(cf(1), 0.0) == (MessageReceived(bytes(13)),)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "empty_frame"),
        ("00", "single_frame_invalid_length"),
        ("0811223344556677", "single_frame_invalid_length"),
        ("0511", "single_frame_invalid_length"),
        ("1007112233445566", "first_frame_invalid_length"),
        ("100811", "first_frame_invalid_length"),
        ("4011", "unknown_pci"),
        ("ff11", "unknown_pci"),
        ("30", "flow_control_too_short"),
        ("300000", "flow_control_unsolicited"),
    ],
)
def test_what_is_ignored_does_not_disturb_reception(data: str, reason: str) -> None:
    # T10, T11, T12
    endpoint = receiving(6 + 7)
    assert endpoint.receive(CanFrame(NODE.rx_id, bytes.fromhex(data)), 0.0) == ()
    assert getattr(endpoint.counters, reason) == 1
    assert endpoint.counters.ignored == 1
    assert endpoint.receive(cf(1), 0.0) == (MessageReceived(bytes(13)),)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (CanFrame(NODE.rx_id ^ 1, b"\x01\x55"), "wrong_identifier"),
        (CanFrame(NODE.rx_id, b"", remote=True), "remote_frame"),
        (CanFrame(NODE.rx_id, b"\x01\x55", fd=True), "fd_frame"),
        (CanFrame(NODE.rx_id, b"\x21" + bytes(7)), "consecutive_frame_unsolicited"),
    ],
)
def test_foreign_frames_are_ignored_and_counted(frame: CanFrame, reason: str) -> None:
    endpoint = Endpoint(NODE, IsoTpParams())
    assert endpoint.receive(frame, 0.0) == ()
    assert getattr(endpoint.counters, reason) == 1
    assert endpoint.counters.ignored == 1


def test_classic_frames_are_accepted_where_we_speak_fd() -> None:
    endpoint = Endpoint(NODE, IsoTpParams(tx_dl=64, fd=True))
    assert endpoint.receive(sf(1, 0x55), 0.0) == (MessageReceived(b"\x55"),)


@pytest.mark.parametrize("length", [4096, 0xFFFF_FFFF])
def test_a_message_beyond_the_buffer_is_answered_with_overflow_and_nothing_is_allocated(length: int) -> None:
    # T11
    endpoint = Endpoint(NODE, IsoTpParams())
    announced = CanFrame(NODE.rx_id, b"\x10\x00" + length.to_bytes(4, "big") + b"\x01\x02")
    tracemalloc.start()
    try:
        assert endpoint.receive(announced, 0.0) == ()
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()
    assert hexed(*drain(endpoint, 0.0)) == ["320000cccccccccc"]
    assert not endpoint.receiving
    assert endpoint.next_deadline is None
    assert endpoint.counters.first_frame_overflow == 1


def test_overflow_ends_the_message_under_reception() -> None:
    endpoint = receiving(params=IsoTpParams(max_payload=100))
    events = endpoint.receive(ff(101), 0.0)
    assert isinstance(error_of(events), NUnexpPdu)
    assert hexed(*drain(endpoint, 0.0)) == ["320000cccccccccc"]


def test_the_deadline_of_an_unconfirmed_overflow() -> None:
    endpoint = Endpoint(NODE, IsoTpParams(max_payload=10, n_ar_s=0.5))
    endpoint.receive(ff(11), 0.0)
    assert endpoint.next_frame(0.0) is not None
    assert endpoint.next_deadline == 0.5
    assert endpoint.tick(0.5) == ()
    assert endpoint.next_deadline is None


def test_a_huge_announcement_within_the_limit_allocates_nothing() -> None:
    endpoint = Endpoint(NODE, IsoTpParams(max_payload=0xFFFF_FFFF))
    tracemalloc.start()
    try:
        endpoint.receive(CanFrame(NODE.rx_id, b"\x10\x00\xff\xff\xff\xff\x01\x02"), 0.0)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()
    assert endpoint.receiving
    assert sys.getsizeof(endpoint) < 1000


def test_too_slow_when_every_time_out_is_just_met() -> None:
    # T16: 7 bytes each 0.99 s
    endpoint = receiving(4000)
    now, i = 0.0, 0
    events = endpoint.tick(now)
    while endpoint.receiving:
        now, i = now + 0.99, i + 1
        assert now < 20.0
        events = endpoint.tick(now) or endpoint.receive(cf(i), now)
    assert isinstance(error_of(events), IsoTpTooSlow)
    assert now < 14.0


def test_consecutive_frames_before_our_flow_control_are_taken() -> None:
    # a sender that took a duplicate of the previous flow control for this one
    endpoint = receiving(6 + 7 * 3, IsoTpParams(block_size=1))
    endpoint.receive(cf(1), 0.0)
    assert endpoint.receive(cf(2), 0.0) == ()
    assert len(drain(endpoint, 0.0)) == 1
    assert isinstance(endpoint.receive(cf(3), 0.0)[0], MessageReceived)


def test_the_late_confirmation_of_an_older_flow_control_starts_nothing() -> None:
    endpoint = Endpoint(NODE, IsoTpParams())
    endpoint.receive(ff(100), 0.0)
    old = endpoint.next_frame(0.0)
    endpoint.receive(ff(200), 0.1)
    new = endpoint.next_frame(0.1)
    assert old is not None
    assert new is not None
    endpoint.frame_sent(old, 0.2)
    assert endpoint.next_deadline == pytest.approx(1.2), "still N_Ar"
    endpoint.frame_sent(new, 0.9)
    assert endpoint.next_deadline == pytest.approx(1.9)


class TestHold:
    def test_wait_frames_go_out_every_n_br_until_release(self) -> None:
        endpoint = Endpoint(NODE, IsoTpParams(n_br_s=0.4))
        endpoint.hold()
        assert endpoint.receive(ff(6 + 7), 0.0) == (MessageStarted(13),)
        assert hexed(*drain(endpoint, 0.0))[0].startswith("31")
        assert endpoint.next_deadline == 0.4
        assert endpoint.tick(0.4) == ()
        assert hexed(*drain(endpoint, 0.4))[0].startswith("31")
        endpoint.release(0.5)
        assert hexed(*drain(endpoint, 0.5))[0].startswith("30")
        assert isinstance(endpoint.receive(cf(1), 0.6)[0], MessageReceived)

    def test_n_wft_ovrn_when_we_hold_too_long(self) -> None:
        endpoint = Endpoint(NODE, IsoTpParams(n_br_s=0.4, wft_max=2))
        endpoint.hold()
        endpoint.receive(ff(100), 0.0)
        drain(endpoint, 0.0)
        endpoint.tick(0.4)
        drain(endpoint, 0.4)
        assert isinstance(error_of(endpoint.tick(0.8)), NWftOvrn)
        assert endpoint.next_frame(0.8) is None

    def test_no_wait_frames_allowed(self) -> None:
        endpoint = Endpoint(NODE, IsoTpParams(wft_max=0))
        endpoint.hold()
        events = endpoint.receive(ff(100), 0.0)
        assert isinstance(events[-1], ReceiveFailed)
        assert isinstance(error_of(events), NWftOvrn)

    def test_release_without_reception(self) -> None:
        endpoint = Endpoint(NODE, IsoTpParams())
        endpoint.hold()
        endpoint.release(0.0)
        assert endpoint.next_frame(0.0) is None
