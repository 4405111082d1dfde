"""What a dry run lets expect, and what then happens on the same plant: within a tenth of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from benchmarks.estimates import CASES, TOLERANCE, Bench, Case, dry_and_real, measure
from ess_can.bus.clock import Cycle, pause, until
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.gateway.config import Afterwards, BusLimits, StationPhysics, TimeLimits
from ess_can.gateway.phases import Phase
from ess_can.gateway.report import Report
from ess_can.identity import NodeType
from ess_can.isotp import IsoTpParams
from ess_can.sim.electrical import LinkSpec
from ess_can.sim.parts import PARTS, STM32G474, STM32H743, FlashPart
from ess_can.sim.plant import PlantSpec
from tests.scenario.support import BMU1, QUICK_LINK

FD = IsoTpParams(tx_dl=64, fd=True, brs=True)
QUICK_PHYSICS = StationPhysics(discharge_tau_s=QUICK_LINK.capacitance_f * QUICK_LINK.bleeder_ohm)
quick = partial(Case, physics=QUICK_PHYSICS)


def station(
    bitrate: int = 500_000, data_bitrate: int | None = None, *, racks: int = 2, part: FlashPart = STM32H743
) -> PlantSpec:
    isotp = IsoTpParams() if data_bitrate is None else FD
    timing = BitTiming(bitrate, data_bitrate)
    return PlantSpec(racks=racks, bit_timing=timing, isotp=isotp, link=QUICK_LINK, flash=part)


def require_as_expected(dry: Report, real: Report, result: Phase = Phase.DONE) -> None:
    assert (dry.result, real.result) == (Phase.CHECKED, result), real.error
    assert dry.expected is not None
    assert not dry.expected.assumed
    assert real.transfer_s == pytest.approx(dry.expected.transfer_s, rel=TOLERANCE)
    assert real.hv_off_s == pytest.approx(dry.expected.hv_off_s, rel=TOLERANCE)
    assert real.bus_time_s == pytest.approx(dry.expected_duration_s, rel=TOLERANCE)


STATIONS = {
    "125k": quick(station(125_000), kib=16),
    "500k, 1 rack": quick(station(racks=1)),
    "500k, 2 racks": quick(station()),
    "500k, 4 racks": quick(station(racks=4), kib=16),
    "1M": quick(station(1_000_000, racks=1), kib=268),
    "FD 500k/2M": quick(station(500_000, 2_000_000)),
    "FD 500k/2M, 4 racks": quick(station(500_000, 2_000_000, racks=4)),
    "FD 1M/8M": quick(station(1_000_000, 8_000_000), kib=268),
    "a slow link": Case(replace(station(500_000, 2_000_000), link=LinkSpec())),
    "found open": quick(replace(station(500_000, 2_000_000), running=False)),
    "found open and closed": quick(replace(station(500_000, 2_000_000), running=False), afterwards=Afterwards.CONNECT),
    "an old image far larger": quick(station(500_000, 2_000_000), kib=32, old_kib=700),
    "an old image far smaller": quick(station(500_000, 2_000_000), kib=268, old_kib=4),
    "a cap of half a percent": quick(station(racks=1), kib=8, bus=BusLimits(max_load_percent=0.5)),
    "a long soak": quick(station(500_000, 2_000_000), times=TimeLimits(trial_soak_s=10.0)),
}


@pytest.mark.parametrize("name", STATIONS)
def test_what_was_expected_happens(name: str) -> None:
    require_as_expected(*dry_and_real(STATIONS[name]))


@pytest.mark.parametrize("part", PARTS.values(), ids=lambda part: part.name)
@pytest.mark.parametrize(("data_bitrate", "racks"), [(None, 2), (2_000_000, 1)])
def test_every_flash(part: FlashPart, data_bitrate: int | None, racks: int) -> None:
    require_as_expected(*dry_and_real(quick(station(500_000, data_bitrate, racks=racks, part=part), kib=32)))


def chatter(bench: Bench, period_s: float) -> Cycle:
    """Somebody whose frames are in no DBC of ours, and go before the stream."""
    somebody = bench.plant.wire.controller("somebody")
    return Cycle(period_s, lambda _at: somebody.send(CanFrame(0x333, bytes(range(8)))))


@pytest.mark.parametrize(
    ("bus", "period_s"),
    [
        (BusLimits(), 0.5e-3),
        (BusLimits(max_load_percent=30), 1e-3),
        (BusLimits(yield_to_traffic=True), 1e-3),
        (BusLimits(max_load_percent=50, yield_to_traffic=True), 1e-3),
    ],
    ids=["no cap", "30 %", "yields", "yields at 50 %"],
)
def test_others_on_the_bus(bus: BusLimits, period_s: float) -> None:
    async def talk(bench: Bench) -> None:
        chatter(bench, period_s).start()
        await pause(0.1)

    require_as_expected(*dry_and_real(quick(station(), kib=16, bus=bus), talk))


def test_held_open() -> None:
    case = quick(station(500_000, 2_000_000), afterwards=Afterwards.HOLD_OPEN)
    require_as_expected(*dry_and_real(case), Phase.HELD_OPEN)


def test_a_release_for_two_types_of_nodes() -> None:
    slow = replace(STM32H743, timing=replace(STM32H743.timing, sector_erase_s=4.0))
    spec = station(500_000, 2_000_000, racks=3, part=slow)
    both = (NodeType.COMM_GATEWAY, NodeType.BMU)
    require_as_expected(*dry_and_real(quick(spec, bus=BusLimits(nodes_at_once=2), node_types=both)))


def test_fewer_nodes_at_once() -> None:
    slow = replace(STM32H743, timing=replace(STM32H743.timing, sector_erase_s=4.0))
    spec = station(500_000, 2_000_000, racks=3, part=slow)
    require_as_expected(*dry_and_real(quick(spec, bus=BusLimits(nodes_at_once=1))))


@pytest.mark.parametrize("part", [STM32H743, STM32G474], ids=lambda part: part.name)
def test_a_transfer_that_was_interrupted(part: FlashPart) -> None:
    async def interrupt(bench: Bench) -> None:
        node = bench.plant.nodes[BMU1]
        task = asyncio.ensure_future(bench.upgrade())
        assert await until(lambda: node.memory.resume_state().verified_offset > 0x8000, 60.0)
        task.cancel()
        report = await task
        assert report.exit_code
        assert sum(record.bytes_sent for record in report.nodes) > 0x8000
        await pause(1.0)

    dry, real = dry_and_real(quick(station(racks=2, part=part), kib=80), interrupt)
    require_as_expected(dry, real)
    assert all(record.bytes_sent < record.image_bytes - 0x4000 for record in real.nodes)


def test_the_benchmark_reports_the_worst_of_three() -> None:
    found = measure("FD 500k/2M, 2 racks")
    assert 0.0 < found.error <= TOLERANCE == 0.10
    assert found.expected_duration_s == pytest.approx(found.duration_s * (1 + found.error), rel=0.02)
    assert len(CASES) == 5
