"""Power is lost, the gateway is killed, or both, at every memory operation of a node, through the whole system.

Each programmed unit, erased sector and written FRAM byte of an upgrade is an operation.  The plant is one rack, found
open so that nothing but the upgrade takes time, with an image that is small enough to go through all of them: from bank
A to B, from B to A, and with firmware that is taken back.  Whatever was hit: no rule is broken, it is resumed to its
end, and the next release goes in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache

import pytest

from ess_can.bus.clock import now
from ess_can.campaign.faults import Fault, FaultKind, parse_fault
from ess_can.campaign.mixture import plain
from ess_can.campaign.plants import SMALL_PART, SMALLEST, Site
from ess_can.campaign.result import RunResult
from ess_can.campaign.run import run_mixture
from ess_can.campaign.station import Station
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import PhaseEntered
from ess_can.sim.power_cut import Admission, CutMode, PowerCut
from tests.campaign.cases import BMU1
from tests.campaign.counts import Count
from tests.campaign.scale import chosen

OFF_S = 1.5
PART = replace(
    SMALL_PART,
    geometry=replace(SMALL_PART.geometry, unit_size=32, sector_size=1024, sectors_per_bank=20),
    block_bytes=512,
    buffer_bytes=2048,
)
"""Large units: an image is few of them, and one that fills a block and a bit takes every way through the code."""
IMAGE = replace(SMALLEST, plant=replace(SMALLEST.plant, flash=PART, running=False), payload_bytes=100)


class Course(Enum):
    """Which way an upgrade goes."""

    A_TO_B = "A to B"
    B_TO_A = "B to A"
    ROLLBACK = "rollback"


class Victim(Enum):
    """Who is hit."""

    BMS = "BMS loses power"
    GATEWAY = "gateway killed"
    BOTH = "both"


SITES: dict[Course, Site] = {
    Course.A_TO_B: IMAGE,
    Course.B_TO_A: replace(IMAGE, bank=1),
    Course.ROLLBACK: IMAGE,
}
BAD = "firmware:bmu1:wrong-scale"


class Struck(PowerCut):
    """A node's supply, counted from the moment the upgrade began; at the operation `at` somebody is hit."""

    def __init__(self, of: PowerCut, at: int, mode: CutMode, strike: Callable[[], None] | None) -> None:
        super().__init__()
        self.on_cut = of.on_cut
        self._strike_at = at
        self._how = mode
        self._strike = strike

    def admit(self, count: int) -> Admission:
        if self._strike is None or not self.operations <= self._strike_at < self.operations + count:
            return super().admit(count)
        strike, self._strike = self._strike, None
        if self._how is CutMode.BEFORE:
            strike()
        admitted = super().admit(count)
        if self._how is not CutMode.BEFORE:
            strike()
        return admitted


@dataclass(frozen=True)
class Strike:
    """Hits `victim` at one of the node's operations, counted from where the upgrade begins."""

    victim: Victim
    at: int
    mode: CutMode

    kind = FaultKind.CUT_BEFORE

    @property
    def text(self) -> str:
        return f"{self.victim.value} at operation {self.at}, {self.mode.value}"

    def arm(self, station: Station) -> None:
        node = station.plant.nodes[BMU1]

        def on_start(_process: object) -> None:
            station.on_start.remove(on_start)
            kill = self._kill(station)
            power = Struck(node.flash.power, self.at, self.mode, kill if self.victim is not Victim.BMS else None)
            node.flash.power = node.records.fram.power = power
            if self.victim is not Victim.GATEWAY:
                power.arm(self.at, self.mode)
                power.on_cut.append(lambda: self._off(station))

        station.on_start.append(on_start)

    def _kill(self, station: Station) -> Callable[[], None]:
        def kill() -> None:
            station.took(self)
            station.kill_gateway()

        return kill

    def _off(self, station: Station) -> None:
        """The node has gone down by itself; its power comes back."""
        station.took(self)
        node = station.plant.nodes[BMU1]

        def back() -> None:
            if not node.flash.power.powered:
                node.power_off(now())
                node.flash.power.restore()
                node.power_on()

        station.to_heal(back)
        station.later(OFF_S, back)


@dataclass(frozen=True, eq=False)
class Operations:
    """Notes in which phase each operation takes effect."""

    phases: list[Phase]

    kind = FaultKind.CUT_BEFORE
    text = "none"

    def arm(self, station: Station) -> None:
        node = station.plant.nodes[BMU1]
        phases = self.phases

        class Noted(PowerCut):
            def admit(self, count: int) -> Admission:
                if station.begun_at is not None and station.attempts == 1:
                    entered = [event.phase for event in station.events if isinstance(event, PhaseEntered)]
                    phases.extend([entered[-1]] * count)
                return super().admit(count)

        power = Noted()
        power.on_cut = node.flash.power.on_cut
        node.flash.power = node.records.fram.power = power


def faults_of(course: Course) -> list[Fault]:
    return [parse_fault(BAD)] if course is Course.ROLLBACK else []


def run(course: Course, *faults: Fault) -> RunResult:
    return run_mixture(plain(site=SITES[course]), faults=[*faults_of(course), *faults])


@cache
def operations(course: Course) -> tuple[Phase, ...]:
    """The phase of each operation of the upgrade that is to be struck."""
    phases: list[Phase] = []
    result = run(course, Operations(phases))
    assert not result.wrong
    assert result.ended == ("ROLLED_BACK" if course is Course.ROLLBACK else "DONE")
    return tuple(phases)


def cases(course: Course, victim: Victim) -> list[Strike]:
    """For a gateway that dies there is only before and after."""
    modes = (CutMode.BEFORE, CutMode.AFTER) if victim is Victim.GATEWAY else tuple(CutMode)
    return [Strike(victim, at, mode) for at in range(len(operations(course))) for mode in modes]


def part_of(course: Course, strike: Strike) -> str:
    """What the operation belongs to, for the table."""
    phase = operations(course)[strike.at]
    if phase in (Phase.TRIAL_BOOT, Phase.CONFIRM, Phase.ROLL_BACK):
        return {"trial boot": "trial boot", "confirm": "confirm", "roll back": "rollback"}[phase.value]
    return "A to B" if course is Course.ROLLBACK else course.value


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("victim", Victim, ids=lambda victim: victim.name.lower())
@pytest.mark.parametrize("course", Course, ids=lambda course: course.name.lower())
def test_every_operation(course: Course, victim: Victim, part: int, count: Count) -> None:
    assert len(operations(course)) > 500
    struck = chosen(cases(course, victim), quick=6, slice_=24, part=part, parts=4)
    wrong: list[str] = []
    parts: Counter[str] = Counter()
    for strike in struck:
        result = run(course, strike)
        parts[part_of(course, strike)] += 1
        if result.wrong:
            wrong.append(f"{strike.text}: {result.wrong}")
        elif strike.kind.name not in result.took_effect:
            wrong.append(f"{strike.text}: did not happen")
    for name, cases_ in parts.items():
        count(f"memory operation of a node struck, {name}: {victim.value}", cases_)
    assert not wrong, "\n".join(wrong)
