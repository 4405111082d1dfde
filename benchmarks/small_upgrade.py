"""W11: the processor time of a whole small upgrade in the simulator, and which part of the program takes it.

Two racks with their telemetry, both BMUs upgraded with an image of 8 KiB: check, isolate, flash, boot, confirm,
reconnect.  Building the plant is included; imports, the DBC and making the release are not.
"""

from __future__ import annotations

import argparse
import cProfile
import sys
import time  # noqa: TID251 - a benchmark reads the clock
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from ess_can.bus.clock import now, pause
from ess_can.cli.embedded import simulated_setup
from ess_can.gateway.run import upgrade_station
from ess_can.identity import NodeType
from ess_can.journal.journal import Journal
from ess_can.sim.loop import run_virtual
from ess_can.sim.plant import PlantSpec
from tests.scenario.support import SETTLED_S, release, small_plant

KIB = 8
LIMIT_S = 0.100
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class SmallUpgrade:
    """One upgrade: processor seconds in all and of building the plant, the plant's own seconds, frames on its wire.

    `trace_hash` is that of all frames: two programs whose hashes are equal did the same.
    """

    cpu_s: float
    build_cpu_s: float
    simulated_s: float
    frames: int
    trace_hash: str


def upgrade_once() -> SmallUpgrade:
    """Run it.  Raises EssCanError if the upgrade fails."""
    upgrade = release(NodeType.BMU, kib=KIB)

    async def run() -> SmallUpgrade:
        began = time.process_time()
        plant = small_plant(PlantSpec())
        built = time.process_time()
        plant.start()
        await pause(SETTLED_S)
        report = await upgrade_station(
            plant.gateway_controller(),
            upgrade,
            simulated_setup(plant),
            journal=Journal.in_memory(),
            on_progress=lambda _event: None,
        )
        if report.error is not None:
            raise report.error
        plant.stop()
        ended = time.process_time()
        return SmallUpgrade(ended - began, built - began, now(), plant.trace.frames, plant.trace.hexdigest())

    return run_virtual(run())


def measure(runs: int = 10) -> SmallUpgrade:
    """The best of so many runs, after one that loads what is loaded once."""
    upgrade_once()
    return min((upgrade_once() for _ in range(runs)), key=lambda run: run.cpu_s)


def shares() -> list[tuple[str, float]]:
    """Which module takes how much of the time, the greatest first; what lies outside the package counts together.

    Under a profiler: small functions appear larger than they are.
    """
    upgrade_once()
    profile = cProfile.Profile(time.process_time)
    profile.runcall(upgrade_once)
    taken: defaultdict[str, float] = defaultdict(float)
    for entry in profile.getstats():
        path = Path() if isinstance(entry.code, str) else Path(entry.code.co_filename)  # a text: of Python itself
        inside = path.is_relative_to(ROOT / "ess_can")
        taken[str(path.relative_to(ROOT)) if inside else "Python and libraries"] += entry.inlinetime
    total = sum(taken.values())
    return sorted(((name, seconds / total) for name, seconds in taken.items()), key=lambda share: -share[1])


def main() -> int:
    """Print the figure, and with --shares where it goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--shares", action="store_true", help="show what each module takes, under a profiler")
    options = parser.parse_args()
    best = measure(options.runs)
    sys.stdout.write(
        f"{best.cpu_s * 1000:.0f} ms of CPU (target {LIMIT_S * 1000:.0f}), of which the plant took"
        f" {best.build_cpu_s * 1000:.1f} to build; {best.simulated_s:.2f} s simulated, {best.frames} frames,"
        f" trace {best.trace_hash[:16]}\n"
    )
    if options.shares:
        for name, share in shares()[:30]:
            sys.stdout.write(f"{share:7.1%}  {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
