"""How close to the physical limit a transfer came."""

from __future__ import annotations

import pytest

from ess_can.bus.clock import pause
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.gateway.transfer_meter import TransferMeter, ideal_wire_time_s
from ess_can.signals.messages import BmsState
from ess_can.sim.loop import run_virtual
from tests.support.memory_bus import MemoryBus
from tests.support.scripted_plant import BMU1, CODEC, STATE

TIMING = BitTiming(500_000)
REQUEST_ID, RESPONSE_ID = CODEC.diagnostic_ids(BMU1)
DATA = bytes(range(140))
IDEAL_S = ideal_wire_time_s(DATA, REQUEST_ID, TIMING)


def test_the_ideal_is_the_wire_time_of_full_consecutive_frames() -> None:
    frames = [CanFrame(REQUEST_ID, bytes((0x20 | (n + 1) & 0xF,)) + DATA[7 * n : 7 * n + 7]) for n in range(20)]
    assert pytest.approx(sum(frame_duration_s(frame, TIMING) for frame in frames)) == IDEAL_S


def test_a_last_frame_that_is_not_full_counts_as_full() -> None:
    assert ideal_wire_time_s(b"\x01", REQUEST_ID, TIMING) == pytest.approx(
        frame_duration_s(CanFrame(REQUEST_ID, b"\x21\x01" + bytes(6)), TIMING)
    )
    assert ideal_wire_time_s(b"", REQUEST_ID, TIMING) == 0.0


def test_with_a_data_bit_rate_the_frames_are_can_fd_with_63_bytes() -> None:
    fd = BitTiming(500_000, 2_000_000)
    frame = CanFrame(REQUEST_ID, b"\x21" + DATA[:63], fd=True, brs=True)
    assert ideal_wire_time_s(DATA[:63], REQUEST_ID, fd) == pytest.approx(frame_duration_s(frame, fd))


def measure(pause_s: float, *others: CanFrame, timing: BitTiming | None = TIMING) -> TransferMeter:
    async def scenario() -> TransferMeter:
        bus = MemoryBus()
        link = StationLink(bus, CODEC)
        with TransferMeter(link, BMU1, timing) as meter:
            for frame in others:
                bus.deliver(frame)
            await pause(pause_s)
        assert link.on_send is None
        assert bus.listeners == 0
        return meter

    return run_virtual(scenario())


def test_a_transfer_in_the_ideal_time_has_efficiency_one() -> None:
    assert measure(IDEAL_S).efficiency(DATA) == pytest.approx(1.0)
    assert measure(2 * IDEAL_S).efficiency(DATA) == pytest.approx(0.5)


def test_other_traffic_is_not_held_against_it() -> None:
    other = CanFrame(CODEC.route(BmsState).can_id, bytes(8))
    meter = measure(IDEAL_S + frame_duration_s(other, TIMING), other)
    assert meter.other_traffic_s == pytest.approx(frame_duration_s(other, TIMING))
    assert meter.efficiency(DATA) == pytest.approx(1.0)


def test_traffic_that_the_dbc_does_not_know_is_not_listened_to() -> None:
    assert measure(1.0, CanFrame(0x123, bytes(8))).other_traffic_s == 0.0


def test_the_transfers_own_frames_are_not_other_traffic() -> None:
    assert measure(1.0, CanFrame(REQUEST_ID, bytes(8)), CanFrame(RESPONSE_ID, bytes(8))).other_traffic_s == 0.0


def test_our_own_station_messages_are() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        link = StationLink(bus, CODEC)
        with TransferMeter(link, BMU1, TIMING) as meter:
            link.send(STATE)
        assert meter.other_traffic_s == pytest.approx(frame_duration_s(bus.sent[0], TIMING))

    run_virtual(scenario())


def test_without_timing_data_or_time_there_is_no_figure() -> None:
    assert measure(1.0, CanFrame(0x123, b""), timing=None).efficiency(DATA) is None
    assert measure(1.0).efficiency(b"") is None
    assert measure(0.0).efficiency(DATA) is None


def test_foreign_fd_frames_of_unknown_duration_are_left_out() -> None:
    assert measure(1.0, CanFrame(CODEC.route(BmsState).can_id, bytes(64), fd=True, brs=True)).other_traffic_s == 0.0
