"""Power is cut a second time while a node recovers from the first cut: all ordered pairs of memory operations.

What boots is what booted before the second write or what boots after it, and never anything else.  Left alone the node
comes to rest; the upgrade and the one after it succeed.  Memories that no node can tell from each other are followed up
once (`forks.meaning`), and counted as often as they occur.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.campaign.counts import Count
from tests.campaign.cuts import Course, Deed, boot, check_converges, check_finishes, ends, taken_over, transfers
from tests.campaign.forks import Fork, ForkingRig, Forks, Key, meaning, outcome, readings
from tests.campaign.scale import chosen
from tests.unit.sim.memory_rig import Rig, RigState

PARTS = 4
FINISHED: set[Key] = set()


def goes_on(new: bytes) -> Deed:
    """The gateway finishes the upgrade."""

    def deed(rig: Rig) -> None:
        rig.reset()
        rig.upgrade(new)

    return deed


def goes_back(rig: Rig) -> None:
    """The gateway gives the upgrade up."""
    rig.reset()
    rig.revert()
    rig.reset()


def left_alone(rig: Rig) -> None:
    """No gateway is there any more; the trial runs out of tries or time."""
    for _ in range(rig.config.trial_boots + 1):
        boot(rig)


KINDS: dict[str, Callable[[], list[Course]]] = {
    "boot record, confirmation and rollback": ends,
    "a transfer": transfers,
}


@cache
def courses(kind: str) -> list[Course]:
    return KINDS[kind]()


@cache
def first_cuts(kind: str, index: int) -> list[Fork]:
    course = courses(kind)[index]
    forks = Forks(course.tries)
    rig = course.begin(kind=ForkingRig)
    forks.watch(rig)
    course.deed(rig)
    return list(forks.found.values())


@cache
def cases(kind: str) -> list[tuple[int, int]]:
    """Course, and which of the memories that the first cut may leave."""
    return [(index, first) for index in range(len(courses(kind))) for first in range(len(first_cuts(kind, index)))]


def second_cuts(state: RigState, tries: int, seed: int, recover: Deed) -> Forks:
    forks = Forks(tries)
    rig = ForkingRig(seed=seed, trial_boots=tries)
    rig.take_over(state)
    forks.watch(rig)
    recover(rig)
    return forks


def check(fork: Fork, tries: int, new: bytes) -> None:
    """An allowed image boots each time, and all ends well; what is known to end well is not done again."""
    key = (meaning(fork.state), fork.allowed, tries, len(new))
    if key in FINISHED:
        return
    FINISHED.add(key)
    for seed in readings(fork.state):
        assert outcome(fork.state, tries, seed) in fork.allowed
        check_converges(taken_over(fork.state, tries, seed), tries)
        rig = taken_over(fork.state, tries, seed)
        rig.power_cycle()
        check_finishes(rig, new)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(
    ("kind", "quick", "slice_"), [("boot record, confirmation and rollback", 4, 40), ("a transfer", 4, 60)]
)
def test_power_is_cut_twice(kind: str, quick: int, slice_: int, part: int, count: Count) -> None:
    pairs = 0
    known = len(FINISHED)
    for index, which in chosen(cases(kind), quick=quick, slice_=slice_, part=part, parts=PARTS):
        course = courses(kind)[index]
        first = first_cuts(kind, index)[which]
        check(first, course.tries, course.new)
        for recover in (goes_on(course.new), goes_back, left_alone):
            for seed in readings(first.state):
                second = second_cuts(first.state, course.tries, seed, recover)
                if seed == 0:
                    pairs += first.ways * second.ways
                for fork in second.found.values():
                    check(fork, course.tries, course.new)
    count(f"pairs of cuts, the first in {kind}", pairs)
    count(f"pairs of cuts, the first in {kind}: different memories", len(FINISHED) - known)
