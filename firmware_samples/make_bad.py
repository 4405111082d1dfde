"""Make the bad upgrade files, and the table that says what must be found in each.

Everything derives from one small good file and is deterministic.  Each file in ``bad/`` has one thing wrong and
nothing else; ``verdicts.toml`` names it and the one error that must come of it.  Files that would be large, and paths
that are no files, are left to the tests.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from ess_can.identity import NodeType, Version
from ess_can.image.manifest import ImageEntry, Manifest, encode_manifest
from ess_can.image.node_image import SIGNED_TAIL_SIZE, build_node_image
from ess_can.image.upgrade_file import assemble, describe_image
from ess_can.trust.keys import SigningKey

HERE = Path(__file__).resolve().parent
TODAY = date(2026, 11, 20)
NEWER = Version(1, 1, 0)
HEADER_SIZE = 52
# What runs in the demo plant, as verdicts.toml tells.
PLANT = (
    {"type": "bmu", "hardware_id": 0x11, "version": "1.0.0", "security_counter": 1},
    {"type": "comm_gateway", "hardware_id": 0x21, "version": "1.0.0", "security_counter": 1},
)

RELEASE = SigningKey.load(HERE / "keys" / "TEST-ONLY-release.pem")
FIRMWARE = SigningKey.load(HERE / "keys" / "TEST-ONLY-firmware.pem")
STRANGER = SigningKey.from_seed(hashlib.sha256(b"ess-can TEST ONLY stranger").digest())
PAYLOAD = b"".join(hashlib.sha256(struct.pack("<I", block)).digest() for block in range(64))  # 2 KiB without a pattern


@dataclass(frozen=True, slots=True)
class Bad:
    """A bad file: its content, what is wrong, where that is found ('file' or 'plant'), and the error's name."""

    name: str
    make: Callable[[], bytes]
    what: str
    stage: str
    expected: str


@dataclass(frozen=True, slots=True)
class _ForgedId:
    """Signs with one key and claims to be another."""

    key_id: bytes

    def sign(self, message: bytes) -> bytes:
        return STRANGER.sign(message)


def node_image(
    node_type: NodeType = NodeType.BMU,
    hardware_id: int = 0x11,
    version: Version = NEWER,
    security_counter: int = 2,
    signer: SigningKey | None = FIRMWARE,
) -> bytes:
    """A small image that is good unless told otherwise."""
    return build_node_image(
        PAYLOAD,
        version=version,
        node_type=node_type,
        hardware_ids=(hardware_id,),
        security_counter=security_counter,
        signer=signer,
    )


def manifest_for(*images: bytes, expires: date | None = None) -> Manifest:
    """The true manifest of these images."""
    return Manifest("Bad sample", NEWER, TODAY, tuple(describe_image(image) for image in images), expires)


def release(*images: bytes) -> bytes:
    """A good upgrade file of these images."""
    return assemble(encode_manifest(manifest_for(*images)), images, RELEASE)


def good() -> bytes:
    """The file from which most of the bad ones derive."""
    return release(node_image())


def flip(data: bytes, offset: int, bit: int = 0) -> bytes:
    """`data` with one bit inverted; a negative offset counts from the end."""
    changed = bytearray(data)
    changed[offset] ^= 1 << bit
    return bytes(changed)


def patch_header(offset: int, layout: str, value: int) -> bytes:
    """The good file with one header field replaced."""
    changed = bytearray(good())
    struct.pack_into(layout, changed, offset, value)
    return bytes(changed)


def manifest_size() -> int:
    """Bytes of the good file's manifest."""
    return len(encode_manifest(manifest_for(node_image())))


def with_entry(image: bytes, change: Callable[[ImageEntry], ImageEntry]) -> bytes:
    """A file whose signed manifest says something else than its image."""
    manifest = manifest_for(image)
    lying = dataclasses.replace(manifest, images=(change(manifest.images[0]),))
    return assemble(encode_manifest(lying), [image], RELEASE)


def describing(image: bytes) -> bytes:
    """A file whose manifest is true for the good image, but has the length, hash and CRC-32 of this one."""
    said = describe_image(node_image())
    true = dataclasses.replace(said, size=len(image), sha256=hashlib.sha256(image).digest(), crc32=zlib.crc32(image))
    manifest = dataclasses.replace(manifest_for(node_image()), images=(true,))
    return assemble(encode_manifest(manifest), [image], RELEASE)


def with_manifest_text(change: Callable[[str], str]) -> bytes:
    """A file whose manifest was edited as text before it was signed."""
    image = node_image()
    text = change(encode_manifest(manifest_for(image)).decode("ascii"))
    return assemble(text.encode("ascii"), [image], RELEASE)


