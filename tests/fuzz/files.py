"""Firmware and upgrade files as an attacker, a bad disk or another program may leave them."""

from __future__ import annotations

import hashlib
import json
import random
import struct
from dataclasses import dataclass
from functools import cache

import bincopy

from ess_can.errors import EssCanError, ImageInvalid
from ess_can.image.content import ImageContent
from ess_can.image.manifest import encode_manifest, parse_manifest
from ess_can.image.node_image import HEADER_SIZE, SLOT_SIZE, NodeImage, parse_node_image
from ess_can.image.readers import FirmwareFormat, parse_firmware
from ess_can.image.upgrade_file import assemble, split_upgrade_file
from ess_can.trust.verify import open_upgrade_file, verify_node_image
from tests.firmware_images import FIRMWARE, RELEASE, RING, area, raw_image, small_image, small_upgrade, tlv
from tests.fuzz.inputs import EDGES, dice, mutated, noise, one_of
from tests.unit.image.test_readers import elf

TLVS = (0x01, 0x10, 0x20, 0x22, 0x24, 0x30, 0x40, 0x50, 0x60, 0xA0, 0xA1, 0x00, 0xFF, 0xFFFF)


@cache
def good_image() -> bytes:
    return small_image()


@cache
def good_upgrade() -> bytes:
    return small_upgrade()


@dataclass(frozen=True, slots=True)
class Announced:
    """A content that has few bytes and says it has many (zeros); whoever reads a lot of it is caught by memory."""

    data: bytes
    size: int

    def read(self, offset: int, size: int) -> bytes:
        """See `ImageContent`."""
        size = max(0, min(size, self.size - offset))
        return self.data[offset : offset + size].ljust(size, b"\0")


# --- node images ------------------------------------------------------------------------------


def image_case(number: int) -> None:
    """A typed error, or exactly the image that was signed; and a publisher's own nonsense is a typed error, too."""
    rng = dice("image", number)
    good = good_image()
    bad = mutated(rng, good, (good,)) if rng.random() < 0.5 else odd_image(rng)
    source: ImageContent | bytes = bad
    if rng.random() < 0.1:
        source = Announced(bad, rng.choice((SLOT_SIZE, SLOT_SIZE + 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 40)))
    try:
        facts = parse_node_image(source)
    except EssCanError as error:
        assert 20 < error.exit_code < 40  # noqa: PT017
    else:
        assert covered(bad, facts)
    try:
        verified = verify_node_image(source, RING)
    except EssCanError as error:
        assert 20 < error.exit_code < 40  # noqa: PT017
    else:
        assert covered(bad, verified.facts)
        assert bad[: verified.facts.signed_size] == good[: verified.facts.signed_size] or number_of_tlvs_signed(bad)


def covered(image: bytes, facts: NodeImage) -> bool:
    """Every fact comes from what the signature covers, and nothing follows."""
    assert facts.size == len(image)
    assert HEADER_SIZE + facts.payload_size < facts.signed_size < facts.size
    assert len(image[facts.signed_size :]) in (40, 144)
    return struct.pack("<I", facts.security_counter) in image[HEADER_SIZE + facts.payload_size : facts.signed_size]


def number_of_tlvs_signed(image: bytes) -> bool:
    """Whether our own key signed it: `odd_image` does that to get behind the signature."""
    digest = image[-144 + 8 : -144 + 40]
    return FIRMWARE.public.verify(image[-64:], digest)


