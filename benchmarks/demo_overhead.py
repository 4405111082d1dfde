"""The time of the demo's upgrade that is neither wire nor physics, from the first order until high voltage is back.

Run it as `python -m benchmarks.demo_overhead` from the project's folder.  It runs in virtual time and judges by the
plant's true state (`benchmarks.plant_timeline`): it gives the same on every machine.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.plant_timeline import Part, PlantTimeline, length, table, within
from ess_can import resources
from ess_can.cli.embedded import open_sample_upgrade, plant_spec, upgrade_simulated_plant
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import Event, PhaseEntered
from ess_can.sim.plant import Plant, PlantSpec
from ess_can.trust.verify import VerifiedUpgrade

LIMIT_SHARE = 0.03


@dataclass(frozen=True, slots=True)
class Overhead:
    """Where the time went, in seconds.

    `parts` are wire and physics.  What is left is overhead: `proof_s` is that of the first proof that high voltage is
    off, `trial_s` that of the trial (both are rules that take their time whatever we do), `other_s` all else.
    `idle` is the same by the gateway's phases.
    """

    racks: int
    total_s: float
    parts: dict[Part, float]
    proof_s: float
    trial_s: float
    other_s: float
    idle: tuple[tuple[Phase, float], ...]

    @property
    def overhead_s(self) -> float:
        """Everything that is neither wire nor physics, rules included."""
        return self.proof_s + self.trial_s + self.other_s

    @property
    def share(self) -> float:
        """The overhead's share of the whole."""
        return self.overhead_s / self.total_s

    @property
    def other_share(self) -> float:
        """The share of what no rule asks for."""
        return self.other_s / self.total_s


def measure(spec: PlantSpec, upgrade: VerifiedUpgrade, config: GatewayConfig | None = None) -> Overhead:
    """Upgrade a plant and say where the time went.  Raises RuntimeError if the upgrade fails."""
    events: list[Event] = []
    watched: list[PlantTimeline] = []

    def prepare(plant: Plant) -> None:
        watched.append(PlantTimeline(plant))

    report = upgrade_simulated_plant(upgrade, spec, events.append, config=config, prepare=prepare).report
    if report.error is not None:
        raise RuntimeError(f"the upgrade failed: {report.error}")
    timeline = watched[0]
    phases = [event for event in events if isinstance(event, PhaseEntered)]
    begin = next(event.at for event in phases if event.phase is Phase.RAMP_DOWN)
    end = timeline.connected_at(begin)
    parts, idle = timeline.parts(begin, end)
    by_phase = tuple((event.phase, within(idle, event.at, until.at)) for event, until in pairwise(phases))
    of_phase = dict(by_phase)
    proof, trial = of_phase[Phase.PROVE_HV_OFF], of_phase[Phase.TRIAL_BOOT]
    return Overhead(spec.racks, end - begin, parts, proof, trial, length(idle) - proof - trial, by_phase)


def demo(racks: int = 2) -> Overhead:
    """The figure of `ess-can demo`, or of the same upgrade of a plant of so many racks."""
    return measure(
        plant_spec(None, False, None, racks, 1), open_sample_upgrade(resources.sample_path("bmu-1.1.0.essup"))
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--racks", type=int, default=2)
    parser.add_argument("--fd", action="store_true")
    options = parser.parse_args()
    spec = plant_spec(None, options.fd, None, options.racks, 1)
    figure = measure(spec, open_sample_upgrade(resources.sample_path("bmu-1.1.0.essup")))
    sys.stdout.write(table(figure.parts) + "\n")
    for phase, seconds in figure.idle:
        sys.stdout.write(f"  idle in {phase.value:<14}{seconds:>9.3f} s\n")
    sys.stdout.write(
        f"{figure.total_s:.3f} s in all; overhead {figure.overhead_s:.3f} s = {100 * figure.share:.2f} %: "
        f"proof {figure.proof_s:.3f} s, trial {figure.trial_s:.3f} s, other {figure.other_s:.3f} s "
        f"= {100 * figure.other_share:.2f} %\n"
    )


if __name__ == "__main__":
    main()
