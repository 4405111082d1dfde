from __future__ import annotations

from typing import TypeVar

import pytest
from udsoncan.Request import Request
from udsoncan.Response import Response

from ess_can.errors import AccessDenied, UdsError, UdsNegativeResponse, UdsProtocolError, UdsTimeout, UsageError
from ess_can.uds import exchange
from ess_can.uds.client import Again, Answered, ClientTiming, Event, Failed, KeepAlive, Pending, UdsClientSession
from ess_can.uds.exchange import SessionTimes
from ess_can.uds.rules import Session
from ess_can.uds.target import Did, Rid
from tests.support.uds_server import Bench

P2 = ClientTiming().p2 + ClientTiming().margin
P2_STAR = ClientTiming().p2_star + ClientTiming().margin
T = TypeVar("T")


def begun(request: str, timing: ClientTiming | None = None) -> UdsClientSession:
    client = UdsClientSession(timing)
    assert client.request(bytes.fromhex(request), 0.0).hex() == request
    client.sent(0.0)
    return client


def failure(event: Event | None) -> Failed:
    assert isinstance(event, Failed)
    return event


def received(client: UdsClientSession, payload: str, now: float = 0.01) -> Event | None:
    return client.receive(bytes.fromhex(payload), now)


def test_an_answer_that_fits_is_given() -> None:
    client = begun("22f18c")
    event = received(client, "62f18c4142")
    assert isinstance(event, Answered)
    assert exchange.read_identifier(Did.SERIAL_NUMBER).decode(event.response) == b"AB"
    assert client.next_deadline is None


def test_one_request_at_a_time() -> None:
    client = begun("22f18c")
    with pytest.raises(UsageError):
        client.request(b"\x3e\x00", 0.0)
    client.abandon(0.0)
    client.request(b"\x3e\x00", 0.0)


def test_a_udsoncan_request_is_encoded() -> None:
    assert UdsClientSession().request(Request.from_payload(b"\x10\x03"), 0.0) == b"\x10\x03"


def test_p2_runs_from_when_the_request_has_left() -> None:
    client = UdsClientSession()
    client.request(b"\x22\xf1\x8c", 0.0)
    assert client.next_deadline is None
    assert client.tick(100.0) is None
    client.sent(2.0)
    client.sent(3.0)  # once
    assert client.next_deadline == 2.0 + P2
    assert client.tick(2.149) is None
    lost = failure(client.tick(2.0 + P2))
    assert isinstance(lost.error, UdsTimeout)
    assert lost.again is Again.LOST
    assert "P2 is over" in str(lost.error)


def test_sent_without_a_request_starts_nothing() -> None:
    client = UdsClientSession()
    client.sent(0.0)
    assert client.next_deadline is None


# --- U14: late and foreign answers --------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_hex", "late"),
    [
        ("22f18c", "62f19103"),  # another identifier
        ("22f18c", "5003003201f4"),  # another service
        ("22f18c", "7f3622"),  # a refusal of another service
        ("3601aa", "7602"),  # another block
        ("3101ff00", "7101fd1000000000"),  # another routine
        ("3101fd10", "7103fd10"),  # another sub-function
        ("2711", "6712"),
        ("1003", "5001003201f4"),
        ("22f18c", "00"),
    ],
)
def test_u14_a_late_answer_to_another_request_is_ignored_and_counted(request_hex: str, late: str) -> None:
    client = begun(request_hex)
    assert received(client, late) is None
    assert client.stale == 1
    assert failure(client.tick(P2)).again is Again.LOST


def test_u14_an_answer_that_nobody_waits_for_is_ignored_and_counted() -> None:
    client = begun("3601aa")
    client.tick(P2)
    assert received(client, "7601") is None
    assert client.stale == 1


@pytest.mark.parametrize("junk", ["", "7f", "7f22", "7f222200"])
def test_what_is_no_answer_at_all_is_ignored_and_counted(junk: str) -> None:
    client = begun("22f18c")
    assert received(client, junk) is None
    assert client.malformed == 1
    assert isinstance(received(client, "62f18c41"), Answered)


