from __future__ import annotations

import zlib
from itertools import pairwise

import pytest
from udsoncan.Response import Response
from udsoncan.services.DiagnosticSessionControl import DiagnosticSessionControl
from udsoncan.services.RoutineControl import RoutineControl
from udsoncan.services.SecurityAccess import SecurityAccess

from ess_can.uds.rules import Session
from ess_can.uds.target import Nrc
from ess_can.uds.transfer import TransferState
from tests.support.fake_target import SERIAL
from tests.support.uds_server import ACTIVATE, CONFIRM, REVERT, VERIFY, Bench, block, download, erase

IMAGE = bytes(range(256)) * 2
WRITES = {"erase", "begin_download", "write", "end_download", "activate", "confirm", "revert"}


def changes(bench: Bench) -> list[str]:
    return [act for act in bench.target.acts if act in WRITES]


# --- messages and services ----------------------------------------------------------------------


@pytest.mark.parametrize("service", ["14ffffff", "1901ff", "2efd0000", "3d", "85", "bb01", "0000"])
def test_other_services_are_not_supported(service: str) -> None:
    assert Bench().ask(service) == f"7f{service[:2]}11"


@pytest.mark.parametrize("message", ["", "7f2211", "5003", "c1"])
def test_what_is_no_request_is_ignored_and_counted(message: str) -> None:
    bench = Bench()
    assert bench.ask(message) == ""
    assert bench.server.ignored == 1


@pytest.mark.parametrize("service", ["10", "11", "3e"])
def test_a_missing_sub_function_is_a_wrong_length(service: str) -> None:
    assert Bench().ask(service) == f"7f{service}13"


@pytest.mark.parametrize(
    ("request_hex", "nrc"),
    [("1004", "12"), ("100300", "13"), ("1102", "12"), ("110100", "13"), ("3e01", "12"), ("3e0000", "13")],
)
def test_sub_functions_and_lengths_in_the_default_session(request_hex: str, nrc: str) -> None:
    assert Bench().ask(request_hex) == f"7f{request_hex[:2]}{nrc}"


@pytest.mark.parametrize(
    ("request_hex", "nrc"),
    [
        ("27", "13"),
        ("2701", "12"),
        ("271100", "13"),
        ("271200", "13"),
        ("31", "13"),
        ("3101", "13"),
        ("310102", "13"),
        ("31020203", "12"),
        ("31010204", "31"),
        ("3101020300", "13"),
    ],
)
def test_sub_functions_and_lengths_in_the_extended_session(request_hex: str, nrc: str) -> None:
    bench = Bench()
    bench.extended()
    assert bench.ask(request_hex) == f"7f{request_hex[:2]}{nrc}"


@pytest.mark.parametrize(("suppressed", "plain"), [("3e80", "3e00"), ("1083", "1003"), ("1181", "1101")])
def test_a_positive_answer_can_be_suppressed_a_negative_one_not(suppressed: str, plain: str) -> None:
    bench = Bench()
    assert bench.ask(suppressed) == ""
    assert bench.ask(suppressed + "00") in (f"7f{plain[:2]}13", "")  # after 11 81 nothing is answered any more
    assert Bench().ask(suppressed + "00") == f"7f{plain[:2]}13"


# --- identifiers --------------------------------------------------------------------------------


def test_one_identifier() -> None:
    assert Bench().ask("22f18c") == "62f18c" + SERIAL.hex()


def test_several_identifiers_in_one_request_leave_out_unknown_ones() -> None:
    assert Bench().ask("22f1910000fd00") == "62f19103fd0002"


@pytest.mark.parametrize(("dids", "nrc"), [("", "13"), ("f1", "13"), ("f18cf1", "13"), ("0000", "31")])
def test_identifier_requests_that_make_no_sense(dids: str, nrc: str) -> None:
    assert Bench().ask("22" + dids) == f"7f22{nrc}"


def test_more_identifiers_than_the_limit_are_refused() -> None:
    assert Bench().ask("22" + "f191" * 16).startswith("62")
    assert Bench().ask("22" + "f191" * 17) == "7f2213"


