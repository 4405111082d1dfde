from __future__ import annotations

import struct

import pytest

from ess_can.errors import (
    EssCanError,
    FileEmpty,
    FileTooLarge,
    FileTruncated,
    ImageInvalid,
    ManifestInvalid,
    NotAnUpgradeFile,
    SignatureInvalid,
    TrailingBytes,
)
from ess_can.identity import NodeType
from ess_can.image.manifest import encode_manifest, parse_manifest
from ess_can.image.upgrade_file import MAX_FILE_SIZE, assemble, split_images, split_upgrade_file
from tests.firmware_images import RELEASE, small_image, small_upgrade


def patched(offset: int, layout: str, value: int) -> bytes:
    data = bytearray(small_upgrade())
    struct.pack_into(layout, data, offset, value)
    return bytes(data)


def test_the_parts_of_a_file() -> None:
    images = (small_image(), small_image(node_type=NodeType.COMM_GATEWAY, payload=b"another"))
    data = small_upgrade(*images)
    envelope = split_upgrade_file(data)
    assert envelope.key_id == RELEASE.key_id
    assert envelope.signature is not None
    assert RELEASE.public.verify(envelope.signature, envelope.signed)
    assert envelope.signed == b"ess-can upgrade file v1\0" + data[: 52 + len(envelope.manifest)]
    manifest = parse_manifest(envelope.manifest)
    assert [entry.node_type for entry in manifest.images] == [NodeType.BMU, NodeType.COMM_GATEWAY]
    assert tuple(image.read(0, image.size) for _, image in split_images(data, envelope, manifest)) == images


def test_a_draft_has_no_signature() -> None:
    envelope = split_upgrade_file(small_upgrade(signer=None))
    assert envelope.signature is None
    assert envelope.key_id == bytes(32)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", FileEmpty),
        (b"\x88", NotAnUpgradeFile),
        (b"\x89ESSUP\n" + bytes(100), NotAnUpgradeFile),
        (b"\x89ESS", FileTruncated),
        (small_upgrade()[:51], FileTruncated),
        (small_upgrade()[:-1], FileTruncated),
        (small_upgrade() + b"\0", TrailingBytes),
        (patched(8, "<H", 0), NotAnUpgradeFile),
        (patched(8, "<H", 2), NotAnUpgradeFile),
        (patched(10, "<H", 63), SignatureInvalid),
        (patched(12, "<I", 0), ManifestInvalid),
        (patched(12, "<I", 65537), ManifestInvalid),
        (patched(12, "<I", 0xFFFF_FFFF), ManifestInvalid),
        (patched(12, "<I", 65536), FileTruncated),
        (patched(16, "<I", MAX_FILE_SIZE), FileTruncated),
        (patched(16, "<I", MAX_FILE_SIZE + 1), FileTooLarge),
        (patched(16, "<I", 0x8000_0000), FileTooLarge),
        (patched(16, "<I", 0), TrailingBytes),
    ],
)
def test_headers_that_do_not_add_up(data: bytes, error: type[EssCanError]) -> None:
    with pytest.raises(error) as caught:
        split_upgrade_file(data)
    assert type(caught.value) is error


def test_images_that_do_not_add_up() -> None:
    data = small_upgrade()
    envelope = split_upgrade_file(data)
    manifest = parse_manifest(envelope.manifest)
    short = assemble(encode_manifest(manifest), [small_image()[:-1]], RELEASE)
    with pytest.raises(ManifestInvalid, match="does not describe"):
        split_images(short, split_upgrade_file(short), manifest)


def test_what_cannot_be_held_is_not_built() -> None:
    with pytest.raises(FileTooLarge):
        assemble(b"{}", [bytes(MAX_FILE_SIZE)], None)
    with pytest.raises(ImageInvalid):
        small_upgrade(b"not an image")
