from __future__ import annotations

import random
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ess_can.can.frame import EXTENDED_FLAG, FD_LENGTHS, CanFrame
from ess_can.can.timing import BitTiming, for_any_frame, frame_bits, frame_duration_s, known_duration_s

# --- the reference: bit by bit, written from ISO 11898-1's frame formats and independent of the tables ------------


def bits_of(value: int, width: int) -> list[int]:
    return [int(digit) for digit in f"{value:0{width}b}"] if width else []


def crc15(bits: list[int]) -> list[int]:
    register = 0
    for bit in bits:
        inverted = bit ^ (register >> 14)
        register = (register << 1) & 0x7FFF
        if inverted:
            register ^= 0x4599
    return bits_of(register, 15)


def stuffed(bits: list[int], *, at_the_end: bool) -> list[int]:
    sent: list[int] = []
    for index, bit in enumerate(bits):
        sent.append(bit)
        if len(set(sent[-5:])) == 1 and len(sent) >= 5 and (at_the_end or index < len(bits) - 1):
            sent.append(1 - bit)
    return sent


def arbitration(frame: CanFrame) -> list[int]:
    rtr = int(frame.remote)
    if not frame.extended:
        return [0, *bits_of(frame.can_id, 11), rtr, 0]
    identifier = bits_of(frame.can_id & 0x1FFF_FFFF, 29)
    return [0, *identifier[:11], 1, 1, *identifier[11:], rtr]


def reference_classic_bits(frame: CanFrame) -> int:
    data = [] if frame.remote else [bit for byte in frame.data for bit in bits_of(byte, 8)]
    reserved = [0, 0] if frame.extended else [0]
    head = [*arbitration(frame), *reserved, *bits_of(len(frame.data), 4), *data]
    return len(stuffed([*head, *crc15(head)], at_the_end=True)) + 13


def reference_fd_seconds(frame: CanFrame, timing: BitTiming) -> float:
    nominal = [*arbitration(frame), 1, 0, int(frame.brs)]
    data = [bit for byte in frame.data for bit in bits_of(byte, 8)]
    whole = [*nominal, 0, *bits_of(FD_LENGTHS.index(len(frame.data)), 4), *data]
    slow = len(stuffed(nominal, at_the_end=True))
    fast = len(stuffed(whole, at_the_end=False)) - slow
    counted = 4 + (17 if len(frame.data) <= 16 else 21)
    fast += counted + 1 + counted // 4 + 1  # fixed stuff bits before it and after every four; CRC delimiter
    assert timing.data_bitrate is not None
    return (slow + 1 + 1 + 7 + 3) / timing.bitrate + fast / (timing.data_bitrate if frame.brs else timing.bitrate)


identifiers = st.one_of(st.integers(0, 0x7FF), st.integers(0, 0x1FFF_FFFF).map(lambda i: i | EXTENDED_FLAG))
runs = st.lists(st.tuples(st.sampled_from([0x00, 0xFF, 0x0F, 0x1F, 0x07, 0xF8, 0xAA]), st.integers(1, 8)), max_size=8)


def data_of(length: int) -> st.SearchStrategy[bytes]:
    """Random bytes, and bytes with long runs of equal bits."""
    equal = runs.map(lambda parts: b"".join(bytes([byte]) * count for byte, count in parts))
    return st.one_of(
        st.binary(min_size=length, max_size=length), equal.map(lambda data: data.ljust(length, b"\xff")[:length])
    )


@settings(max_examples=300, deadline=None)
@given(identifiers, st.integers(0, 8).flatmap(data_of), st.booleans())
def test_classic_frames_have_the_bits_of_the_bit_by_bit_reference(can_id: int, data: bytes, remote: bool) -> None:
    frame = CanFrame(can_id, data, remote=remote)
    assert frame_bits(frame) == reference_classic_bits(frame)
    assert frame_duration_s(frame, BitTiming(250_000)) == reference_classic_bits(frame) / 250_000


@settings(max_examples=200, deadline=None)
@given(identifiers, st.sampled_from(FD_LENGTHS).flatmap(data_of), st.booleans())
def test_fd_frames_have_the_time_of_the_bit_by_bit_reference(can_id: int, data: bytes, brs: bool) -> None:
    frame = CanFrame(can_id, data, fd=True, brs=brs)
    timing = BitTiming(500_000, 2_000_000)
    expected = reference_fd_seconds(frame, timing)
    assert frame_duration_s(frame, timing) == pytest.approx(expected, rel=1e-12)
    if not brs:
        assert frame_bits(frame) == round(expected * timing.bitrate)


