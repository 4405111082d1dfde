from __future__ import annotations

import random

import pytest

from ess_can.sim.flash import (
    MAXIMUM_TIMING,
    Flash,
    FlashError,
    FlashOperation,
    FlashTiming,
    SectorDefect,
)
from ess_can.sim.flash_cells import FlashAction, FlashGeometry, UnitState
from ess_can.sim.power_cut import TEARING, CutMode, PowerCut

GEOMETRY = FlashGeometry(sectors_per_bank=3, sector_size=64, unit_size=16, endurance_cycles=5)
SLOT = GEOMETRY.slot_offset
UNIT = bytes(range(16))


def new(seed: int = 1, power: PowerCut | None = None) -> Flash:
    flash = Flash(random.Random(seed), power, GEOMETRY)
    flash.running_bank = 0
    return flash


def program(flash: Flash, offset: int, data: bytes, now: float = 0.0) -> FlashError | None:
    started = flash.start_program(1, offset, data, now)
    return started if isinstance(started, FlashError) else flash.complete(1, started)


def erase(flash: Flash, sector: int = 1, now: float = 0.0) -> FlashError | None:
    started = flash.start_erase(1, sector, now)
    return started if isinstance(started, FlashError) else flash.complete(1, started)


def states(flash: Flash) -> bytes:
    return flash.export_bank(1).unit_states


def test_defaults_are_the_stm32h743s() -> None:
    geometry = FlashGeometry()
    assert geometry.bank_size == 1024 * 1024
    assert (geometry.slot_offset, geometry.slot_size) == (128 * 1024, 896 * 1024)
    assert FlashTiming() == FlashTiming(1.0, 100e-6)
    assert FlashTiming(2.0, 200e-6) == MAXIMUM_TIMING


def test_new_flash_is_blank_and_reads_erased() -> None:
    flash = new()
    assert flash.is_blank(1, 0, GEOMETRY.bank_size)
    assert flash.read(1, 0, GEOMETRY.bank_size) == b"\xff" * GEOMETRY.bank_size


def test_program_takes_its_time_and_takes_effect_at_its_end() -> None:
    flash = new()
    done_at = flash.start_program(1, SLOT, UNIT * 3, 10.0)
    assert done_at == pytest.approx(10.0 + 3 * 100e-6)
    assert isinstance(done_at, float)
    assert flash.complete(1, 10.0) is FlashError.BUSY
    assert flash.is_blank(1, SLOT, 48)
    assert flash.complete(1, done_at) is None
    assert flash.read(1, SLOT, 48) == UNIT * 3
    assert flash.counters.units_programmed == 3
    assert flash.complete(1, done_at) is FlashError.IDLE


def test_erase_takes_its_time_and_blanks_only_its_sector() -> None:
    flash = new()
    program(flash, SLOT, UNIT * 8)
    done_at = flash.start_erase(1, 1, 5.0)
    assert done_at == 6.0
    assert flash.complete(1, 6.0) is None
    assert flash.read(1, SLOT, 64) == b"\xff" * 64
    assert flash.read(1, SLOT + 64, 64) == UNIT * 4
    assert flash.erase_cycles(1, 1) == 1
    assert flash.counters.sectors_erased == 1


def test_a_unit_is_programmed_once_after_erase_even_with_the_same_bytes() -> None:
    flash = new()
    assert program(flash, SLOT, UNIT) is None
    assert program(flash, SLOT, UNIT) is FlashError.NOT_ERASED
    erase(flash)
    assert program(flash, SLOT, UNIT) is None


def test_programmed_erased_bytes_are_not_blank() -> None:
    flash = new()
    program(flash, SLOT, b"\xff" * 16)
    assert not flash.is_blank(1, SLOT, 1)
    assert program(flash, SLOT, UNIT) is FlashError.NOT_ERASED


