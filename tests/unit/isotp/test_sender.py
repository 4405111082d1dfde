from __future__ import annotations

import pytest

from ess_can.errors import IsoTpTooSlow, NBufferOvflw, NInvalidFs, NTimeoutA, NTimeoutBs, NWftOvrn, UsageError
from ess_can.isotp import Endpoint, IsoTpParams, MessageSent, SendFailed
from tests.unit.isotp.line import TESTER, Line, drain, error_of, fc, hexed, payload_of


def started(length: int = 100, params: IsoTpParams | None = None) -> Endpoint:
    """An endpoint whose first frame is on the wire at t = 0."""
    endpoint = Endpoint(TESTER, params if params is not None else IsoTpParams())
    endpoint.send(payload_of(length), 0.0)
    assert len(drain(endpoint, 0.0)) == 1
    return endpoint


def test_an_empty_message_is_refused() -> None:
    with pytest.raises(UsageError):
        Endpoint(TESTER, IsoTpParams()).send(b"", 0.0)


def test_one_message_at_a_time() -> None:
    with pytest.raises(UsageError):
        started().send(b"next", 0.0)


def test_a_single_frame_is_done_when_confirmed() -> None:
    endpoint = Endpoint(TESTER, IsoTpParams())
    endpoint.send(b"\x3e\x80", 0.0)
    frame = endpoint.next_frame(0.0)
    assert frame is not None
    assert frame.data.hex() == "023e80cccccccccc"
    assert endpoint.next_frame(0.0) is None
    assert endpoint.sending
    assert endpoint.frame_sent(frame, 0.1) == (MessageSent(),)
    assert not endpoint.sending
    assert endpoint.next_deadline is None


def test_no_frame_goes_out_before_flow_control() -> None:
    endpoint = started()
    assert endpoint.next_frame(0.5) is None
    assert endpoint.receive(fc(), 0.5) == ()
    assert len(drain(endpoint, 0.5)) == 14
    assert not endpoint.sending


def test_sequence_numbers_and_block_counter_wrap() -> None:
    # T14, with a block size that does not divide 16
    line = Line(IsoTpParams(block_size=5))
    message = payload_of(6 + 7 * 40)
    line.tester.send(message, line.now)
    line.run()
    sequence = [frame.data[0] & 0xF for _, frame in line.log if frame.data[0] >> 4 == 2]
    assert sequence == [(i + 1) & 0xF for i in range(40)]
    assert line.received(1) == [message]
    assert sum(frame.data[0] == 0x30 for _, frame in line.log) == 8


def test_block_size_may_change_with_every_flow_control() -> None:
    # T13
    endpoint = started(6 + 7 * 10)
    endpoint.receive(fc(block_size=1), 0.0)
    assert hexed(*drain(endpoint, 0.0))[0][:2] == "21"
    endpoint.receive(fc(block_size=3), 0.0)
    assert [data[:2] for data in hexed(*drain(endpoint, 0.0))] == ["22", "23", "24"]
    endpoint.receive(fc(block_size=0), 0.0)
    assert len(drain(endpoint, 0.0)) == 6


@pytest.mark.parametrize(
    ("st_min", "gap"), [(0x01, 0.001), (0x14, 0.020), (0xF1, 0.0001), (0xF9, 0.0009), (0x80, 0.127)]
)
def test_st_min_runs_from_confirmation_to_the_next_hand_over(st_min: int, gap: float) -> None:
    endpoint = started(6 + 7 * 3)
    endpoint.receive(fc(st_min=st_min), 0.9)
    for at in (0.9, 1.5, 2.0):
        frame = endpoint.next_frame(at)
        assert frame is not None, "no gap is due after a flow control, and it has passed before the others"
        assert endpoint.next_frame(at) is None, "the next one waits until this is confirmed"
        endpoint.frame_sent(frame, at + 0.01)
        if at < 2.0:
            assert endpoint.next_deadline == pytest.approx(at + 0.01 + gap)
            assert endpoint.next_frame(at + 0.01 + gap * 0.99) is None
    assert not endpoint.sending


def test_n_timeout_bs_without_flow_control() -> None:
    # T1: an error, never success
    endpoint = started()
    assert endpoint.next_deadline == 1.0
    assert endpoint.tick(0.999) == ()
    assert isinstance(error_of(endpoint.tick(1.0)), NTimeoutBs)
    assert not endpoint.sending
    assert endpoint.next_frame(1.0) is None


