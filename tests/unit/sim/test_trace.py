from __future__ import annotations

import hashlib

import pytest

from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.sim.trace import TraceHash


def trace(*frames: tuple[CanFrame, float]) -> str:
    result = TraceHash()
    for frame, time_s in frames:
        result.record(frame, time_s, "node")
    return result.hexdigest()


def test_the_hash_is_sha256_over_time_identifier_flags_length_and_data() -> None:
    frame = CanFrame(EXTENDED_FLAG | 0x12, b"\x01\x02", fd=True, brs=True)
    expected = bytes.fromhex("40e20100000000001200008003020102")
    assert trace((frame, 0.000123456)) == hashlib.sha256(expected).hexdigest()


def test_an_empty_trace_is_the_hash_of_nothing() -> None:
    assert trace() == hashlib.sha256().hexdigest()


BASE = (CanFrame(0x10, b"ab"), 1.0)


@pytest.mark.parametrize(
    "other",
    [
        (CanFrame(0x11, b"ab"), 1.0),
        (CanFrame(0x10 | EXTENDED_FLAG, b"ab"), 1.0),
        (CanFrame(0x10, b"ac"), 1.0),
        (CanFrame(0x10, b"ab", fd=True), 1.0),
        (CanFrame(0x10, b"ab", remote=True), 1.0),
        (CanFrame(0x10, b"ab"), 1.000000001),
    ],
)
def test_any_difference_changes_the_hash(other: tuple[CanFrame, float]) -> None:
    assert trace(BASE) != trace(other)


def test_order_matters_and_frames_are_counted() -> None:
    other = (CanFrame(0x11, b""), 2.0)
    assert trace(BASE, other) != trace(other, BASE)
    counted = TraceHash()
    counted.record(*BASE, "node")
    assert counted.frames == 1