def odd_image(rng: random.Random) -> bytes:
    """Well signed, of TLVs in any number, order, size and area, with any lengths announced."""
    protected = [tlv(0x50, struct.pack("<I", 2)), tlv(0xA0, b"\x00"), tlv(0xA1, b"\x11")]
    for _ in range(rng.randrange(3)):
        odd = tlv(rng.choice(TLVS), noise(rng, 70))
        protected.insert(rng.randrange(len(protected) + 1), odd)
    if rng.random() < 0.3:
        rng.shuffle(protected)
    if rng.random() < 0.2:
        del protected[rng.randrange(len(protected))]
    body = area(one_of(rng, 0x6908, 0x6908, 0x6908, 0x6907), *protected)
    if rng.random() < 0.2:
        body = body[:2] + struct.pack("<H", rng.choice(EDGES) & 0xFFFF) + body[4:]
    image = raw_image(
        body,
        b"",
        protected_size=rng.choice((None, None, None, rng.choice(EDGES) & 0xFFFF)),
        payload_size=rng.choice((None, None, None, rng.choice(EDGES))),
        flags=rng.choice((0, 0, 0, 1, 4, 0x20)),
        header_size=rng.choice((HEADER_SIZE, HEADER_SIZE, HEADER_SIZE, 0, 32, 0xFFFF)),
    )
    digest = hashlib.sha256(image).digest()
    tail = [tlv(0x10, digest), tlv(0x01, FIRMWARE.key_id), tlv(0x24, FIRMWARE.sign(digest))]
    if rng.random() < 0.5:  # a fact moved to where nothing signs it, a second hash, ...
        tail.insert(rng.randrange(4), tlv(rng.choice(TLVS), rng.choice((b"", struct.pack("<I", 99), digest))))
    if rng.random() < 0.1:
        rng.shuffle(tail)
    end = area(0x6907, *tail)
    if rng.random() < 0.2:
        end = end[:2] + struct.pack("<H", rng.choice((0, 3, 4, len(end) - 1, len(end) + 1, 0xFFFF))) + end[4:]
    return image + end + (noise(rng, 9) if rng.random() < 0.2 else b"")


# --- upgrade files ----------------------------------------------------------------------------


def upgrade_case(number: int) -> None:
    """A typed error, or exactly the file that was signed."""
    rng = dice("upgrade", number)
    good = good_upgrade()
    bad = mutated(rng, good, (good, good_image()))
    source: ImageContent | bytes = bad
    if rng.random() < 0.1:
        source = Announced(bad, rng.choice((64 << 20, (64 << 20) + 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 40)))
    try:
        split_upgrade_file(source)
    except EssCanError as error:
        assert 20 < error.exit_code < 40  # noqa: PT017
    try:
        open_upgrade_file(source, RING)
    except EssCanError as error:
        assert 20 < error.exit_code < 40  # noqa: PT017
    else:
        assert bad == good


def manifest_case(number: int) -> None:
    """A manifest that a trusted key signed, of any JSON: a typed error, or its one canonical form."""
    rng = dice("manifest", number)
    text = odd_manifest(rng)
    try:
        manifest = parse_manifest(text)
    except EssCanError as error:
        assert 20 < error.exit_code < 40  # noqa: PT017
    else:
        assert encode_manifest(manifest) == text
    if len(text) > 64 * 1024 or not text:
        return
    try:
        upgrade = open_upgrade_file(assemble(text, [good_image()], RELEASE), RING)
    except EssCanError as error:
        assert 20 < error.exit_code < 40  # noqa: PT017
    else:
        assert [image.sha256 for image in upgrade.images] == [hashlib.sha256(good_image()).digest()]


def odd_manifest(rng: random.Random) -> bytes:
    text = split_upgrade_file(good_upgrade()).manifest
    document = json.loads(text)
    match rng.randrange(7):
        case 0:
            return mutated(rng, text, (text,))
        case 1:  # deep
            depth = rng.choice((10, 900, 5_000, 30_000))
            opened, closed = one_of(rng, (b"[", b"]"), (b'{"a":', b"}"))
            return (opened * depth + b"1" + closed * (depth if rng.random() < 0.5 else 0))[: 70 * 1024]
        case 2:  # one member twice
            name = rng.choice(sorted(document))
            twice = json.dumps({name: document[name]}, separators=(",", ":"))[1:-1].encode()
            return text[:-1] + b"," + twice + b"}"
        case 3:
            document[rng.choice(sorted(document))] = odd_value(rng)
        case 4:
            image = document["images"][0]
            image[rng.choice(sorted(image))] = odd_value(rng)
        case 5:
            document["images"] = document["images"] * rng.choice((0, 2, 16, 17, 100))
        case _:
            names = ("..", "../../etc/passwd", "a\0b", "A" * 65, " a", "a ", "%s%n", "\u202e", "a/b", "a\\b", "-rf")
            document["release_name"] = rng.choice(names)
    dumped = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return dumped.replace(b'"1e5000"', b"9" * 5_000)


