"""Guards between the bytes in a node's flash and their execution, and those of its records."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import ess_can.sim.boot_records as boot_records
import ess_can.sim.bootloader as bootloader
from ess_can.campaign.monitors import Invariant
from ess_can.identity import Version
from ess_can.image.node_image import NodeImage
from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import BootRecord, ImageId, TwoSlotRecord
from ess_can.sim.bootloader import BootDecision, Bootloader
from ess_can.sim.flash import Flash, FlashError, SectorDefect
from ess_can.sim.flash_queue import FlashQueue
from ess_can.sim.image_verdict import FailureReason, MemoryFailure
from ess_can.sim.plant import Plant
from ess_can.sim.power_cut import TEARING, CutMode
from ess_can.sim.programming import ProgrammingMemory
from ess_can.uds.target import Nrc
from tests.campaign.cuts import Course as Cuts
from tests.campaign.cuts import check_boots, ends
from tests.campaign.guard import Guard, Off, Run, around, both, by, upgrade
from tests.unit.sim.memory_rig import GEOMETRY, Rig, make_image

OLD: Final = make_image("2.0.0", 3)
NEW: Final = make_image("3.0.0", 5)


def rig(text: str, script: Callable[[Rig], None]) -> Run:
    """A node's memory alone; an assertion that does not hold is wrong."""

    def wrong() -> str:
        try:
            script(Rig(OLD))
        except AssertionError as error:
            return f"wrong: {str(error).splitlines()[0] if str(error) else 'an assertion'}"
        return ""

    return Run(f"a node's memory, {text}", wrong)


def require(condition: bool, what: str) -> None:
    """As an assertion that is never left out."""
    if not condition:
        raise AssertionError(what)


_WRONG: Final = "wrong: "


def _announced_as(content: bytes, announced: bytes, crc32: int | None = None) -> Callable[[Rig], None]:
    """Bytes come in as another image than they are; they must not verify."""

    def script(node: Rig) -> None:
        node.expect(node.memory.erase(len(content), ImageId.of(announced).sha256, node.now))
        node.download(content)
        refused = node.wait(node.memory.verify(zlib.crc32(content) if crc32 is None else crc32, node.now))
        require(refused is not None, "it verifies")

    return script


def _must_not_verify(content: bytes) -> Callable[[Rig], None]:
    return _announced_as(content, content)


def _without(*reasons: FailureReason) -> Off:
    """The node's verdict leaves out these reasons."""

    def make(original: Callable[..., object]) -> object:
        def judge(*args: object) -> object:
            failure = original(*args)
            return None if isinstance(failure, MemoryFailure) and failure.reason in reasons else failure

        return judge

    import ess_can.sim.programming as programming

    return around(programming, "judge", make)


def _not_clean(node: Rig) -> None:
    node.put(NEW)
    last = GEOMETRY.bank_size - GEOMETRY.unit_size
    node.flash.factory_program(1, last, bytes(GEOMETRY.unit_size))
    require(node.wait(node.memory.verify(zlib.crc32(NEW), node.now)) is not None, "it verifies")


def _silent_defect(node: Rig) -> None:
    node.flash.inject_defect(1, 1, SectorDefect.SILENT)
    node.announce(NEW)
    block = node.memory.begin_download(0, len(NEW), node.now)
    require(isinstance(block, int) and not isinstance(block, Nrc), "no download")
    results = [node.wait(node.memory.write(NEW[at : at + 50], node.now)) for at in range(0, len(NEW), 50)]
    results.append(node.wait(node.memory.end_download(node.now)))
    require(any(result is not None for result in results), "a transfer into a bad sector succeeds")


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


def _fallback(node: Rig) -> None:
    node.upgrade(NEW)
    node.flash.inject_bit_rot(1, GEOMETRY.slot_offset + 60, 1)
    older = replace(node.bootloader.record, security_counter=3)
    node.records.boot.store(older)
    node.reset()
    require(node.version == "2.0.0", "it does not fall back")


def _erase_on_trial(node: Rig) -> None:
    node.put(NEW)
    node.verify(NEW)
    node.activate()
    node.reset()
    refused = node.memory.erase(len(NEW), ImageId.of(NEW).sha256, node.now)
    require(isinstance(refused, Nrc), "it gives up the only confirmed image")


