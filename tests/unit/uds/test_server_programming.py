from __future__ import annotations

import zlib

import pytest
from udsoncan.Response import Response
from udsoncan.services.RequestDownload import RequestDownload

from ess_can.uds.target import Nrc
from ess_can.uds.transfer import TransferState
from tests.support.fake_target import MAX_DATA
from tests.support.uds_server import ACTIVATE, CONFIRM, REVERT, VERIFY, Bench, block, download, erase

IMAGE = bytes(range(256)) * 2
WRITES = {"erase", "begin_download", "write", "end_download", "activate", "confirm", "revert"}


def changes(bench: Bench) -> list[str]:
    return [act for act in bench.target.acts if act in WRITES]


# --- order --------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_bytes", [erase(512), download(0, 512), block(1), b"\x37", ACTIVATE, CONFIRM, VERIFY])
def test_u5_programming_services_are_not_there_outside_their_session(request_bytes: bytes) -> None:
    bench = Bench()
    assert bench.ask(request_bytes) == f"7f{request_bytes[0]:02x}7f"
    assert changes(bench) == []


@pytest.mark.parametrize("request_bytes", [erase(512), VERIFY + bytes(4), ACTIVATE])
def test_u5_programming_routines_are_not_there_in_the_extended_session(request_bytes: bytes) -> None:
    bench = Bench()
    bench.extended()
    bench.unlock()
    assert bench.ask(request_bytes) == "7f317f"
    assert changes(bench) == []


def test_u5_services_out_of_order_are_refused_and_change_nothing() -> None:
    bench = Bench()
    bench.programming()
    assert bench.ask(block(1)) == "7f3624"
    assert bench.ask("37") == "7f3724"
    assert bench.ask(ACTIVATE) == "7f3124"
    assert bench.ask("31010203") == "7f317f"
    assert changes(bench) == []
    bench.ask(erase(512))
    bench.ask(download(0, 512))
    before = list(bench.target.acts)
    assert bench.ask(erase(512)) == "7f3124"
    assert bench.ask(VERIFY + bytes(4)) == "7f3124"
    assert bench.ask(ACTIVATE) == "7f3124"
    assert bench.ask(download(0, 256)) == "7f3422"
    assert bench.target.acts == before


def test_u15_no_activation_before_the_memory_check_or_after_a_change() -> None:
    bench = Bench()
    bench.exited()
    assert bench.ask(ACTIVATE) == "7f3124"
    assert bench.ask(VERIFY + bytes(4)) == "7101fd10" + zlib.crc32(IMAGE).to_bytes(4, "big").hex()
    assert bench.ask(ACTIVATE) == "7101fd11"
    assert bench.ask(ACTIVATE) == "7101fd11"  # its answer was lost
    assert bench.ask(erase(512)) == "7101ff00"
    assert bench.ask(ACTIVATE) == "7f3124"


def test_u15_a_failed_memory_check_takes_a_former_one_back() -> None:
    bench = Bench()
    bench.verified()
    bench.target.refusals["verify"] = Nrc.GENERAL_PROGRAMMING_FAILURE
    assert bench.ask(VERIFY + bytes(4)) == "7f3172"
    assert bench.ask(ACTIVATE) == "7f3124"
    assert "activate" not in bench.target.acts


@pytest.mark.parametrize(
    ("request_bytes", "nrc"),
    [(erase(512)[:-1], "13"), (erase(512) + b"\0", "13"), (VERIFY + bytes(3), "13"), (ACTIVATE + b"\0", "13")],
)
def test_option_records_have_one_length(request_bytes: bytes, nrc: str) -> None:
    bench = Bench()
    bench.programming()
    assert bench.ask(request_bytes) == f"7f31{nrc}"


@pytest.mark.parametrize(("routine", "kind"), [(CONFIRM, "confirm"), (REVERT, "revert")])
def test_confirm_and_revert_in_the_extended_session(routine: bytes, kind: str) -> None:
    bench = Bench()
    bench.extended()
    bench.unlock()
    assert bench.ask(routine) == "71" + routine[1:].hex()
    bench.target.rejections[kind] = Nrc.REQUEST_SEQUENCE_ERROR
    assert bench.ask(routine) == "7f3124"
    assert bench.target.acts == [kind]


