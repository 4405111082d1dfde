"""What nodes do while power is cut: courses of an upgrade and of its end, each from a memory that is found at rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import ImageId
from ess_can.sim.power_cut import TEARING, CutMode
from tests.unit.sim.memory_rig import GEOMETRY, PowerLostError, Rig, RigState, make_image, verify

OLD: Final = make_image("2.0.0", 3)
NEXT: Final = make_image("4.0.0", 6)
STALE: Final = "1.0.0"
NEW: Final = "3.0.0"
COUNTERS: Final = {"2.0.0": 3, "3.0.0": 5, "4.0.0": 6}
SIZES: Final = {  # of the image that the other bank still holds, and of the new one
    "same size": (150, 150),
    "smaller": (GEOMETRY.slot_size, 100),
    "larger": (64, GEOMETRY.slot_size),
    "blank bank": (0, 150),
}
BANKS: Final = {"A to B": 0, "B to A": 1}

Deed = Callable[[Rig], None]
Standing = tuple[str, ImageState]

OLD_RUNS: Final = ("2.0.0", ImageState.CONFIRMED)
NEW_ON_TRIAL: Final = ("3.0.0", ImageState.TRIAL)
NEW_RUNS: Final = ("3.0.0", ImageState.CONFIRMED)


@dataclass(frozen=True, slots=True)
class Course:
    """A node of memory `start` boots, does what `prepare` says, and then `deed`, in which power is cut.

    `allowed` is what may run when power is back.
    """

    name: str
    start: RigState
    new: bytes
    tries: int
    prepare: Deed
    deed: Deed
    allowed: frozenset[Standing]

    def begin(self, seed: int = 1, kind: type[Rig] = Rig) -> Rig:
        """The node just before the deed."""
        rig = kind(seed=seed, trial_boots=self.tries)
        rig.take_over(self.start)
        self.prepare(rig)
        return rig

    def operations(self) -> int:
        """How many memory operations the deed consists of."""
        rig = self.begin()
        before = rig.power.operations
        self.deed(rig)
        return rig.power.operations - before

    def cut(self, at: int, mode: CutMode, seed: int) -> Rig:
        """The node after power was lost at operation `at` of the deed; still off."""
        rig = self.begin(seed)
        rig.power.arm(at, mode)
        try:
            self.deed(rig)
        except PowerLostError:
            return rig
        raise AssertionError(f"{self.name} has no operation {at}")


def found(bank: int, stale: int, tries: int = 1) -> Rig:
    """A node that runs OLD out of `bank`; the other one is blank or has a stale image of that size."""
    if not stale:
        return Rig(OLD, bank=bank, trial_boots=tries)
    rig = Rig(make_image(STALE, 2, size=stale), bank=1 - bank, trial_boots=tries)
    rig.upgrade(OLD)
    return rig


def transfer(new: bytes) -> Deed:
    """All up to the activation, power-up included."""

    def deed(rig: Rig) -> None:
        rig.reset()
        rig.put(new)
        rig.verify(new)
        rig.activate()

    return deed


def off(_rig: Rig) -> None:
    """The node has no power yet."""


def boot(rig: Rig) -> None:
    """Power up, or restart."""
    rig.reset()


def twice(rig: Rig) -> None:
    """Restart, and nobody confirms; restart again."""
    rig.reset()
    rig.reset()


def confirm(rig: Rig) -> None:
    """The gateway confirms what runs."""
    rig.confirm()


def revert_and_boot(rig: Rig) -> None:
    """The gateway asks for the old image."""
    rig.revert()
    rig.reset()


def interrupted(new: bytes, bank: int, stale: int) -> RigState:
    """A node whose transfer of `new` was cut off in mid-image, in the middle of a unit."""
    rig = found(bank, stale)
    rig.announce(new)
    rig.memory.begin_download(0, len(new), rig.now)
    for start in (0, 50):
        rig.expect(rig.memory.write(new[start : start + 50][: len(new) - start], rig.now))
    rig.power.arm(1, CutMode.UNSTABLE)
    rig.memory.end_download(rig.now)
    rig.now += 30
    rig.memory.settle(rig.now)
    rig.memory.power_off(rig.now)
    assert not rig.power.powered
    return rig.state()


def transfers() -> list[Course]:
    """Every size in both directions, from the start and resumed."""
    courses = []
    allowed = frozenset({OLD_RUNS, NEW_ON_TRIAL})
    for direction, bank in BANKS.items():
        for size, (stale, length) in SIZES.items():
            new = make_image(NEW, 5, size=length)
            start = found(bank, stale).state()
            courses.append(Course(f"{direction}, {size}", start, new, 1, off, transfer(new), allowed))
            start = interrupted(new, bank, stale)
            courses.append(Course(f"{direction}, {size}, resumed", start, new, 1, off, transfer(new), allowed))
    return courses


def ends() -> list[Course]:
    """Trial boot, confirmation and every way back, in both directions, with one try and with two."""
    courses = []
    new = make_image(NEW, 5)
    for direction, bank in BANKS.items():
        for tries in (1, 2):
            rig = found(bank, 150, tries)
            rig.put(new)
            held = rig.state()
            rig.verify(new)
            rig.activate()
            activated = rig.state()
            unless_confirmed = OLD_RUNS if tries == 1 else NEW_ON_TRIAL
            unless_reverted = {OLD_RUNS, unless_confirmed}
            named: dict[str, tuple[RigState, Deed, Deed, set[Standing]]] = {
                "trial boot": (activated, off, boot, {unless_confirmed, NEW_ON_TRIAL}),
                "confirm": (activated, boot, confirm, {unless_confirmed, NEW_RUNS}),
                "revert of an activation": (held, transfer(new), revert_and_boot, {OLD_RUNS, NEW_ON_TRIAL}),
                "revert of a trial": (activated, boot, revert_and_boot, unless_reverted),
                "time-out of a trial": (activated, boot, boot if tries == 1 else twice, unless_reverted),
            }
            for name, (start, prepare, deed, allowed) in named.items():
                title = f"{direction}, {name}, tries: {tries}"
                courses.append(Course(title, start, new, tries, prepare, deed, frozenset(allowed)))
    return courses


# --- what must be true after a cut ------------------------------------------------------------


def check_boots(rig: Rig, allowed: frozenset[Standing]) -> None:
    """Power comes back: an allowed image runs, and the security counter is the confirmed one's."""
    rig.power_cycle()
    assert (rig.version, rig.standing) in allowed, rig.memory.running.reason
    confirmed = "2.0.0" if rig.standing is ImageState.TRIAL else rig.version
    assert rig.bootloader.record.security_counter == COUNTERS[confirmed]


