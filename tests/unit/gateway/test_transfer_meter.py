"""How close to the physical limit a transfer came."""

from __future__ import annotations

import gc
import random
import tracemalloc

import pytest

from ess_can.bus.clock import pause
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.gateway import transfer_meter
from ess_can.gateway.transfer_meter import SAMPLE_FRAMES, StationTraffic, TransferMeter, ideal_wire_time_s
from ess_can.signals.messages import BmsState
from ess_can.sim.loop import run_virtual
from tests.support.memory_bus import MemoryBus
from tests.support.scripted_plant import BMU1, BMU2, CODEC, STATE
from tests.unit.trust.samples import FOLDER

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


BUSES = [BitTiming(500_000), BitTiming(500_000, 2_000_000), BitTiming(1_000_000, 8_000_000)]
SIZE = 1 << 19
LARGE = {
    "random": random.Random(1).randbytes(SIZE),
    "firmware": (FOLDER / "bmu-1.1.0.bin").read_bytes(),
    "erased": b"\xff" * SIZE,
    "two halves": bytes(SIZE // 2) + b"\x55" * (SIZE // 2),
    "pages": b"".join((b"\x0f" if page % 2 else b"\x55") * 4096 for page in range(SIZE // 4096)),
    "table": (b"\x0f" * 63 + b"\x55" * 63) * (SIZE // 126),
    "any of two": b"".join(random.Random(n).choice((b"\x0f", b"\x55")) * 63 for n in range(SIZE // 63)),
}


@pytest.mark.parametrize("timing", BUSES)
@pytest.mark.parametrize("can_id", [REQUEST_ID, 0x98DA10F1])
def test_full_frames_differ_by_less_than_a_quarter(timing: BitTiming, can_id: int) -> None:
    """Which the error bound of a sample rests on.  The bytes of any value: among them those with most stuff bits."""
    size = 7 if timing.data_bitrate is None else 63
    times = [ideal_wire_time_s(bytes([byte]) * size, can_id, timing) for byte in range(256)]
    assert 1.1 < max(times) / min(times) < 1.25


@pytest.mark.parametrize("timing", BUSES[:2])
@pytest.mark.parametrize("content", list(LARGE))
def test_of_a_large_image_some_frames_stand_for_all(
    content: str, timing: BitTiming, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = LARGE[content]
    sampled = ideal_wire_time_s(image, REQUEST_ID, timing)
    assert sampled == ideal_wire_time_s(image, REQUEST_ID, timing)
    monkeypatch.setattr(transfer_meter, "SAMPLE_FRAMES", len(image))
    exact = ideal_wire_time_s(image, REQUEST_ID, timing)
    assert sampled != exact
    assert sampled == pytest.approx(exact, rel=0.003)
    if content in ("random", "firmware", "erased"):
        assert sampled == pytest.approx(exact, rel=0.0005)


def test_up_to_the_sample_the_figure_is_exact_and_beyond_as_many_frames_are_worked_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worked_out = 0

    def count(frame: CanFrame, timing: BitTiming) -> float:
        nonlocal worked_out
        worked_out += 1
        return frame_duration_s(frame, timing)

    monkeypatch.setattr(transfer_meter, "frame_duration_s", count)
    data = random.Random(2).randbytes(7 * SAMPLE_FRAMES + 1)
    exact = sum(ideal_wire_time_s(data[at : at + 7 * 16], REQUEST_ID, TIMING) for at in range(0, len(data) - 1, 7 * 16))
    worked_out = 0
    assert ideal_wire_time_s(data[:-1], REQUEST_ID, TIMING) == pytest.approx(exact)
    assert worked_out == SAMPLE_FRAMES
    for more in (data, data * 3):
        worked_out = 0
        ideal_wire_time_s(more, REQUEST_ID, TIMING)
        assert worked_out == SAMPLE_FRAMES


def test_a_large_image_is_not_held() -> None:
    class Endless:
        size = 48 << 20

        def read(self, offset: int, size: int) -> bytes:
            assert 0 <= offset < self.size
            assert size <= 63
            return offset.to_bytes(size, "big")

    gc.collect()
    tracemalloc.start()
    figure = ideal_wire_time_s(Endless(), REQUEST_ID, BitTiming(500_000, 2_000_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert figure > 200
    assert peak < 1 << 20


def test_what_was_resumed_counts_from_its_offset() -> None:
    assert ideal_wire_time_s(DATA, REQUEST_ID, TIMING, 70) == pytest.approx(
        ideal_wire_time_s(DATA[70:], REQUEST_ID, TIMING)
    )
    assert ideal_wire_time_s(DATA, REQUEST_ID, TIMING, len(DATA)) == 0.0
    resumed = ideal_wire_time_s(DATA[75:], REQUEST_ID, TIMING)
    assert measure(resumed).efficiency(DATA, 75) == pytest.approx(1.0)
    assert measure(resumed).efficiency(DATA, len(DATA)) is None


def measure(pause_s: float, *others: CanFrame, timing: BitTiming | None = TIMING) -> TransferMeter:
    async def scenario() -> TransferMeter:
        bus = MemoryBus()
        link = StationLink(bus, CODEC)
        with TransferMeter(StationTraffic(link, timing), BMU1) as meter:
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
        with TransferMeter(StationTraffic(link, TIMING), BMU1) as meter:
            link.send(STATE)
        assert meter.other_traffic_s == pytest.approx(frame_duration_s(bus.sent[0], TIMING))

    run_virtual(scenario())


def test_without_timing_data_or_time_there_is_no_figure() -> None:
    assert measure(1.0, CanFrame(0x123, b""), timing=None).efficiency(DATA) is None
    assert measure(1.0).efficiency(b"") is None
    assert measure(0.0).efficiency(DATA) is None


def test_foreign_fd_frames_of_unknown_duration_are_left_out() -> None:
    assert measure(1.0, CanFrame(CODEC.route(BmsState).can_id, bytes(64), fd=True, brs=True)).other_traffic_s == 0.0


def test_two_transfers_at_the_same_time_share_the_limit() -> None:
    """Each is told how well the wire was used while it ran; other traffic is worked out once, and counts for both."""
    other = CanFrame(CODEC.route(BmsState).can_id, bytes(8))

    async def scenario() -> None:
        bus = MemoryBus()
        traffic = StationTraffic(StationLink(bus, CODEC), TIMING)
        first, second = TransferMeter(traffic, BMU1), TransferMeter(traffic, BMU2)
        with first, second:
            assert bus.listeners == 1
            bus.deliver(other)
            await pause(2 * IDEAL_S + frame_duration_s(other, TIMING))
            first.accept(len(DATA))
            second.accept(len(DATA))
        assert bus.listeners == 0
        for meter in (first, second):
            assert meter.other_traffic_s == pytest.approx(frame_duration_s(other, TIMING))
            assert meter.other_bytes == len(DATA)
            assert meter.efficiency(DATA) == pytest.approx(1.0)

    run_virtual(scenario())


def test_what_others_brought_before_and_after_does_not_count() -> None:
    async def scenario() -> None:
        traffic = StationTraffic(StationLink(MemoryBus(), CODEC), TIMING)
        first, second = TransferMeter(traffic, BMU1), TransferMeter(traffic, BMU2)
        with second:
            second.accept(1000)
            with first:
                await pause(2 * IDEAL_S)
                first.accept(len(DATA))
            second.accept(1000)
        assert first.other_bytes == 0
        assert first.efficiency(DATA) == pytest.approx(0.5)

    run_virtual(scenario())


def test_a_block_that_began_before_never_makes_more_of_it_than_the_limit() -> None:
    async def scenario() -> None:
        traffic = StationTraffic(StationLink(MemoryBus(), CODEC), TIMING)
        first, second = TransferMeter(traffic, BMU1), TransferMeter(traffic, BMU2)
        with second, first:
            second.accept(10 * len(DATA))
            first.accept(len(DATA))
            await pause(2 * IDEAL_S)
        assert first.efficiency(DATA) == 1.0

    run_virtual(scenario())