@pytest.mark.parametrize("can_id", [0x000, 0x555, 0x7FF, EXTENDED_FLAG, EXTENDED_FLAG | 0x1FFF_FFFF])
@pytest.mark.parametrize("length", range(9))
def test_every_stuffing_and_crc_table_entry_agrees(can_id: int, length: int) -> None:
    for byte in range(256):
        frame = CanFrame(can_id, bytes([byte]) * length)
        assert frame_bits(frame) == reference_classic_bits(frame)


# --- known numbers --------------------------------------------------------------------------------------------


def test_an_eight_byte_base_frame_has_111_to_135_bits() -> None:
    source = random.Random(1)
    lengths = {frame_bits(CanFrame(source.randrange(0x800), source.randbytes(8))) for _ in range(5000)}
    assert min(lengths) == 111
    assert max(lengths) <= 135


def test_a_frame_of_zeros_counted_by_hand() -> None:
    # identifier 0, no data: all 34 bits up to the CRC's end are 0 (so is the CRC), six times five of them are stuffed
    assert frame_bits(CanFrame(0x000, b"")) == 34 + 6 + 13


def consecutive_frames(can_id: int, size: int, count: int, *, fd: bool) -> list[CanFrame]:
    source = random.Random(2)
    return [CanFrame(can_id, bytes([0x20 | n % 16]) + source.randbytes(size - 1), fd=fd, brs=fd) for n in range(count)]


@pytest.mark.parametrize(("can_id", "mean"), [(0x7E0, 116.4), (EXTENDED_FLAG | 0x18DA10F1, 134.5)])
def test_mean_length_of_consecutive_frames_with_random_payload(can_id: int, mean: float) -> None:
    frames = consecutive_frames(can_id, 8, 4000, fd=False)
    assert fmean(map(frame_bits, frames)) == pytest.approx(mean, abs=0.15)


@pytest.mark.parametrize(
    ("bitrate", "data_bitrate", "mean_us"),
    [
        (500_000, 2_000_000, 345.5),
        (500_000, 5_000_000, 175.4),
        (1_000_000, 5_000_000, 144.3),
        (1_000_000, 8_000_000, 101.8),
    ],
)
def test_mean_time_of_fd_consecutive_frames(bitrate: int, data_bitrate: int, mean_us: float) -> None:
    timing = BitTiming(bitrate, data_bitrate)
    frames = consecutive_frames(0x7E0, 64, 500, fd=True)
    assert fmean(frame_duration_s(frame, timing) for frame in frames) * 1e6 == pytest.approx(mean_us, abs=0.3)


def test_a_remote_frame_is_as_long_as_a_frame_without_data_but_for_its_stuff_bits() -> None:
    assert 47 <= frame_bits(CanFrame(0x555, bytes(8), remote=True)) <= 47 + 8


# --- what cannot be -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        CanFrame(0x800, b""),
        CanFrame(0x1, bytes(9)),
        CanFrame(0x1, b"", brs=True),
        CanFrame(0x1, bytes(9), fd=True),
        CanFrame(0x1, b"", fd=True, remote=True),
    ],
)
def test_a_frame_that_cannot_exist_is_refused(frame: CanFrame) -> None:
    with pytest.raises(ValueError, match=r"11 bits|no such frame"):
        frame_bits(frame)


def test_an_fd_frame_needs_a_data_bit_rate() -> None:
    with pytest.raises(ValueError, match="data bit rate"):
        frame_duration_s(CanFrame(1, b"", fd=True), BitTiming(500_000))


@pytest.mark.parametrize(("bitrate", "data_bitrate"), [(0, None), (-1, None), (500_000, 0)])
def test_bit_rates_are_positive(bitrate: int, data_bitrate: int | None) -> None:
    with pytest.raises(ValueError, match="positive"):
        BitTiming(bitrate, data_bitrate)


def test_what_is_heard_takes_no_known_time_if_it_cannot_be_told() -> None:
    classic, somebodys = CanFrame(0x123, bytes(8)), CanFrame(0x123, bytes(64), fd=True, brs=True)
    timing = BitTiming(500_000)
    assert known_duration_s(classic, timing) == frame_duration_s(classic, timing)
    assert known_duration_s(somebodys, timing) is None
    assert known_duration_s(CanFrame(0x123, bytes(9)), timing) is None


def test_without_a_data_bit_rate_frames_may_be_timed_by_the_nominal_one() -> None:
    assert for_any_frame(BitTiming(500_000)) == BitTiming(500_000, 500_000)
    assert for_any_frame(BitTiming(500_000, 2_000_000)) == BitTiming(500_000, 2_000_000)