@pytest.mark.parametrize(
    ("bank", "offset", "length", "error"),
    [
        (1, SLOT + 1, 16, FlashError.MISALIGNED),
        (1, SLOT, 15, FlashError.MISALIGNED),
        (1, SLOT, 0, FlashError.MISALIGNED),
        (1, 0, 16, FlashError.WRITE_PROTECTED),
        (1, GEOMETRY.bank_size - 16, 32, FlashError.OUT_OF_RANGE),
        (1, -16, 16, FlashError.OUT_OF_RANGE),
        (2, SLOT, 16, FlashError.OUT_OF_RANGE),
        (0, SLOT, 16, FlashError.RUNNING_BANK),
        (0, 0, 16, FlashError.RUNNING_BANK),
    ],
)
def test_misuse_in_programming_is_refused_and_counted(bank: int, offset: int, length: int, error: FlashError) -> None:
    flash = new()
    before = flash.export_bank(0), flash.export_bank(1)
    assert flash.start_program(bank, offset, bytes(length), 0.0) is error
    assert flash.counters.refused == 1
    assert (flash.export_bank(0), flash.export_bank(1)) == before


@pytest.mark.parametrize(
    ("bank", "sector", "error"),
    [
        (0, 1, FlashError.RUNNING_BANK),
        (1, 0, FlashError.WRITE_PROTECTED),
        (1, 3, FlashError.OUT_OF_RANGE),
        (1, -1, FlashError.OUT_OF_RANGE),
        (-1, 1, FlashError.OUT_OF_RANGE),
    ],
)
def test_misuse_in_erasing_is_refused(bank: int, sector: int, error: FlashError) -> None:
    assert new().start_erase(bank, sector, 0.0) is error


def test_one_operation_at_a_time_in_a_bank_and_the_other_bank_stays_readable() -> None:
    flash = new()
    done_at = flash.start_erase(1, 1, 0.0)
    assert flash.start_erase(1, 2, 0.5) is FlashError.BUSY
    assert flash.start_program(1, SLOT, UNIT, 0.5) is FlashError.BUSY
    assert flash.read(1, SLOT, 16) is FlashError.BUSY
    assert flash.read(0, SLOT, 16) == b"\xff" * 16
    assert done_at == 1.0


def test_both_banks_may_be_written_while_neither_runs() -> None:
    flash = new()
    flash.running_bank = None
    assert flash.start_erase(0, 1, 0.0) == 1.0
    assert flash.start_erase(1, 1, 0.0) == 1.0


def test_reading_or_completing_outside_is_refused() -> None:
    flash = new()
    assert flash.read(1, GEOMETRY.bank_size, 1) is FlashError.OUT_OF_RANGE
    assert flash.read(2, 0, 1) is FlashError.OUT_OF_RANGE
    assert flash.complete(2, 0.0) is FlashError.IDLE
    assert not flash.is_blank(1, GEOMETRY.bank_size, 1)


def test_the_observer_sees_each_operation_that_starts() -> None:
    seen: list[FlashOperation] = []
    flash = Flash(random.Random(1), geometry=GEOMETRY)
    flash.on_start.append(seen.append)
    flash.start_erase(1, 0, 0.0)  # protected
    flash.start_erase(1, 2, 3.0)
    assert seen == [FlashOperation(FlashAction.ERASE, 1, 128, 64, 3.0, 4.0)]


# --- power loss -------------------------------------------------------------------------------


def test_power_loss_in_programming_leaves_a_prefix_and_one_torn_unit() -> None:
    fates = set()
    for seed in range(40):
        flash = new(seed)
        flash.start_program(1, SLOT, UNIT * 4, 0.0)
        flash.power_loss(2.5 * 100e-6)
        assert flash.read(1, SLOT, 32) == UNIT * 2
        torn = states(flash)[6]
        assert torn != UnitState.BLANK
        fates.add(torn)
        assert flash.is_blank(1, SLOT + 48, 16)
        content = flash.export_bank(1).content[SLOT + 32 : SLOT + 48]
        assert all(byte & wanted == wanted for byte, wanted in zip(content, UNIT, strict=True))  # bits only clear
        assert (content == UNIT) is (torn == UnitState.UNSTABLE)
        assert flash.counters.torn == 1
        assert flash.complete(1, 1.0) is FlashError.IDLE
    assert fates == {UnitState.PROGRAMMED, UnitState.UNSTABLE}