@pytest.mark.parametrize(("request_hex", "cut"), [("22f18c", "62"), ("22f18c", "62f1"), ("3101ff00", "7101ff")])
def test_an_answer_too_short_for_its_echo_is_a_protocol_error(request_hex: str, cut: str) -> None:
    client = begun(request_hex)
    assert isinstance(failure(received(client, cut)).error, UdsProtocolError)
    assert client.malformed == 1


# --- negative answers ---------------------------------------------------------------------------


def test_a_refusal_carries_service_and_code() -> None:
    event = failure(received(begun("3101ff00"), "7f3122"))
    assert isinstance(event.error, UdsNegativeResponse)
    assert (event.error.service, event.error.nrc) == (0x31, 0x22)
    assert event.again is Again.NO
    assert "ConditionsNotCorrect" in str(event.error)


@pytest.mark.parametrize("nrc", ["33", "35", "36", "37"])
def test_refused_access_has_its_own_error(nrc: str) -> None:
    assert isinstance(failure(received(begun("2711"), f"7f27{nrc}")).error, AccessDenied)


def test_busy_asks_to_repeat() -> None:
    assert failure(received(begun("22f18c"), "7f2221")).again is Again.BUSY


# --- U1: response pending -----------------------------------------------------------------------


def test_u1_78_extends_to_p2_star() -> None:
    client = begun("3101ff00")
    assert received(client, "7f3178", 0.1) == Pending(1)
    assert client.next_deadline == 0.1 + P2_STAR
    assert received(client, "7f3178", 5.0) == Pending(2)
    assert client.tick(10.0) is None
    lost = failure(client.tick(5.0 + P2_STAR))
    assert isinstance(lost.error, UdsTimeout)
    assert lost.again is Again.LOST


def test_u1_78_then_the_final_answer() -> None:
    client = begun("3101ff00")
    received(client, "7f3178", 0.04)
    assert isinstance(received(client, "7101ff00", 4.0), Answered)


def test_u1_the_total_time_is_capped() -> None:
    client = begun("3101ff00", ClientTiming(pending_limit=10.0))
    for now in (0.04, 4.5):
        assert isinstance(received(client, "7f3178", now), Pending)
    assert client.next_deadline == 4.5 + P2_STAR
    assert isinstance(received(client, "7f3178", 9.0), Pending)
    assert client.next_deadline == 10.0
    capped = failure(client.tick(10.0))
    assert isinstance(capped.error, UdsTimeout)
    assert capped.again is Again.NO


def test_u1_a_78_after_the_cap_ends_the_wait() -> None:
    client = begun("3101ff00", ClientTiming(pending_limit=10.0))
    assert failure(received(client, "7f3178", 10.0)).again is Again.NO


def test_a_limit_shorter_than_p2_star_is_kept() -> None:
    client = begun("3101ff00", ClientTiming(pending_limit=1.0))
    received(client, "7f3178", 0.1)
    assert client.next_deadline == 1.0


def test_u1_the_number_of_78_is_capped() -> None:
    client = begun("3101ff00", ClientTiming(pending_count=3))
    events = [received(client, "7f3178", 0.01 * n) for n in range(1, 5)]
    assert events[:3] == [Pending(1), Pending(2), Pending(3)]
    assert isinstance(failure(events[3]).error, UdsTimeout)


# --- the session --------------------------------------------------------------------------------


def test_tester_present_is_due_in_every_session_but_the_default_one() -> None:
    client = UdsClientSession()
    client.adopt(Session.EXTENDED, SessionTimes(0.05, 5.0), 1.0)
    assert client.next_deadline == 3.0
    assert client.tick(2.999) is None
    assert client.tick(3.0) == KeepAlive(b"\x3e\x80")
    assert client.next_deadline == 5.0
    client.adopt(Session.DEFAULT, SessionTimes(0.05, 5.0), 4.0)
    assert client.next_deadline is None


def test_every_exchange_puts_tester_present_off() -> None:
    client = UdsClientSession()
    client.adopt(Session.EXTENDED, SessionTimes(0.05, 5.0), 0.0)
    client.request(b"\x22\xf1\x8c", 1.0)
    assert client.tick(10.0) is None
    received(client, "62f18c41", 10.0)
    assert client.next_deadline == 12.0
    client.end_session()
    assert client.next_deadline is None