def test_the_nodes_refusal_of_activation_is_passed_on() -> None:
    bench = Bench()
    bench.verified()
    bench.target.rejections["activate"] = Nrc.GENERAL_PROGRAMMING_FAILURE
    assert bench.ask(ACTIVATE) == "7f3172"


# --- high voltage -------------------------------------------------------------------------------


def test_u6_with_hv_on_the_node_itself_refuses_every_change() -> None:
    bench = Bench()
    bench.programming()
    hv_on(bench, erase(512), "7f3122")
    bench.ask(erase(512))
    hv_on(bench, download(0, 512), "7f3422")
    bench.ask(download(0, 512))
    hv_on(bench, block(1), "7f3622")
    assert bench.ask(block(1)) == "7601"  # the block may come again
    bench.ask(block(2))
    hv_on(bench, b"\x37", "7f3722")
    bench.ask("37")
    bench.ask(VERIFY + bytes(4))
    hv_on(bench, ACTIVATE, "7f3122")
    hv_on(bench, CONFIRM, "7f3122")
    assert changes(bench) == ["erase", "begin_download", "write", "write", "end_download"]


def hv_on(bench: Bench, request: bytes, expected: str) -> None:
    before = list(bench.target.acts)
    bench.target.hv_off = False
    assert bench.ask(request) == expected
    assert bench.target.acts == before
    bench.target.hv_off = True


def test_going_back_to_the_old_image_does_not_depend_on_hv() -> None:
    bench = Bench()
    bench.extended()
    bench.unlock()
    bench.target.hv_off = False
    assert bench.ask(REVERT) == "7101fd13"


# --- download -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_hex", "nrc"),
    [
        ("34", "13"),
        ("3400", "13"),
        ("3411440000000000000200", "31"),
        ("3400330000000002", "31"),
        ("340044000000000000020000", "13"),
        ("34004400000000000002", "13"),
        ("3400440000000000000000", "31"),
        ("34004400000000ffffffff", "31"),
        ("340044ffffff0000000200", "31"),
    ],
)
def test_u11_download_requests_that_make_no_sense(request_hex: str, nrc: str) -> None:
    bench = Bench()
    bench.erased()
    assert bench.ask(request_hex) == f"7f34{nrc}"
    assert changes(bench) == ["erase"]


def test_a_whole_download_is_written_as_sent() -> None:
    bench = Bench()
    bench.exited(IMAGE)
    assert bytes(bench.target.bank) == IMAGE
    assert bench.target.sha256 == bytes(range(32))
    assert changes(bench) == ["erase", "begin_download", "write", "write", "end_download"]


def test_34_says_the_largest_block_with_its_two_leading_bytes() -> None:
    bench = Bench()
    bench.erased()
    answer = Response.from_payload(bytes.fromhex(bench.ask(download(0, 512))))
    assert RequestDownload.interpret_response(answer).service_data.max_length == MAX_DATA + 2


def test_a_repeated_34_is_answered_until_the_first_block() -> None:
    bench = Bench()
    bench.downloading()
    assert bench.ask(download(0, 512)) == "744000000102"
    assert bench.ask(download(0, 256)) == "7f3422"
    bench.ask(block(1))
    assert bench.ask(download(0, 512)) == "7f3422"
    assert bench.target.acts.count("begin_download") == 1


def test_u2_a_repeated_block_is_answered_and_not_written_again() -> None:
    bench = Bench()
    bench.downloading()
    assert [bench.ask(block(1, IMAGE[:256])) for _ in range(3)] == ["7601"] * 3
    assert bench.ask(block(2, IMAGE[256:])) == "7602"
    assert bench.ask(block(2, IMAGE[256:])) == "7602"
    assert bench.ask("37") == "77"
    assert bytes(bench.target.bank) == IMAGE