def test_an_unreadable_unit_reads_with_an_ecc_error_and_its_neighbours_do_not() -> None:
    flash = new()
    program(flash, SLOT, UNIT * 3)
    flash.inject_ecc_error(1, SLOT + 17)
    assert flash.read(1, SLOT + 20, 2) is FlashError.ECC
    assert flash.read(1, SLOT, 48) is FlashError.ECC
    assert flash.read(1, SLOT, 16) == UNIT
    assert flash.read(1, SLOT + 32, 16) == UNIT
    assert flash.counters.ecc_errors == 2


def test_power_loss_in_erasing_leaves_a_dirty_sector() -> None:
    for seed in range(30):
        flash = new(seed)
        program(flash, SLOT, UNIT * 8)
        flash.start_erase(1, 1, 0.0)
        flash.power_loss(0.999)
        assert not flash.is_blank(1, SLOT, 64)
        assert flash.read(1, SLOT + 64, 64) == UNIT * 4
        assert flash.erase_cycles(1, 1) == 1
        assert erase(flash) is None
        assert flash.is_blank(1, SLOT, 64)


def test_power_loss_at_the_start_or_without_work_changes_nothing() -> None:
    flash = new()
    program(flash, SLOT, UNIT)
    before = flash.export_bank(1)
    flash.power_loss(1.0)
    flash.start_erase(1, 1, 2.0)
    flash.power_loss(2.0)
    assert flash.export_bank(1) == before


def test_done_but_unacknowledged_is_done() -> None:
    flash = new()
    flash.start_program(1, SLOT, UNIT * 2, 0.0)
    flash.power_loss(1.0)
    assert flash.read(1, SLOT, 32) == UNIT * 2
    assert flash.counters.torn == 0


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (CutMode.BEFORE, UnitState.BLANK),
        (CutMode.PREFIX, UnitState.PROGRAMMED),
        (CutMode.BITS, UnitState.PROGRAMMED),
        (CutMode.UNSTABLE, UnitState.UNSTABLE),
        (CutMode.AFTER, UnitState.PROGRAMMED),
    ],
)
def test_counted_cut_in_programming(mode: CutMode, expected: UnitState) -> None:
    power = PowerCut()
    flash = new(1, power)
    power.arm(1, mode)
    assert program(flash, SLOT, UNIT * 3) is FlashError.NO_POWER
    assert list(states(flash)[4:7]) == [UnitState.PROGRAMMED, expected, UnitState.BLANK]
    assert (flash.counters.torn == 1) is (mode in TEARING)
    assert flash.read(1, SLOT, 16) is FlashError.NO_POWER
    assert flash.start_erase(1, 1, 9.0) is FlashError.NO_POWER
    power.restore()
    assert flash.read(1, SLOT, 16) == UNIT


def test_an_undecided_unit_reads_anew_each_time() -> None:
    power = PowerCut()
    flash = new(1, power)
    power.arm(1, CutMode.UNSTABLE)
    program(flash, SLOT, UNIT * 2)
    power.restore()
    seen = [flash.read(1, SLOT, 32) for _ in range(60)]
    assert {FlashError.ECC, UNIT * 2, UNIT + b"\xff" * 16} < set(seen)
    assert flash.counters.ecc_errors == seen.count(FlashError.ECC)


@pytest.mark.parametrize("mode", CutMode)
def test_counted_cut_in_erasing(mode: CutMode) -> None:
    power = PowerCut()
    flash = new(1, power)
    program(flash, SLOT, UNIT * 4)
    power.arm(0, mode)
    result = erase(flash)
    assert result is (None if mode is CutMode.AFTER else FlashError.NO_POWER)
    assert flash.is_blank(1, SLOT, 64) is (mode is CutMode.AFTER)
    assert (UnitState.UNSTABLE in states(flash)) is (mode is CutMode.UNSTABLE)
    assert flash.complete(1, 9.0) is FlashError.NO_POWER


def test_work_under_way_is_dropped_when_power_is_gone_already() -> None:
    power = PowerCut()
    flash = new(1, power)
    flash.start_program(1, SLOT, UNIT, 0.0)
    power.arm(0, CutMode.BEFORE)
    power.admit(1)
    flash.power_loss(1.0)
    power.restore()
    assert flash.is_blank(1, SLOT, 16)
    assert flash.complete(1, 2.0) is FlashError.IDLE


