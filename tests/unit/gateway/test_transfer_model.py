"""The forward calculation: its extremes, which can be reckoned by hand, and what must hold in between."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ess_can.bus.load_limit import LoadLimit
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.gateway.transfer_meter import ideal_wire_time_s
from ess_can.gateway.transfer_model import Job, WireModel, transfer_time_s
from ess_can.image.content import BytesContent
from ess_can.isotp import IsoTpParams
from ess_can.uds.target import FlashProfile

CLASSIC = WireModel(BitTiming(500_000), IsoTpParams())
FD = WireModel(BitTiming(500_000, 2_000_000), IsoTpParams(tx_dl=64, fd=True, brs=True))
QUICK = FlashProfile(128 * 1024, 1e-6, 1e-12, 1 << 20, 1e9, 4093)
KIB = 1024
FRAME_S = 230e-6


def job(flash: FlashProfile = QUICK, size: int = 256 * KIB, offset: int = 0, block: int = 4093) -> Job:
    return Job(size, offset, block, FRAME_S, FRAME_S, flash)


def wire_s(size: int, block: int = 4093) -> float:
    """Frames of all blocks, each with its first frame, a flow control and an answer."""
    blocks = [min(block, size - start) for start in range(0, size, block)]
    return sum(1 + -(-(data + 2 - 6) // 7) + 2 for data in blocks) * FRAME_S


def test_a_quick_flash_takes_the_wires_time() -> None:
    assert transfer_time_s([job()], CLASSIC, 1) == pytest.approx(wire_s(256 * KIB), rel=1e-4)


def test_nodes_share_the_wire() -> None:
    assert transfer_time_s([job()] * 4, CLASSIC, 4) == pytest.approx(4 * wire_s(256 * KIB), rel=1e-4)


def test_a_slow_flash_takes_its_own_time_however_many_nodes() -> None:
    slow = FlashProfile(4 * KIB, 1.5, 1e-6, 16 * KIB, 1e9, 4093)
    flash_s = 64 * 1.5 + 256 * KIB * 1e-6
    for nodes in (1, 2, 4):
        assert transfer_time_s([job(slow)] * nodes, CLASSIC, nodes) == pytest.approx(flash_s, rel=0.02)


@pytest.mark.parametrize(("at_once", "turns"), [(1, 5), (2, 3), (4, 2), (5, 1), (9, 1)])
def test_no_more_nodes_at_once_than_allowed(at_once: int, turns: int) -> None:
    slow = FlashProfile(128 * KIB, 50.0, 1e-9, 128 * KIB, 1e9, 4093)
    assert transfer_time_s([job(slow)] * 5, CLASSIC, at_once) == pytest.approx(turns * 100.0, rel=0.1)


def test_a_large_buffer_hides_the_erasing_behind_the_wire() -> None:
    erasing = FlashProfile(64 * KIB, 1.0, 1e-7, 64 * KIB, 1e9, 4093)
    assert transfer_time_s([job(erasing)], CLASSIC, 1) == pytest.approx(wire_s(256 * KIB), rel=0.02)
    small = replace(erasing, buffer_bytes=8 * KIB)
    assert transfer_time_s([job(small)], CLASSIC, 1) > wire_s(256 * KIB) + 2.0


def test_what_the_node_holds_already_is_not_sent() -> None:
    size, offset = 256 * KIB, 200 * KIB
    assert transfer_time_s([job(offset=offset)], CLASSIC, 1) == pytest.approx(wire_s(size - offset), rel=1e-3)
    assert transfer_time_s([job(offset=size)], CLASSIC, 1) == 0.0
    erasing = FlashProfile(128 * KIB, 1000.0, 1e-12, 1 << 20, 1e9, 4093)  # the sector of the offset is erased already
    assert transfer_time_s([job(erasing, offset=offset)], CLASSIC, 1) < 10.0


def test_others_and_a_cap_leave_less_of_the_wire() -> None:
    idle = transfer_time_s([job()], CLASSIC, 1)
    assert transfer_time_s([job()], replace(CLASSIC, other_load=0.5), 1) == pytest.approx(2 * idle)
    assert transfer_time_s([job()], replace(CLASSIC, limit=LoadLimit(0.25)), 1) == pytest.approx(4 * idle, rel=0.02)
    assert transfer_time_s([job()], replace(CLASSIC, other_load=0.5, limit=LoadLimit(0.5)), 1) == pytest.approx(
        2 * idle
    )


def test_a_stream_that_yields_fills_up_what_others_leave() -> None:
    idle = transfer_time_s([job()], CLASSIC, 1)
    yielding = replace(CLASSIC, other_load=0.4, limit=LoadLimit(0.9, yields=True))
    assert transfer_time_s([job()], yielding, 1) == pytest.approx(2 * idle, rel=0.02)


def test_a_bus_that_is_full_still_gives_a_figure() -> None:
    assert 10 * wire_s(8 * KIB) < transfer_time_s([job(size=8 * KIB)], replace(CLASSIC, other_load=1.0), 1) < 1e3


def test_a_buffer_of_less_than_two_blocks_comes_to_an_end() -> None:
    tiny = FlashProfile(4 * KIB, 0.01, 1e-6, 100, 1e9, 4093)
    assert wire_s(16 * KIB) < transfer_time_s([job(tiny, size=16 * KIB)], CLASSIC, 1) < 2 * wire_s(16 * KIB)


def test_absurd_figures_do_not_take_for_ever() -> None:
    absurd = FlashProfile(1, 1e-6, 1e-9, 1, 1.0, 4093)
    size = 16 * 1024 * KIB
    assert transfer_time_s([job(absurd, size=size)], CLASSIC, 1) > size * 1e-6


def test_nothing_takes_no_time() -> None:
    assert transfer_time_s([], CLASSIC, 1) == 0.0


profiles = st.builds(
    FlashProfile,
    st.integers(256, 256 * KIB),
    st.floats(1e-3, 3.0),
    st.floats(1e-8, 1e-4),
    st.integers(1024, 256 * KIB),
    st.just(1e7),
    st.just(4093),
)


@given(st.lists(profiles, min_size=1, max_size=4), st.integers(1, 130).map(lambda blocks: blocks * 500))
def test_it_is_between_the_slower_of_wire_and_flash_and_their_sum(flashes: list[FlashProfile], size: int) -> None:
    block = 500
    jobs = [job(flash, size, block=block) for flash in flashes]
    flash_s = [-(-size // each.sector_bytes) * each.sector_erase_s + size * each.program_s_per_byte for each in flashes]
    wire = len(flashes) * wire_s(size, block)
    took = transfer_time_s(jobs, CLASSIC, len(jobs))
    assert max(wire, *flash_s, 0.0) * 0.999 <= took <= (wire + max(flash_s)) * 1.001


@pytest.mark.parametrize("wire", [CLASSIC, FD])
def test_the_mean_frame_is_that_of_what_is_left(wire: WireModel) -> None:
    content = BytesContent(bytes(6300) + random.Random(1).randbytes(6300))
    rest = wire.full_frame_s(0x615, content, 6300)
    exact = ideal_wire_time_s(content.data[6300:], 0x615, wire.timing) * (wire.isotp.tx_dl - 1) / 6300
    assert rest == pytest.approx(exact, rel=0.005)
    assert wire.full_frame_s(0x615, content, 0) > rest  # zeros have more stuff bits


def test_short_messages() -> None:
    padded = CanFrame(0x515, bytes.fromhex("30 00 00 CC CC CC CC CC"))
    assert CLASSIC.short_message_s(0x515) == pytest.approx(frame_duration_s(padded, CLASSIC.timing), rel=0.2)
    assert FD.short_message_s(0x515) < CLASSIC.short_message_s(0x515)
