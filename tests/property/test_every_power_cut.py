"""Power is cut at every non-volatile operation of an upgrade: each flash unit, each sector, each byte of each record.

Nothing is sampled, except which bits tear (seeded).  Always the old or the new image boots, and going on ends with the
new one confirmed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import BootRecord, ImageId, ResumeRecord
from ess_can.sim.power_cut import Admission, CutMode, PowerCut
from tests.unit.sim.memory_rig import GEOMETRY, PowerLostError, Rig, RigState, make_image

OLD = make_image("2.0.0", 3)
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


@dataclass(frozen=True)
class Course:
    """An upgrade to `new` of a node that runs OLD and has `stale` in its other bank, so that an upgrade erases as well.

    `writes` are those of power-up and undisturbed upgrade: first operation, counted from 0, and how many they are.
    """

    new: bytes
    start: RigState
    writes: list[tuple[int, int]]

    @classmethod
    def of(cls, stale: bytes, new: bytes) -> Course:
        rig = Rig(stale)
        rig.upgrade(OLD)
        return cls(new, rig.state(), writes_of_upgrade(rig.state(), new))

    @property
    def total(self) -> int:
        return sum(count for _, count in self.writes)

    @property
    def activated_by(self) -> int:
        """The operation that completes the activation.

        The boot record is written at boot, activation, boot and confirmation.
        """
        return [at + count - 1 for at, count in self.writes if count == BOOT_BYTES][1]


def off(state: RigState, seed: int = 1) -> Rig:
    """A node with this memory, before its power-up."""
    rig = Rig(seed=seed)
    rig.take_over(state)
    return rig


def boot_and_upgrade(rig: Rig, new: bytes) -> bool:
    """False if power was lost on the way."""
    try:
        rig.reset()
        rig.upgrade(new)
    except PowerLostError:
        return False
    return True


def writes_of_upgrade(state: RigState, new: bytes) -> list[tuple[int, int]]:
    rig = off(state)
    power = RecordingPower()
    rig.flash.power = rig.fram.power = rig.power = power
    assert boot_and_upgrade(rig, new)
    assert (rig.version, rig.standing) == ("3.0.0", ImageState.CONFIRMED)
    return power.writes


COURSES = {
    "same size": Course.of(make_image("1.0.0", 2), make_image("3.0.0", 5)),
    "dirty behind": Course.of(make_image("1.0.0", 2, size=GEOMETRY.slot_size), make_image("3.0.0", 5, size=100)),
    "longer": Course.of(make_image("1.0.0", 2, size=64), make_image("3.0.0", 5, size=GEOMETRY.slot_size)),
}
COUNTERS = {"2.0.0": 3, "3.0.0": 5}


def cut(course: Course, state: RigState, at: int, mode: CutMode, seed: int = 1) -> Rig:
    """The node after it lost power at operation `at` of power-up and upgrade from `state`; still off."""
    rig = off(state, seed)
    rig.power.arm(at, mode)
    assert not boot_and_upgrade(rig, course.new), f"there is no operation {at}"
    return rig


def check_boots(rig: Rig) -> None:
    """Power comes back: old or new runs, never anything else, and the security counter is the confirmed image's."""
    rig.power_cycle()
    assert rig.version in COUNTERS, rig.memory.running.reason
    on_trial = rig.standing is ImageState.TRIAL
    assert rig.version == "3.0.0" if on_trial else rig.standing is ImageState.CONFIRMED
    assert rig.bootloader.record.security_counter == COUNTERS["2.0.0" if on_trial else rig.version]


def check_resume(rig: Rig, new: bytes) -> None:
    """What counts as verified is in flash, and a complete image has nothing behind it."""
    record = rig.records.resume.load()
    if record is None or record.image != ImageId.of(new):
        return
    assert rig.flash.read(record.bank, GEOMETRY.slot_offset, record.verified_offset) == new[: record.verified_offset]
    if record.verified_offset == len(new):
        tail = GEOMETRY.slot_offset + len(new) + -len(new) % GEOMETRY.unit_size
        assert rig.flash.is_blank(record.bank, tail, GEOMETRY.bank_size - tail)


