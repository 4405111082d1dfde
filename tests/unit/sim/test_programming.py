from __future__ import annotations

import hashlib
import zlib

import pytest

from ess_can.identity import NodeType, Version
from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import ImageId, ResumeRecord
from ess_can.sim.bootloader import BootReason
from ess_can.sim.flash import SectorDefect
from ess_can.sim.flash_cells import FlashAction
from ess_can.sim.image_verdict import FailureReason
from ess_can.sim.parts import STM32H743
from ess_can.sim.power_cut import CutMode
from ess_can.sim.programming import ProgrammingMemory
from ess_can.uds.target import BootState, Did, FlashProfile, Nrc, Operation, ResumeState
from tests.unit.sim.memory_rig import BLOCK, GEOMETRY, Rig, make_image, verify

OLD = make_image("1.0.0", 3)
NEW = make_image("2.0.0", 5)
NEWER = make_image("3.0.0", 6)
NEW_SHA = hashlib.sha256(NEW).digest()
UNIT_S = 100e-6
ERASE_S = 1.0
FULL = make_image("1.9.0", size=GEOMETRY.slot_size)


def announced(image: bytes = NEW) -> Rig:
    rig = Rig(OLD)
    rig.announce(image)
    return rig


def downloading(image: bytes = NEW) -> Rig:
    rig = announced(image)
    assert rig.memory.begin_download(0, len(image), rig.now) == BLOCK
    return rig


def downloaded(image: bytes = NEW) -> Rig:
    rig = announced(image)
    rig.download(image)
    return rig


def stale() -> Rig:
    """Ready for NEW, all sectors of the slot holding another image."""
    rig = downloaded(FULL)
    rig.announce(NEW)
    rig.operations.clear()
    return rig


def operation(result: Operation | Nrc) -> Operation:
    assert isinstance(result, Operation), result
    return result


def boot_state(rig: Rig) -> BootState:
    packed = rig.memory.read_identifier(Did.BOOT_STATE, rig.now)
    assert packed is not None
    return BootState.unpack(packed)


def resume_offset(rig: Rig) -> int:
    packed = rig.memory.read_identifier(Did.RESUME_STATE, rig.now)
    assert packed is not None
    return ResumeState.unpack(packed).verified_offset


# --- the whole way ----------------------------------------------------------------------------


def test_upgrade_there_and_back_again_between_the_banks() -> None:
    rig = Rig(OLD)
    for image, bank in ((NEW, 1), (NEWER, 0), (make_image("4.0.0", 9, size=GEOMETRY.slot_size), 1)):
        rig.upgrade(image)
        assert rig.memory.running.bank == bank
        assert rig.standing is ImageState.CONFIRMED
        assert rig.memory.security_counter == verify(image).security_counter
        rig.power_cycle()
        assert (rig.standing, rig.memory.running.reason) == (ImageState.CONFIRMED, BootReason.CONFIRMED)
    assert rig.flash.counters.refused == 0


def test_identifiers() -> None:
    rig = Rig(OLD)
    assert boot_state(rig) == BootState(0, ImageState.CONFIRMED, 1, Version(1, 0, 0))
    assert rig.memory.read_identifier(Did.RESUME_STATE, rig.now) == bytes(36)
    assert rig.memory.read_identifier(Did.SECURITY_COUNTER, rig.now) == bytes([0, 0, 0, 3])
    assert rig.memory.read_identifier(Did.SERIAL_NUMBER, rig.now) is None
    profile = rig.memory.read_identifier(Did.FLASH_PROFILE, rig.now)
    assert profile == FlashProfile(64, 1.0, 6.25e-6, 116, 40e6, 50, dirty_bytes=0).pack()
    rig.announce(NEW)
    assert rig.memory.read_identifier(Did.RESUME_STATE, rig.now) == ResumeState(0, NEW_SHA).pack()
    rig.download(NEW)
    assert rig.memory.read_identifier(Did.RESUME_STATE, rig.now) == ResumeState(150, NEW_SHA).pack()
    rig.verify(NEW)
    rig.activate()
    assert boot_state(rig) == BootState(0, ImageState.CONFIRMED, 1, Version(1, 0, 0), armed=True)
    rig.reset()
    assert boot_state(rig) == BootState(1, ImageState.TRIAL, 2, Version(2, 0, 0))
    assert rig.memory.read_identifier(Did.RESUME_STATE, rig.now) == bytes(36)  # the other bank is inactive now
    assert rig.memory.read_identifier(Did.SECURITY_COUNTER, rig.now) == bytes([0, 0, 0, 3])
    rig.confirm()
    assert boot_state(rig) == BootState(1, ImageState.CONFIRMED, 2, Version(2, 0, 0))
    assert rig.memory.read_identifier(Did.SECURITY_COUNTER, rig.now) == bytes([0, 0, 0, 5])


