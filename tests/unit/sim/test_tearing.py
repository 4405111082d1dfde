"""What torn operations leave in flash, mode by mode."""

from __future__ import annotations

import random

import pytest

from ess_can.sim.flash_cells import BankCells, FlashCells, FlashGeometry, UnitState
from ess_can.sim.power_cut import TEARING, CutMode
from ess_can.sim.tearing import any_tearing, read_cells, tear_sector, tear_unit

GEOMETRY = FlashGeometry(sectors_per_bank=2, sector_size=64, unit_size=16)
OLD = bytes(range(64))
ALL = range(40)  # seeds


def cells(content: bytes = b"") -> BankCells:
    """A bank whose second sector begins with `content`."""
    bank = FlashCells.in_ram(GEOMETRY).banks[0]
    bank.content[64 : 64 + len(content)] = content
    bank.states[4 : 4 + len(content) // 16] = bytes([UnitState.PROGRAMMED]) * (len(content) // 16)
    return bank


def readings(bank: BankCells, offset: int = 64, length: int = 16) -> set[bytes | None]:
    rng = random.Random(1)
    return {read_cells(bank, offset, length, 16, rng) for _ in range(200)}


def test_a_prefix_of_a_unit() -> None:
    seen = set()
    for seed in ALL:
        bank = cells()
        tear_unit(bank, 64, OLD[:16], CutMode.PREFIX, random.Random(seed))
        (content,) = readings(bank)
        assert content is not None
        done = len(content.rstrip(b"\xff"))
        assert content == OLD[:done] + b"\xff" * (16 - done)
        seen.add(done)
    assert seen == set(range(1, 16))


def test_some_bits_of_a_unit() -> None:
    bank = cells()
    tear_unit(bank, 64, OLD[:16], CutMode.BITS, random.Random(1))
    (content,) = readings(bank)
    assert content not in (None, OLD[:16], b"\xff" * 16)
    assert content is not None
    assert all(byte & wanted == wanted for byte, wanted in zip(content, OLD[:16], strict=True))


def test_an_unstable_unit_reads_as_error_or_one_value_or_the_other_or_between() -> None:
    bank = cells()
    tear_unit(bank, 64, OLD[:16], CutMode.UNSTABLE, random.Random(1))
    seen = readings(bank)
    assert {None, OLD[:16], b"\xff" * 16} < seen
    assert readings(bank, 64 + 16, 16) == {b"\xff" * 16}
    assert {None, OLD[15:16] + b"\xff", b"\xff\xff"} <= readings(bank, 64 + 15, 2)
    assert {None, b"\xff" + OLD[:1], b"\xff\xff"} <= readings(bank, 63, 2)


def test_an_unreadable_unit_never_reads() -> None:
    bank = cells(OLD)
    bank.states[5] = UnitState.UNREADABLE
    assert readings(bank, 64, 64) == {None}
    assert readings(bank, 64, 16) == {OLD[:16]}


@pytest.mark.parametrize("mode", TEARING)
@pytest.mark.parametrize("before", [OLD, OLD[:16], b""])
def test_a_torn_sector_is_never_blank_and_its_neighbour_is_untouched(mode: CutMode, before: bytes) -> None:
    for seed in ALL:
        bank = cells(before)
        tear_sector(bank, 1, GEOMETRY, mode, random.Random(seed))
        assert any(bank.states[4:])
        assert not any(bank.states[:4])
        assert list(bank.erase_cycles) == [0, 1]


def test_a_prefix_of_a_sector() -> None:
    seen = set()
    for seed in ALL:
        bank = cells(OLD)
        tear_sector(bank, 1, GEOMETRY, CutMode.PREFIX, random.Random(seed))
        erased = bytes(bank.states[4:]).index(UnitState.PROGRAMMED)
        assert bytes(bank.states[4:]) == bytes(erased) + bytes([UnitState.PROGRAMMED]) * (4 - erased)
        assert bytes(bank.content[64:]) == b"\xff" * erased * 16 + OLD[erased * 16 :]
        seen.add(erased)
    assert seen == {0, 1, 2, 3}


def test_some_bits_of_a_sector() -> None:
    bank = cells(OLD)
    tear_sector(bank, 1, GEOMETRY, CutMode.BITS, random.Random(1))
    (content,) = readings(bank, 64, 64)
    assert content not in (None, OLD, b"\xff" * 64)
    assert bytes(bank.states[4:]) == bytes([UnitState.PROGRAMMED]) * 4


def test_an_unstable_sector() -> None:
    bank = cells(OLD)
    tear_sector(bank, 1, GEOMETRY, CutMode.UNSTABLE, random.Random(1))
    assert {None, OLD[:16], b"\xff" * 16} < readings(bank)


def test_all_modes_occur_if_nobody_says_which() -> None:
    rng = random.Random(1)
    assert {any_tearing(rng) for _ in range(50)} == set(TEARING)