def test_n_timeout_bs_at_the_end_of_a_block() -> None:
    endpoint = started()
    endpoint.receive(fc(block_size=2), 0.5)
    assert len(drain(endpoint, 0.6)) == 2
    assert endpoint.next_deadline == 1.6
    assert isinstance(error_of(endpoint.tick(1.6)), NTimeoutBs)


def test_flow_control_after_n_bs_is_too_late_even_without_a_tick() -> None:
    endpoint = started()
    assert isinstance(error_of(endpoint.receive(fc(), 1.0)), NTimeoutBs)
    assert endpoint.counters.flow_control_late == 1
    assert endpoint.next_frame(1.0) is None


def test_n_timeout_a_without_confirmation() -> None:
    # T3
    endpoint = Endpoint(TESTER, IsoTpParams(n_as_s=0.4))
    endpoint.send(b"\x10\x03", 0.0)
    frame = endpoint.next_frame(0.1)
    assert frame is not None
    assert endpoint.next_deadline == 0.5
    assert isinstance(error_of(endpoint.tick(0.5)), NTimeoutA)
    assert endpoint.frame_sent(frame, 0.6) == ()
    assert endpoint.counters.late_confirmation == 1


def test_every_confirmation_restarts_n_as() -> None:
    endpoint = started()
    endpoint.receive(fc(), 0.0)
    first, second = endpoint.next_frame(0.0), endpoint.next_frame(0.0)
    assert first is not None
    assert second is not None
    assert endpoint.next_frame(0.0) is None, "two in flight"
    endpoint.frame_sent(first, 0.9)
    assert endpoint.next_deadline == 1.9
    assert isinstance(error_of(endpoint.tick(1.9)), NTimeoutA)


def test_n_wft_ovrn_stops_endless_waiting() -> None:
    # T6
    endpoint = started(params=IsoTpParams(wft_max=3))
    for i in range(3):
        assert endpoint.receive(fc(1), 0.5 * i) == ()
        assert endpoint.next_deadline == 0.5 * i + 1.0, "a wait restarts N_Bs"
    assert isinstance(error_of(endpoint.receive(fc(1), 1.5)), NWftOvrn)


def test_continue_to_send_ends_the_row_of_waits() -> None:
    endpoint = started(params=IsoTpParams(wft_max=1))
    endpoint.receive(fc(1), 0.0)
    endpoint.receive(fc(0, block_size=1), 0.0)
    drain(endpoint, 0.0)
    assert endpoint.receive(fc(1), 0.0) == ()
    assert endpoint.sending


def test_flow_control_overflow() -> None:
    # T5
    assert isinstance(error_of(started().receive(fc(2), 0.0)), NBufferOvflw)


@pytest.mark.parametrize("status", range(3, 16))
def test_invalid_flow_status(status: int) -> None:
    # T7
    endpoint = started()
    assert isinstance(error_of(endpoint.receive(fc(status), 0.0)), NInvalidFs)
    assert drain(endpoint, 0.0) == []


def test_unsolicited_flow_control_is_ignored() -> None:
    # T10: idle, in the middle of a block, and after the end
    endpoint = Endpoint(TESTER, IsoTpParams())
    assert endpoint.receive(fc(2), 0.0) == ()
    endpoint.send(payload_of(100), 0.0)
    assert endpoint.receive(fc(2), 0.0) == (), "nothing is awaited before the first frame is handed over"
    drain(endpoint, 0.0)
    endpoint.receive(fc(), 0.0)
    assert endpoint.receive(fc(2), 0.0) == ()
    assert len(drain(endpoint, 0.0)) == 14
    assert endpoint.receive(fc(3), 0.0) == ()
    assert endpoint.counters.flow_control_unsolicited == 4


def test_flow_control_from_the_wrong_identifier_is_ignored() -> None:
    # T15
    endpoint = started()
    endpoint.receive(fc(can_id=TESTER.rx_id + 1), 0.0)
    assert endpoint.next_frame(0.0) is None
    assert endpoint.counters.wrong_identifier == 1


def test_short_flow_control_is_ignored() -> None:
    endpoint = started()
    short = fc()
    endpoint.receive(type(short)(short.can_id, short.data[:2]), 0.0)
    assert endpoint.next_frame(0.0) is None
    assert endpoint.counters.flow_control_too_short == 1