def check_finishes(rig: Rig, new: bytes) -> None:
    """What is left of the upgrade succeeds, and stays."""
    rig.upgrade(new)
    rig.power_cycle()
    assert (rig.version, rig.standing) == ("3.0.0", ImageState.CONFIRMED)
    assert rig.bootloader.record.security_counter == COUNTERS["3.0.0"]


@pytest.mark.parametrize(
    ("course", "sectors", "units", "steps"), [("same size", 3, 10, 5), ("dirty behind", 3, 7, 3), ("longer", 1, 12, 6)]
)
def test_the_upgrade_consists_of_the_writes_that_are_to_be_cut(
    course: str, sectors: int, units: int, steps: int
) -> None:
    sizes = [count for _, count in COURSES[course].writes]
    resume = 1 + steps  # announced, then after each step
    assert sizes.count(BOOT_BYTES) == 4
    assert sizes.count(RESUME_BYTES) == resume
    assert sum(size for size in sizes if size < RESUME_BYTES) == sectors + units
    assert COURSES[course].total == 4 * BOOT_BYTES + resume * RESUME_BYTES + sectors + units


def test_sectors_are_erased_while_others_are_programmed() -> None:
    rig = off(COURSES["same size"].start)
    assert boot_and_upgrade(rig, COURSES["same size"].new)
    assert [op.action.name[0] for op in rig.operations] == list("EPPEPPEP")
    rig = off(COURSES["dirty behind"].start)
    assert boot_and_upgrade(rig, COURSES["dirty behind"].new)
    assert [op.action.name[0] for op in rig.operations] == list("EPPEEP")


@pytest.mark.parametrize(
    ("mode", "seed"), [(CutMode.BEFORE, 1), (CutMode.AFTER, 1), (CutMode.BITS, 1), (CutMode.BITS, 2)]
)
@pytest.mark.parametrize("name", COURSES)
def test_one_cut(name: str, mode: CutMode, seed: int) -> None:
    course = COURSES[name]
    for at in range(course.total):
        rig = cut(course, course.start, at, mode, seed)
        check_boots(rig)
        check_resume(rig, course.new)
        if at < course.activated_by:
            assert (rig.version, rig.standing) == ("2.0.0", ImageState.CONFIRMED)
        if (at, mode) == (course.activated_by, CutMode.AFTER):
            assert (rig.version, rig.standing) == ("3.0.0", ImageState.TRIAL)
        if (at, mode) == (course.total - 1, CutMode.AFTER):  # confirmed, though nobody was told
            assert (rig.version, rig.standing) == ("3.0.0", ImageState.CONFIRMED)
        check_finishes(rig, course.new)


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
                yield at, CutMode.BITS
        else:
            yield first, CutMode.BEFORE
            yield first + count // 2, CutMode.BITS
            yield first + count - 1, CutMode.AFTER


@pytest.mark.parametrize(("name", "least_states", "least_pairs"), [("same size", 30, 1000), ("dirty behind", 25, 800)])
def test_a_second_cut_while_the_node_recovers_from_the_first(name: str, least_states: int, least_pairs: int) -> None:
    course = COURSES[name]
    left_by_first: dict[tuple[object, ...], RigState] = {}
    for at, mode in points(course.writes):
        rig = cut(course, course.start, at, mode)
        left_by_first.setdefault(meaning(rig), rig.state())
    assert len(left_by_first) > least_states
    finished: set[tuple[object, ...]] = set()
    pairs = 0
    for state in left_by_first.values():
        for at, mode in points(writes_of_upgrade(state, course.new)):
            rig = cut(course, state, at, mode)
            left = meaning(rig)
            check_boots(rig)
            check_resume(rig, course.new)
            pairs += 1
            if left not in finished:  # else an equal memory is known to end well
                finished.add(left)
                check_finishes(rig, course.new)
    assert pairs > least_pairs
