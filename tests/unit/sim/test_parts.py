from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.sim.flash import FlashTiming
from ess_can.sim.flash_cells import FlashGeometry
from ess_can.sim.parts import FASTER_THAN_WIRE, PARTS, STM32F103XG, STM32F429, STM32G474, STM32H743, FlashPart
from ess_can.uds.exchange import MAX_BLOCK_DATA

KIB = 1024
WIRESHARK_SEGMENTS = 16 * 255
"""The most frames of one ISO-TP message that Wireshark puts together."""
ALL = [*PARTS.values(), FASTER_THAN_WIRE]


def test_the_usual_part_is_the_default_of_flash() -> None:
    assert (STM32H743.geometry, STM32H743.timing) == (FlashGeometry(), FlashTiming())


def test_what_is_not_real_is_not_in_the_catalogue() -> None:
    assert FASTER_THAN_WIRE not in PARTS.values()
    assert all(PARTS[name].name == name for name in PARTS)


@pytest.mark.parametrize(
    ("part", "bank_kib", "slot_kib", "ram_kib"),
    [
        (STM32H743, 1024, 896, 512),
        (STM32G474, 256, 224, 96),
        (STM32F429, 1024, 896, 192),
        (STM32F103XG, 512, 480, 96),
    ],
)
def test_a_part_has_the_flash_and_the_ram_that_it_has(
    part: FlashPart, bank_kib: int, slot_kib: int, ram_kib: int
) -> None:
    assert (part.geometry.bank_size, part.geometry.slot_size) == (bank_kib * KIB, slot_kib * KIB)
    assert part.buffer_bytes <= ram_kib * KIB * 3 // 4


@pytest.mark.parametrize("part", ALL, ids=lambda part: part.name)
def test_two_blocks_fit_the_buffer_and_are_whole_units(part: FlashPart) -> None:
    assert 2 * part.block_bytes <= part.buffer_bytes
    assert part.block_bytes % part.geometry.unit_size == 0
    assert part.block_bytes <= MAX_BLOCK_DATA


@pytest.mark.parametrize("part", PARTS.values(), ids=lambda part: part.name)
def test_a_trace_of_classic_frames_can_be_read(part: FlashPart) -> None:
    in_first_frame, in_each_other, service_and_counter = 2, 7, 2
    others = -(-(part.block_bytes + service_and_counter - in_first_frame) // in_each_other)
    assert 1 + others <= WIRESHARK_SEGMENTS


def test_what_each_part_stands_for() -> None:
    assert STM32G474.geometry.sector_size == 2 * KIB
    assert STM32F429.geometry.sector_size == 128 * KIB
    assert STM32F429.timing.sector_erase_s > 1.0
    per_byte = {part.name: part.timing.unit_program_s / part.geometry.unit_size for part in PARTS.values()}
    assert max(per_byte, key=lambda name: per_byte[name]) == STM32F103XG.name


@pytest.mark.parametrize("part", ALL, ids=lambda part: part.name)
def test_as_many_sectors_as_an_image_needs(part: FlashPart) -> None:
    large = part.with_slots_of(1024 * KIB + 1)
    assert large.geometry.slot_size > 1024 * KIB
    assert large.geometry.slot_size - large.geometry.sector_size <= 1024 * KIB
    assert replace(large, geometry=part.geometry) == part
    assert part.with_slots_of(1) == part


def test_speed_is_that_of_the_flash() -> None:
    quick = STM32H743.divided_by(10.0)
    assert quick.timing == FlashTiming(0.1, 10e-6)
    assert replace(quick, timing=STM32H743.timing) == STM32H743


def test_a_block_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit a buffer of 64"):
        replace(STM32H743, buffer_bytes=64, block_bytes=33)
    assert replace(STM32H743, buffer_bytes=64, block_bytes=32).block_bytes == 32