def test_flow_control_may_come_before_our_confirmation() -> None:
    endpoint = Endpoint(TESTER, IsoTpParams())
    endpoint.send(payload_of(20), 0.0)
    first = endpoint.next_frame(0.0)
    assert first is not None
    endpoint.receive(fc(), 0.1)
    second = endpoint.next_frame(0.1)
    assert second is not None
    assert endpoint.frame_sent(first, 0.2) == ()
    third = endpoint.next_frame(0.2)
    assert third is not None
    assert endpoint.frame_sent(second, 0.3) == ()
    assert endpoint.frame_sent(third, 0.3) == (MessageSent(),)


def test_a_confirmation_stands_for_those_before_it() -> None:
    endpoint = started(20)
    endpoint.receive(fc(), 0.1)
    first, second = endpoint.next_frame(0.1), endpoint.next_frame(0.1)
    assert first is not None
    assert second is not None
    assert endpoint.frame_sent(second, 0.2) == (MessageSent(),)
    assert endpoint.frame_sent(first, 0.2) == ()
    assert endpoint.counters.late_confirmation == 1


def test_too_slow_when_every_time_out_is_just_met() -> None:
    # T16: block size 1 and a flow control just within N_Bs gives 7 bytes a second
    endpoint = started(4000)
    now = 0.0
    while endpoint.sending:
        now += 0.99
        assert now < 20.0
        events = endpoint.tick(now) or endpoint.receive(fc(block_size=1), now)
        drain(endpoint, now)
    assert isinstance(error_of(events), IsoTpTooSlow)
    assert now < 14.0


def test_the_minimum_rate_has_its_own_deadline() -> None:
    endpoint = started(4000, IsoTpParams(n_bs_s=60.0, rate_grace_s=2.0, min_rate=6.0))
    assert endpoint.next_deadline == 3.0, "2 s of grace, and 6 bytes are out"
    assert endpoint.tick(2.99) == ()
    assert isinstance(error_of(endpoint.tick(3.0)), IsoTpTooSlow)


def test_the_slowest_pace_of_the_standard_is_not_too_slow() -> None:
    line = Line(IsoTpParams(), IsoTpParams(st_min=0x7F))
    line.tester.send(payload_of(4095), line.now)
    line.run()
    assert line.received(1) == [payload_of(4095)]
    assert line.now - 100.0 > 583 * 0.127


def test_a_refused_frame_comes_again_and_n_as_goes_on() -> None:
    endpoint = Endpoint(TESTER, IsoTpParams())
    endpoint.send(b"\x01", 0.0)
    frame = endpoint.next_frame(0.0)
    assert frame is not None
    endpoint.frame_refused(frame)
    assert endpoint.next_deadline == 1.0
    assert endpoint.next_frame(0.9) is frame
    endpoint.frame_refused(frame)
    assert isinstance(error_of(endpoint.tick(1.0)), NTimeoutA)
    assert endpoint.next_frame(1.0) is None


def test_refusing_what_was_not_given_last_does_nothing() -> None:
    endpoint = started(20)
    endpoint.frame_refused(fc())
    endpoint.receive(fc(), 0.0)
    first, second = endpoint.next_frame(0.0), endpoint.next_frame(0.0)
    assert first is not None
    assert second is not None
    endpoint.frame_refused(first)
    assert endpoint.next_frame(0.0) is None