def test_on_a_real_part_erase_goes_on_while_blocks_come() -> None:
    rig = Rig(OLD, part=STM32H743)
    big = make_image("2.0.0", 4, size=300_000)
    rig.upgrade(big)
    assert rig.now < 100.0 + 9375 * UNIT_S + 0.1  # a new node's second bank is blank
    start = rig.now
    rig.upgrade(NEWER)  # only the one sector that the old image used
    assert start + ERASE_S < rig.now < start + ERASE_S + 0.01
    start = rig.now
    newest = make_image("5.0.0", 7, size=300_000)
    rig.announce(newest)
    assert rig.now == start
    rig.upgrade(newest)
    assert rig.now == pytest.approx(start + 3 * ERASE_S + 9375 * UNIT_S + 300_000 / 11e6, abs=2e-3)


# --- announcement ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, -1, GEOMETRY.slot_size + 1, 0xFFFF_FFFF])
def test_an_announcement_of_a_size_that_does_not_fit(size: int) -> None:
    rig = Rig(OLD)
    assert rig.memory.erase(size, NEW_SHA, rig.now) is Nrc.REQUEST_OUT_OF_RANGE


def test_an_announcement_of_a_hash_of_wrong_length() -> None:
    rig = Rig(OLD)
    assert rig.memory.erase(150, NEW_SHA[:-1], rig.now) is Nrc.REQUEST_OUT_OF_RANGE


def test_an_announcement_is_answered_at_once_and_gives_up_the_image_before() -> None:
    rig = downloaded(FULL)
    assert resume_offset(rig) == GEOMETRY.slot_size
    rig.operations.clear()
    erase = operation(rig.memory.erase(len(NEW), NEW_SHA, rig.now))
    assert erase.done_at == rig.now
    assert erase.finish(erase.done_at) is None
    assert rig.memory.read_identifier(Did.RESUME_STATE, rig.now) == ResumeState(0, NEW_SHA).pack()
    assert rig.memory.verify(zlib.crc32(NEW), rig.now) is Nrc.REQUEST_SEQUENCE_ERROR
    assert not rig.operations
    rig.announce(NEW)  # an answer that was lost
    assert resume_offset(rig) == 0


