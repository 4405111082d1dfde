"""What a dry run lets expect of an upgrade, and what then happens on the same simulated plant.

Run it as `python -m benchmarks.estimates` from the project's folder.  It runs in virtual time and gives the same on
every machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ess_can.bus.clock import pause
from ess_can.can.timing import BitTiming
from ess_can.cli.embedded import simulated_setup
from ess_can.gateway.config import Afterwards, BusLimits, GatewayConfig, StationPhysics, TimeLimits
from ess_can.gateway.report import Report
from ess_can.gateway.run import upgrade_station
from ess_can.identity import NodeType
from ess_can.isotp import IsoTpParams
from ess_can.journal.journal import Journal
from ess_can.sim.loop import run_virtual
from ess_can.sim.parts import STM32F103XG, STM32G474
from ess_can.sim.plant import Plant, PlantSpec
from tests.scenario.support import OLD, image, release, station_codec, verify

TOLERANCE = 0.10
_FD_ISOTP = IsoTpParams(tx_dl=64, fd=True, brs=True)
_FD_TIMING = BitTiming(500_000, 2_000_000)


@dataclass(frozen=True, slots=True)
class Case:
    """A station, the size of its images, old and new, and what of the gateway's configuration is not as usual."""

    spec: PlantSpec
    kib: int = 64
    times: TimeLimits = field(default_factory=TimeLimits)
    bus: BusLimits = field(default_factory=BusLimits)
    physics: StationPhysics = field(default_factory=StationPhysics)
    afterwards: Afterwards = Afterwards.AS_FOUND
    node_types: tuple[NodeType, ...] = (NodeType.BMU,)
    old_kib: int | None = None  # of the images that the nodes come with, if not as large as the new ones


CASES: Final[Mapping[str, Case]] = MappingProxyType(
    {
        "500k, 2 racks": Case(PlantSpec()),
        "500k, 2 racks, at most 30 % of the bus": Case(PlantSpec(), 32, bus=BusLimits(max_load_percent=30)),
        "500k, 8 racks, small pages": Case(PlantSpec(racks=8, flash=STM32G474), 16),
        "FD 500k/2M, 2 racks": Case(PlantSpec(bit_timing=_FD_TIMING, isotp=_FD_ISOTP), 256),
        "FD 500k/2M, 8 racks, slow programming": Case(
            PlantSpec(racks=8, bit_timing=_FD_TIMING, isotp=_FD_ISOTP, flash=STM32F103XG)
        ),
    }
)
"""On different buses, with different flash; the link discharges as slowly as that of the demo."""


class Bench:
    """A plant whose nodes come with images of a like size unless told otherwise, and a gateway; times are real ones."""

    def __init__(self, case: Case) -> None:
        old_kib = case.old_kib or case.kib
        images = {node_type: image(node_type, OLD, old_kib) for node_type in (NodeType.BMU, NodeType.COMM_GATEWAY)}
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
        """Upgrade it, or only check and tell what to expect."""
        setup = simulated_setup(self.plant, self._config)
        return await upgrade_station(self._gateway, self._upgrade, setup, journal=Journal.in_memory(), dry_run=dry_run)


def dry_and_real(case: Case, before: Callable[[Bench], Awaitable[None]] | None = None) -> tuple[Report, Report]:
    """A dry run and then the upgrade, on the same plant; `before` may do something to it first."""

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


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Seconds that were expected and that it took: the transfers, high voltage off, the whole with its check.

    `image_bytes` is that of one node's image.
    """

    case: str
    image_bytes: int
    expected_transfer_s: float
    transfer_s: float
    expected_hv_off_s: float
    hv_off_s: float
    expected_duration_s: float
    duration_s: float

    @property
    def error(self) -> float:
        """The worst of the three, as a share of what it took."""
        return max(
            abs(expected - took) / took
            for expected, took in (
                (self.expected_transfer_s, self.transfer_s),
                (self.expected_hv_off_s, self.hv_off_s),
                (self.expected_duration_s, self.duration_s),
            )
        )


def measure(name: str) -> Accuracy:
    """One of `CASES`.  Raises EssCanError if the upgrade fails, RuntimeError if nothing was expected of it."""
    dry, real = dry_and_real(CASES[name])
    if real.error is not None:
        raise real.error
    expected, duration_s = dry.expected, dry.expected_duration_s
    if expected is None or duration_s is None:
        raise RuntimeError("the dry run expects nothing")
    return Accuracy(
        name,
        real.nodes[0].image_bytes,
        expected.transfer_s,
        real.transfer_s,
        expected.hv_off_s,
        real.hv_off_s,
        duration_s,
        real.bus_time_s,
    )


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    sys.stdout.write(f"{'expected / took, seconds':<40}{'transfer':>16}{'HV off':>16}{'whole':>16}{'off by':>8}\n")
    for name in CASES:
        a = measure(name)
        pairs = (
            (a.expected_transfer_s, a.transfer_s),
            (a.expected_hv_off_s, a.hv_off_s),
            (a.expected_duration_s, a.duration_s),
        )
        columns = "".join(f"{f'{expected:.2f} / {took:.2f}':>16}" for expected, took in pairs)
        sys.stdout.write(f"{name:<40}{columns}{a.error:>8.1%}\n")


if __name__ == "__main__":
    main()