def _activation_outlived(node: Rig) -> None:
    node.put(NEW)
    node.verify(NEW)
    node.activate()
    node.announce(make_image("4.0.0", 6))
    require(node.bootloader.record.trial is None, "an activation outlasts what it activates")


def _confirm_nothing(node: Rig) -> None:
    require(node.memory.confirm(node.now) is not None, "it confirms although nothing is on trial")


def _running_bank(node: Rig) -> None:
    result = node.flash.start_erase(0, 0, node.now)
    require(result is FlashError.RUNNING_BANK, "it erases what runs")


def _not_erased(node: Rig) -> None:
    slot = GEOMETRY.slot_offset
    node.flash.factory_program(1, slot, bytes(GEOMETRY.unit_size))
    result = node.flash.start_program(1, slot, bytes(GEOMETRY.unit_size), node.now)
    require(result is FlashError.NOT_ERASED, "it programs what is not erased")


def _verify_then_write(node: Rig) -> None:
    node.put(NEW)
    node.verify(NEW)
    node.announce(NEW)
    require(node.memory.activate_on_trial(node.now) is not None, "what was verified before counts for what comes")


def _cut(course: Cuts, step: int) -> str:
    for mode in (*TEARING, CutMode.BEFORE, CutMode.AFTER):
        for at in range(0, course.operations(), step):
            try:
                check_boots(course.cut(at, mode, at), course.allowed)
            except AssertionError as error:
                return f"wrong: cut at {at}, {mode.value}: {str(error).splitlines()[0] if str(error) else 'it boots'}"
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


def _confirms_anything(original: Callable[..., object]) -> object:
    return lambda *_: True


def _unprotected(error: FlashError) -> Off:
    def make(original: Callable[..., object]) -> object:
        def refusal(flash: Flash, *args: object) -> object:
            found = original(flash, *args)
            return None if found is error else found

        return refusal

    return around(Flash, "_refusal", make)


def _no_watchdog(original: Callable[..., object]) -> object:
    def board(plant: Plant, hardware_id: int, serial: str) -> object:
        return replace(original(plant, hardware_id, serial), watchdog_s=1e6)  # type: ignore[type-var]

    return board


def _guard(name: str, where: str, prevents: str, off: Off, run: Run, behind: str = "") -> Guard:
    return Guard(f"memory, {name}", where, prevents, off, run, _WRONG, behind)


_BAD: Final = NEW[:60] + bytes([NEW[60] ^ 1]) + NEW[61:]
_JUDGE: Final = "sim.image_verdict:judge"
_DECIDE: Final = "sim.bootloader:decide"