# --- sessions -----------------------------------------------------------------------------------


def test_the_session_answer_carries_p2_and_p2_star() -> None:
    interpreted = DiagnosticSessionControl.interpret_response(Response.from_payload(bytes.fromhex(Bench().ask("1003"))))
    assert interpreted.service_data.p2_server_max == 0.050
    assert interpreted.service_data.p2_star_server_max == 5.0


def test_u5_programming_is_entered_only_from_extended_after_the_check() -> None:
    bench = Bench()
    assert bench.ask("1002") == "7f107e"
    bench.extended()
    assert bench.ask("1002") == "7f1022"
    assert bench.ask("31010203") == "71010203"
    bench.extended()  # entering the session anew forgets the check
    assert bench.ask("1002") == "7f1022"
    bench.programming()
    assert bench.server.session is Session.PROGRAMMING


def test_u6_neither_the_check_nor_the_programming_session_with_hv_on() -> None:
    bench = Bench()
    bench.extended()
    bench.target.hv_off = False
    assert bench.ask("31010203") == "7f3122"
    bench.target.hv_off = True
    assert bench.ask("31010203") == "71010203"
    bench.target.hv_off = False
    assert bench.ask("1002") == "7f1022"
    assert bench.server.session is Session.EXTENDED


def test_the_programming_session_may_be_asked_for_again_when_its_answer_was_lost() -> None:
    bench = Bench()
    bench.programming()
    assert bench.ask("1002") == "5002003201f4"
    assert not bench.server.unlocked
    bench.target.hv_off = False
    assert bench.ask("1002") == "7f1022"


@pytest.mark.parametrize("session", ["1001", "1003", "1002"])
def test_every_change_of_session_locks_and_gives_up_the_download(session: str) -> None:
    bench = Bench()
    bench.downloading()
    bench.ask(session)
    assert not bench.server.unlocked
    assert bench.server.transfer_state is TransferState.IDLE
    assert bench.target.acts[-1] == "abort_download"


def test_u4_s3_ends_the_session_locks_and_leaves_the_download_resumable() -> None:
    bench = Bench()
    bench.downloading()
    assert bench.server.next_deadline == 5.0
    assert bench.server.tick(4.999) == []
    assert bench.server.unlocked
    assert bench.server.tick(5.0) == []
    assert bench.server.session is Session.DEFAULT
    assert not bench.server.unlocked
    assert bench.server.next_deadline is None
    assert bench.target.acts[-1] == "abort_download"
    bench.now = 6.0
    assert bench.ask(block(1)) == "7f367f"


def test_s3_does_not_run_while_a_request_is_received() -> None:
    bench = Bench()
    bench.downloading()
    bench.server.reception(4.9, under_way=True)
    assert bench.server.next_deadline is None
    assert bench.server.tick(12.0) == []
    bench.now = 12.0
    assert bench.ask(block(1)) == "7601"
    bench.server.reception(13.0, under_way=True)
    bench.server.reception(20.0, under_way=False)  # it was lost on the way
    assert bench.server.next_deadline == 25.0
    bench.server.reception(25.0, under_way=True)  # too late
    assert bench.server.session is Session.DEFAULT


def test_what_was_received_and_is_no_request_does_not_hold_the_session() -> None:
    bench = Bench()
    bench.programming()
    bench.server.reception(1.0, under_way=True)
    assert bench.server.receive(bytes.fromhex("5000") + bytes(7), 2.0) == []
    assert bench.server.next_deadline == 7.0


def test_u4_s3_is_judged_before_a_request_that_comes_late() -> None:
    bench = Bench()
    bench.programming()
    bench.now = 5.0
    assert bench.ask(erase(512)) == "7f317f"


def test_every_request_keeps_the_session_even_a_refused_one() -> None:
    bench = Bench()
    bench.extended()
    for bench.now, request in ((4.9, "3e80"), (9.8, "ba"), (14.7, "3e00")):
        bench.ask(request)
    assert bench.server.session is Session.EXTENDED


