from __future__ import annotations

import random

import pytest

from ess_can.sim.fram import FRAM_SIZE, Fram
from ess_can.sim.power_cut import CutMode, PowerCut


def new(power: PowerCut | None = None, size: int = 16) -> Fram:
    return Fram(random.Random(3), power, size)


def test_new_memory_is_zero_and_keeps_what_is_written() -> None:
    fram = Fram(random.Random(3))
    assert fram.size == FRAM_SIZE
    assert fram.read(0, FRAM_SIZE) == bytes(FRAM_SIZE)
    assert fram.write(5, b"abc")
    assert fram.read(4, 5) == b"\0abc\0"


@pytest.mark.parametrize("prefix", range(6))
def test_a_write_is_cut_off_after_any_byte(prefix: int) -> None:
    power = PowerCut()
    fram = new(power)
    fram.write(0, b"AAAAAA")
    power.arm(prefix, CutMode.BEFORE)
    assert not fram.write(0, b"bbbbbb")
    assert fram.read(0, 6) == b"b" * prefix + b"A" * (6 - prefix)
    assert not fram.write(0, b"cccccc")
    power.restore()
    assert fram.read(0, 6) == b"b" * prefix + b"A" * (6 - prefix)


def torn(mode: CutMode, seed: int) -> Fram:
    """Byte 1 was 0x0F and is torn when 0x1E is written to it."""
    power = PowerCut()
    fram = Fram(random.Random(seed), power, 4)
    fram.write(0, b"\x0f\x0f")
    power.arm(1, mode)
    assert not fram.write(0, b"\xff\x1e")
    power.restore()
    assert fram.read(0, 1) == b"\xff"
    return fram


def test_a_torn_byte_mixes_old_and_new_bits() -> None:
    seen = set()
    for seed in range(20):
        fram = torn(CutMode.BITS, seed)
        seen.add(fram.read(1, 1)[0])
        assert fram.read(1, 1) == fram.read(1, 1)
    assert seen == {0x0F, 0x0E, 0x1F, 0x1E}  # bits that do not change are not torn


def test_a_prefix_of_a_byte_is_its_highest_bits() -> None:
    assert {torn(CutMode.PREFIX, seed).read(1, 1)[0] for seed in range(40)} == {0x0F, 0x1F}


def test_an_undecided_byte_reads_differently_until_it_is_written() -> None:
    fram = torn(CutMode.UNSTABLE, 1)
    assert {fram.read(0, 2)[1] for _ in range(99)} == {0x0F, 0x0E, 0x1F, 0x1E}
    assert fram.read(2, 2) == bytes(2)
    fram.write(1, b"\x55")
    assert {fram.read(1, 1) for _ in range(20)} == {b"\x55"}


def test_what_does_not_change_is_not_undecided() -> None:
    power = PowerCut()
    fram = new(power)
    power.arm(0, CutMode.UNSTABLE)
    fram.write(3, b"\0")
    assert fram.unstable == {}


@pytest.mark.parametrize("mode", [CutMode.PREFIX, CutMode.BITS])
def test_bits_that_a_torn_write_reached_are_decided(mode: CutMode) -> None:
    left = set()
    for seed in range(60):
        fram = torn(CutMode.UNSTABLE, seed)
        fram.power.arm(0, mode)
        fram.write(1, b"\x1e")
        left.add(fram.unstable.get(1, 0))
    assert left == ({0x11, 0x01} if mode is CutMode.PREFIX else {0x11, 0x10, 0x01, 0})


def test_an_undecided_byte_stays_so_when_it_is_torn_again() -> None:
    fram = torn(CutMode.UNSTABLE, 1)
    fram.power.arm(0, CutMode.UNSTABLE)
    fram.write(1, b"\x0f")
    assert fram.unstable == {1: 0x11}


def test_outside_the_memory_is_an_error() -> None:
    fram = new()
    for address, length in ((-1, 1), (16, 1), (10, 7), (0, -1)):
        with pytest.raises(ValueError, match="outside"):
            fram.read(address, length)
    with pytest.raises(ValueError, match="outside"):
        fram.write(15, b"ab")


def test_export_and_restore() -> None:
    fram = new()
    fram.write(3, b"xyz")
    copy = new()
    copy.restore(fram.export())
    assert copy.read(3, 3) == b"xyz"
    copy.unstable[3] = 1
    copy.restore(fram.export())
    assert copy.unstable == {}
    with pytest.raises(ValueError, match="15 bytes"):
        copy.restore(bytes(15))


def test_whoever_watches_is_told_of_each_write_however_far_it_came() -> None:
    power, told = PowerCut(), list[tuple[int, int, bytes]]()
    fram = new(power)
    fram.on_write.append(lambda address, length: told.append((address, length, fram.read(address, length))))
    fram.write(3, b"abc")
    power.arm(1, CutMode.BEFORE)
    fram.write(3, b"xyz")
    assert told == [(3, 3, b"abc"), (3, 3, b"xbc")]