class TestAbort:
    def test_nothing_more_goes_out_and_no_event_comes(self) -> None:
        endpoint = started()
        endpoint.receive(fc(), 0.0)
        in_flight = endpoint.next_frame(0.0)
        assert in_flight is not None
        endpoint.abort_send(0.0)
        assert endpoint.next_frame(0.0) is None
        assert endpoint.frame_sent(in_flight, 0.1) == ()
        assert endpoint.next_deadline is None
        endpoint.abort_send(0.2)

    def test_a_refused_frame_is_dropped(self) -> None:
        endpoint = Endpoint(TESTER, IsoTpParams())
        endpoint.send(payload_of(100), 0.0)
        frame = endpoint.next_frame(0.0)
        assert frame is not None
        endpoint.frame_refused(frame)
        endpoint.abort_send(0.0)
        assert endpoint.next_frame(0.0) is None
        endpoint.send(payload_of(100), 0.0)
        assert endpoint.next_frame(0.0) is not None, "the refused first frame owes us no flow control"

    def test_a_frame_refused_after_its_message_was_aborted_is_dropped(self) -> None:
        endpoint = Endpoint(TESTER, IsoTpParams())
        endpoint.send(b"\x01", 0.0)
        frame = endpoint.next_frame(0.0)
        assert frame is not None
        endpoint.abort_send(0.0)
        endpoint.frame_refused(frame)
        assert endpoint.next_frame(0.0) is None
        assert endpoint.next_deadline is None

    def test_the_confirmation_of_an_aborted_frame_does_not_complete_the_next_message(self) -> None:
        endpoint = Endpoint(TESTER, IsoTpParams())
        endpoint.send(b"\x01", 0.0)
        old = endpoint.next_frame(0.0)
        endpoint.abort_send(0.0)
        endpoint.send(b"\x02", 0.0)
        new = endpoint.next_frame(0.0)
        assert old is not None
        assert new is not None
        assert endpoint.frame_sent(old, 0.1) == ()
        assert endpoint.sending
        assert endpoint.frame_sent(new, 0.1) == (MessageSent(),)

    def test_aborted_frames_in_flight_still_count(self) -> None:
        endpoint = Endpoint(TESTER, IsoTpParams(), max_in_flight=1)
        endpoint.send(b"\x01", 0.0)
        old = endpoint.next_frame(0.0)
        endpoint.abort_send(0.0)
        endpoint.send(b"\x02", 0.0)
        assert endpoint.next_frame(0.0) is None
        assert old is not None
        endpoint.frame_sent(old, 0.1)
        assert endpoint.next_frame(0.1) is not None

    def test_a_frame_never_confirmed_does_not_block_for_ever(self) -> None:
        endpoint = Endpoint(TESTER, IsoTpParams(), max_in_flight=1)
        endpoint.send(b"\x01", 0.0)
        endpoint.next_frame(0.0)
        endpoint.abort_send(0.0)
        endpoint.send(b"\x02", 0.5)
        assert endpoint.next_deadline == 1.0
        assert endpoint.tick(1.0) == ()
        assert endpoint.sending
        assert endpoint.next_frame(1.0) is not None

    def test_owed_flow_control_is_not_taken_for_the_next_message(self) -> None:
        endpoint = started()
        endpoint.abort_send(0.1)
        endpoint.send(payload_of(30), 0.2)
        assert endpoint.next_frame(0.2) is None
        assert endpoint.next_deadline == 1.1
        assert endpoint.receive(fc(1), 0.3) == (), "a wait announces another one"
        assert endpoint.next_frame(0.3) is None
        assert endpoint.receive(fc(), 0.4) == ()
        assert endpoint.counters.flow_control_late == 2
        assert len(drain(endpoint, 0.4)) == 1, "the first frame, and no consecutive frame"

    def test_owed_flow_control_is_waited_for_no_longer_than_n_bs(self) -> None:
        endpoint = started()
        endpoint.abort_send(0.1)
        endpoint.send(payload_of(30), 0.2)
        assert endpoint.tick(1.1) == ()
        assert len(drain(endpoint, 1.1)) == 1
        assert endpoint.next_deadline == 2.1

    def test_a_time_to_send_is_no_deadline_while_there_is_no_room_in_flight(self) -> None:
        endpoint = Endpoint(TESTER, IsoTpParams(n_as_s=3.0), max_in_flight=1)
        endpoint.send(payload_of(100), 0.0)
        assert endpoint.next_frame(0.0) is not None
        endpoint.abort_send(0.1)
        endpoint.send(payload_of(30), 0.2)
        assert endpoint.next_deadline == 3.0

    def test_owed_flow_control_without_a_next_message(self) -> None:
        endpoint = started()
        endpoint.abort_send(0.1)
        endpoint.receive(fc(), 0.2)
        endpoint.send(payload_of(30), 0.3)
        assert endpoint.next_frame(0.3) is not None

    def test_a_single_frame_need_not_wait(self) -> None:
        endpoint = started()
        endpoint.abort_send(0.1)
        endpoint.send(b"\x01", 0.1)
        assert endpoint.next_frame(0.1) is not None

    @pytest.mark.parametrize("status", [2, 5])
    def test_nothing_is_owed_after_the_receiver_refused(self, status: int) -> None:
        endpoint = started()
        assert isinstance(endpoint.receive(fc(status), 0.1)[0], SendFailed)
        endpoint.send(payload_of(30), 0.1)
        assert endpoint.next_frame(0.1) is not None
