"""Guards between the bytes that come in and those in a node's flash."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import ess_can.sim.image_verdict as image_verdict
from ess_can.campaign.monitors import Invariant
from ess_can.errors import EssCanError
from ess_can.identity import NodeType
from ess_can.sim.boot_records import ImageId
from ess_can.sim.bootloader import Bootloader
from ess_can.sim.flash import Flash, FlashError, SectorDefect
from ess_can.sim.flash_queue import FlashQueue
from ess_can.sim.image_verdict import FailureReason, MemoryFailure
from ess_can.sim.programming import ProgrammingMemory
from ess_can.trust.compatibility import Compatibility
from ess_can.uds.target import Nrc
from tests.campaign.guard import Guard, Off, Run, around, both, by, require, upgrade
from tests.campaign.memory_runs import NEW, rig
from tests.unit.sim.memory_rig import GEOMETRY, Rig, make_image


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


def _unprotected(error: FlashError) -> Off:
    def make(original: Callable[..., object]) -> object:
        def refusal(flash: Flash, *args: object) -> object:
            found = original(flash, *args)
            return None if found is error else found

        return refusal

    return around(Flash, "_refusal", make)


def _guard(name: str, where: str, prevents: str, off: Off, run: Run, seen: str, behind: str = "") -> Guard:
    return Guard(f"memory, {name}", where, prevents, off, run, seen, behind)


_BAD: Final = NEW[:60] + bytes([NEW[60] ^ 1]) + NEW[61:]
_JUDGE: Final = "sim.image_verdict:judge"


def _compatible(what: str, error: str, content: bytes) -> Guard:
    def make(original: Callable[..., object]) -> object:
        def check(*args: object) -> object:
            try:
                return original(*args)
            except EssCanError as refusal:
                if refusal.name != error:
                    raise
                return Compatibility.NEWER

        return check

    return _guard(
        f"{what} of an image",
        _JUDGE,
        "activating what is not for this node",
        around(image_verdict, "check_compatibility", make),
        rig(f"an image of another {what}", _must_not_verify(content)),
        "it verifies",
    )


_INCOMPATIBLE: Final = (
    ("node type", "WRONG_NODE_TYPE", make_image("3.0.0", 5, node_type=NodeType.COMM_GATEWAY)),
    ("hardware", "WRONG_HARDWARE", make_image("3.0.0", 5, hardware_id=8)),
    ("version (older)", "VERSION_DOWNGRADE", make_image("1.0.0", 5)),
    ("security counter (lower)", "SECURITY_DOWNGRADE", make_image("3.0.0", 1)),
    ("security counter (used up)", "SECURITY_COUNTER_JUMP", make_image("3.0.0", 3 + (1 << 24) + 1)),
)

GUARDS: Final = (
    _guard(
        "CRC read back",
        _JUDGE,
        "activating what is not what was sent",
        _without(FailureReason.CRC_MISMATCH),
        rig("a CRC that is not the image's", _announced_as(NEW, NEW, 1)),
        "it verifies",
    ),
    _guard(
        "hash read back",
        _JUDGE,
        "activating what is not what was announced",
        _without(FailureReason.HASH_MISMATCH),
        rig("another image than announced", _announced_as(NEW, make_image("3.0.0", 5, size=150, hardware_id=8))),
        "it verifies",
    ),
    _guard(
        "clean slot",
        _JUDGE,
        "remains behind an image",
        _without(FailureReason.SLOT_NOT_CLEAN),
        rig("something behind the image", _not_clean),
        "it verifies",
    ),
    _guard(
        "signature before activation",
        _JUDGE,
        "activating what nobody signed",
        _without(FailureReason.IMAGE_REJECTED),
        rig("an image whose signature does not match", _must_not_verify(_BAD)),
        "it verifies",
    ),
    *(_compatible(*row) for row in _INCOMPATIBLE),
    _guard(
        "the only confirmed image",
        "sim.programming:ProgrammingMemory._holds_only_confirmed",
        "erasing the image to go back to during its successor's trial",
        by(ProgrammingMemory, "_holds_only_confirmed", property(lambda _: False)),
        rig("an erase during a trial", _erase_on_trial),
        "it gives up the only confirmed image",
    ),
    _guard(
        "activation given up first",
        "sim.programming:ProgrammingMemory.erase",
        "booting a bank that is being erased",
        by(Bootloader, "revert", lambda _: None),
        rig("an erase after an activation", _activation_outlived),
        "an activation outlasts what it activates",
    ),
    _guard(
        "verified since the last change",
        "sim.programming:ProgrammingMemory._begin_change",
        "activating what was written after the verification",
        by(ProgrammingMemory, "_begin_change", lambda _: None),
        rig("a new announcement after verification", _verify_then_write),
        "what was verified before counts for what comes",
    ),
    _guard(
        "read back after each step",
        "sim.flash_queue:FlashQueue._read_back",
        "going on after a sector lost bits",
        by(FlashQueue, "_read_back", lambda *_: None),
        rig("a sector that loses bits silently", _silent_defect),
        "a transfer into a bad sector succeeds",
    ),
    _guard(
        "running bank in flash",
        "sim.flash:Flash._refusal",
        "erasing what runs",
        _unprotected(FlashError.RUNNING_BANK),
        rig("an erase of the running bank", _running_bank),
        "it erases what runs",
    ),
    _guard(
        "erased before it is programmed",
        "sim.flash:Flash.start_program",
        "bits of two images in one unit",
        by(Flash, "is_blank", lambda *_: True),
        rig("programming what is not erased", _not_erased),
        "it programs what is not erased",
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
)
