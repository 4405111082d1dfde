"""Small firmware files for tests: good ones, and their keys."""

from __future__ import annotations

import hashlib
import struct
from datetime import date

from ess_can.identity import NodeType, Version
from ess_can.image.manifest import Dependency
from ess_can.image.node_image import HEADER_SIZE, Signer, build_node_image
from ess_can.image.upgrade_file import Content, build_upgrade_file
from ess_can.trust.keys import KeyRing, SigningKey

RELEASE = SigningKey.from_seed(hashlib.sha256(b"release").digest(), "release")
FIRMWARE = SigningKey.from_seed(hashlib.sha256(b"firmware").digest(), "firmware")
STRANGER = SigningKey.from_seed(hashlib.sha256(b"stranger").digest(), "stranger")
RING = KeyRing.of(RELEASE.public, FIRMWARE.public)
CREATED = date(2026, 11, 20)
NEWER = Version(1, 1, 0)


def small_image(
    *,
    payload: bytes = b"firmware",
    version: Version = NEWER,
    node_type: NodeType = NodeType.BMU,
    hardware_ids: tuple[int, ...] = (0x11,),
    security_counter: int = 2,
    signer: Signer | None = FIRMWARE,
) -> bytes:
    return build_node_image(
        payload,
        version=version,
        node_type=node_type,
        hardware_ids=hardware_ids,
        security_counter=security_counter,
        signer=signer,
    )


def small_upgrade(
    *images: bytes,
    signer: Signer | None = RELEASE,
    depends: tuple[Dependency, ...] = (),
    expires: date | None = None,
) -> bytes:
    """An upgrade file of these images (one BMU image if none); `depends` is for each of them."""
    return build_upgrade_file(
        [Content(image, depends) for image in images or (small_image(),)],
        release_name="Test release",
        release_version=NEWER,
        created=CREATED,
        expires=expires,
        signer=signer,
    )


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("<HH", kind, len(value)) + value


def area(magic: int, *tlvs: bytes) -> bytes:
    body = b"".join(tlvs)
    return struct.pack("<HH", magic, 4 + len(body)) + body


def raw_image(
    protected: bytes,
    tail: bytes | None = None,
    *,
    payload: bytes = b"firmware",
    magic: int = 0x96F3B83D,
    load: int = 0,
    header_size: int = HEADER_SIZE,
    protected_size: int | None = None,
    payload_size: int | None = None,
    flags: int = 0,
    pad: int = 0,
) -> bytes:
    """An image put together field by field; the usual signed TLVs end it unless `tail` is given."""
    header = struct.pack(
        "<IIHHIIBBHII",
        magic,
        load,
        header_size,
        len(protected) if protected_size is None else protected_size,
        len(payload) if payload_size is None else payload_size,
        flags,
        1,
        1,
        0,
        0,
        pad,
    )
    signed = header.ljust(HEADER_SIZE, b"\xff") + payload + protected
    return signed + (signed_tail(signed) if tail is None else tail)


def signed_tail(signed: bytes) -> bytes:
    digest = hashlib.sha256(signed).digest()
    return area(0x6907, tlv(0x10, digest), tlv(0x01, FIRMWARE.key_id), tlv(0x24, FIRMWARE.sign(digest)))


COUNTER = tlv(0x50, struct.pack("<I", 2))
TYPE = tlv(0xA0, b"\x02")
HARDWARE = tlv(0xA1, b"\x11")
PROTECTED = area(0x6908, COUNTER, TYPE, HARDWARE)