# --- reset --------------------------------------------------------------------------------------


def test_reset_is_answered_first_and_done_when_the_answer_has_left() -> None:
    bench = Bench()
    bench.downloading()
    assert bench.ask("1101") == "5101"
    assert bench.server.reset_pending
    assert "reset" not in bench.target.acts
    assert bench.ask("22f18c") == ""
    bench.server.perform_reset(0.5)
    assert bench.target.acts[-2:] == ["abort_download", "reset"]
    assert bench.server.session is Session.DEFAULT
    assert not bench.server.reset_pending
    assert bench.ask("22f191") == "62f19103"


def test_reset_is_refused_while_it_would_do_harm() -> None:
    bench = Bench()
    bench.target.may_reset = False
    assert bench.ask("1101") == "7f1122"
    bench.server.perform_reset(0.0)
    assert bench.target.acts == []


def test_a_restart_in_the_middle_of_an_operation_forgets_it() -> None:
    bench = Bench()
    bench.target.durations["erase"] = 3.0
    bench.programming()
    bench.ask(erase(512))
    bench.server.restart(1.0)
    assert bench.server.next_deadline is None
    assert bench.server.tick(10.0) == []


# --- security -----------------------------------------------------------------------------------


def test_security_access_is_not_there_in_the_default_session() -> None:
    assert Bench().ask("2711") == "7f277f"


def test_u9_guessing_ends_in_36_then_37() -> None:
    bench = Bench()
    bench.extended()
    answers = []
    for _ in range(4):
        bench.ask("2711")
        answers.append(bench.ask("2712" + "00" * 16))
    assert answers == ["7f2735", "7f2735", "7f2736", "7f2737"]
    assert bench.ask("2711") == "7f2737"


def test_u9_the_delay_survives_a_reset() -> None:
    bench = Bench()
    bench.extended()
    for _ in range(3):
        bench.ask("2711")
        bench.ask("2712" + "00" * 16)
    bench.now = 9.0
    bench.ask("1101")
    bench.server.perform_reset(bench.now)
    bench.now = 18.9
    bench.extended()
    assert bench.ask("2711") == "7f2737"
    bench.now = 19.0
    bench.unlock()


def test_a_key_before_a_challenge_is_out_of_order() -> None:
    bench = Bench()
    bench.extended()
    assert bench.ask("2712" + "00" * 16) == "7f2724"


@pytest.mark.parametrize("request_bytes", [erase(512), VERIFY + bytes(4), ACTIVATE, CONFIRM, REVERT])
def test_routines_need_access(request_bytes: bytes) -> None:
    bench = Bench()
    bench.programming(unlocked=False)
    assert bench.ask(request_bytes) == "7f3133"
    assert changes(bench) == []


@pytest.mark.parametrize(("request_bytes", "sid"), [(download(0, 512), "34"), (block(1), "36"), (b"\x37", "37")])
def test_the_download_needs_access(request_bytes: bytes, sid: str) -> None:
    bench = Bench()
    bench.programming(unlocked=False)
    assert bench.ask(request_bytes) == f"7f{sid}33"


# --- long operations ----------------------------------------------------------------------------


def test_u1_a_long_operation_answers_78_inside_p2_and_then_inside_p2_star() -> None:
    bench = Bench()
    bench.target.durations["erase"] = 14.0
    bench.programming()
    assert bench.ask(erase(512)) == ""
    answers = bench.until_idle()
    assert [answer for _, answer in answers] == ["7f3178"] * 4 + ["7101ff00"]
    times = [0.0, *(at for at, _ in answers)]
    assert times[1] < 0.050
    assert all(later - earlier < 5.0 for earlier, later in pairwise(times))
    assert times[-1] == 14.0


def test_a_short_operation_needs_no_78() -> None:
    bench = Bench()
    bench.downloading()
    bench.target.durations["write"] = 0.030
    assert bench.ask(block(1)) == ""
    assert bench.until_idle() == [(0.030, "7601")]


