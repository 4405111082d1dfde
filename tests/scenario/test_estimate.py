"""What a dry run lets expect, and what then happens on the same plant: within a tenth of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest

from ess_can.bus.clock import Cycle, pause, until
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.cli.embedded import simulated_setup
from ess_can.gateway.config import Afterwards, BusLimits, GatewayConfig, StationPhysics, TimeLimits
from ess_can.gateway.phases import Phase
from ess_can.gateway.report import Report
from ess_can.gateway.run import upgrade_station
from ess_can.identity import NodeType
from ess_can.isotp import IsoTpParams
from ess_can.sim.electrical import LinkSpec
from ess_can.sim.loop import run_virtual
from ess_can.sim.parts import PARTS, STM32G474, STM32H743, FlashPart
from ess_can.sim.plant import Plant, PlantSpec
from tests.scenario.support import BMU1, OLD, QUICK_LINK, image, release, station_codec, verify

TOLERANCE = 0.10
FD = IsoTpParams(tx_dl=64, fd=True, brs=True)
QUICK_PHYSICS = StationPhysics(discharge_tau_s=QUICK_LINK.capacitance_f * QUICK_LINK.bleeder_ohm)

Before = Callable[["Bench"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """A station, the size of its images, old and new, and what of the gateway's configuration is not as usual."""

    spec: PlantSpec
    kib: int = 64
    times: TimeLimits = field(default_factory=TimeLimits)
    bus: BusLimits = field(default_factory=BusLimits)
    physics: StationPhysics = QUICK_PHYSICS
    afterwards: Afterwards = Afterwards.AS_FOUND
    node_types: tuple[NodeType, ...] = (NodeType.BMU,)


def station(
    bitrate: int = 500_000, data_bitrate: int | None = None, *, racks: int = 2, part: FlashPart = STM32H743
) -> PlantSpec:
    isotp = IsoTpParams() if data_bitrate is None else FD
    timing = BitTiming(bitrate, data_bitrate)
    return PlantSpec(racks=racks, bit_timing=timing, isotp=isotp, link=QUICK_LINK, flash=part)


class Bench:
    """A plant whose nodes come with images of a like size, and a gateway; times are what the plant really takes."""

    def __init__(self, case: Case) -> None:
        images = {node_type: image(node_type, OLD, case.kib) for node_type in (NodeType.BMU, NodeType.COMM_GATEWAY)}
        self.plant = Plant(case.spec, station_codec(), images, verify)
        self._gateway = self.plant.gateway_controller()
        self._upgrade = release(*case.node_types, kib=case.kib)
        self._config = GatewayConfig(
            self.plant.addresses,
            times=case.times,
            bus=case.bus,
            afterwards=case.afterwards,
            physics=case.physics,
        )

    async def upgrade(self, *, dry_run: bool = False) -> Report:
        setup = simulated_setup(self.plant, self._config)
        return await upgrade_station(self._gateway, self._upgrade, setup, dry_run=dry_run)


def dry_and_real(case: Case, before: Before | None = None) -> tuple[Report, Report]:
    """A dry run and then the upgrade, on the same plant."""

    async def run() -> tuple[Report, Report]:
        bench = Bench(case)
        bench.plant.start()
        await pause(1.5)
        if before is not None:
            await before(bench)
        dry = await bench.upgrade(dry_run=True)
        await pause(0.5)
        real = await bench.upgrade()
        bench.plant.stop()
        return dry, real

    return run_virtual(run())


def require_as_expected(dry: Report, real: Report, result: Phase = Phase.DONE) -> None:
    assert (dry.result, real.result) == (Phase.CHECKED, result), real.error
    assert dry.expected is not None
    assert not dry.expected.assumed
    assert real.transfer_s == pytest.approx(dry.expected.transfer_s, rel=TOLERANCE)
    assert real.hv_off_s == pytest.approx(dry.expected.hv_off_s, rel=TOLERANCE)
    assert real.bus_time_s == pytest.approx(dry.expected_duration_s, rel=TOLERANCE)


STATIONS = {
    "125k": Case(station(125_000), kib=16),
    "500k, 1 rack": Case(station(racks=1)),
    "500k, 2 racks": Case(station()),
    "500k, 4 racks": Case(station(racks=4), kib=16),
    "1M": Case(station(1_000_000, racks=1), kib=268),
    "FD 500k/2M": Case(station(500_000, 2_000_000)),
    "FD 500k/2M, 4 racks": Case(station(500_000, 2_000_000, racks=4)),
    "FD 1M/8M": Case(station(1_000_000, 8_000_000), kib=268),
    "a slow link": Case(replace(station(500_000, 2_000_000), link=LinkSpec()), physics=StationPhysics()),
    "found open": Case(replace(station(500_000, 2_000_000), running=False)),
    "found open and closed": Case(replace(station(500_000, 2_000_000), running=False), afterwards=Afterwards.CONNECT),
    "a long soak": Case(station(500_000, 2_000_000), times=TimeLimits(trial_soak_s=10.0)),
}


@pytest.mark.parametrize("name", STATIONS)
def test_what_was_expected_happens(name: str) -> None:
    require_as_expected(*dry_and_real(STATIONS[name]))


@pytest.mark.parametrize("part", PARTS.values(), ids=lambda part: part.name)
@pytest.mark.parametrize(("data_bitrate", "racks"), [(None, 2), (2_000_000, 1)])
def test_every_flash(part: FlashPart, data_bitrate: int | None, racks: int) -> None:
    require_as_expected(*dry_and_real(Case(station(500_000, data_bitrate, racks=racks, part=part), kib=32)))


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

    require_as_expected(*dry_and_real(Case(station(), kib=16, bus=bus), talk))


def test_held_open() -> None:
    case = Case(station(500_000, 2_000_000), afterwards=Afterwards.HOLD_OPEN)
    require_as_expected(*dry_and_real(case), Phase.HELD_OPEN)


def test_a_release_for_two_types_of_nodes() -> None:
    slow = replace(STM32H743, timing=replace(STM32H743.timing, sector_erase_s=4.0))
    spec = station(500_000, 2_000_000, racks=3, part=slow)
    both = (NodeType.COMM_GATEWAY, NodeType.BMU)
    require_as_expected(*dry_and_real(Case(spec, bus=BusLimits(nodes_at_once=2), node_types=both)))


def test_fewer_nodes_at_once() -> None:
    slow = replace(STM32H743, timing=replace(STM32H743.timing, sector_erase_s=4.0))
    spec = station(500_000, 2_000_000, racks=3, part=slow)
    require_as_expected(*dry_and_real(Case(spec, bus=BusLimits(nodes_at_once=1))))


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

    dry, real = dry_and_real(Case(station(racks=2, part=part), kib=80), interrupt)
    require_as_expected(dry, real)
    assert all(record.bytes_sent < record.image_bytes - 0x4000 for record in real.nodes)
