"""The load that is heard: wire time over time."""

from __future__ import annotations

import pytest

from ess_can.bus.clock import Cycle, pause
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.gateway.bus_load import BusLoad
from ess_can.sim.loop import run_virtual
from tests.support.memory_bus import bus_pair

TIMING = BitTiming(125_000)
FRAME = CanFrame(0x123, bytes(8))
FD_FRAME = CanFrame(0x124, bytes(8), fd=True)


def heard(timing: BitTiming | None, *frames: CanFrame, listen_s: float = 1.0) -> float:
    async def scenario() -> float:
        bus, peer = bus_pair()
        cycles = [Cycle(0.010, lambda _at, frame=frame: peer.send(frame)) for frame in frames]  # type: ignore[misc]
        for cycle in cycles:
            cycle.start(delay_s=0.005)
        with BusLoad(bus, timing) as load:
            await pause(listen_s)
        for cycle in cycles:
            cycle.stop()
        assert bus.listeners == 0
        return load.load

    return run_virtual(scenario())


def test_the_load_is_wire_time_over_time() -> None:
    assert heard(TIMING, FRAME) == pytest.approx(frame_duration_s(FRAME, TIMING) / 0.010)


def test_a_silent_bus_has_none() -> None:
    assert heard(TIMING) == 0.0
    assert heard(TIMING, FRAME, listen_s=0.0) == 0.0


def test_it_is_never_more_than_all() -> None:
    assert heard(BitTiming(5_000), FRAME) == 1.0


def test_without_a_bit_timing_nothing_is_known() -> None:
    assert heard(None, FRAME) == 0.0


def test_a_frame_of_unknown_duration_is_not_counted() -> None:
    assert heard(TIMING, FRAME, FD_FRAME) == heard(TIMING, FRAME)
