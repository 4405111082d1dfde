"""Power is lost, the gateway is killed, or both, at every memory operation of a node, through the whole system.

Each programmed unit, erased sector and written FRAM byte of an upgrade is an operation.  Cuts that leave the same
memory at the same instant come to the same, and are run once (`system_forks`).  The plant is one rack, found open so
that nothing but the upgrade takes time, with an image that is small enough to go through all of them: from bank A to B,
from B to A, and with firmware that is taken back.  Whatever was hit: no rule is broken, it is resumed to its end, and
the next release goes in.
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
from ess_can.sim.power_cut import Admission, CutMode, PowerCut
from tests.campaign.cases import BMU1
from tests.campaign.counts import Count
from tests.campaign.scale import chosen
from tests.campaign.system_forks import Place, Places

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
    BOTH = "BMS loses power and gateway killed"


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


def faults_of(course: Course) -> list[Fault]:
    return [parse_fault(BAD)] if course is Course.ROLLBACK else []


def run(course: Course, *faults: Fault) -> RunResult:
    return run_mixture(plain(site=SITES[course]), faults=[*faults_of(course), *faults])


@cache
def places(course: Course) -> Places:
    """Where the upgrade can be struck."""
    with pytest.MonkeyPatch.context() as patch:
        found = Places(patch)
        result = run(course, found)
    assert not result.wrong
    assert result.ended == ("ROLLED_BACK" if course is Course.ROLLBACK else "DONE")
    return found


Case = tuple[Place, Strike]


def cases(course: Course, victim: Victim) -> list[Case]:
    """Of a gateway nothing is left but the instant at which it dies."""
    found = places(course)
    where = found.instants if victim is Victim.GATEWAY else list(found.found.values())
    return [(place, Strike(victim, place.at, place.mode)) for place in where]


def part_of(course: Course, place: Place) -> str:
    """What the operation belongs to, for the table."""
    if place.phase in (Phase.TRIAL_BOOT, Phase.CONFIRM, Phase.ROLL_BACK):
        return "rollback" if place.phase is Phase.ROLL_BACK else place.phase.value
    return "A to B" if course is Course.ROLLBACK else course.value


def struck(course: Course, strike: Strike) -> tuple[RunResult, str]:
    """The run, and what is wrong with it."""
    result = run(course, strike)
    if result.wrong:
        return result, f"{strike.text}: {result.wrong}"
    return result, "" if strike.kind.name in result.took_effect else f"{strike.text}: did not happen"


@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("victim", Victim, ids=lambda victim: victim.name.lower())
@pytest.mark.parametrize("course", Course, ids=lambda course: course.name.lower())
def test_every_operation(course: Course, victim: Victim, part: int, count: Count) -> None:
    assert places(course).operations > 500
    wrong: list[str] = []
    runs: Counter[str] = Counter()
    ways: Counter[str] = Counter()
    for place, strike in chosen(cases(course, victim), quick=6, slice_=24, part=part, parts=2):
        name = f"memory operation of a node struck, {part_of(course, place)}: {victim.value}"
        runs[name] += 1
        ways[name] += place.ways
        wrong.append(struck(course, strike)[1])
    for name, number in runs.items():
        count(name, number)
        if victim is not Victim.GATEWAY:
            count(f"{name}; operations and modes that come to these", ways[name])
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.parametrize("victim", [Victim.BMS, Victim.BOTH], ids=["bms", "both"])
def test_cuts_that_leave_the_same_memory_have_the_same_future(victim: Victim) -> None:
    """What is said to come to the same is cut as well, at the places that lie farthest from each other."""
    found = places(Course.A_TO_B)
    shared = [place for place in found.found.values() if place.also is not None]
    for place in [*shared[:: len(shared) // 6], shared[-1]]:
        assert place.also is not None
        one, wrong = struck(Course.A_TO_B, Strike(victim, place.at, place.mode))
        other, wrong_too = struck(Course.A_TO_B, Strike(victim, *place.also))
        assert wrong == wrong_too == ""
        assert (one.ended, one.errors, one.edges, one.kills) == (other.ended, other.errors, other.edges, other.kills)
        assert one.virtual_s == pytest.approx(other.virtual_s, abs=0.001), place


def test_a_gateway_that_dies_before_or_after_a_write_is_the_same() -> None:
    found = places(Course.A_TO_B)
    for place in found.instants[::4]:
        modes = (CutMode.BEFORE, CutMode.AFTER)
        runs = [struck(Course.A_TO_B, Strike(Victim.GATEWAY, place.at, mode)) for mode in modes]
        assert not any(wrong for _, wrong in runs)
        assert len({result.trace_hash for result, _ in runs}) == 1, place
