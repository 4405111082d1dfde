from __future__ import annotations

import hashlib
import random
import zlib

import pytest

from ess_can.identity import NodeType, Version
from ess_can.sim.boot_records import ImageId, NodeRecords
from ess_can.sim.bootloader import Bootloader
from ess_can.sim.flash import Flash
from ess_can.sim.fram import Fram
from ess_can.sim.image_verdict import FailureReason, MemoryFailure, judge
from ess_can.trust.compatibility import MAX_COUNTER_STEP, NodeFacts
from ess_can.uds.target import Nrc
from tests.unit.sim.memory_rig import GEOMETRY, HARDWARE, make_image, verify

NODE = NodeFacts(NodeType.BMU, HARDWARE, Version(1, 5, 0), 4)
GOOD = make_image("2.0.0", 4)
START = GEOMETRY.slot_offset


def verdict(image: bytes = GOOD, *, crc32: int | None = None, rot: int = 0, ecc: int = 0) -> MemoryFailure | None:
    """What a node says of `image` in bank 1, flipped or unreadable at a bank offset if that is not 0."""
    rng = random.Random(1)
    flash = Flash(rng, geometry=GEOMETRY)
    flash.factory_program(1, START, image)
    if rot:
        flash.inject_bit_rot(1, rot, 1)
    if ecc:
        flash.inject_ecc_error(1, ecc)
    announced = ImageId(len(image), hashlib.sha256(image).digest())
    bootloader = Bootloader(flash, NodeRecords(Fram(rng)), verify)
    return judge(bootloader, 1, announced, zlib.crc32(image) if crc32 is None else crc32, NODE)


def test_a_good_image_is_accepted() -> None:
    assert verdict() is None
    assert verdict(make_image("1.5.0", 4)) is None  # not older


@pytest.mark.parametrize(
    ("failure", "reason", "words"),
    [
        (verdict(crc32=0x1234), FailureReason.CRC_MISMATCH, "announced 00001234"),
        (verdict(rot=START + 99), FailureReason.CRC_MISMATCH, "read back"),
        (verdict(ecc=START), FailureReason.UNREADABLE, "ECC"),
        (verdict(ecc=START + 160), FailureReason.SLOT_NOT_CLEAN, "behind slot offset 160"),
        (verdict(ecc=GEOMETRY.bank_size - 1), FailureReason.SLOT_NOT_CLEAN, "160"),
        (verdict(GOOD[:-1] + b"\0"), FailureReason.IMAGE_REJECTED, "SIGNATURE_INVALID"),
        (verdict(make_image("2.0.0", 4, node_type=NodeType.CMU)), FailureReason.INCOMPATIBLE, "WRONG_NODE_TYPE"),
        (verdict(make_image("2.0.0", 4, hardware_id=9)), FailureReason.INCOMPATIBLE, "WRONG_HARDWARE"),
        (verdict(make_image("1.4.9", 4)), FailureReason.INCOMPATIBLE, "VERSION_DOWNGRADE"),
        (verdict(make_image("2.0.0", 3)), FailureReason.INCOMPATIBLE, "SECURITY_DOWNGRADE"),
        (verdict(make_image("2.0.0", 5 + MAX_COUNTER_STEP)), FailureReason.INCOMPATIBLE, "SECURITY_COUNTER_JUMP"),
    ],
)
def test_each_check_has_its_reason(failure: MemoryFailure | None, reason: FailureReason, words: str) -> None:
    assert failure is not None
    assert failure.reason is reason
    assert words in failure.detail
    incompatible = reason is FailureReason.INCOMPATIBLE
    assert failure.nrc is (Nrc.CONDITIONS_NOT_CORRECT if incompatible else Nrc.GENERAL_PROGRAMMING_FAILURE)


def test_hash_is_checked_even_where_the_crc_agrees() -> None:
    rng = random.Random(1)
    flash = Flash(rng, geometry=GEOMETRY)
    flash.factory_program(1, START, GOOD)
    failure = judge(
        Bootloader(flash, NodeRecords(Fram(rng)), verify), 1, ImageId(len(GOOD), bytes(32)), zlib.crc32(GOOD), NODE
    )
    assert failure is not None
    assert failure.reason is FailureReason.HASH_MISMATCH
