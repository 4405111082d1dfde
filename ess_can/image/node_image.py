"""The image of one node: an MCUboot image, built and strictly parsed.

The format is MCUboot's (mcuboot docs/design.md, "Image format"); all numbers are little-endian:

====== ==== =============================================================================
offset size field
====== ==== =============================================================================
0      4    magic 0x96f3b83d
4      4    load address: 0, the image runs in place
8      2    header size: 0x200, room for the alignment of the vector table
10     2    size of the protected TLV area, its own header included
12     4    payload size
16     4    flags: 0 (neither encrypted, compressed, RAM-loaded nor non-bootable)
20     8    version: u8 major, u8 minor, u16 revision, u32 build
28     4    padding: 0
32     480  filling up to the header size (0xFF as erased flash; signed like everything before the TLVs)
0x200  n    payload
...    p    protected TLV area: u16 0x6908, u16 size, TLVs (security counter, node type, hardware ids)
...    144  TLV area: u16 0x6907, u16 size, TLVs SHA-256, key hash, Ed25519, in this order
====== ==== =============================================================================

A TLV is u16 type, u16 length, value.  SHA-256 covers everything up to the end of the protected area, and Ed25519 signs
that 32-byte digest.  The last TLV area cannot be signed, so nothing in it describes the image: every fact comes from
the header and the protected area.  An image that `imgtool sign` makes with a header of 0x200 bytes, a security counter
and our two custom TLVs is accepted; anything that this module does not know is refused.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from ess_can.errors import FileTooLarge, ImageInvalid
from ess_can.identity import NodeType, Version
from ess_can.image.content import ImageContent, as_content

MAGIC = 0x96F3B83D
HEADER_SIZE = 0x200
SLOT_SIZE = 896 * 1024
"""Bytes of a slot of our nodes' flash: the largest image."""
MAX_HARDWARE_IDS = 8

_HEADER = struct.Struct("<IIHHIIBBHII")
_TLV = struct.Struct("<HH")
_PROTECTED_MAGIC = 0x6908
_UNPROTECTED_MAGIC = 0x6907
_U32 = struct.Struct("<I")


class Tlv(IntEnum):
    """TLV types: MCUboot's, and ours from its vendor range."""

    KEYHASH = 0x01
    SHA256 = 0x10
    ED25519 = 0x24
    SECURITY_COUNTER = 0x50
    NODE_TYPE = 0x00A0  # protected, u8: NodeType
    HARDWARE_IDS = 0x00A1  # protected, one u8 for each hardware id, ascending


_DIGEST_SIZE = 32
_SIGNATURE_SIZE = 64
SIGNED_TAIL_SIZE = _TLV.size + (_TLV.size + _DIGEST_SIZE) * 2 + _TLV.size + _SIGNATURE_SIZE
"""Bytes of the unprotected TLV area of a signed image: what the signature does not cover."""


