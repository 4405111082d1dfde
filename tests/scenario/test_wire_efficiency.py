"""W1, W2, W3 in simulated time: how close the transfer of an image comes to the wire's limit, telemetry or not."""

from __future__ import annotations

import pytest

from benchmarks import wire_efficiency, wire_peers
from benchmarks.station import BMU1, BusKind, all_racks, bmu_image, bus_kind, codec
from benchmarks.wire_efficiency import How, bound, cases, exact_wire_time_s, measure
from ess_can.gateway.transfer_meter import ideal_wire_time_s

KIB = 128


@pytest.mark.parametrize(
    ("kind", "racks"), cases(), ids=lambda value: value.name if isinstance(value, BusKind) else f"{value} racks"
)
def test_the_transfer_comes_close_to_the_limit(kind: BusKind, racks: int) -> None:
    transfer = measure(kind, racks, KIB)
    assert bound(kind, racks) <= transfer.efficiency < 1.0
    assert transfer.image_bytes > KIB * 1024
    assert 0.0 <= transfer.other_traffic_s < transfer.elapsed_s / 2


def test_the_bounds() -> None:
    assert [(bound(bus_kind("500k"), racks), bound(bus_kind("FD 1M/8M"), racks)) for racks in (0, 1, 8)] == [
        (0.98, 0.97),
        (0.98, 0.97),
        (0.97, 0.97),
    ]


def test_a_small_block_misses_it() -> None:
    assert measure(bus_kind("500k"), 0, 16, How(block=256)).efficiency < 0.95


def test_turn_arounds_cost_three_times_each_block() -> None:
    """Before the node's answer leaves, before the client hears it, before it hears the flow control."""
    kind, kib, block, turn_around_s = bus_kind("FD 1M/8M"), 32, 4096, 0.5e-3
    at_once, later = (measure(kind, 0, kib, How(block, turn_around_s=each)) for each in (0.0, turn_around_s))
    blocks = -(-at_once.image_bytes // block)
    around = 3 * blocks + 2 * 2  # the request to download before them is segmented, the exit after them is not
    assert later.elapsed_s - at_once.elapsed_s == pytest.approx(around * turn_around_s, abs=2 * turn_around_s)
    assert later.efficiency < 0.85 < at_once.efficiency


def test_telemetry_is_on_the_bus_and_taken_off() -> None:
    """A BMU alone only says who it is, twice a second."""
    alone, beside = (measure(bus_kind("500k"), racks, 32) for racks in (0, all_racks()))
    assert beside.other_traffic_s > 20 * alone.other_traffic_s
    assert beside.elapsed_s > alone.elapsed_s
    assert beside.efficiency == pytest.approx(alone.efficiency, abs=0.002)


@pytest.mark.parametrize("name", ["500k", "FD 500k/2M"])
def test_the_limit_is_the_one_that_reports_use(name: str) -> None:
    kind, image = bus_kind(name), bmu_image(16)
    request_id = codec().diagnostic_ids(BMU1)[0]
    assert exact_wire_time_s(image, request_id, kind) == pytest.approx(
        ideal_wire_time_s(image, request_id, kind.timing)
    )


def test_the_limit_of_one_frame() -> None:
    """Seven bytes are one classic frame: identifier 0x615, 8 bytes, 111 bits and its stuff bits."""
    bits = exact_wire_time_s(b"\x55" * 7, 0x615, bus_kind("500k")) * 500_000
    assert 111 <= round(bits, 6) <= 135
    assert bits == pytest.approx(round(bits))


def test_peers_on_the_same_wire() -> None:
    """Their receiver's own defaults cost a flow control each eight frames; without them they are near the limit."""
    kind = bus_kind("500k")
    both_ends = wire_peers.measure_both_ends(wire_peers.DOCUMENTED, kind, 32)
    tuned = wire_peers.measure(wire_peers.TUNED, kind, 1, 32)
    assert 0.90 < both_ends.efficiency < 0.93
    assert 0.97 < tuned.efficiency < 1.0
    assert both_ends.efficiency > wire_efficiency.PUBLISHED