def check_resume(rig: Rig, new: bytes) -> None:
    """What counts as verified is in flash, and a complete image has nothing behind it."""
    record = rig.records.resume.load()
    if record is None or record.image != ImageId.of(new):
        return
    assert rig.flash.read(record.bank, GEOMETRY.slot_offset, record.verified_offset) == new[: record.verified_offset]
    if record.verified_offset == len(new):
        tail = GEOMETRY.slot_offset + len(new) + -len(new) % GEOMETRY.unit_size
        assert rig.flash.is_blank(record.bank, tail, GEOMETRY.bank_size - tail)


def check_converges(rig: Rig, tries: int) -> None:
    """Left alone, it ends with a confirmed image as soon as its tries are used up, and stays there."""
    boots = []
    for _ in range(tries + 2):
        rig.power_cycle()
        boots.append((rig.version, rig.standing))
    assert boots[-1] in (OLD_RUNS, NEW_RUNS)
    assert boots[-1] == boots[-2]


def check_finishes(rig: Rig, new: bytes) -> None:
    """What is left of the upgrade succeeds, and so does the next one."""
    for image in (new, NEXT):
        rig.upgrade(image)
        rig.power_cycle()
        version = str(verify(image).version)
        assert (rig.version, rig.standing) == (version, ImageState.CONFIRMED)
        assert rig.bootloader.record.security_counter == COUNTERS[version]


def taken_over(state: RigState, tries: int, seed: int) -> Rig:
    """A node with this memory, off."""
    rig = Rig(seed=seed, trial_boots=tries)
    rig.take_over(state)
    return rig


def seeds(mode: CutMode, count: int) -> range:
    """Which bits tear is drawn; where nothing tears, once is enough."""
    return range(count if mode in TEARING else 1)
