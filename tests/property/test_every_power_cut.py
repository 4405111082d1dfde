"""Power is cut at every non-volatile operation of an upgrade: each flash unit, each sector, each byte of each record.

Nothing is sampled, except which bits tear (seeded).  Always the old or the new image boots, and going on ends with the
new one confirmed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import BootRecord, ResumeRecord
from ess_can.sim.power_cut import Admission, CutMode, PowerCut
from tests.unit.sim.memory_rig import PowerLostError, Rig, RigState, make_image, verify

FIRST = make_image("1.0.0", 2)
OLD = make_image("2.0.0", 3)
NEW = make_image("3.0.0", 5)
COUNTERS = {str(verify(image).version): verify(image).security_counter for image in (OLD, NEW)}
BOOT_BYTES = BootRecord.SIZE + 8
RESUME_BYTES = ResumeRecord.SIZE + 8


class RecordingPower(PowerCut):
    """Keeps the first index and the number of operations of each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[tuple[int, int]] = []

    def admit(self, count: int) -> Admission:
        self.writes.append((self.operations, count))
        return super().admit(count)


def start_state() -> RigState:
    """A node that runs OLD and has the stale FIRST in its other bank, so that an upgrade erases as well."""
    rig = Rig(FIRST)
    rig.upgrade(OLD)
    return rig.state()


def off(state: RigState, seed: int = 1) -> Rig:
    """A node with this memory, before its power-up."""
    rig = Rig(seed=seed)
    rig.take_over(state)
    return rig


def boot_and_upgrade(rig: Rig) -> bool:
    """False if power was lost on the way."""
    try:
        rig.reset()
        rig.upgrade(NEW)
    except PowerLostError:
        return False
    return True


def writes_of_upgrade(state: RigState) -> list[tuple[int, int]]:
    """The writes of power-up and undisturbed upgrade: first operation, counted from 0, and how many they are."""
    rig = off(state)
    power = RecordingPower()
    rig.flash.power = rig.fram.power = rig.power = power
    assert boot_and_upgrade(rig)
    assert (rig.version, rig.standing) == ("3.0.0", ImageState.CONFIRMED)
    return power.writes


START = start_state()
WRITES = writes_of_upgrade(START)
TOTAL = sum(count for _, count in WRITES)
ACTIVATED_BY = [at + count - 1 for at, count in WRITES if count == BOOT_BYTES][1]
"""The operation that completes the activation: the boot record is written at boot, activation, boot, confirm."""


def cut(state: RigState, at: int, mode: CutMode, seed: int = 1) -> Rig:
    """The node after it lost power at operation `at` of power-up and upgrade from `state`; still off."""
    rig = off(state, seed)
    rig.power.arm(at, mode)
    assert not boot_and_upgrade(rig), f"there is no operation {at}"
    return rig


def check_boots(rig: Rig) -> None:
    """Power comes back: old or new runs, never anything else, and the security counter is the confirmed image's."""
    rig.power_cycle()
    assert rig.version in COUNTERS, rig.memory.running.reason
    on_trial = rig.standing is ImageState.TRIAL
    assert rig.version == "3.0.0" if on_trial else rig.standing is ImageState.CONFIRMED
    assert rig.bootloader.record.security_counter == COUNTERS["2.0.0" if on_trial else rig.version]


def check_finishes(rig: Rig) -> None:
    """What is left of the upgrade succeeds, and stays."""
    rig.upgrade(NEW)
    rig.power_cycle()
    assert (rig.version, rig.standing) == ("3.0.0", ImageState.CONFIRMED)
    assert rig.bootloader.record.security_counter == COUNTERS["3.0.0"]


def test_the_upgrade_consists_of_the_writes_that_are_to_be_cut() -> None:
    sizes = [count for _, count in WRITES]
    resume = 5  # announced, erased, three blocks; a new announcement has nothing else to cancel
    assert sizes.count(BOOT_BYTES) == 4
    assert sizes.count(RESUME_BYTES) == resume
    assert sum(size for size in sizes if size < RESUME_BYTES) == 3 + 10  # sectors and units
    assert 4 * BOOT_BYTES + resume * RESUME_BYTES + 13 == TOTAL


@pytest.mark.parametrize(
    ("mode", "seed"), [(CutMode.BEFORE, 1), (CutMode.AFTER, 1), (CutMode.TORN, 1), (CutMode.TORN, 2)]
)
def test_one_cut(mode: CutMode, seed: int) -> None:
    for at in range(TOTAL):
        rig = cut(START, at, mode, seed)
        check_boots(rig)
        if at < ACTIVATED_BY:
            assert (rig.version, rig.standing) == ("2.0.0", ImageState.CONFIRMED)
        if (at, mode) == (ACTIVATED_BY, CutMode.AFTER):
            assert (rig.version, rig.standing) == ("3.0.0", ImageState.TRIAL)
        if (at, mode) == (TOTAL - 1, CutMode.AFTER):  # confirmed, though nobody was told
            assert (rig.version, rig.standing) == ("3.0.0", ImageState.CONFIRMED)
        check_finishes(rig)


def meaning(rig: Rig) -> tuple[object, ...]:
    """What of a node's memory decides on its future: flash, and the records as they load."""
    return rig.state().banks, rig.records.boot.load(), rig.records.resume.load()


def points(writes: list[tuple[int, int]]) -> Iterator[tuple[int, CutMode]]:
    """Where to cut a second time.

    At every flash operation; and before, within and at the end of each record: `test_boot_records` shows that its other
    bytes make no difference.
    """
    for first, count in writes:
        if count < RESUME_BYTES:
            for at in range(first, first + count):
                yield at, CutMode.BEFORE
                yield at, CutMode.TORN
        else:
            yield first, CutMode.BEFORE
            yield first + count // 2, CutMode.TORN
            yield first + count - 1, CutMode.AFTER


def test_a_second_cut_while_the_node_recovers_from_the_first() -> None:
    left_by_first: dict[tuple[object, ...], RigState] = {}
    for at, mode in points(WRITES):
        rig = cut(START, at, mode)
        left_by_first.setdefault(meaning(rig), rig.state())
    assert len(left_by_first) > 30
    finished: set[tuple[object, ...]] = set()
    pairs = 0
    for state in left_by_first.values():
        for at, mode in points(writes_of_upgrade(state)):
            rig = cut(state, at, mode)
            left = meaning(rig)
            check_boots(rig)
            pairs += 1
            if left not in finished:  # else an equal memory is known to end well
                finished.add(left)
                check_finishes(rig)
    assert pairs > 1000
