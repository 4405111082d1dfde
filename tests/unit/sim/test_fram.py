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


def test_a_torn_byte_mixes_old_and_new_bits() -> None:
    seen = set()
    for seed in range(20):
        power = PowerCut()
        fram = Fram(random.Random(seed), power, 4)
        fram.write(0, b"\x0f\x0f")
        power.arm(1, CutMode.TORN)
        fram.write(0, b"\xff\x1e")
        assert fram.read(0, 1) == b"\xff"
        torn = fram.read(1, 1)[0]
        assert torn & 0b1110_1110 == 0b0000_1110  # bits that do not change are not torn
        seen.add(torn)
    assert len(seen) > 2


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
    with pytest.raises(ValueError, match="15 bytes"):
        copy.restore(bytes(15))