def test_every_sector_that_is_not_blank_is_erased_from_the_download_on() -> None:
    rig = stale()
    assert rig.memory.begin_download(0, len(NEW), rig.now) == BLOCK
    assert rig.memory.is_working(rig.now)
    rig.memory.settle(rig.now + 2.5 * ERASE_S)
    assert [(op.action, op.offset // 64) for op in rig.operations] == [(FlashAction.ERASE, n) for n in (1, 2, 3)]
    rig.memory.settle(rig.now + 3 * ERASE_S)
    assert rig.flash.is_blank(1, GEOMETRY.slot_offset, GEOMETRY.slot_size)
    assert not rig.memory.is_working(rig.now + 3 * ERASE_S)


def test_blocks_are_programmed_between_the_erases() -> None:
    rig = stale()
    rig.memory.begin_download(0, len(NEW), rig.now)
    start = rig.now
    first = operation(rig.memory.write(NEW[:50], start + 0.1))
    assert first.done_at == start + 0.1
    assert first.finish(first.done_at) is None
    second = operation(rig.memory.write(NEW[50:100], start + 0.2))  # 48 bytes must leave for a third block
    assert second.done_at == pytest.approx(start + ERASE_S + 3 * UNIT_S)
    assert second.finish(second.done_at) is None
    third = operation(rig.memory.write(NEW[100:], second.done_at))  # the last one: nothing needs room any more
    assert third.done_at == second.done_at
    assert third.finish(third.done_at) is None
    end = operation(rig.memory.end_download(third.done_at))
    assert end.done_at == pytest.approx(start + 3 * ERASE_S + 10 * UNIT_S)
    assert end.finish(end.done_at) is None
    assert [op.action.name[0] for op in rig.operations] == list("EPPEPPEP")
    assert rig.flash.read(1, GEOMETRY.slot_offset, 150) == NEW


def test_what_is_behind_the_image_is_erased_before_the_image_is_complete() -> None:
    rig = downloaded(FULL)
    short = make_image("2.0.0", 5, size=64)
    rig.announce(short)
    rig.memory.begin_download(0, 64, rig.now)
    start = rig.now
    rig.expect(rig.memory.write(short[:50], rig.now))
    rig.expect(rig.memory.write(short[50:], rig.now))
    assert rig.now == start
    end = operation(rig.memory.end_download(rig.now))
    assert end.done_at == pytest.approx(start + 3 * ERASE_S + 4 * UNIT_S)
    rig.memory.settle(start + 3 * ERASE_S)
    assert resume_offset(rig) == 48
    rig.now = end.done_at
    assert end.finish(rig.now) is None
    assert resume_offset(rig) == 64
    rig.verify(short)


def test_erasing_that_is_given_up_ends_with_its_sector_and_goes_on_with_the_next_download() -> None:
    rig = stale()
    rig.memory.begin_download(0, len(NEW), rig.now)
    start = rig.now
    rig.memory.abort_download(start + 0.5)
    assert rig.memory.is_working(start + 0.9)
    assert rig.memory.begin_download(0, len(NEW), start + 0.9) is Nrc.BUSY_REPEAT_REQUEST
    assert rig.memory.erase(len(NEW), NEW_SHA, start + 0.9) is Nrc.BUSY_REPEAT_REQUEST
    assert not rig.memory.is_working(start + 1.0)
    assert len(rig.operations) == 1
    assert rig.memory.begin_download(0, len(NEW), start + 5.0) == BLOCK
    rig.memory.settle(start + 9.0)
    assert [op.offset // 64 for op in rig.operations] == [1, 2, 3]


@pytest.mark.parametrize("seconds", [0.2, 1.0, 1.5, 2.5, 3.0])
def test_power_loss_while_erasing_ahead(seconds: float) -> None:
    rig = stale()
    rig.memory.begin_download(0, len(NEW), rig.now)
    rig.expect(rig.memory.write(NEW[:50], rig.now))
    rig.now += seconds
    rig.power_cycle()
    assert resume_offset(rig) == (48 if seconds > ERASE_S else 0)
    assert rig.version == "1.0.0"
    rig.upgrade(NEW)
    assert rig.version == "2.0.0"
    assert max(rig.flash.erase_cycles(1, sector) for sector in (1, 2, 3)) <= 2


def test_an_awaited_answer_says_so_if_the_download_was_given_up() -> None:
    rig = stale()
    rig.memory.begin_download(0, len(NEW), rig.now)
    start = rig.now
    rig.expect(rig.memory.write(NEW[:50], start))
    second = operation(rig.memory.write(NEW[50:100], start))
    rig.memory.abort_download(start + 0.5)
    assert second.done_at == start + ERASE_S
    assert second.finish(second.done_at) is Nrc.CONDITIONS_NOT_CORRECT
    assert len(rig.operations) == 1
    rig.now = second.done_at
    assert resume_offset(rig) == 0
    rig.upgrade(NEW)


def test_an_awaited_end_says_so_if_the_download_was_given_up() -> None:
    rig = stale()
    rig.memory.begin_download(0, len(NEW), rig.now)
    for start in range(0, 150, 50):
        rig.expect(rig.memory.write(NEW[start : start + 50], rig.now))
    end = operation(rig.memory.end_download(rig.now))
    given_up_at = rig.now + 0.1
    rig.memory.abort_download(given_up_at)
    assert given_up_at < end.done_at < given_up_at + ERASE_S
    rig.now = end.done_at
    assert end.finish(rig.now) is Nrc.CONDITIONS_NOT_CORRECT
    assert not rig.memory.is_working(rig.now)
    assert 0 < resume_offset(rig) < 150
    assert rig.memory.verify(zlib.crc32(NEW), rig.now) is Nrc.REQUEST_SEQUENCE_ERROR
    rig.upgrade(NEW)


def test_an_announcement_is_refused_while_a_download_is_open() -> None:
    rig = downloading()
    assert rig.memory.erase(len(NEW), NEW_SHA, rig.now) is Nrc.REQUEST_SEQUENCE_ERROR


def test_an_announcement_is_refused_while_the_only_confirmed_image_is_in_that_bank() -> None:
    rig = downloaded()
    rig.verify(NEW)
    rig.activate()
    rig.reset()
    before = rig.flash.export_bank(0)
    assert rig.memory.erase(len(NEWER), hashlib.sha256(NEWER).digest(), rig.now) is Nrc.CONDITIONS_NOT_CORRECT
    assert rig.memory.revert(rig.now) is None  # even then the image on trial still runs
    assert rig.memory.erase(len(NEWER), hashlib.sha256(NEWER).digest(), rig.now) is Nrc.CONDITIONS_NOT_CORRECT
    assert rig.flash.export_bank(0) == before
    rig.reset()
    rig.announce(NEWER)


def test_an_announcement_cancels_an_activation() -> None:
    rig = downloaded()
    rig.verify(NEW)
    rig.activate()
    rig.announce(NEW)
    rig.reset()
    assert (rig.version, rig.memory.running.reason) == ("1.0.0", BootReason.CONFIRMED)


def test_a_sector_that_does_not_erase_shows_at_the_next_answer() -> None:
    rig = stale()
    rig.flash.inject_defect(1, 2, SectorDefect.REPORTED)
    rig.memory.begin_download(0, len(NEW), rig.now)
    rig.expect(rig.memory.write(NEW[:50], rig.now))
    assert rig.wait(rig.memory.write(NEW[50:100], rig.now)) is None
    assert rig.memory.write(NEW[100:], rig.now + 2.5) is Nrc.GENERAL_PROGRAMMING_FAILURE
    assert rig.memory.last_failure is not None
    assert rig.memory.last_failure.reason is FailureReason.FLASH_WRITE_FAILED
    assert not rig.memory.is_working(rig.now + 2.5)
    rig.now += 3
    rig.power_cycle()
    assert (rig.version, resume_offset(rig)) == ("1.0.0", 64)  # the last whole sector
    rig.flash.inject_defect(1, 2, None)
    rig.upgrade(NEW)


def test_a_sector_behind_the_image_that_does_not_erase_shows_at_the_end() -> None:
    rig = downloaded(FULL)
    rig.flash.inject_defect(1, 3, SectorDefect.REPORTED)
    short = make_image("2.0.0", 5, size=64)
    rig.announce(short)
    rig.memory.begin_download(0, 64, rig.now)
    for start in (0, 50):
        rig.expect(rig.memory.write(short[start : start + 50], rig.now))
    assert rig.wait(rig.memory.end_download(rig.now)) is Nrc.GENERAL_PROGRAMMING_FAILURE
    assert rig.memory.verify(zlib.crc32(short), rig.now) is Nrc.REQUEST_SEQUENCE_ERROR


# --- download ---------------------------------------------------------------------------------


def test_download_needs_an_announcement() -> None:
    rig = Rig(OLD)
    assert rig.memory.begin_download(0, 150, rig.now) is Nrc.CONDITIONS_NOT_CORRECT
    assert rig.memory.write(b"x", rig.now) is Nrc.REQUEST_SEQUENCE_ERROR
    assert rig.memory.end_download(rig.now) is Nrc.REQUEST_SEQUENCE_ERROR


@pytest.mark.parametrize(
    ("address", "size"), [(1, 149), (16, 134), (0, 149), (0, 151), (0, 0), (-1, 151), (150, 0), (0xFFFF_FFFF, 151)]
)
def test_download_of_anything_but_the_announced_image(address: int, size: int) -> None:
    rig = announced()
    assert rig.memory.begin_download(address, size, rig.now) is Nrc.REQUEST_OUT_OF_RANGE


def test_one_download_at_a_time() -> None:
    rig = downloading()
    assert rig.memory.begin_download(0, len(NEW), rig.now) is Nrc.CONDITIONS_NOT_CORRECT


def test_a_block_is_answered_when_there_is_room_for_another() -> None:
    rig = downloading(make_image("2.0.0", 5, size=192))
    data = make_image("2.0.0", 5, size=192)
    first = operation(rig.memory.write(data[:50], 200.0))
    assert first.done_at == 200.0
    assert first.finish(200.0) is None
    second = operation(rig.memory.write(data[50:100], 200.0 + UNIT_S))
    assert second.done_at == pytest.approx(200.0 + 3 * UNIT_S)  # 48 of the first 50 bytes
    assert rig.memory.write(data[100:150], 200.0 + 2 * UNIT_S) is Nrc.BUSY_REPEAT_REQUEST
    assert second.finish(second.done_at) is None
    third = operation(rig.memory.write(data[100:150], second.done_at))
    assert third.done_at == pytest.approx(second.done_at + 3 * UNIT_S)  # room for 42 more, of 2 + 50 + 50
    assert third.finish(third.done_at) is None
    fourth = operation(rig.memory.write(data[150:], third.done_at))
    assert fourth.done_at == third.done_at  # the last one
    assert fourth.finish(fourth.done_at) is None
    end = operation(rig.memory.end_download(fourth.done_at))
    assert end.done_at == pytest.approx(fourth.done_at + 6 * UNIT_S)
    assert end.finish(end.done_at) is None
    assert rig.flash.read(1, GEOMETRY.slot_offset, 192) == data


def test_the_next_block_does_not_wait_on_a_slow_bus() -> None:
    rig = downloading()
    for start, now in ((0, 200.0), (50, 200.1), (100, 200.2)):
        assert operation(rig.memory.write(NEW[start : start + 50], now)).done_at == now


@pytest.mark.parametrize("block", [1, 7, 16, 31, 50])
def test_blocks_of_any_size_give_the_same_flash(block: int) -> None:
    rig = downloading()
    for start in range(0, len(NEW), block):
        rig.expect(rig.memory.write(NEW[start : start + block], rig.now))
        assert resume_offset(rig) % GEOMETRY.unit_size == 0
    rig.expect(rig.memory.end_download(rig.now))
    assert rig.flash.read(1, GEOMETRY.slot_offset, 160) == NEW + b"\xff" * 10
    assert resume_offset(rig) == 150


def test_blocks_that_are_empty_too_long_or_too_many() -> None:
    rig = downloading()
    assert rig.memory.write(b"", rig.now) is Nrc.REQUEST_OUT_OF_RANGE
    assert rig.memory.write(bytes(BLOCK + 1), rig.now) is Nrc.REQUEST_OUT_OF_RANGE
    for start in range(0, 150, 50):
        rig.expect(rig.memory.write(NEW[start : start + 50], rig.now))
    assert rig.memory.write(b"x", rig.now + 1) is Nrc.TRANSFER_DATA_SUSPENDED
    assert rig.flash.is_blank(1, GEOMETRY.slot_offset + 160, 32)


def test_exit_is_refused_until_all_bytes_are_there() -> None:
    rig = downloading()
    rig.expect(rig.memory.write(NEW[:50], rig.now))
    assert rig.memory.end_download(rig.now) is Nrc.REQUEST_SEQUENCE_ERROR
    rig.expect(rig.memory.write(NEW[50:100], rig.now))
    rig.expect(rig.memory.write(NEW[100:], rig.now))
    rig.expect(rig.memory.end_download(rig.now))
    assert rig.memory.end_download(rig.now) is Nrc.REQUEST_SEQUENCE_ERROR


@pytest.mark.parametrize("defect", SectorDefect)
def test_a_bad_sector_shows_at_the_next_block_and_the_old_image_stays(defect: SectorDefect) -> None:
    rig = downloading()
    rig.flash.inject_defect(1, 1, defect)
    assert rig.wait(rig.memory.write(NEW[:50], rig.now)) is None
    assert rig.memory.write(NEW[50:100], rig.now + 1) is Nrc.GENERAL_PROGRAMMING_FAILURE
    assert rig.memory.last_failure is not None
    assert rig.memory.last_failure.reason is FailureReason.FLASH_WRITE_FAILED
    assert resume_offset(rig) == 0
    rig.power_cycle()
    assert rig.version == "1.0.0"


def test_a_bad_sector_shows_at_the_end() -> None:
    rig = downloading()
    rig.flash.inject_defect(1, 3, SectorDefect.REPORTED)
    for start in range(0, 150, 50):
        assert rig.wait(rig.memory.write(NEW[start : start + 50], rig.now)) is None
    assert rig.wait(rig.memory.end_download(rig.now)) is Nrc.GENERAL_PROGRAMMING_FAILURE
    assert rig.memory.verify(zlib.crc32(NEW), rig.now) is Nrc.REQUEST_SEQUENCE_ERROR
    assert resume_offset(rig) == 128  # what is in the sectors before is good


def test_a_failure_does_not_outlast_a_good_attempt() -> None:
    rig = downloading()
    rig.flash.inject_defect(1, 1, SectorDefect.REPORTED)
    rig.expect(rig.memory.write(NEW[:50], rig.now))
    rig.memory.abort_download(rig.now + 1)
    rig.flash.inject_defect(1, 1, None)
    rig.now += 2
    rig.upgrade(NEW)
    assert rig.version == "2.0.0"


# --- abort and resume -------------------------------------------------------------------------


def test_after_an_abort_the_block_under_way_counts_and_the_waiting_one_does_not() -> None:
    rig = downloading()
    rig.expect(rig.memory.write(NEW[:50], rig.now))
    operation(rig.memory.write(NEW[50:100], rig.now))
    rig.memory.abort_download(rig.now)
    assert resume_offset(rig) == 0
    assert rig.memory.begin_download(0, 150, rig.now) is Nrc.BUSY_REPEAT_REQUEST
    assert rig.memory.verify(0, rig.now) is Nrc.REQUEST_SEQUENCE_ERROR
    rig.now += 1
    assert resume_offset(rig) == 48
    assert rig.memory.begin_download(0, 150, rig.now) is Nrc.REQUEST_OUT_OF_RANGE
    erases = rig.flash.counters.sectors_erased
    rig.upgrade(NEW)
    assert rig.version == "2.0.0"
    assert rig.flash.counters.sectors_erased == erases


def test_a_complete_download_needs_no_further_one_after_an_abort() -> None:
    rig = downloading()
    for start in range(0, 150, 50):
        rig.expect(rig.memory.write(NEW[start : start + 50], rig.now))
    rig.now += 1
    rig.memory.abort_download(rig.now)
    assert resume_offset(rig) == 150
    rig.verify(NEW)


def test_power_loss_between_blocks_resumes_exactly() -> None:
    rig = downloading()
    rig.expect(rig.memory.write(NEW[:50], rig.now))
    rig.now += 1
    rig.power_cycle()
    assert resume_offset(rig) == 48
    erases = rig.flash.counters.sectors_erased
    rig.upgrade(NEW)
    assert rig.flash.counters.sectors_erased == erases


def test_power_loss_within_a_block_resumes_at_the_sector_which_is_erased_again() -> None:
    rig = downloading()
    rig.expect(rig.memory.write(NEW[:50], rig.now))
    rig.expect(rig.memory.write(NEW[50:100], rig.now + UNIT_S * 3))  # units 3, 4, 5: the second sector begins at 4
    rig.now = rig.operations[-1].started + 0.5 * UNIT_S
    rig.power_cycle()
    assert resume_offset(rig) == 0
    rig.operations.clear()
    start = rig.now
    assert rig.memory.begin_download(0, 150, rig.now) == BLOCK
    first = operation(rig.memory.write(NEW[:50], rig.now))
    assert first.done_at == start
    second = operation(rig.memory.write(NEW[50:100], rig.now))
    assert second.done_at == pytest.approx(start + ERASE_S + 3 * UNIT_S)
    rig.now = second.done_at
    assert second.finish(rig.now) is None
    rig.expect(rig.memory.write(NEW[100:], rig.now))
    rig.expect(rig.memory.end_download(rig.now))
    rig.verify(NEW)
    assert [op.offset for op in rig.operations if op.action is FlashAction.ERASE] == [64]  # only what was touched


def test_power_loss_in_the_second_sector_erases_only_that() -> None:
    rig = downloading()
    rig.expect(rig.memory.write(NEW[:50], rig.now))
    rig.expect(rig.memory.write(NEW[50:100], rig.now + UNIT_S * 3))
    rig.now += UNIT_S * 2
    rig.power_cycle()
    assert resume_offset(rig) == 64
    rig.operations.clear()
    rig.upgrade(NEW)
    assert [op.offset for op in rig.operations if op.action is FlashAction.ERASE] == [128]


def test_power_loss_in_the_repair_keeps_the_offset_at_the_sector() -> None:
    rig = downloading()
    rig.expect(rig.memory.write(NEW[:50], rig.now))
    rig.now = rig.operations[-1].started + 1.5 * UNIT_S
    rig.power_cycle()
    assert rig.memory.begin_download(0, 150, rig.now) == BLOCK
    rig.expect(rig.memory.write(NEW[:50], rig.now))
    rig.now += 0.5  # half through the erase
    rig.power_cycle()
    assert resume_offset(rig) == 0
    rig.upgrade(NEW)
    assert rig.version == "2.0.0"


def test_resuming_in_a_later_sector_keeps_the_earlier_ones() -> None:
    rig = downloading()
    rig.expect(rig.memory.write(NEW[:50], rig.now))
    rig.expect(rig.memory.write(NEW[50:100], rig.now))
    rig.now += 1
    rig.expect(rig.memory.write(NEW[100:], rig.now))
    rig.now = rig.operations[-1].started + 0.5 * UNIT_S
    rig.power_cycle()
    assert resume_offset(rig) == 64
    assert rig.records.resume.load() == ResumeRecord(1, ImageId(150, NEW_SHA), True, 96)
    rig.upgrade(NEW)
    assert rig.version == "2.0.0"
    assert rig.flash.erase_cycles(1, 1) == 0


def test_another_image_does_not_resume_the_first() -> None:
    rig = downloading()
    rig.expect(rig.memory.write(NEW[:50], rig.now))
    rig.now += 1
    rig.memory.abort_download(rig.now)
    rig.upgrade(NEWER)
    assert rig.version == "3.0.0"


# --- verify, activate, confirm, revert --------------------------------------------------------


def test_verify_takes_the_time_to_read_and_answers_the_crc() -> None:
    rig = downloaded()
    assert rig.memory.read_back_crc32() == 0
    check = operation(rig.memory.verify(zlib.crc32(NEW), rig.now))
    assert check.done_at == pytest.approx(rig.now + 150 / 40e6)
    assert rig.memory.activate_on_trial(rig.now) is Nrc.REQUEST_SEQUENCE_ERROR
    assert check.finish(check.done_at) is None
    assert rig.memory.read_back_crc32() == zlib.crc32(NEW)


def test_verify_needs_a_complete_and_closed_download() -> None:
    rig = announced()
    assert rig.memory.verify(0, rig.now) is Nrc.REQUEST_SEQUENCE_ERROR
    assert Rig(OLD).memory.verify(0, 0.0) is Nrc.REQUEST_SEQUENCE_ERROR
    rig.memory.begin_download(0, 150, rig.now)
    for start in range(0, 150, 50):
        rig.expect(rig.memory.write(NEW[start : start + 50], rig.now))
    rig.now += 1
    assert rig.memory.verify(zlib.crc32(NEW), rig.now) is Nrc.REQUEST_SEQUENCE_ERROR


@pytest.mark.parametrize(
    ("image", "nrc", "words"),
    [
        (NEW[:-1] + b"\0", Nrc.GENERAL_PROGRAMMING_FAILURE, "SIGNATURE_INVALID"),
        (make_image("2.0.0", 5, node_type=NodeType.COMM_GATEWAY), Nrc.CONDITIONS_NOT_CORRECT, "WRONG_NODE_TYPE"),
        (make_image("0.9.0", 5), Nrc.CONDITIONS_NOT_CORRECT, "VERSION_DOWNGRADE"),
        (make_image("2.0.0", 2), Nrc.CONDITIONS_NOT_CORRECT, "SECURITY_DOWNGRADE"),
    ],
)
def test_an_image_that_is_refused_cannot_be_activated(image: bytes, nrc: Nrc, words: str) -> None:
    rig = downloaded(image)
    assert rig.wait(rig.memory.verify(zlib.crc32(image), rig.now)) is nrc
    assert rig.memory.last_failure is not None
    assert words in rig.memory.last_failure.detail
    assert rig.memory.activate_on_trial(rig.now) is Nrc.REQUEST_SEQUENCE_ERROR


def test_a_wrong_crc_is_refused_even_after_a_right_one() -> None:
    rig = downloaded()
    rig.verify(NEW)
    assert rig.wait(rig.memory.verify(1, rig.now)) is Nrc.GENERAL_PROGRAMMING_FAILURE
    assert rig.memory.activate_on_trial(rig.now) is Nrc.REQUEST_SEQUENCE_ERROR
    rig.verify(NEW)
    assert rig.memory.last_failure is None


def test_content_that_is_not_the_image_is_not_resumed() -> None:
    rig = downloading()
    wrong = NEW[:60] + bytes((NEW[60] ^ 1,)) + NEW[61:]
    for start in range(0, 150, 50):
        rig.expect(rig.memory.write(wrong[start : start + 50], rig.now))
    rig.expect(rig.memory.end_download(rig.now))
    assert resume_offset(rig) == 150
    assert rig.wait(rig.memory.verify(zlib.crc32(NEW), rig.now)) is Nrc.GENERAL_PROGRAMMING_FAILURE
    assert rig.memory.resume_state().image_sha256 == bytes(32)
    rig.upgrade(NEW)
    assert rig.version == "2.0.0"


def test_activation_needs_a_verification_since_the_last_change_or_boot() -> None:
    rig = downloaded()
    assert rig.memory.activate_on_trial(rig.now) is Nrc.REQUEST_SEQUENCE_ERROR
    rig.verify(NEW)
    rig.announce(NEW)
    assert rig.memory.activate_on_trial(rig.now) is Nrc.REQUEST_SEQUENCE_ERROR
    rig.download(NEW)
    rig.verify(NEW)
    rig.power_cycle()
    assert rig.memory.activate_on_trial(rig.now) is Nrc.REQUEST_SEQUENCE_ERROR
    rig.verify(NEW)  # what was downloaded is still good
    rig.activate()
    rig.activate()  # an answer that was lost
    rig.reset()
    assert rig.version == "2.0.0"


def test_an_image_changed_between_verification_and_boot_does_not_boot() -> None:
    rig = downloaded()
    rig.verify(NEW)
    rig.activate()
    rig.flash.inject_bit_rot(1, GEOMETRY.slot_offset + 40, 4)
    rig.reset()
    assert (rig.version, rig.memory.running.reason) == ("1.0.0", BootReason.TRIAL_REFUSED)


def test_without_confirm_the_old_image_is_back_after_one_boot_and_the_new_one_may_be_tried_again() -> None:
    rig = downloaded()
    rig.verify(NEW)
    rig.activate()
    rig.reset()
    assert (rig.version, rig.standing) == ("2.0.0", ImageState.TRIAL)
    rig.reset()
    assert (rig.version, rig.standing) == ("1.0.0", ImageState.CONFIRMED)
    assert rig.memory.security_counter == 3
    units = rig.flash.counters.units_programmed
    rig.upgrade(NEW)
    assert (rig.version, rig.standing) == ("2.0.0", ImageState.CONFIRMED)
    assert rig.flash.counters.units_programmed == units  # nothing was sent again


def test_confirm_may_be_repeated_but_not_invented() -> None:
    rig = downloaded()
    assert rig.memory.confirm(rig.now) is Nrc.CONDITIONS_NOT_CORRECT
    rig.verify(NEW)
    rig.activate()
    assert rig.memory.confirm(rig.now) is Nrc.CONDITIONS_NOT_CORRECT  # activated, not booted
    rig.reset()
    assert rig.memory.confirm(rig.now) is None
    assert rig.memory.confirm(rig.now) is None
    rig.put(NEWER)
    rig.verify(NEWER)
    rig.activate()
    assert rig.memory.confirm(rig.now) is Nrc.CONDITIONS_NOT_CORRECT  # another one is on trial now
    rig.reset()
    rig.reset()
    assert rig.version == "2.0.0"
    assert rig.memory.confirm(rig.now) is Nrc.CONDITIONS_NOT_CORRECT  # reverted: no false success


def test_revert_gives_up_activation_and_trial_and_is_harmless_otherwise() -> None:
    rig = downloaded()
    assert rig.memory.revert(rig.now) is None
    rig.verify(NEW)
    rig.activate()
    assert rig.memory.revert(rig.now) is None
    rig.reset()
    assert rig.version == "1.0.0"
    rig.verify(NEW)
    rig.activate()
    rig.reset()
    assert rig.memory.revert(rig.now) is None
    assert rig.memory.confirm(rig.now) is Nrc.CONDITIONS_NOT_CORRECT
    rig.reset()
    assert rig.version == "1.0.0"
    rig.upgrade(NEW)
    assert rig.memory.revert(rig.now) is None
    rig.reset()
    assert rig.version == "2.0.0"  # a confirmed image is never given up


# --- recovery ---------------------------------------------------------------------------------


def test_a_node_in_recovery_takes_an_image() -> None:
    rig = Rig(OLD)
    rig.flash.inject_bit_rot(0, GEOMETRY.slot_offset + 3, 1)
    rig.power_cycle()
    assert boot_state(rig) == BootState(0, ImageState.RECOVERY, 2, Version(0, 0, 0))
    low = make_image("2.0.0", 2)
    rig.put(low)
    assert rig.wait(rig.memory.verify(zlib.crc32(low), rig.now)) is Nrc.CONDITIONS_NOT_CORRECT  # still no downgrade
    rig.upgrade(NEW)
    assert (rig.version, rig.standing) == ("2.0.0", ImageState.CONFIRMED)


def test_a_node_that_lost_its_records_takes_an_image_with_any_counter() -> None:
    rig = Rig(None)
    assert rig.memory.running.reason is BootReason.NO_RECORD
    rig.upgrade(make_image("5.0.0", 5 << 24))
    assert (rig.version, rig.memory.security_counter) == ("5.0.0", 5 << 24)


def test_after_a_fallback_the_rotten_bank_is_the_one_that_is_programmed() -> None:
    rig = Rig(OLD)
    rig.upgrade(make_image("2.0.0", 3))
    rig.flash.inject_ecc_error(1, GEOMETRY.slot_offset)
    rig.power_cycle()
    assert (rig.version, rig.memory.inactive_bank) == ("1.0.0", 1)
    rig.upgrade(NEWER)
    assert (rig.version, rig.memory.running.bank) == ("3.0.0", 1)


# --- timing -----------------------------------------------------------------------------------


def test_work_takes_effect_in_time_without_anybody_waiting_for_it() -> None:
    rig = downloading()
    operation(rig.memory.write(NEW[:50], rig.now))
    assert rig.flash.is_blank(1, GEOMETRY.slot_offset, 48)
    rig.memory.settle(rig.now + 2.9 * UNIT_S)
    assert rig.flash.is_blank(1, GEOMETRY.slot_offset, 48)
    rig.memory.settle(rig.now + 3.1 * UNIT_S)
    assert rig.flash.read(1, GEOMETRY.slot_offset, 48) == NEW[:48]


def test_a_loop_that_fires_a_little_early_is_tolerated() -> None:
    rig = downloading()
    rig.expect(rig.memory.write(NEW[:50], rig.now))
    second = operation(rig.memory.write(NEW[50:100], rig.now))
    assert second.finish(second.done_at - 1e-9) is None
    assert resume_offset(rig) == 48


def test_nothing_happens_without_power() -> None:
    rig = downloading()
    rig.power.arm(0, CutMode.BEFORE)
    rig.expect(rig.memory.write(NEW[:50], rig.now))
    rig.wait(rig.memory.write(NEW[50:100], rig.now))
    assert not rig.power.powered
    before = rig.state()
    rig.memory.write(NEW[:50], rig.now + 1)
    rig.memory.erase(150, NEW_SHA, rig.now + 1)
    rig.memory.activate_on_trial(rig.now + 1)
    assert rig.state() == before
    rig.power_cycle()
    assert rig.version == "1.0.0"


def test_a_download_is_given_up_once_nothing_may_begin_any_more() -> None:
    rig, allowed = Rig(OLD), [True]
    rig.memory = ProgrammingMemory(rig.bootloader, rig.config, lambda _now: allowed[0])
    rig.announce(NEW)
    assert rig.memory.begin_download(0, len(NEW), rig.now) == BLOCK
    rig.expect(rig.memory.write(NEW[:BLOCK], rig.now))
    rig.now += 10 * ERASE_S
    assert not rig.memory.is_working(rig.now)
    begun, allowed[0] = len(rig.operations), False
    rig.wait(rig.memory.write(NEW[BLOCK : 2 * BLOCK], rig.now))
    assert not rig.memory.is_working(rig.now)
    assert len(rig.operations) == begun
    allowed[0] = True  # what was given up does not go on by itself
    assert rig.memory.write(NEW[2 * BLOCK :], rig.now) is Nrc.REQUEST_SEQUENCE_ERROR
    assert resume_offset(rig) <= BLOCK
