"""Guards between the bytes in a node's flash and their execution, and those of its records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import ess_can.sim.boot_records as boot_records
import ess_can.sim.bootloader as bootloader
from ess_can.identity import Version
from ess_can.image.node_image import NodeImage
from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import BootRecord, ImageId, TwoSlotRecord
from ess_can.sim.bootloader import BootDecision, Bootloader
from ess_can.sim.plant import Plant
from ess_can.sim.power_cut import TEARING, CutMode
from tests.campaign.cuts import Course as Cuts
from tests.campaign.cuts import check_boots, ends
from tests.campaign.guard import Guard, Off, Run, around, by, require, upgrade, words_of
from tests.campaign.memory_runs import NEW, rig
from tests.unit.sim.memory_rig import GEOMETRY, Rig, make_image


def _rotted_at_boot(node: Rig) -> None:
    node.put(NEW)
    node.verify(NEW)
    node.activate()
    node.flash.inject_bit_rot(1, GEOMETRY.slot_offset + 60, 1)
    node.reset()
    require(node.version == "2.0.0", "it boots what rotted")


def _unsigned_at_boot(node: Rig) -> None:
    bad = NEW[:-1] + bytes([NEW[-1] ^ 1])
    node.put(bad)
    node.bootloader.activate_on_trial(ImageId.of(bad), 1)
    node.reset()
    require(node.version == "2.0.0", "it boots what nobody signed")


def _old_at_boot(node: Rig) -> None:
    older = make_image("3.0.1", 1)
    node.put(older)
    node.bootloader.activate_on_trial(ImageId.of(older), 1)
    node.reset()
    require(node.version == "2.0.0", "it boots what its counter forbids")


def _one_trial(node: Rig) -> None:
    node.put(NEW)
    node.verify(NEW)
    node.activate()
    node.reset()
    require(node.standing is ImageState.TRIAL, "no trial")
    node.reset()
    require(node.version == "2.0.0", "it boots a second time without confirmation")


def _counter_after_confirm(node: Rig) -> None:
    node.put(NEW)
    node.verify(NEW)
    node.activate()
    node.reset()
    require(node.bootloader.record.security_counter == 3, "the counter rose before the confirmation")
    node.reset()
    require(node.version == "2.0.0", "it does not go back")


def _confirm_nothing(node: Rig) -> None:
    require(node.memory.confirm(node.now) is not None, "it confirms although nothing is on trial")


def _cut(course: Cuts, step: int) -> str:
    for mode in (*TEARING, CutMode.BEFORE, CutMode.AFTER):
        for at in range(0, course.operations(), step):
            try:
                check_boots(course.cut(at, mode, at), course.allowed)
            except AssertionError as error:
                return f"it boots what it must not after a cut at {at}, {mode.value}: {words_of(error)}"
    return ""


def _confirmation_cut() -> str:
    return _cut(next(each for each in ends() if "confirm" in each.name), 7)


def _undecided(node: Rig) -> None:
    before = node.bootloader.record
    node.power.arm(BootRecord.SIZE + 7, CutMode.UNSTABLE)  # the last byte of its slot
    node.records.boot.store(replace(before, boot_counter=0xFFFF_FFFF))
    node.power.restore()
    first = node.records.boot.recover()
    require(all(node.records.boot.load() == first for _ in range(200)), "the record reads otherwise at the next look")


CUT: Final = Run("power is cut within a confirmation", _confirmation_cut)


def _one_slot(original: Callable[..., object]) -> object:
    def store(record: TwoSlotRecord[BootRecord], value: BootRecord) -> None:
        slots = record._slots
        record._slots = (slots[0], slots[0])
        try:
            original(record, value)
        finally:
            record._slots = slots

    return store


class _NoCrc:
    @staticmethod
    def crc32(_data: bytes) -> int:
        return 0


def _no_boot_check(original: Callable[..., object]) -> object:
    facts: dict[bytes, NodeImage] = {}

    def check(loader: Bootloader, bank: int, image: ImageId) -> NodeImage | None:
        found = original(loader, bank, image)
        if isinstance(found, NodeImage):
            facts[image.sha256] = found
            return found
        content = loader.flash.read(bank, loader.flash.geometry.slot_offset, image.size)
        return replace(next(iter(facts.values())), version=_version(content)) if isinstance(content, bytes) else None

    return check


def _version(content: bytes) -> Version:
    return Version(content[4], content[5], int.from_bytes(content[6:8], "big"))


def _any_counter(original: Callable[..., object]) -> object:
    def decide(record: BootRecord | None, check: object) -> object:
        return original(None if record is None else replace(record, security_counter=0), check)

    return decide


def _tries_for_ever(original: Callable[..., object]) -> object:
    def decide(record: BootRecord | None, check: object) -> object:
        decision = original(record, check)
        if isinstance(decision, BootDecision) and decision.standing is ImageState.TRIAL:
            return replace(decision, record=replace(decision.record, tries_left=1))
        return decision

    return decide


def _counter_at_once(original: Callable[..., object]) -> object:
    def activate(loader: Bootloader, image: ImageId, tries: int) -> None:
        original(loader, image, tries)
        loader.records.boot.store(replace(loader.record, security_counter=loader.record.security_counter + 1))

    return activate


def _no_watchdog(original: Callable[..., object]) -> object:
    def board(plant: Plant, hardware_id: int, serial: str) -> object:
        return replace(original(plant, hardware_id, serial), watchdog_s=1e6)  # type: ignore[type-var]

    return board


def _guard(name: str, where: str, prevents: str, off: Off, run: Run, seen: str, behind: str = "") -> Guard:
    return Guard(f"memory, {name}", where, prevents, off, run, seen, behind)


_DECIDE: Final = "sim.bootloader:decide"
GUARDS: Final = (
    _guard(
        "hash at each boot",
        "sim.bootloader:Bootloader._check",
        "executing what changed in flash since it was verified",
        around(Bootloader, "_check", _no_boot_check),
        rig("a bit of the activated image flips", _rotted_at_boot),
        "it boots what rotted",
    ),
    _guard(
        "signature at each boot",
        "sim.bootloader:Bootloader._check",
        "executing what nobody signed",
        around(Bootloader, "_check", _no_boot_check),
        rig("an unsigned image is in the record", _unsigned_at_boot),
        "it boots what nobody signed",
    ),
    _guard(
        "counter at each boot",
        _DECIDE,
        "executing what is less secure than what was confirmed",
        around(bootloader, "decide", _any_counter),
        rig("an image of a lower counter is in the record", _old_at_boot),
        "it boots what its counter forbids",
    ),
    _guard(
        "one trial boot",
        _DECIDE,
        "a bad image that boots again and again",
        around(bootloader, "decide", _tries_for_ever),
        rig("a trial that nobody confirms", _one_trial),
        "it boots a second time without confirmation",
    ),
    _guard(
        "counter rises with the confirmation",
        "sim.bootloader:Bootloader.confirm",
        "a failed trial that shuts out the image before it",
        around(Bootloader, "activate_on_trial", _counter_at_once),
        rig("a trial that nobody confirms, counted", _counter_after_confirm),
        "the counter rose before the confirmation",
    ),
    _guard(
        "confirms only what is on trial",
        "sim.bootloader:Bootloader.confirm",
        "answering that an image stands that was given up",
        by(Bootloader, "confirm", lambda *_: True),
        rig("a confirmation of nothing", _confirm_nothing),
        "it confirms although nothing is on trial",
    ),
    _guard(
        "two slots",
        "sim.boot_records:TwoSlotRecord.store",
        "a record that is lost when power is cut in writing it",
        around(TwoSlotRecord, "store", _one_slot),
        CUT,
        "it boots what it must not",
    ),
    _guard(
        "CRC of a record",
        "sim.boot_records:TwoSlotRecord._parse",
        "taking half a record for a whole one",
        by(boot_records, "zlib", _NoCrc),
        CUT,
        "it boots what it must not",
    ),
    _guard(
        "record made to stay",
        "sim.boot_records:TwoSlotRecord.recover",
        "a record that reads otherwise at the next look",
        by(TwoSlotRecord, "recover", TwoSlotRecord.load),
        rig("power is cut in a record, and comes back", _undecided),
        "the record reads otherwise at the next look",
    ),
    Guard(
        "node, watchdog",
        "sim.node:SimulatedNode._boot",
        "a node that hangs for ever in its trial",
        around(Plant, "_board", _no_watchdog),
        upgrade("firmware:bmu1:hangs", ends="ROLLED_BACK"),
        "not ROLLED_BACK",
    ),
)
