"""What of a flash outlives its process, and what becomes of an operation that the process died in."""

from __future__ import annotations

import random

import pytest

from ess_can.sim.flash import Flash, FlashTiming
from ess_can.sim.flash_cells import BANKS, BankCells, CutOff, FlashAction, FlashCells, FlashGeometry, UnitState

GEOMETRY = FlashGeometry(sectors_per_bank=3, sector_size=64, unit_size=16)
SLOT = GEOMETRY.slot_offset
DATA = bytes(range(64))
TORN = (UnitState.UNSTABLE, UnitState.PROGRAMMED)  # error correction does not see every torn unit


class Device:
    """A flash in a memory that outlives the `Flash` on it."""

    def __init__(self) -> None:
        self.memory = bytearray(FlashCells.size(GEOMETRY))
        FlashCells(memoryview(self.memory), GEOMETRY).make_blank()

    def boot(self, seed: int = 1) -> Flash:
        """A process that starts; the one before, if any, is dead."""
        flash = Flash(random.Random(seed), cells=FlashCells(memoryview(self.memory), GEOMETRY))
        flash.running_bank = 0
        return flash

    @property
    def slot(self) -> BankCells:
        return FlashCells(memoryview(self.memory), GEOMETRY).banks[1]

    def states(self) -> list[int]:
        """Of the slot's two sectors, four units each."""
        return list(self.slot.states)[4:]


def program(flash: Flash, offset: int = SLOT, data: bytes = DATA) -> None:
    done_at = flash.start_program(1, offset, data, 0.0)
    assert isinstance(done_at, float)
    assert flash.complete(1, done_at) is None


def test_a_new_part_is_blank() -> None:
    flash = Device().boot()
    for bank in range(BANKS):
        assert flash.is_blank(bank, 0, GEOMETRY.bank_size)
        assert flash.read(bank, 0, GEOMETRY.bank_size) == b"\xff" * GEOMETRY.bank_size
    assert flash.geometry == GEOMETRY


@pytest.mark.parametrize("geometry", [GEOMETRY, FlashGeometry(), FlashGeometry(sectors_per_bank=9, unit_size=8)])
def test_the_parts_of_a_bank_do_not_overlap(geometry: FlashGeometry) -> None:
    cells = FlashCells(memoryview(bytearray(FlashCells.size(geometry))), geometry)
    for number, bank in enumerate(cells.banks):
        bank.begin(FlashAction.ERASE, 1, 2)
        bank.erase_cycles[geometry.sectors_per_bank - 1] = bank.erase_cycles[0] = 0xFFFF_FFFF
        bank.states[:] = bytes([2]) * len(bank.states)
        bank.content[:] = bytes([number]) * geometry.bank_size
    for number, bank in enumerate(cells.banks):
        assert bank.cut_off == CutOff(FlashAction.ERASE, 1, 2)
        assert bank.erase_cycles[0] == bank.erase_cycles[geometry.sectors_per_bank - 1] == 0xFFFF_FFFF
        assert set(bank.states) == {2}
        assert len(bank.states) == geometry.bank_size // geometry.unit_size
        assert bytes(bank.content) == bytes([number]) * geometry.bank_size


def test_what_was_done_outlives_the_process() -> None:
    device = Device()
    first = device.boot()
    program(first)
    done_at = first.start_erase(1, 2, 1.0)
    assert isinstance(done_at, float)
    assert first.complete(1, done_at) is None
    again = device.boot()
    assert again.read(1, SLOT, 64) == DATA
    assert not again.is_blank(1, SLOT, 64)
    assert again.is_blank(1, SLOT + 64, 64)
    assert [again.erase_cycles(1, sector) for sector in range(3)] == [0, 0, 1]
    assert again.counters.torn == 0


def test_death_in_an_erase_leaves_the_sector_torn() -> None:
    device = Device()
    flash = device.boot()
    program(flash)
    flash.start_erase(1, 1, 1.0)
    again = device.boot()
    assert not again.is_blank(1, SLOT, 64)
    assert again.erase_cycles(1, 1) == 1
    assert device.states()[4:] == [UnitState.BLANK] * 4
    assert again.counters.torn == 1
    assert device.slot.cut_off is None
    assert device.boot().counters.torn == 0  # only once


def test_death_in_programming_leaves_a_torn_unit_and_the_rest_blank() -> None:
    fates = set()
    for seed in range(20):
        device = Device()
        device.boot().start_program(1, SLOT + 16, DATA[:48], 1.0)
        again = device.boot(seed)
        first, torn, *rest = device.states()
        assert (first, rest) == (UnitState.BLANK, [UnitState.BLANK] * 6)
        assert not again.is_blank(1, SLOT + 16, 16)
        fates.add(torn)
    assert fates == set(TORN)


def test_death_while_a_result_is_stored_tears_what_was_not_marked_yet() -> None:
    device = Device()
    device.boot().start_program(1, SLOT, DATA, 1.0)
    device.slot.content[SLOT : SLOT + 40] = DATA[:40]  # two units and a half
    device.slot.states[4] = UnitState.PROGRAMMED
    again = device.boot()
    assert again.read(1, SLOT, 16) == DATA[:16]
    states = device.states()
    assert states[0] == UnitState.PROGRAMMED
    assert {states[1], states[2]} <= set(TORN)
    assert states[3:] == [UnitState.BLANK] * 5
    assert again.counters.torn == 2


def test_death_after_the_last_mark_tears_nothing() -> None:
    device = Device()
    device.boot().start_program(1, SLOT, DATA, 1.0)
    device.slot.content[SLOT : SLOT + 64] = DATA
    device.slot.states[4:8] = bytes([UnitState.PROGRAMMED]) * 4
    again = device.boot()
    assert again.read(1, SLOT, 64) == DATA
    assert again.counters.torn == 0


def test_a_loss_of_power_in_the_process_is_torn_once() -> None:
    device = Device()
    flash = device.boot()
    flash.start_program(1, SLOT, DATA, 1.0)
    flash.power_loss(1.00015)
    before = device.states()
    assert device.slot.cut_off is None
    device.boot()
    assert device.states() == before


def test_a_note_that_makes_no_sense_is_refused() -> None:
    slot = Device().slot
    slot.begin(FlashAction.PROGRAM, GEOMETRY.bank_size, 16)
    with pytest.raises(ValueError, match="outside a bank"):
        _ = slot.cut_off
    slot.begin(7, 0, 16)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="7"):
        _ = slot.cut_off


def test_speed_divides_the_durations() -> None:
    assert FlashTiming(1.0, 100e-6).divided_by(4.0) == FlashTiming(0.25, 25e-6)
    assert FlashTiming().divided_by(1.0) == FlashTiming()


def test_whoever_watches_is_told_of_reading_of_changes_and_of_damage() -> None:
    memory = FlashCells(memoryview(bytearray(FlashCells.size(GEOMETRY))), GEOMETRY)
    memory.make_blank()
    flash = Flash(random.Random(1), cells=memory)
    flash.running_bank = 0
    cells, read, changed = memory.banks[1], list[tuple[int, int]](), list[bool]()
    cells.on_read.append(lambda *place: read.append(place))
    cells.on_change.append(changed.append)
    program(flash)
    assert changed == [False]
    flash.inject_bit_rot(1, SLOT, 1)
    flash.inject_ecc_error(1, SLOT + 16)
    assert changed == [False, True, True]
    assert read == []
    assert flash.read(1, SLOT, 16) == bytes([DATA[0] ^ 1]) + DATA[1:16]
    assert read == [(SLOT, 16)]
