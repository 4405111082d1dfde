"""The node's own verdict on an image that it reads back from flash, before it may be activated."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from enum import Enum

from ess_can.errors import EssCanError
from ess_can.sim.boot_records import ImageId
from ess_can.sim.bootloader import Bootloader
from ess_can.sim.flash import FlashError
from ess_can.trust.compatibility import MAX_COUNTER_STEP, NodeFacts, check_compatibility
from ess_can.uds.target import Nrc


class FailureReason(Enum):
    """Why a node's memory did not do what was asked."""

    FLASH_WRITE_FAILED = "flash could not be erased or programmed"
    UNREADABLE = "flash could not be read back"
    CRC_MISMATCH = "CRC-32 read back is not the one announced"
    HASH_MISMATCH = "SHA-256 read back is not the one announced"
    SLOT_NOT_CLEAN = "something follows the image in its slot"
    IMAGE_REJECTED = "the image does not verify"
    INCOMPATIBLE = "the image is not for this node, or older than it has seen"


@dataclass(frozen=True, slots=True)
class MemoryFailure:
    """A reason, and the evidence in words."""

    reason: FailureReason
    detail: str

    @property
    def nrc(self) -> Nrc:
        """The negative response that it leads to."""
        incompatible = self.reason is FailureReason.INCOMPATIBLE
        return Nrc.CONDITIONS_NOT_CORRECT if incompatible else Nrc.GENERAL_PROGRAMMING_FAILURE


def judge(
    bootloader: Bootloader,
    bank: int,
    image: ImageId,
    crc32: int,
    node: NodeFacts,
    max_counter_step: int = MAX_COUNTER_STEP,
) -> MemoryFailure | None:
    """Every check between the bytes in flash and the permission to boot them; None if all hold.

    CRC-32, SHA-256, an otherwise blank slot, the signature, node type, hardware, version, security counter.
    """
    flash, geometry = bootloader.flash, bootloader.flash.geometry
    content = flash.read(bank, geometry.slot_offset, image.size)
    if isinstance(content, FlashError):
        return MemoryFailure(FailureReason.UNREADABLE, content.value)
    actual = zlib.crc32(content)
    if actual != crc32:
        return MemoryFailure(FailureReason.CRC_MISMATCH, f"read back {actual:08x}, announced {crc32:08x}")
    digest = hashlib.sha256(content)
    if digest.digest() != image.sha256:
        detail = f"read back {digest.hexdigest()}, announced {image.sha256.hex()}"
        return MemoryFailure(FailureReason.HASH_MISMATCH, detail)
    tail = geometry.slot_offset + image.size + -image.size % geometry.unit_size
    if not flash.is_blank(bank, tail, geometry.bank_size - tail):
        return MemoryFailure(FailureReason.SLOT_NOT_CLEAN, f"behind slot offset {tail - geometry.slot_offset}")
    try:
        facts = bootloader.verify(content)
    except EssCanError as error:
        return MemoryFailure(FailureReason.IMAGE_REJECTED, f"{error.name}: {error}")
    try:
        check_compatibility(facts, node, max_counter_step)
    except EssCanError as error:
        return MemoryFailure(FailureReason.INCOMPATIBLE, f"{error.name}: {error}")
    return None
