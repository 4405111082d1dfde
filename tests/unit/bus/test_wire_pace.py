"""Bulk frames leave as the wire would let them."""

from __future__ import annotations

import asyncio

import pytest

from ess_can.bus.clock import pause
from ess_can.bus.wire_pace import AHEAD_S, WirePace
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.sim.loop import run_virtual

TIMING = BitTiming(125_000)
FRAME = CanFrame(0x615, bytes(range(8)))
FRAME_S = frame_duration_s(FRAME, TIMING)


def test_each_counts_as_sent_at_its_end_and_is_told_a_little_before() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        told: list[tuple[float, float]] = []
        rooms: list[float] = []
        pace = WirePace(TIMING, loop, lambda: rooms.append(loop.time()))
        for _ in range(6):
            pace.put(FRAME, lambda at: told.append((loop.time(), at)), bulk=True)
        assert pace.under_way == 6
        await pause(1.0)
        assert [at for _, at in told] == pytest.approx([FRAME_S * n for n in range(1, 7)])
        assert [when for when, _ in told] == pytest.approx([max(0.0, FRAME_S * n - AHEAD_S) for n in range(1, 7)])
        assert pace.under_way == 0
        assert rooms

    run_virtual(scenario())


def test_what_others_send_takes_its_time_too() -> None:
    async def scenario() -> None:
        told: list[float] = []
        pace = WirePace(TIMING, asyncio.get_running_loop(), lambda: None)
        pace.put(FRAME, None, bulk=False)
        pace.heard(FRAME)
        pace.put(FRAME, told.append, bulk=True)
        await pause(1.0)
        assert told == pytest.approx([3 * FRAME_S])
        pace.put(FRAME, told.append, bulk=True)
        pace.clear()
        await pause(1.0)
        assert len(told) == 1

    run_virtual(scenario())
