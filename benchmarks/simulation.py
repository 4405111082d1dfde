"""W10: how much faster than the plant the simulator is, with the exact time of every frame."""

from __future__ import annotations

import time  # noqa: TID251 - a benchmark reads the clock
from dataclasses import dataclass

from benchmarks.station import ROOM_KIB, bmu_release
from ess_can.bus.clock import now
from ess_can.cli.embedded import flash_for, upgrade_simulated_plant
from ess_can.sim.plant import PlantSpec

TIMES_REAL_TIME = 15.0


@dataclass(frozen=True, slots=True)
class Speed:
    """A whole upgrade of one node: simulated seconds, and what they took."""

    image_bytes: int
    frames: int
    simulated_s: float
    wall_s: float
    cpu_s: float

    @property
    def times_real_time(self) -> float:
        """Simulated over wall time."""
        return self.simulated_s / self.wall_s


def measure(kib: int) -> Speed:
    """Upgrade a plant of one rack, on classic CAN at 500 kbit/s, from check to reconnect.  Raises EssCanError."""
    flash = flash_for(kib + ROOM_KIB)
    upgrade = bmu_release(kib, flash.geometry.slot_size)
    ended_at = 0.0

    def note(_event: object) -> None:
        nonlocal ended_at
        ended_at = now()

    wall, cpu = time.perf_counter(), time.process_time()
    run = upgrade_simulated_plant(upgrade, PlantSpec(racks=1, flash=flash), note)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if run.report.error is not None:
        raise run.report.error
    return Speed(sum(node.bytes_sent for node in run.report.nodes), run.frames, ended_at, wall, cpu)