GUARDS: Final = (
    _guard(
        "CRC read back",
        _JUDGE,
        "activating what is not what was sent",
        _without(FailureReason.CRC_MISMATCH),
        rig("a CRC that is not the image's", _announced_as(NEW, NEW, 1)),
    ),
    _guard(
        "hash read back",
        _JUDGE,
        "activating what is not what was announced",
        _without(FailureReason.HASH_MISMATCH),
        rig("another image than announced", _announced_as(NEW, make_image("3.0.0", 5, size=150, hardware_id=8))),
    ),
    _guard(
        "clean slot",
        _JUDGE,
        "remains behind an image",
        _without(FailureReason.SLOT_NOT_CLEAN),
        rig("something behind the image", _not_clean),
    ),
    _guard(
        "signature before activation",
        _JUDGE,
        "activating what nobody signed",
        _without(FailureReason.IMAGE_REJECTED),
        rig("an image whose signature does not match", _must_not_verify(_BAD)),
    ),
    _guard(
        "hardware, version and counter",
        _JUDGE,
        "activating what is not for this node",
        _without(FailureReason.INCOMPATIBLE),
        rig("an older image", _must_not_verify(make_image("1.0.0", 3))),
    ),
    _guard(
        "hash at each boot",
        "sim.bootloader:Bootloader._check",
        "executing what changed in flash since it was verified",
        around(Bootloader, "_check", _no_boot_check),
        rig("a bit of the activated image flips", _rotted_at_boot),
    ),
    _guard(
        "signature at each boot",
        "sim.bootloader:Bootloader._check",
        "executing what nobody signed",
        around(Bootloader, "_check", _no_boot_check),
        rig("an unsigned image is in the record", _unsigned_at_boot),
    ),
    _guard(
        "counter at each boot",
        _DECIDE,
        "executing what is less secure than what was confirmed",
        around(bootloader, "decide", _any_counter),
        rig("an image of a lower counter is in the record", _old_at_boot),
    ),
    _guard(
        "one trial boot",
        _DECIDE,
        "a bad image that boots again and again",
        around(bootloader, "decide", _tries_for_ever),
        rig("a trial that nobody confirms", _one_trial),
    ),
    _guard(
        "counter rises with the confirmation",
        "sim.bootloader:Bootloader.confirm",
        "a failed trial that shuts out the image before it",
        around(Bootloader, "activate_on_trial", _counter_at_once),
        rig("a trial that nobody confirms, counted", _counter_after_confirm),
    ),
    _guard(
        "confirms only what is on trial",
        "sim.bootloader:Bootloader.confirm",
        "answering that an image stands that was given up",
        by(Bootloader, "confirm", lambda *_: True),
        rig("a confirmation of nothing", _confirm_nothing),
    ),
    _guard(
        "the only confirmed image",
        "sim.programming:ProgrammingMemory._holds_only_confirmed",
        "erasing the image to go back to during its successor's trial",
        by(ProgrammingMemory, "_holds_only_confirmed", property(lambda _: False)),
        rig("an erase during a trial", _erase_on_trial),
    ),
    _guard(
        "activation given up first",
        "sim.programming:ProgrammingMemory.erase",
        "booting a bank that is being erased",
        by(Bootloader, "revert", lambda _: None),
        rig("an erase after an activation", _activation_outlived),
    ),
    _guard(
        "verified since the last change",
        "sim.programming:ProgrammingMemory._begin_change",
        "activating what was written after the verification",
        by(ProgrammingMemory, "_begin_change", lambda _: None),
        rig("a new announcement after verification", _verify_then_write),
    ),
    _guard(
        "read back after each step",
        "sim.flash_queue:FlashQueue._read_back",
        "going on after a sector lost bits",
        by(FlashQueue, "_read_back", lambda *_: None),
        rig("a sector that loses bits silently", _silent_defect),
    ),
    _guard(
        "running bank in flash",
        "sim.flash:Flash._refusal",
        "erasing what runs",
        _unprotected(FlashError.RUNNING_BANK),
        rig("an erase of the running bank", _running_bank),
    ),
    _guard(
        "erased before it is programmed",
        "sim.flash:Flash.start_program",
        "bits of two images in one unit",
        by(Flash, "is_blank", lambda *_: True),
        rig("programming what is not erased", _not_erased),
    ),
    _guard(
        "two slots",
        "sim.boot_records:TwoSlotRecord.store",
        "a record that is lost when power is cut in writing it",
        around(TwoSlotRecord, "store", _one_slot),
        CUT,
    ),
    _guard(
        "CRC of a record",
        "sim.boot_records:TwoSlotRecord._parse",
        "taking half a record for a whole one",
        by(boot_records, "zlib", _NoCrc),
        CUT,
    ),
    _guard(
        "record made to stay",
        "sim.boot_records:TwoSlotRecord.recover",
        "a record that reads otherwise at the next look",
        by(TwoSlotRecord, "recover", TwoSlotRecord.load),
        rig("power is cut in a record, and comes back", _undecided),
    ),
    Guard(
        "memory, inactive bank alone",
        "sim.programming:ProgrammingMemory.__init__",
        "writing the bank that runs",
        around(
            FlashQueue,
            "__init__",
            lambda was: lambda queue, flash, bank, *args, **more: was(queue, flash, 1 - bank, *args, **more),
        ),
        upgrade(),
        Invariant.RUNNING_BANK,
    ),
    Guard(
        "memory, judged at all",
        _JUDGE,
        "activating what rotted before it was read back",
        both(_without(*FailureReason)),
        upgrade("flash:bmu1:rot=700@PROGRAM+0.15"),
        Invariant.ATOMIC_SELECTION,
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