@pytest.mark.parametrize("counter", [0, 2, 3, 255])
def test_u3_a_wrong_block_counter_writes_nothing(counter: int) -> None:
    bench = Bench()
    bench.downloading()
    assert bench.ask(block(counter)) == "7f3673"
    assert "write" not in bench.target.acts
    assert bench.ask(block(1)) == "7601"


def test_t14_the_block_counter_wraps() -> None:
    bench = Bench()
    bench.exited(bytes(256) * 250 + b"\xff" * 6 * 256)
    assert len(bench.target.bank) == 256 * 256


@pytest.mark.parametrize("length", [0, MAX_DATA + 1])
def test_a_block_that_is_empty_or_too_long_has_a_wrong_length(length: int) -> None:
    bench = Bench()
    bench.downloading(1024)
    assert bench.ask(block(1, bytes(length))) == "7f3613"
    assert bench.ask("36") == "7f3613"
    assert bench.ask(block(1)) == "7601"


def test_u12_less_data_than_announced_refuses_the_exit() -> None:
    bench = Bench()
    bench.downloading()
    bench.ask(block(1))
    assert bench.ask("37") == "7f3724"
    assert bench.ask(block(2, bytes(255))) == "7602"
    assert bench.ask("37") == "7f3724"
    assert "end_download" not in bench.target.acts


def test_u12_more_data_than_announced_suspends_the_download() -> None:
    bench = Bench()
    bench.downloading(300)
    bench.ask(block(1))
    assert bench.ask(block(2, bytes(45))) == "7f3671"
    assert bench.server.transfer_state is TransferState.SUSPENDED
    assert bench.target.acts[-1] == "abort_download"
    assert bench.ask("37") == "7f3724"
    assert bench.ask(block(2, bytes(44))) == "7f3624"
    assert bench.ask(VERIFY + bytes(4)) == "7f3124"
    assert bench.ask(download(256, 44)).startswith("74")


@pytest.mark.parametrize(("kind", "request_bytes"), [("write", block(2)), ("end_download", b"\x37")])
@pytest.mark.parametrize("at_once", [True, False])
def test_f11_a_failure_to_program_suspends_the_download(kind: str, request_bytes: bytes, at_once: bool) -> None:
    bench = Bench()
    bench.downloading()
    bench.ask(block(1))
    if kind == "end_download":
        bench.ask(block(2))
    (bench.target.rejections if at_once else bench.target.refusals)[kind] = Nrc.GENERAL_PROGRAMMING_FAILURE
    assert bench.ask(request_bytes) == f"7f{request_bytes[0]:02x}72"
    assert bench.server.transfer_state is TransferState.SUSPENDED
    assert bench.target.acts[-1] == "abort_download"


@pytest.mark.parametrize("nrc", [Nrc.CONDITIONS_NOT_CORRECT, Nrc.BUSY_REPEAT_REQUEST])
def test_what_the_node_did_not_take_may_come_again(nrc: Nrc) -> None:
    bench = Bench()
    bench.downloading(256)
    for kind, request, good in (("write", block(1), "7601"), ("end_download", b"\x37", "77")):
        bench.target.rejections[kind] = nrc
        assert bench.ask(request) == f"7f{request[0]:02x}{nrc:02x}"
        bench.target.rejections.clear()
        assert bench.ask(request) == good


def test_exit_takes_no_parameters_and_may_be_repeated() -> None:
    bench = Bench()
    bench.downloading(256)
    bench.ask(block(1))
    assert bench.ask("3700") == "7f3713"
    assert [bench.ask("37"), bench.ask("37")] == ["77", "77"]
    assert bench.target.acts.count("end_download") == 1
    assert bench.ask(block(1)) == "7f3624"


def test_a_download_resumes_where_it_stood_after_authentication() -> None:
    bench = Bench()
    bench.downloading()
    bench.ask(block(1, IMAGE[:256]))
    bench.programming()
    assert bench.ask(download(256, 256)) == "744000000102"
    assert bench.ask(block(1, IMAGE[256:])) == "7601"
    assert bench.ask("37") == "77"
    assert bytes(bench.target.bank) == IMAGE