def test_f18_an_operation_outlasts_s3_without_ending_the_session() -> None:
    bench = Bench()
    bench.target.durations["erase"] = 14.0
    bench.programming()
    bench.ask(erase(512))
    bench.until_idle()
    assert bench.server.next_deadline == 19.0
    assert bench.server.unlocked


def test_requests_during_an_operation_are_busy_but_tester_present_is_not() -> None:
    bench = Bench()
    bench.target.durations["erase"] = 3.0
    bench.programming()
    bench.ask(erase(512))
    bench.now = 1.0
    assert bench.ask("22f18c") == "7f3178 7f2221"
    assert bench.ask("1003") == "7f1021"
    assert bench.ask("100100") == "7f1021"
    assert bench.ask(erase(512)) == "7f3121"
    assert bench.ask("3e00") == "7e00"
    assert bench.ask("3e80") == ""
    assert bench.ask("ba") == "7fba11"
    assert bench.until_idle() == [(3.0, "7101ff00")]
    assert bench.target.acts.count("erase") == 1


@pytest.mark.parametrize(("request_", "answer"), [("1001", "7f3678 5001003201f4"), ("1081", "7f3678")])
def test_whoever_leaves_the_session_stops_what_is_under_way(request_: str, answer: str) -> None:
    bench = Bench()
    bench.target.durations["write"] = 3.0
    bench.programming()
    bench.ask(erase(512))
    bench.ask("340044" + "00000000" + "00000200")
    bench.ask("3601" + "00" * 64)
    bench.now = 1.0
    assert bench.ask(request_) == answer
    assert bench.server.session is Session.DEFAULT
    assert not bench.server.unlocked
    assert bench.target.acts[-1] == "abort_download"
    assert bench.server.next_deadline is None
    assert bench.ask("22f18c").startswith("62f18c")


def test_the_end_of_an_operation_is_answered_before_a_request_of_the_same_moment() -> None:
    bench = Bench()
    bench.target.durations["erase"] = 0.020
    bench.programming()
    bench.ask(erase(512))
    bench.now = 0.020
    assert bench.ask(download(0, 512)) == "7101ff00 744000000102"


def test_a_suppressed_answer_is_given_after_all_once_78_was_sent() -> None:
    bench = Bench()
    bench.target.durations["erase"] = 1.0
    bench.programming()
    request = bytearray(erase(512))
    request[1] |= 0x80
    assert bench.ask(bytes(request)) == ""
    assert [answer for _, answer in bench.until_idle()] == ["7f3178", "7101ff00"]
    bench.target.durations.clear()
    assert bench.ask(bytes(request)) == ""


def test_a_failed_operation_answers_negatively_at_its_end() -> None:
    bench = Bench()
    bench.target.durations["erase"] = 1.0
    bench.target.refusals["erase"] = Nrc.GENERAL_PROGRAMMING_FAILURE
    bench.programming()
    bench.ask(erase(512))
    assert [answer for _, answer in bench.until_idle()] == ["7f3178", "7f3172"]


def test_a_deadline_too_early_does_nothing() -> None:
    bench = Bench()
    bench.target.durations["erase"] = 1.0
    bench.programming()
    bench.ask(erase(512))
    assert bench.server.tick(0.039) == []


# --- udsoncan reads our answers -----------------------------------------------------------------


def test_udsoncan_interprets_the_answers() -> None:
    bench = Bench()
    bench.extended()
    seed = SecurityAccess.interpret_response(
        Response.from_payload(bytes.fromhex(bench.ask("2711"))), SecurityAccess.Mode.RequestSeed
    )
    assert seed.service_data.seed == bench.challenges.given[-1]
    assert seed.service_data.security_level_echo == 0x11
    bench.verified()
    routine = RoutineControl.interpret_response(
        Response.from_payload(bytes.fromhex(bench.ask(VERIFY + bytes(4))))
    ).service_data
    assert (routine.control_type_echo, routine.routine_id_echo) == (1, 0xFD10)
    assert routine.routine_status_record == zlib.crc32(IMAGE).to_bytes(4, "big")