def type_outside_signature() -> bytes:
    """An image that repeats its node type, as a gateway's, where no signature covers it."""
    image = node_image()
    tail = image[-SIGNED_TAIL_SIZE:]
    extra = struct.pack("<HHB", 0x00A0, 1, NodeType.COMM_GATEWAY)
    (size,) = struct.unpack_from("<H", tail, 2)
    return image[:-SIGNED_TAIL_SIZE] + tail[:2] + struct.pack("<H", size + len(extra)) + tail[4:] + extra


BAD = (
    Bad("empty", lambda: b"", "no bytes at all", "file", "FILE_EMPTY"),
    Bad(
        "not-an-upgrade-file",
        lambda: b"PK\x03\x04" + bytes(60),
        "something else under this name: a ZIP archive's first bytes",
        "file",
        "NOT_AN_UPGRADE_FILE",
    ),
    Bad(
        "text-mode-transfer",
        lambda: good().replace(b"\r\n", b"\n"),
        "line ends converted on the way",
        "file",
        "NOT_AN_UPGRADE_FILE",
    ),
    Bad(
        "later-format",
        lambda: patch_header(8, "<H", 2),
        "format version 2",
        "file",
        "NOT_AN_UPGRADE_FILE",
    ),
    Bad("truncated", lambda: good()[:-100], "the last 100 bytes are missing", "file", "FILE_TRUNCATED"),
    Bad("truncated-header", lambda: good()[:20], "cut within the header", "file", "FILE_TRUNCATED"),
    Bad("bytes-after-end", lambda: good() + b"\0" * 16, "16 bytes after the end", "file", "TRAILING_BYTES"),
    Bad(
        "announces-too-much",
        lambda: patch_header(16, "<I", 3 << 30),
        "the header announces 3 GiB",
        "file",
        "FILE_TOO_LARGE",
    ),
    Bad(
        "manifest-too-long",
        lambda: patch_header(12, "<I", 1 << 31),
        "the header announces a manifest of 2 GiB",
        "file",
        "MANIFEST_INVALID",
    ),
    Bad(
        "flipped-in-payload",
        lambda: flip(good(), -1000, bit=3),
        "one bit flipped in the firmware",
        "file",
        "IMAGE_CORRUPT",
    ),
    Bad(
        "flipped-in-manifest",
        lambda: flip(good(), HEADER_SIZE + 40),
        "one bit flipped in the manifest",
        "file",
        "SIGNATURE_INVALID",
    ),
    Bad(
        "flipped-in-signature",
        lambda: flip(good(), HEADER_SIZE + manifest_size() + 10, bit=7),
        "one bit flipped in the release signature",
        "file",
        "SIGNATURE_INVALID",
    ),
    Bad(
        "unsigned",
        lambda: assemble(encode_manifest(manifest_for(node_image())), [node_image()], None),
        "no release signature",
        "file",
        "SIGNATURE_MISSING",
    ),
    Bad(
        "unknown-key",
        lambda: assemble(encode_manifest(manifest_for(node_image())), [node_image()], STRANGER),
        "released by somebody else",
        "file",
        "UNKNOWN_KEY",
    ),
    Bad(
        "forged-key-id",
        lambda: assemble(encode_manifest(manifest_for(node_image())), [node_image()], _ForgedId(RELEASE.key_id)),
        "released by somebody else under our key's id",
        "file",
        "SIGNATURE_INVALID",
    ),
    Bad(
        "firmware-key-as-release-key",
        lambda: assemble(encode_manifest(manifest_for(node_image())), [node_image()], FIRMWARE),
        "released with the key that may sign images only",
        "file",
        "UNKNOWN_KEY",
    ),
    Bad(
        "image-unsigned",
        lambda: release(node_image(signer=None)),
        "a released image that no node would accept: not signed",
        "file",
        "SIGNATURE_MISSING",
    ),
    Bad(
        "image-unknown-key",
        lambda: release(node_image(signer=STRANGER)),
        "a released image that no node would accept: signed by somebody else",
        "file",
        "UNKNOWN_KEY",
    ),
    Bad(
        "image-damaged-before-release",
        lambda: release(flip(node_image(), 1000)),
        "a released image whose own hash does not match",
        "file",
        "IMAGE_CORRUPT",
    ),
    Bad(
        "image-bytes-after-tlvs",
        lambda: describing(node_image() + b"\xff" * 16),
        "bytes behind the image's TLVs, which its signature does not cover",
        "file",
        "IMAGE_INVALID",
    ),
    Bad(
        "image-type-outside-signature",
        lambda: describing(type_outside_signature()),
        "a second node type where the image's signature does not cover it",
        "file",
        "IMAGE_INVALID",
    ),
    Bad(
        "manifest-other-type",
        lambda: with_entry(node_image(), lambda entry: dataclasses.replace(entry, node_type=NodeType.COMM_GATEWAY)),
        "manifest and image disagree on the node type",
        "file",
        "WRONG_NODE_TYPE",
    ),
    Bad(
        "manifest-other-hardware",
        lambda: with_entry(
            node_image(hardware_id=0x12), lambda entry: dataclasses.replace(entry, hardware_ids=(0x11,))
        ),
        "manifest and image disagree on the hardware",
        "file",
        "WRONG_HARDWARE",
    ),
    Bad(
        "manifest-other-version",
        lambda: with_entry(
            node_image(version=Version(0, 9, 0)), lambda entry: dataclasses.replace(entry, version=NEWER)
        ),
        "manifest and image disagree on the version",
        "file",
        "MANIFEST_INVALID",
    ),
    Bad(
        "manifest-key-twice",
        lambda: with_manifest_text(lambda text: text.replace("{", '{"created":"2026-01-01",', 1)),
        "a key occurs twice in the manifest, so that two readers could see two releases",
        "file",
        "MANIFEST_INVALID",
    ),
    Bad(
        "manifest-unknown-key",
        lambda: with_manifest_text(lambda text: json.dumps({**json.loads(text), "x": 1}, sort_keys=True)),
        "a key in the manifest that we do not know",
        "file",
        "MANIFEST_INVALID",
    ),
    Bad(
        "manifest-not-canonical",
        lambda: with_manifest_text(lambda text: text.replace(",", ", ", 1)),
        "a manifest in another form than the one that is allowed",
        "file",
        "MANIFEST_INVALID",
    ),
    Bad(
        "expired",
        lambda: assemble(
            encode_manifest(manifest_for(node_image(), expires=date(2026, 11, 19))), [node_image()], RELEASE
        ),
        "expired the day before",
        "file",
        "UPGRADE_FILE_EXPIRED",
    ),
    Bad(
        "wrong-node-type",
        lambda: release(node_image(node_type=NodeType.CMU)),
        "for a type of node that the plant does not have",
        "plant",
        "WRONG_NODE_TYPE",
    ),
    Bad(
        "wrong-hardware",
        lambda: release(node_image(hardware_id=0x12)),
        "for another hardware revision",
        "plant",
        "WRONG_HARDWARE",
    ),
    Bad(
        "older-version",
        lambda: release(node_image(version=Version(0, 9, 0))),
        "older than what runs",
        "plant",
        "VERSION_DOWNGRADE",
    ),
    Bad(
        "lower-security-counter",
        lambda: release(node_image(security_counter=0)),
        "newer, but less secure than what the node has seen",
        "plant",
        "SECURITY_DOWNGRADE",
    ),
    Bad(
        "security-counter-jump",
        lambda: release(node_image(security_counter=0xFFFF_FFFF)),
        "would use up the node's security counter for good",
        "plant",
        "SECURITY_COUNTER_JUMP",
    ),
)
# Not bad at all: what runs already.
SAME = Bad(
    "same-version",
    lambda: release(node_image(version=Version(1, 0, 0), security_counter=1)),
    "the version that runs already",
    "plant",
    "NOTHING_TO_DO",
)
GOOD = (
    ("bmu-1.1.0.essup", "a good upgrade of the BMUs"),
    ("comm_gateway-1.1.0.essup", "a good upgrade of the communications gateway"),
)