class Signer(Protocol):
    """Something that signs with one Ed25519 key."""

    @property
    def key_id(self) -> bytes:
        """SHA-256 of the public key's SubjectPublicKeyInfo: MCUboot's key hash."""

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`."""


@dataclass(frozen=True, slots=True)
class NodeImage:
    """What an image says of itself, and how it is signed.  Not verified: see `ess_can.trust`.

    Sizes in bytes.  `signed_size` counts from the start to the end of the protected area.  `key_id` and `signature`
    are None together, in an unsigned image.
    """

    version: Version
    node_type: NodeType
    hardware_ids: tuple[int, ...]
    security_counter: int
    payload_size: int
    signed_size: int
    size: int
    digest: bytes
    key_id: bytes | None
    signature: bytes | None


def build_node_image(
    payload: bytes,
    *,
    version: Version,
    node_type: NodeType,
    hardware_ids: tuple[int, ...],
    security_counter: int,
    signer: Signer | None,
) -> bytes:
    """Wrap `payload`, linked to run 0x200 bytes behind the start of the slot.  Unsigned if `signer` is None.

    Raises ImageInvalid if a value does not fit the format.
    """
    if not payload:
        raise ImageInvalid("the firmware has no bytes", remedy="Build the firmware again.")
    if not 0 <= security_counter <= 0xFFFF_FFFF:
        raise ImageInvalid(
            "the security counter does not fit", why=f"{security_counter} is outside 0..4294967295", remedy=_CHOOSE
        )
    if (problem := hardware_ids_problem(hardware_ids)) is not None:
        raise ImageInvalid("the hardware ids are not usable", why=problem, remedy=_CHOOSE)
    protected = _area(
        _PROTECTED_MAGIC,
        (Tlv.SECURITY_COUNTER, _U32.pack(security_counter)),
        (Tlv.NODE_TYPE, bytes([node_type])),
        (Tlv.HARDWARE_IDS, bytes(hardware_ids)),
    )
    header = _HEADER.pack(
        MAGIC,
        0,
        HEADER_SIZE,
        len(protected),
        len(payload),
        0,
        version.major,
        version.minor,
        version.revision,
        version.build,
        0,
    )
    signed = header.ljust(HEADER_SIZE, b"\xff") + payload + protected
    digest = hashlib.sha256(signed).digest()
    if signer is None:
        return signed + _area(_UNPROTECTED_MAGIC, (Tlv.SHA256, digest))
    return signed + _area(
        _UNPROTECTED_MAGIC,
        (Tlv.SHA256, digest),
        (Tlv.KEYHASH, signer.key_id),
        (Tlv.ED25519, signer.sign(digest)),
    )


def parse_node_image(source: ImageContent | bytes, slot_size: int = SLOT_SIZE) -> NodeImage:
    """Take an image apart, reading its header and its TLVs.  Checks the form only, neither hash nor signature.

    Raises FileTooLarge if it exceeds `slot_size`, ImageInvalid if any rule of the format is broken.
    """
    image = as_content(source)
    if image.size > slot_size:
        raise FileTooLarge(
            "the image does not fit", why=f"{image.size} bytes, the slot has {slot_size}", remedy=LARGER_SLOT
        )
    version, payload_size, protected_size = _parse_header(image)
    signed_size = HEADER_SIZE + payload_size + protected_size
    if signed_size > image.size:
        raise _invalid(f"the header announces {signed_size} bytes before the signature, the image has {image.size}")

    protected = _parse_area(image, signed_size - protected_size, _PROTECTED_MAGIC)
    if protected.end != signed_size:
        raise _invalid("the protected TLVs have another size than the header announces")
    if set(protected.values) != {Tlv.SECURITY_COUNTER, Tlv.NODE_TYPE, Tlv.HARDWARE_IDS}:
        raise _invalid(
            "the protected TLVs must be exactly security counter (0x50), node type (0xA0) and hardware ids (0xA1), "
            f"they are {_names(protected.values)}"
        )
    counter = protected.sized(Tlv.SECURITY_COUNTER, _U32.size)
    type_number = protected.sized(Tlv.NODE_TYPE, 1)[0]
    if type_number not in set(NodeType):
        raise _invalid(f"{type_number} is no node type")
    hardware_ids = tuple(protected.values[Tlv.HARDWARE_IDS])
    if (problem := hardware_ids_problem(hardware_ids)) is not None:
        raise _invalid(problem)

    tail = _parse_area(image, signed_size, _UNPROTECTED_MAGIC)
    if tail.end != image.size:
        raise _invalid(f"{image.size - tail.end} bytes follow the TLVs, and nothing covers them")
    order = tuple(tail.values)
    if order not in ((Tlv.SHA256, Tlv.KEYHASH, Tlv.ED25519), (Tlv.SHA256,)):
        raise _invalid(
            "the unprotected TLVs must be SHA-256 (0x10), key hash (0x01) and Ed25519 (0x24), in this order, "
            f"they are {_names(order)}"
        )
    signed = len(order) > 1
    return NodeImage(
        version=version,
        node_type=NodeType(type_number),
        hardware_ids=hardware_ids,
        security_counter=_U32.unpack(counter)[0],
        payload_size=payload_size,
        signed_size=signed_size,
        size=image.size,
        digest=tail.sized(Tlv.SHA256, _DIGEST_SIZE),
        key_id=tail.sized(Tlv.KEYHASH, _DIGEST_SIZE) if signed else None,
        signature=tail.sized(Tlv.ED25519, _SIGNATURE_SIZE) if signed else None,
    )


def hardware_ids_problem(hardware_ids: tuple[int, ...]) -> str | None:
    """What is wrong with a list of hardware ids: one to eight bytes, ascending, none twice.  None if it is good."""
    if not 1 <= len(hardware_ids) <= MAX_HARDWARE_IDS:
        return f"{len(hardware_ids)} hardware ids, there must be 1 to {MAX_HARDWARE_IDS}"
    if any(not 0 <= number <= 0xFF for number in hardware_ids):
        return "a hardware id is outside 0..255"
    if list(hardware_ids) != sorted(set(hardware_ids)):
        return "the hardware ids do not ascend"
    return None


LARGER_SLOT = "If the nodes' slots are larger, say so with --slot-kib; else the firmware is too large for them."
_CHOOSE = "Choose values that the format can hold; see `ess-can image sign --help`."


@dataclass(frozen=True, slots=True)
class _Area:
    """A TLV area: values by type in the order of the bytes, and the offset behind it."""

    values: dict[int, bytes]
    end: int

    def sized(self, tlv: Tlv, size: int) -> bytes:
        value = self.values[tlv]
        if len(value) != size:
            raise _invalid(f"TLV {tlv:#04x} ({tlv.name}) has {len(value)} bytes, not {size}")
        return value


def _parse_header(image: ImageContent) -> tuple[Version, int, int]:
    """Give version, payload size and size of the protected area."""
    if image.size < HEADER_SIZE:
        raise _invalid(f"{image.size} bytes are fewer than the header has")
    magic, load, header_size, protected_size, payload_size, flags, major, minor, revision, build, pad = _HEADER.unpack(
        image.read(0, _HEADER.size)
    )
    if magic != MAGIC:
        raise _invalid(f"it starts with {magic:#010x}, not with MCUboot's magic {MAGIC:#010x}")
    if header_size != HEADER_SIZE:
        raise _invalid(f"the header has {header_size:#x} bytes, not {HEADER_SIZE:#x}")
    if (load, flags, pad) != (0, 0, 0):
        raise _invalid(f"load address {load:#x}, flags {flags:#x} and padding {pad:#x} must be 0")
    if payload_size == 0:
        raise _invalid("it has no payload")
    if protected_size == 0:
        raise _invalid("it has no protected TLVs")
    return Version(major, minor, revision, build), payload_size, protected_size


def _read_area(image: ImageContent, start: int, magic: int) -> bytes:
    """The TLV area at `start`, of which the size is a u16."""
    if start + _TLV.size > image.size:
        raise _invalid(f"it ends at {image.size}, before the TLVs at {start}")
    found, size = _TLV.unpack(image.read(start, _TLV.size))
    if found != magic:
        raise _invalid(f"the TLVs at {start} start with {found:#06x}, not with {magic:#06x}")
    if size < _TLV.size or start + size > image.size:
        raise _invalid(f"the TLVs at {start} announce {size} bytes, {image.size - start} are left")
    return image.read(start, size)


def _parse_area(image: ImageContent, start: int, magic: int) -> _Area:
    area = _read_area(image, start, magic)
    values: dict[int, bytes] = {}
    for kind, value in _tlvs(area):
        if kind in values:
            raise _invalid(f"TLV {kind:#04x} occurs twice")
        values[kind] = value
    return _Area(values, start + len(area))


def _tlvs(area: bytes) -> Iterator[tuple[int, bytes]]:
    offset, end = _TLV.size, len(area)
    while offset < end:
        if offset + _TLV.size > end:
            raise _invalid(f"{end - offset} stray bytes end the TLVs")
        kind, size = _TLV.unpack_from(area, offset)
        offset += _TLV.size
        if offset + size > end:
            raise _invalid(f"TLV {kind:#04x} announces {size} bytes, {end - offset} are left")
        yield kind, area[offset : offset + size]
        offset += size


def _area(magic: int, *tlvs: tuple[Tlv, bytes]) -> bytes:
    body = b"".join(_TLV.pack(kind, len(value)) + value for kind, value in tlvs)
    return _TLV.pack(magic, _TLV.size + len(body)) + body


def _names(kinds: tuple[int, ...] | dict[int, bytes]) -> str:
    return ", ".join(f"{kind:#04x}" for kind in kinds) or "none"


def _invalid(why: str) -> ImageInvalid:
    return ImageInvalid("not an acceptable MCUboot image", why=why)
