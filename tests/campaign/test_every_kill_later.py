"""The gateway is killed on other ways than the good one: at every await and every journal entry of what comes after.

That is an upgrade whose firmware is bad, so that it is taken back; and what somebody does about an upgrade that was
killed before: it is resumed, given up, or taken over by the upgrade of another file.  Whatever was left then is
resumed, ends, and the next release goes in.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

import pytest

from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.faults import parse_fault
from ess_can.campaign.mixture import Comeback, Mixture, plain
from ess_can.campaign.result import RunResult
from ess_can.campaign.run import run_mixture
from ess_can.campaign.station import Station
from ess_can.sim.process import SimulatedProcess
from tests.campaign.counts import Count
from tests.campaign.scale import chosen

PROGRAM, ACTIVATED, CONFIRM, RECONNECT = "PROGRAM+0.3", "TRIAL_BOOT+0.0004", "CONFIRM+0.003", "RECONNECT+0.3"
"""Where the first attempt was killed: in the transfer, with an image armed and not yet booted, on trial, and done."""

DONE, BACK = frozenset({"DONE"}), frozenset({"ROLLED_BACK"})

NOTHING_LEFT = frozenset({""})
"""It died when its last word was in the journal: nothing is unfinished, and nobody resumes it."""


@dataclass(frozen=True, eq=False)
class Course:
    """The attempt with this number is what is killed; `ends` are the ends that there may be without that."""

    name: str
    mixture: Mixture
    attempt: int
    ends: frozenset[str]


def taken_up(comeback: Comeback, ends: dict[str, frozenset[str]]) -> list[Course]:
    """What somebody does who finds an upgrade that was killed at one of these moments."""
    return [
        Course(f"{comeback.value} killed at {at}", plain(f"gateway:kill@{at}", restarted_by=comeback), 2, expected)
        for at, expected in ends.items()
    ]


COURSES = (
    Course("takes bad firmware back", plain("firmware:bmu1:wrong-scale"), 1, BACK),
    *taken_up(Comeback.RESUME, dict.fromkeys((PROGRAM, ACTIVATED, CONFIRM, RECONNECT), DONE)),
    *taken_up(Comeback.ROLL_BACK, {PROGRAM: BACK, ACTIVATED: BACK, CONFIRM: BACK, RECONNECT: DONE}),
    *taken_up(Comeback.TAKE_OVER, dict.fromkeys((PROGRAM, ACTIVATED, CONFIRM), DONE)),
)


@dataclass(frozen=True, eq=False)
class Attempts:
    """Keeps each process of the gateway, and how many entries the journal had when it started."""

    started: list[tuple[SimulatedProcess, int]] = field(default_factory=list)

    kind = FaultKind.KILL_AT_STEP
    text = "none"

    def arm(self, station: Station) -> None:
        station.on_start.append(lambda process: self.started.append((process, station.disk.writes)))


@cache
def kills(course: Course) -> dict[str, list[str]]:
    """Every step and every journal entry of the attempt at which it may be killed."""
    attempts = Attempts()
    result = run_mixture(course.mixture, faults=[*map(parse_fault, course.mixture.faults), attempts])
    assert result.good, f"{course.name}: {result.wrong}"
    assert result.ended in course.ends, (course.name, result.ended, result.errors)
    assert result.kills == course.attempt - 1
    process, first = attempts.started[course.attempt - 1]
    end = attempts.started[course.attempt][1]
    return {
        "step": [f"gateway:kill#{course.attempt}:{step}" for step in range(1, process.steps)],
        "entry": [f"gateway:kill%{entry}:{when}" for entry in range(first, end) for when in ("before", "after")],
    }


def wrong_with(course: Course, kill: str) -> str:
    faults = (*course.mixture.faults, kill)
    result = run_mixture(replace(course.mixture, faults=faults))
    wrong = result.wrong or _wrong_end(course, result)
    return f"{', '.join(faults)}: {wrong}" if wrong else ""


def _wrong_end(course: Course, result: RunResult) -> str:
    if result.kills != course.attempt:
        return f"killed {result.kills} times"
    return "" if result.ended in DONE | BACK | NOTHING_LEFT else f"{result.ended} {result.errors}"


WHERE = {"step": "a step of its tasks", "entry": "a journal entry, before or after"}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.name)
def test_killed_while_it(course: Course, where: str, count: Count) -> None:
    places = kills(course)[where]
    assert len(places) > 20
    killed = chosen(places, quick=2, slice_=12)
    wrong = [wrong_with(course, kill) for kill in killed]
    count(f"gateway killed on another way than the good one, at {WHERE[where]}", len(killed))
    assert not any(wrong), "\n".join(filter(None, wrong))
