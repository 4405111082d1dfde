from __future__ import annotations

import pytest

from ess_can.can.frame import EXTENDED_FLAG, FD_LENGTHS, CanFrame


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (CanFrame(0x7E0, b"\x02\x10\x03"), "7E0#021003"),
        (CanFrame(0x005, b""), "005#"),
        (CanFrame(EXTENDED_FLAG | 0x18DA10F1, b"\xff"), "18DA10F1#FF"),
        (CanFrame(EXTENDED_FLAG | 1, b""), "00000001#"),
        (CanFrame(0x123, b"\xab", fd=True), "123##0AB"),
        (CanFrame(0x123, b"\xab", fd=True, brs=True), "123##1AB"),
        (CanFrame(0x123, b"", remote=True), "123#R"),
    ],
)
def test_a_frame_reads_as_in_candumps_log(frame: CanFrame, text: str) -> None:
    assert str(frame) == text


def test_one_number_tells_11_bit_from_29_bit_identifiers() -> None:
    assert not CanFrame(0x7FF, b"").extended
    assert CanFrame(EXTENDED_FLAG, b"").extended
    assert CanFrame(0x10, b"") != CanFrame(EXTENDED_FLAG | 0x10, b"")


def test_frames_are_values() -> None:
    assert len({CanFrame(1, b"a"), CanFrame(1, b"a"), CanFrame(1, b"b")}) == 2


def test_fd_lengths_are_the_sixteen_of_the_data_length_code() -> None:
    assert len(FD_LENGTHS) == 16
    assert FD_LENGTHS[15] == 64
