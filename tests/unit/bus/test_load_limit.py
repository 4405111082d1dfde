"""What a share of a bus's time comes to: for streams, for messages, for nodes at the same time."""

from __future__ import annotations

import math

import pytest

from ess_can.bus.load_limit import YIELD_FLOOR, LoadLimit
from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.errors import UsageError
from ess_can.isotp import IsoTpParams

FD_TIMING = BitTiming(500_000, 2_000_000)
CLASSIC, FD = IsoTpParams(), IsoTpParams(tx_dl=64, fd=True, brs=True)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, math.nan, math.inf])
def test_what_is_no_share(share: float) -> None:
    with pytest.raises(UsageError, match="no share"):
        LoadLimit(share)


def test_what_a_stream_gets() -> None:
    assert [LoadLimit(0.4).stream_share(others) for others in (0.0, 0.9)] == [0.4, 0.4]
    yielding = LoadLimit(0.8, yields=True)
    assert [yielding.stream_share(others) for others in (0.0, 0.3, 0.78, 2.0)] == pytest.approx(
        [0.8, 0.5, YIELD_FLOOR, YIELD_FLOOR]
    )
    assert LoadLimit(0.02, yields=True).assured == 0.02


@pytest.mark.parametrize(
    ("timing", "isotp", "lowest"),
    [
        (BitTiming(125_000), CLASSIC, 0.00610),
        (BitTiming(500_000), CLASSIC, 0.001525),
        (BitTiming(1_000_000), CLASSIC, 0.000762),
        (FD_TIMING, FD, 0.000865),
    ],
)
def test_the_lowest_share_that_carries_a_message(timing: BitTiming, isotp: IsoTpParams, lowest: float) -> None:
    LoadLimit(lowest).require(timing, isotp)
    assert LoadLimit(lowest).streams(timing, isotp) == 1
    assert LoadLimit(8 * lowest).streams(timing, isotp) == 8
    with pytest.raises(UsageError, match="too little") as caught:
        LoadLimit(lowest * 0.99).require(timing, isotp)
    percent = float(caught.value.remedy.split()[3])
    assert percent / 100 == pytest.approx(lowest, rel=0.05)


def test_eight_nodes_at_once_by_what_a_yielding_stream_has_in_any_case() -> None:
    assert LoadLimit(0.9, yields=True).streams(BitTiming(125_000), CLASSIC) == 8


def test_a_message_leaves_within_thirty_seconds() -> None:
    size = LoadLimit(0.01).longest_message(BitTiming(125_000), CLASSIC, 1)
    frame_s = frame_duration_s(CanFrame(EXTENDED_FLAG, bytes(8)), BitTiming(125_000))
    assert size % 7 == 0
    assert 29.8 < size / 7 * frame_s / 0.01 <= 30.0
    assert LoadLimit(0.01).longest_message(BitTiming(125_000), CLASSIC, 4) == pytest.approx(size / 4, abs=7)