def odd_value(rng: random.Random) -> object:
    return rng.choice(
        (
            None,
            True,
            -1,
            2**31,
            2**32,
            2**64,
            10 ** rng.choice((20, 300, 4_000)),
            "1e5000",
            0.5,
            1e308,
            "",
            "..",
            "9" * rng.choice((3, 5_000)),
            "1.2.0",
            "999.0.0",
            "2026-02-30",
            "0" * 64,
            [],
            [0, 0],
            [256],
            list(range(300)),
            {},
            {"a": []},
            [{}],
        )
    )


# --- what linkers write -----------------------------------------------------------------------


@cache
def firmware_files() -> dict[FirmwareFormat, tuple[bytes, ...]]:
    file = bincopy.BinFile()
    file.add_binary(bytes(range(200)), address=0x0802_0200)
    file.add_binary(b"tail", address=0x0802_0300)
    wide = elf()[:4] + b"\x02" + elf()[5:]
    return {
        FirmwareFormat.HEX: (file.as_ihex().encode(),),
        FirmwareFormat.SREC: (file.as_srec().encode(), file.as_srec().encode() + b"S70508020200EE\n"),
        FirmwareFormat.ELF: (elf(), elf(bytes(300)), wide),
        FirmwareFormat.BIN: (bytes(100),),
    }


def firmware_case(number: int) -> None:
    """A typed error, or no more bytes than are allowed."""
    rng = dice("firmware", number)
    kind = rng.choice(
        (FirmwareFormat.HEX, FirmwareFormat.SREC, FirmwareFormat.ELF, FirmwareFormat.ELF, FirmwareFormat.BIN)
    )
    good = rng.choice(firmware_files()[kind])
    if kind is FirmwareFormat.ELF and rng.random() < 0.7:
        bad = odd_elf(rng, good)
    elif kind in (FirmwareFormat.HEX, FirmwareFormat.SREC) and rng.random() < 0.7:
        bad = odd_records(rng, kind, good)
    else:
        bad = mutated(rng, good, (good,))
    try:
        firmware = parse_firmware(bad, kind, limit=1 << 20)
    except EssCanError as error:
        assert isinstance(error, ImageInvalid) or error.exit_code in range(21, 40)  # noqa: PT017
    else:
        assert len(firmware.data) <= 1 << 20
        assert firmware.base_address >= 0


def odd_elf(rng: random.Random, good: bytes) -> bytes:
    """Numbers in the headers at the edges of their type."""
    data = bytearray(good)
    for _ in range(rng.randrange(1, 4)):
        size = rng.choice((2, 4, 8))
        at = rng.choice((rng.randrange(16, 0x74), rng.randrange(len(data))))
        data[at : at + size] = (rng.choice(EDGES) & (1 << 8 * size) - 1).to_bytes(size, "little")
    return bytes(data)


def odd_records(rng: random.Random, kind: FirmwareFormat, good: bytes) -> bytes:
    """Records with a right check sum in any order, of any type, at any address."""
    lines = good.decode().splitlines()
    for _ in range(rng.randrange(1, 6)):
        content = noise(rng, 40)
        if kind is FirmwareFormat.HEX:
            line = bincopy.pack_ihex(rng.randrange(7), rng.choice(EDGES) & 0xFFFF, len(content), content)
        else:
            line = bincopy.pack_srec(rng.choice("01235789"), rng.choice(EDGES) & 0xFFFF, len(content), content)
        lines.insert(rng.randrange(len(lines) + 1), line)
    if rng.random() < 0.2:
        rng.shuffle(lines)
    if rng.random() < 0.2:
        lines = [line for line in lines for _ in range(rng.choice((1, 2)))]
    return rng.choice(("\n", "\r\n", "\r")).join(lines).encode()
