"""Every reader of what others wrote, under arbitrary input: no crash, no hang, memory within 64 MiB.

Hangs are counted, not timed: a case that makes more calls than its input can be worth is one.  A case is drawn from its
number alone, so that a failure is repeated by calling the target with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from ess_can.errors import EssCanError
from ess_can.trust.verify import open_upgrade_file, verify_node_image
from tests.campaign.counts import Count
from tests.campaign.scale import chosen
from tests.firmware_images import RING, small_image, small_upgrade
from tests.fuzz import files, isotp, station, uds
from tests.fuzz.bounds import RunawayError, calls_at_most, within_memory

PARTS = 2


@dataclass(frozen=True, slots=True)
class Target:
    """`inputs` are the frames, requests or files in each of `cases`; `calls` is what one of these may cost at most."""

    name: str
    case: Callable[[int], None]
    cases: int
    inputs: int
    calls: int


TARGETS = (
    Target("ISO-TP endpoint, frames", isotp.case, 20_000, isotp.FRAMES, 2_000),
    Target("UDS server, requests", uds.server_case, 20_000, uds.REQUESTS, 5_000),
    Target("UDS client, answers", uds.client_case, 10_000, 20, 20_000),
    Target("station messages at the gateway, frames", station.gateway_case, 3_000, station.FRAMES, 10_000),
    Target("station messages at racks and PCS, frames", station.plant_case, 1_500, station.FRAMES, 50_000),
    Target("node images", files.image_case, 200_000, 1, 20_000),
    Target("upgrade files", files.upgrade_case, 200_000, 1, 20_000),
    Target("manifests", files.manifest_case, 100_000, 1, 500_000),
    Target("HEX, SREC, ELF and BIN files", files.firmware_case, 100_000, 1, 200_000),
)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_hostile_input(target: Target, part: int, count: Count) -> None:
    quick, slice_ = max(target.cases // 400, 10), target.cases // 40
    cases = chosen(range(target.cases), quick=quick, slice_=slice_, part=part, parts=PARTS)

    def run() -> None:
        for case in cases:
            try:
                with calls_at_most(target.calls * target.inputs):
                    target.case(case)
            except BaseException as error:
                error.add_note(f"{target.name}: case {case}")
                raise

    target.case(0)  # what it imports and keeps belongs to the baseline
    within_memory(run)
    count(f"hostile input: {target.name}", len(cases) * target.inputs)


def test_memory_is_bounded_for_each_target() -> None:
    """The bound can be felt."""
    within_memory(lambda: allocate(32 << 20))
    with pytest.raises(AssertionError, match="MemoryError"):
        within_memory(lambda: allocate(80 << 20))


def allocate(size: int) -> None:
    bytearray(size)


def test_a_hang_is_seen() -> None:
    with calls_at_most(100):
        spin(90)
    with pytest.raises(RunawayError), calls_at_most(100):
        spin(1 << 60)


def spin(turns: int) -> None:
    for _ in range(turns):
        len("")


# --- exhaustively -----------------------------------------------------------------------------


def check_upgrade(data: bytes) -> None:
    open_upgrade_file(data, RING)


def check_image(data: bytes) -> None:
    verify_node_image(data, RING)


FILES = (("upgrade file", small_upgrade, check_upgrade), ("node image", small_image, check_image))


@pytest.mark.parametrize(("name", "make", "check"), FILES)
def test_every_flipped_bit_of_a_signed_file_is_found(
    name: str, make: Callable[[], bytes], check: Callable[[bytes], None], count: Count
) -> None:
    good = make()
    check(good)
    for position in range(len(good) * 8):
        bad = bytearray(good)
        bad[position // 8] ^= 1 << position % 8
        with pytest.raises(EssCanError) as caught:
            check(bytes(bad))
        assert 20 < caught.value.exit_code < 40, position
    count(f"{name}: every bit flipped", len(good) * 8)


@pytest.mark.parametrize(("name", "make", "check"), FILES)
def test_every_proper_prefix_of_a_signed_file_is_found(
    name: str, make: Callable[[], bytes], check: Callable[[bytes], None], count: Count
) -> None:
    good = make()
    for length in range(len(good)):
        with pytest.raises(EssCanError) as caught:
            check(good[:length])
        assert 20 < caught.value.exit_code < 40, length
        assert make is small_image or caught.value.name in ("FILE_EMPTY", "FILE_TRUNCATED"), length
    count(f"{name}: cut off after every byte", len(good))