# --- wear and defects -------------------------------------------------------------------------


def test_a_worn_sector_fails_to_erase() -> None:
    flash = new()
    for _ in range(GEOMETRY.endurance_cycles):
        assert erase(flash) is None
    assert erase(flash) is FlashError.ERASE_FAILED
    assert not flash.is_blank(1, SLOT, 64)
    assert erase(flash, sector=2) is None
    assert flash.counters.failed == 1


def test_a_bad_sector_reports_errors() -> None:
    flash = new()
    flash.inject_defect(1, 2, SectorDefect.REPORTED)
    assert program(flash, SLOT, UNIT * 6) is FlashError.PROGRAM_FAILED  # its last two units are in sector 2
    assert flash.read(1, SLOT, 64) == UNIT * 4
    assert not flash.is_blank(1, SLOT + 64, 16)
    assert flash.is_blank(1, SLOT + 80, 16)
    assert erase(flash, sector=2) is FlashError.ERASE_FAILED
    flash.inject_defect(1, 2, None)
    assert erase(flash, sector=2) is None


def test_power_may_fail_in_a_bad_sector_too() -> None:
    power = PowerCut()
    flash = new(1, power)
    flash.inject_defect(1, 1, SectorDefect.REPORTED)
    power.arm(0, CutMode.BEFORE)
    assert program(flash, SLOT, UNIT) is FlashError.NO_POWER
    assert flash.is_blank(1, SLOT, 16)


def test_a_silent_defect_shows_only_when_read_back() -> None:
    flash = new()
    flash.inject_defect(1, 1, SectorDefect.SILENT)
    assert program(flash, SLOT, UNIT) is None
    assert flash.read(1, SLOT, 16) == bytes(byte | 1 for byte in UNIT)


def test_bit_rot_is_not_seen_by_ecc() -> None:
    flash = new()
    program(flash, SLOT, UNIT)
    flash.inject_bit_rot(1, SLOT + 3, 0x81)
    assert flash.read(1, SLOT, 16) == UNIT[:3] + bytes([3 ^ 0x81]) + UNIT[4:]


# --- outside the interface --------------------------------------------------------------------


def test_factory_program_pads_and_refuses_what_is_not_blank() -> None:
    flash = new()
    flash.factory_program(0, SLOT, b"abc")
    assert flash.read(0, SLOT, 5) == b"abc\xff\xff"
    assert not flash.is_blank(0, SLOT, 16)
    for offset in (SLOT, SLOT + 1, GEOMETRY.bank_size):
        with pytest.raises(ValueError, match="blank units"):
            flash.factory_program(0, offset, b"abc")


def test_export_and_restore() -> None:
    flash = new()
    program(flash, SLOT, UNIT * 2)
    erase(flash, sector=2)
    flash.inject_ecc_error(1, SLOT)
    copy = new()
    copy.restore_bank(1, flash.export_bank(1))
    assert copy.export_bank(1) == flash.export_bank(1)
    assert copy.read(1, SLOT, 16) is FlashError.ECC
    assert copy.erase_cycles(1, 2) == 1
    with pytest.raises(ValueError, match="geometry"):
        Flash(random.Random(1)).restore_bank(1, flash.export_bank(1))


def test_the_same_seed_tears_the_same_bits() -> None:
    def run(seed: int) -> tuple[bytes, bytes]:
        flash = new(seed)
        program(flash, SLOT, UNIT * 4)
        flash.start_erase(1, 1, 0.0)
        flash.power_loss(0.5)
        flash.start_program(1, SLOT + 64, UNIT * 4, 1.0)
        flash.power_loss(1.00015)
        snapshot = flash.export_bank(1)
        return snapshot.content, snapshot.unit_states

    assert run(5) == run(5)
    assert run(5) != run(6)


def test_whoever_watches_is_told_of_each_refusal() -> None:
    flash, told = new(), list[FlashError]()
    flash.on_refuse.append(told.append)
    assert program(flash, 64, UNIT) is None
    assert program(flash, 64, UNIT) is FlashError.NOT_ERASED
    assert told == [FlashError.NOT_ERASED]
