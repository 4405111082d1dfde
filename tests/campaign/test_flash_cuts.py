"""Power is cut at every memory operation of an upgrade and of its end: each flash unit, each sector, each record byte.

Nothing is left out; which bits tear is drawn three times.  An allowed image always boots, the node comes to rest by
itself, and the upgrade that was cut and the one after it succeed.  The latter is followed up once for memories that no
node can tell from each other (`forks.meaning`), unless what they hold is undecided and chance goes on.
"""

from __future__ import annotations

from functools import cache

import pytest

from ess_can.sim.boot_records import BootRecord, ResumeRecord
from ess_can.sim.flash_cells import UnitState
from ess_can.sim.power_cut import Admission, CutMode, PowerCut
from tests.campaign.counts import Count
from tests.campaign.cuts import (
    Course,
    check_boots,
    check_converges,
    check_finishes,
    check_resume,
    ends,
    seeds,
    taken_over,
    transfers,
)
from tests.campaign.forks import Key, meaning
from tests.campaign.scale import chosen
from tests.unit.sim.memory_rig import Rig

BOOT_BYTES = BootRecord.SIZE + 8
RESUME_BYTES = ResumeRecord.SIZE + 8
PARTS = 4
TORN = 3

FINISHED: set[Key] = set()

Case = tuple[Course, int, CutMode, int]


@cache
def courses() -> dict[str, Course]:
    return {course.name: course for course in transfers() + ends()}


@cache
def cases() -> list[Case]:
    return [
        (course, at, mode, seed)
        for course in courses().values()
        for at in range(course.operations())
        for mode in CutMode
        for seed in seeds(mode, TORN)
    ]


@pytest.mark.parametrize("part", range(PARTS))
def test_power_is_cut_at_every_operation(part: int, count: Count) -> None:
    ran = chosen(cases(), quick=2000, slice_=20_000, part=part, parts=PARTS)
    for course, at, mode, seed in ran:
        rig = course.cut(at, mode, seed)
        left = rig.state()
        check_boots(rig, course.allowed)
        check_resume(rig, course.new)
        key = (meaning(left), course.tries, course.new)
        undecided = left.undecided or any(UnitState.UNSTABLE in bank.unit_states for bank in left.banks)
        if key in FINISHED and not undecided:
            continue
        FINISHED.add(key)
        check_converges(taken_over(left, course.tries, seed), course.tries)
        check_finishes(rig, course.new)
    count("memory operations cut", len(ran))


@pytest.mark.parametrize(
    ("course", "sectors", "units", "steps"),
    [
        ("A to B, same size", 3, 10, 5),
        ("B to A, smaller", 3, 7, 3),
        ("A to B, larger", 1, 12, 6),
        ("B to A, blank bank", 0, 10, 5),
    ],
)
def test_a_transfer_consists_of_the_writes_that_are_to_be_cut(
    course: str, sectors: int, units: int, steps: int
) -> None:
    """What was found at power-up is written back; boot, announcement, each step and the activation are stored."""
    rig = Rig()
    writes: list[int] = []
    power = Noting(writes)
    rig.take_over(courses()[course].start)
    rig.flash.power = rig.fram.power = rig.power = power
    before = rig.records.resume.load() is not None
    courses()[course].deed(rig)
    assert writes.count(BOOT_BYTES) == 3
    assert writes.count(RESUME_BYTES) == before + 1 + steps
    assert sum(size for size in writes if size < RESUME_BYTES) == sectors + units


class Noting(PowerCut):
    """Keeps how many operations each write has."""

    def __init__(self, writes: list[int]) -> None:
        super().__init__()
        self._writes = writes

    def admit(self, count: int) -> Admission:
        self._writes.append(count)
        return super().admit(count)


def test_sectors_are_erased_while_others_are_programmed() -> None:
    for course, order in (("A to B, same size", "EPPEPPEP"), ("A to B, smaller", "EPPEEP")):
        rig = courses()[course].begin()
        courses()[course].deed(rig)
        assert "".join(operation.action.name[0] for operation in rig.operations) == order