def files() -> dict[str, bytes]:
    """Name and content of every file in ``bad/``."""
    return {f"{bad.name}.essup": bad.make() for bad in (*BAD, SAME)}


def verdicts() -> str:
    """The text of verdicts.toml."""
    lines = [
        "# What must be found in each sample upgrade file.  Written by make_bad.py.",
        "#",
        "# stage 'file': found by open_upgrade_file with the public TEST keys, before any plant is asked;",
        "# stage 'plant': found by comparing the image with the nodes below.",
        "# expected: the error's name; ACCEPTED or NOTHING_TO_DO if there is none.",
        "",
        f'today = "{TODAY}"',
    ]
    for node in PLANT:
        lines += ["", "[[node]]", *(f"{key} = {json.dumps(value)}" for key, value in node.items())]
    rows = [(name, what, "plant", "ACCEPTED") for name, what in GOOD]
    rows += [(f"bad/{bad.name}.essup", bad.what, bad.stage, bad.expected) for bad in (*BAD, SAME)]
    for name, what, stage, expected in rows:
        row = {"file": name, "what": what, "stage": stage, "expected": expected}
        lines += ["", "[[verdict]]", *(f"{key} = {json.dumps(value)}" for key, value in row.items())]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write ``bad/`` and ``verdicts.toml``."""
    folder = HERE / "bad"
    folder.mkdir(exist_ok=True)
    content = files()
    for stale in {path.name for path in folder.iterdir()} - set(content):
        (folder / stale).unlink()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    (HERE / "verdicts.toml").write_text(verdicts())
    sys.stdout.write(f"{len(content)} files in {folder.name}, verdicts.toml\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
