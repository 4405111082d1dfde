"""Real parts on an otherwise idle bus: receiving, programming and checking overlap until the slowest of them is left.

The images are as large as the parts' own slots, or 256 KiB.  Everything is in virtual time: the figures are exact.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.flash_parts import CLASSIC_500K, FD_500K_2M, measure
from ess_can.can.timing import BitTiming
from ess_can.identity import NodeAddress, NodeType
from ess_can.sim.flash import FlashTiming
from ess_can.sim.parts import FASTER_THAN_WIRE, PARTS, STM32F103XG, STM32F429, STM32G474, FlashPart

KIB = 1024
SIZES = {STM32G474.name: 224 * KIB}
BUSES = {"500k": CLASSIC_500K, "FD 500k/2M": FD_500K_2M}


@pytest.mark.parametrize("bus", BUSES)
@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_the_time_is_that_of_the_wire_or_of_the_flash(part: FlashPart, bus: str) -> None:
    measured = measure(part, BUSES[bus], SIZES.get(part.name, 256 * KIB))
    assert 1.0 <= measured.ratio <= 1.05


@pytest.mark.parametrize(
    ("part", "timing", "limit"),
    [
        (STM32G474, CLASSIC_500K, "wire"),
        (STM32F429, CLASSIC_500K, "wire"),
        (STM32F103XG, CLASSIC_500K, "flash"),
        (STM32G474, FD_500K_2M, "flash"),
        (STM32F429, FD_500K_2M, "flash"),
        (STM32F103XG, FD_500K_2M, "flash"),
    ],
)
def test_both_limits_are_met(part: FlashPart, timing: BitTiming, limit: str) -> None:
    """On which side a case stands, so that a change of a part's figures does not quietly empty the tests above."""
    measured = measure(part, timing, 128 * KIB)
    assert (measured.flash_s > measured.wire_s) == (limit == "flash")


def test_flash_that_is_just_as_fast_as_the_wire_is_the_hardest_case() -> None:
    """Half of the flash's time is for pages, half for data; nothing of either may be lost."""
    wire_s_per_byte = 228.8e-6 / 7
    page = STM32F103XG.geometry.sector_size
    timing = FlashTiming(sector_erase_s=page * wire_s_per_byte / 2, unit_program_s=wire_s_per_byte)
    measured = measure(replace(STM32F103XG, timing=timing), CLASSIC_500K, 128 * KIB)
    assert measured.flash_s == pytest.approx(measured.wire_s, rel=0.01)
    assert 1.0 <= measured.ratio <= 1.10  # the first block cannot be programmed before it is there


@pytest.mark.parametrize("block_kib", [16, 64])
def test_large_blocks_to_many_nodes_on_a_slow_bus(block_kib: int) -> None:
    """Each node's block takes most of a minute: longer than P2, P2* and S3, none of which may run meanwhile.

    The five nodes of the DBC at this rate have as little of the bus each as eight at 125 kbit/s.
    """
    nodes = [*(NodeAddress(NodeType.BMU, number) for number in range(1, 5)), NodeAddress(NodeType.COMM_GATEWAY)]
    part = replace(FASTER_THAN_WIRE, block_bytes=block_kib * KIB)
    measured = measure(part, BitTiming(78_000), 2 * block_kib * KIB, nodes)
    assert measured.repeated == 0
    assert measured.ratio <= 1.05


def test_it_is_the_same_every_time() -> None:
    first, second = (measure(STM32G474, FD_500K_2M, 32 * KIB) for _ in range(2))
    assert first == second
