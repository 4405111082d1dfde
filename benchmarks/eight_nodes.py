"""Eight BMUs programmed at the same time over one bus, against the time that their images take on the wire alone.

Run it as `python -m benchmarks.eight_nodes` from the project's folder.  It runs in virtual time and gives the same on
every machine.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.gateway_memory import large_release
from benchmarks.plant_timeline import PlantTimeline
from ess_can.cli.embedded import open_sample_upgrade, plant_spec, upgrade_simulated_plant
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.progress import ignore
from ess_can.gateway.transfer_meter import ideal_wire_time_s
from ess_can.sim.plant import Plant, PlantSpec
from ess_can.trust.verify import VerifiedUpgrade

RACKS = 8
IMAGE_KIB = 256


@dataclass(frozen=True, slots=True)
class ManyNodes:
    """Seconds from the first request to download to the last image verified.

    `other_traffic_s` of `elapsed_s` is what the station's telemetry and our own orders took on the wire; `wire_s` the
    least that all the images take there.
    """

    nodes: int
    elapsed_s: float
    other_traffic_s: float
    wire_s: float

    @property
    def ratio(self) -> float:
        """The time, without other traffic's, over the least possible; 1.00 is the physical limit."""
        return (self.elapsed_s - self.other_traffic_s) / self.wire_s


def measure(spec: PlantSpec, upgrade: VerifiedUpgrade, config: GatewayConfig | None = None) -> ManyNodes:
    """Upgrade all BMUs of a plant.  Raises RuntimeError if that fails."""
    watched: list[PlantTimeline] = []

    def prepare(plant: Plant) -> None:
        watched.append(PlantTimeline(plant, 1.0))

    report = upgrade_simulated_plant(upgrade, spec, ignore, config=config, prepare=prepare).report
    if report.error is not None:
        raise RuntimeError(f"the upgrade failed: {report.error}")
    timeline = watched[0]
    begin, end = timeline.programming()
    image = upgrade.images[0].data
    requests = sorted(timeline.answers)[: spec.racks]
    wire_s = sum(ideal_wire_time_s(image, request, spec.bit_timing) for request in requests)
    return ManyNodes(len(report.nodes), end - begin, timeline.other_traffic_s(begin, end), wire_s)


def release(kib: int) -> VerifiedUpgrade:
    """A release with an image of `kib` KiB for BMUs."""
    with tempfile.TemporaryDirectory() as folder:
        return open_sample_upgrade(large_release(Path(folder), kib))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--racks", type=int, default=RACKS)
    parser.add_argument("--kib", type=int, default=IMAGE_KIB)
    options = parser.parse_args()
    upgrade = release(options.kib)
    for name, fd in (("500k", False), ("FD 500k/2M", True)):
        spec = replace(plant_spec(None, fd, None, RACKS, 1), racks=options.racks)
        figure = measure(spec, upgrade)
        times = f"{figure.elapsed_s:.3f} s, of which other traffic {figure.other_traffic_s:.3f} s"
        print(f"{name:<12}{figure.nodes} nodes: {times}; least {figure.wire_s:.3f} s; ratio {figure.ratio:.4f}")  # noqa: T201


if __name__ == "__main__":
    main()