def test_the_servers_times_are_adopted_within_bounds() -> None:
    client = UdsClientSession(ClientTiming(longest_p2_star=8.0))
    client.adopt(Session.PROGRAMMING, SessionTimes(0.5, 1000.0), 0.0)
    client.request(b"\x22\xf1\x8c", 0.0)
    client.sent(0.0)
    assert client.next_deadline == pytest.approx(0.6)
    received(client, "7f2278", 0.1)
    assert client.next_deadline == pytest.approx(8.2)
    client.abandon(1.0)
    client.end_session()
    client.request(b"\x22\xf1\x8c", 2.0)
    client.sent(2.0)
    assert client.next_deadline == 2.0 + P2


# --- typed exchanges ----------------------------------------------------------------------------


def decode(wanted: exchange.Exchange[T], answer: str) -> T:
    return wanted.decode(Response.from_payload(bytes.fromhex(answer)))


def test_typed_answers() -> None:
    assert decode(exchange.enter_session(Session.EXTENDED), "5003003201f4") == SessionTimes(0.05, 5.0)
    assert decode(exchange.request_seed(), "6711" + "01" * 16) == b"\x01" * 16
    assert decode(exchange.request_seed(), "6711" + "00" * 16) is None
    assert decode(exchange.start_routine(Rid.VERIFY_MEMORY, b"", result_length=4), "7101fd1001020304") == b"\1\2\3\4"
    assert decode(exchange.request_download(0, 1), "74200fff") == 4093
    assert decode(exchange.request_download(0, 1), "74100a") == 8
    assert decode(exchange.request_download(0, 1), "744000010000") == 65534
    assert decode(exchange.request_download(0, 1), "744000010003") == exchange.MAX_BLOCK_DATA == 65536
    decode(exchange.transfer_data(1, b""), "7601")
    decode(exchange.transfer_exit(), "77")
    decode(exchange.hard_reset(), "5101")
    decode(exchange.send_key(bytes(16)), "6712")


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        (exchange.enter_session(Session.EXTENDED), "5003"),
        (exchange.enter_session(Session.EXTENDED), "5003003201f400"),
        (exchange.hard_reset(), "510100"),
        (exchange.request_seed(), "6711" + "01" * 15),
        (exchange.request_seed(), "6711"),
        (exchange.send_key(bytes(16)), "671200"),
        (exchange.start_routine(Rid.ERASE_MEMORY), "7101ff0001"),  # a status record might say "failed"
        (exchange.start_routine(Rid.VERIFY_MEMORY, result_length=4), "7101fd10010203"),
        (exchange.request_download(0, 1), "7400"),
        (exchange.request_download(0, 1), "74200f"),
        (exchange.request_download(0, 1), "74200002"),
        (exchange.request_download(0, 1), "7420010000"),
        (exchange.request_download(0, 1), "7490" + "01" * 9),
        (exchange.request_download(0, 1), "7480ffffffffffffffff"),
        (exchange.read_identifier(Did.SERIAL_NUMBER), "62f191"),
        (exchange.read_identifier(Did.SERIAL_NUMBER), "62"),
    ],
)
def test_answers_of_a_wrong_size_are_protocol_errors(wanted: exchange.Exchange[object], answer: str) -> None:
    with pytest.raises(UdsProtocolError):
        decode(wanted, answer)


# --- against the server -------------------------------------------------------------------------


def test_client_and_server_agree_on_the_whole_sequence() -> None:
    bench, client = Bench(), UdsClientSession()

    def run(request: Request) -> Event | None:
        payload = client.request(request, bench.now)
        client.sent(bench.now)
        events = [client.receive(answer, bench.now) for answer in bench.server.receive(payload, bench.now)]
        return events[-1]

    assert isinstance(run(exchange.enter_session(Session.EXTENDED).request), Answered)
    early = failure(run(exchange.start_routine(Rid.ERASE_MEMORY, bytes(36)).request))
    assert isinstance(early.error, UdsError)
    assert isinstance(run(exchange.start_routine(Rid.CHECK_PROGRAMMING_PRECONDITIONS).request), Answered)
    assert isinstance(run(exchange.enter_session(Session.PROGRAMMING).request), Answered)
    assert isinstance(run(exchange.request_seed().request), Answered)
    assert isinstance(failure(run(exchange.send_key(bytes(16)).request)).error, AccessDenied)
