from __future__ import annotations

import hashlib
import struct

import pytest

from ess_can.errors import FileTooLarge, ImageInvalid
from ess_can.identity import NodeType, Version
from ess_can.image.node_image import (
    HEADER_SIZE,
    MAX_HARDWARE_IDS,
    SIGNED_TAIL_SIZE,
    build_node_image,
    parse_node_image,
)
from tests.firmware_images import (
    COUNTER,
    FIRMWARE,
    HARDWARE,
    PROTECTED,
    TYPE,
    area,
    raw_image,
    signed_tail,
    small_image,
    tlv,
)


def test_what_is_built_is_what_is_read() -> None:
    image = small_image(version=Version(1, 2, 3, 4), hardware_ids=(0x11, 0x12), security_counter=7)
    facts = parse_node_image(image)
    assert facts.version == Version(1, 2, 3, 4)
    assert facts.node_type is NodeType.BMU
    assert facts.hardware_ids == (0x11, 0x12)
    assert facts.security_counter == 7
    assert facts.payload_size == len(b"firmware")
    assert facts.size == len(image)
    assert facts.signed_size == len(image) - SIGNED_TAIL_SIZE
    assert facts.digest == hashlib.sha256(image[: facts.signed_size]).digest()
    assert facts.key_id == FIRMWARE.key_id
    assert facts.signature == FIRMWARE.sign(facts.digest)


def test_the_helper_of_these_tests_builds_the_same_bytes() -> None:
    assert raw_image(PROTECTED) == small_image()


def test_an_unsigned_image_says_so() -> None:
    facts = parse_node_image(small_image(signer=None))
    assert facts.key_id is None
    assert facts.signature is None


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (b"", "fewer than the header"),
        (small_image()[: HEADER_SIZE - 1], "fewer than the header"),
        (raw_image(PROTECTED, magic=0x96F3B83C), "magic"),
        (raw_image(PROTECTED, load=1), "load address"),
        (raw_image(PROTECTED, flags=0x10), "flags"),
        (raw_image(PROTECTED, pad=1), "padding"),
        (raw_image(PROTECTED, header_size=0x400), "header has 0x400"),
        (raw_image(PROTECTED, payload=b""), "no payload"),
        (raw_image(b""), "no protected"),
        (raw_image(PROTECTED, payload_size=0xFFFF_FFFF), "announces"),
        (raw_image(PROTECTED, payload_size=9), "start with"),
        (raw_image(PROTECTED, protected_size=len(PROTECTED) + 1), "another size"),
        (raw_image(area(0x6907, COUNTER, TYPE, HARDWARE)), "start with 0x6907"),
        (raw_image(area(0x6908, COUNTER, TYPE)), "exactly"),
        (raw_image(area(0x6908, COUNTER, TYPE, HARDWARE, tlv(0xA2, b"?"))), "exactly"),
        (raw_image(area(0x6908, COUNTER, TYPE, TYPE, HARDWARE)), "0xa0 occurs twice"),
        (raw_image(area(0x6908, tlv(0x50, b"\x02\x00"), TYPE, HARDWARE)), "has 2 bytes, not 4"),
        (raw_image(area(0x6908, COUNTER, tlv(0xA0, b"\x02\x02"), HARDWARE)), "has 2 bytes, not 1"),
        (raw_image(area(0x6908, COUNTER, tlv(0xA0, b"\x09"), HARDWARE)), "no node type"),
        (raw_image(area(0x6908, COUNTER, TYPE, tlv(0xA1, b""))), "0 hardware ids"),
        (raw_image(area(0x6908, COUNTER, TYPE, tlv(0xA1, b"\x12\x11"))), "ascend"),
        (raw_image(area(0x6908, COUNTER, TYPE, HARDWARE, b"\x00")), "stray bytes"),
        (raw_image(area(0x6908, COUNTER, TYPE, HARDWARE[:-1])), "announces 1 bytes, 0 are left"),
        (raw_image(PROTECTED, b""), "ends at"),
        (raw_image(PROTECTED, struct.pack("<HH", 0x6907, 3)), "announce 3 bytes"),
        (raw_image(PROTECTED, struct.pack("<HH", 0x6907, 5)), "announce 5 bytes"),
        (raw_image(PROTECTED, struct.pack("<HH", 0x6909, 4)), "start with 0x6909"),
        (raw_image(PROTECTED, area(0x6907)), "they are none"),
        (raw_image(PROTECTED, area(0x6907, tlv(0x10, bytes(31)))), "has 31 bytes, not 32"),
        (raw_image(PROTECTED, area(0x6907, tlv(0x10, bytes(32)), tlv(0x01, bytes(32)))), "in this order"),
        (
            raw_image(PROTECTED, area(0x6907, tlv(0x01, bytes(32)), tlv(0x10, bytes(32)), tlv(0x24, bytes(64)))),
            "in this order",
        ),
        (
            raw_image(PROTECTED, area(0x6907, tlv(0x10, bytes(32)), tlv(0x01, bytes(32)), tlv(0x24, bytes(63)))),
            "has 63 bytes, not 64",
        ),
        (small_image() + b"\xff", "1 bytes follow"),
        (small_image()[:-1], "announce"),
    ],
)
def test_anything_else_is_refused(image: bytes, why: str) -> None:
    with pytest.raises(ImageInvalid, match=why):
        parse_node_image(image)


def test_a_node_type_outside_the_signed_part_is_refused() -> None:
    signed = small_image()[:-SIGNED_TAIL_SIZE]
    tail = signed_tail(signed)
    extended = area(0x6907, tail[4:], tlv(0xA0, b"\x01"))
    with pytest.raises(ImageInvalid, match="in this order"):
        parse_node_image(signed + extended)


def test_every_proper_prefix_is_refused() -> None:
    image = small_image()
    for length in range(len(image)):
        with pytest.raises(ImageInvalid):
            parse_node_image(image[:length])


def test_the_slot_limits_the_size() -> None:
    image = small_image()
    parse_node_image(image, slot_size=len(image))
    with pytest.raises(FileTooLarge, match=str(len(image) - 1)):
        parse_node_image(image, slot_size=len(image) - 1)


@pytest.mark.parametrize(
    ("payload", "counter", "hardware", "why"),
    [
        (b"", 1, (1,), "no bytes"),
        (b"x", -1, (1,), "counter"),
        (b"x", 1 << 32, (1,), "counter"),
        (b"x", 1, (), "0 hardware ids"),
        (b"x", 1, tuple(range(MAX_HARDWARE_IDS + 1)), "9 hardware ids"),
        (b"x", 1, (256,), "outside 0..255"),
        (b"x", 1, (1, 1), "ascend"),
    ],
)
def test_what_the_format_cannot_hold_is_not_built(
    payload: bytes, counter: int, hardware: tuple[int, ...], why: str
) -> None:
    with pytest.raises(ImageInvalid, match=why):
        build_node_image(
            payload,
            version=Version(1, 0, 0),
            node_type=NodeType.BMU,
            hardware_ids=hardware,
            security_counter=counter,
            signer=None,
        )
