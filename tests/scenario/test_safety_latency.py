"""W7 in simulated time: what a saturating transfer adds to the worst delay of safety frames, in frame times."""

from __future__ import annotations

import pytest

from benchmarks.safety_latency import ARBITRATION_BOUND, QUEUE_BOUND, Latency, measure
from benchmarks.station import all_racks, bus_kind

_CASES = ("125k", "500k", "FD 500k/2M")


@pytest.fixture(scope="module", params=_CASES)
def latency(request: pytest.FixtureRequest) -> Latency:
    return measure(bus_kind(request.param), 128 if request.param.startswith("FD") else 48, idle_s=2.0)


def test_what_is_measured(latency: Latency) -> None:
    """A worst of hundreds of frames each, none of which is faster than a frame's own time."""
    assert min(len(latency.hv_status.idle_s), len(latency.hv_status.saturated_s)) >= 14 * all_racks()
    assert min(len(latency.pcs_command.idle_s), len(latency.pcs_command.saturated_s)) >= 14
    assert min(latency.hv_status.idle_s) > 100 / int(latency.bus.removeprefix("FD ").partition("k")[0]) / 1000
    assert latency.hv_status.added_s > 0.0


def test_a_rack_waits_for_the_frame_that_is_on_the_wire(latency: Latency) -> None:
    assert latency.arbitration_frames <= ARBITRATION_BOUND == 1.0


def test_our_own_order_waits_for_two_at_most(latency: Latency) -> None:
    assert latency.queue_frames <= QUEUE_BOUND == 2.0
