from __future__ import annotations

import dataclasses
import gc
import hashlib
import random
import tracemalloc
import zlib
from datetime import date
from pathlib import Path
from typing import IO, Any

import pytest

from ess_can.errors import (
    EssCanError,
    FileTooLarge,
    FileUnreadable,
    ImageCorrupt,
    ImageInvalid,
    ManifestInvalid,
    SignatureInvalid,
    SignatureMissing,
    TestKeyRefused,
    UnknownKey,
    UpgradeFileError,
    UpgradeFileExpired,
)
from ess_can.identity import NodeType, Version
from ess_can.image.content import PIECE_SIZE, ImageContent
from ess_can.image.manifest import encode_manifest
from ess_can.image.node_image import HEADER_SIZE, SIGNED_TAIL_SIZE
from ess_can.image.upgrade_file import MAX_FILE_SIZE as LIMIT
from ess_can.image.upgrade_file import Content, Envelope, assemble, build_upgrade_file, split_upgrade_file
from ess_can.trust import keys
from ess_can.trust.keys import KeyRing
from ess_can.trust.verify import open_upgrade_file, verify_node_image
from tests.firmware_images import FIRMWARE, RELEASE, RING, STRANGER, small_image, small_upgrade


def large_upgrade(payload: bytes) -> bytes:
    image = small_image(payload=payload)
    return build_upgrade_file(
        [Content(image)],
        release_name="Large",
        release_version=Version(2, 0, 0),
        created=date(2026, 1, 1),
        signer=RELEASE,
        slot_size=len(image),
    )


def test_a_good_file() -> None:
    image = small_image()
    data = small_upgrade(image)
    upgrade = open_upgrade_file(data, RING)
    assert upgrade.signer == RELEASE.public
    assert upgrade.size == len(data)
    assert upgrade.digest == hashlib.sha256(split_upgrade_file(data).signed).digest()
    (verified,) = upgrade.images
    assert verified.content.read(0, verified.size) == image
    assert verified.signer == FIRMWARE.public
    assert verified.sha256 == hashlib.sha256(image).digest() == upgrade.manifest.images[0].sha256
    assert verified.crc32 == zlib.crc32(image) == upgrade.manifest.images[0].crc32
    assert "firmware" not in repr(dataclasses.replace(verified, signer=RELEASE.public))


def test_the_image_for_a_node() -> None:
    gateway = small_image(node_type=NodeType.COMM_GATEWAY, hardware_ids=(0x21, 0x22))
    upgrade = open_upgrade_file(small_upgrade(gateway, small_image()), RING)
    found = upgrade.image_for(NodeType.COMM_GATEWAY, 0x22)
    assert found is not None
    assert found.content.read(0, found.size) == gateway
    assert upgrade.image_for(NodeType.COMM_GATEWAY, 0x11) is None
    assert upgrade.image_for(NodeType.CMU, 0x11) is None


def test_from_a_path_the_checked_bytes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "release.essup"
    path.write_bytes(small_upgrade())
    upgrade = open_upgrade_file(path, RING)
    path.write_bytes(b"something else")
    (kept,) = upgrade.images
    assert kept.content.read(0, kept.size) == small_image()
    with pytest.raises(FileUnreadable):
        open_upgrade_file(tmp_path, RING)
    with path.open("wb") as file:
        file.truncate(LIMIT + 1)
    with pytest.raises(FileTooLarge):
        open_upgrade_file(path, RING)


def test_from_a_path_no_image_is_held_in_memory(tmp_path: Path) -> None:
    size = 6 << 20
    path = tmp_path / "release.essup"
    path.write_bytes(large_upgrade(random.Random(1).randbytes(size)))
    gc.collect()
    tracemalloc.start()
    upgrade = open_upgrade_file(path, RING, slot_size=size + 4096)
    (image,) = upgrade.images
    for offset in range(0, image.size, 4096):
        image.content.read(offset, 4096)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * PIECE_SIZE < size / 10


def test_the_file_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever that is, what is taken for verified is what was signed: the file is read once."""
    payload = random.Random(2).randbytes(5 * PIECE_SIZE)
    good = large_upgrade(payload)
    path = tmp_path / "release.essup"
    opened: list[Path] = []
    original = Path.open

    def count(self: Path, mode: str = "r") -> IO[Any]:
        opened.append(self)
        return original(self, mode)

    path.write_bytes(good)
    monkeypatch.setattr(Path, "open", count)

    def spoil_then_split(source: ImageContent) -> Envelope:
        with original(path, "r+b") as file:  # in place: whoever had the file open would see it
            file.write(bytes(len(good)))
        return split_upgrade_file(source)

    monkeypatch.setattr("ess_can.trust.verify.split_upgrade_file", spoil_then_split)
    (image,) = open_upgrade_file(path, RING).images
    assert path.read_bytes() == bytes(len(good))
    assert good.endswith(image.content.read(0, image.size))
    assert hashlib.sha256(image.content.read(0, image.size)).digest() == image.sha256
    assert opened[:1] == [path]
    assert opened.count(path) == 2  # ours, and that of read_bytes above


@pytest.mark.parametrize(
    "payload_size",
    [
        *(PIECE_SIZE * n - HEADER_SIZE + delta for n in (1, 2) for delta in (-200, -40, -1, 0, 1)),
        *(PIECE_SIZE * 2 - HEADER_SIZE - SIGNED_TAIL_SIZE - 25 + delta for delta in range(-2, 3)),
    ],
)
def test_the_hashes_are_right_wherever_the_pieces_end(payload_size: int) -> None:
    image = small_image(payload=random.Random(payload_size).randbytes(payload_size))
    verified = verify_node_image(image, RING)
    assert verified.sha256 == hashlib.sha256(image).digest()
    assert verified.crc32 == zlib.crc32(image)
    assert verified.facts.digest == hashlib.sha256(image[:-SIGNED_TAIL_SIZE]).digest()


def test_flipped_bits_of_a_large_file_are_found(tmp_path: Path) -> None:
    good = large_upgrade(random.Random(3).randbytes(5 * PIECE_SIZE))
    path = tmp_path / "release.essup"
    chosen = random.Random(4)
    edges = [at for n in range(6) for at in (n * PIECE_SIZE - 1, n * PIECE_SIZE) if 0 <= at < len(good)]
    for position in [*edges, len(good) - 1, *(chosen.randrange(len(good)) for _ in range(40))]:
        bad = bytearray(good)
        bad[position] ^= 1 << chosen.randrange(8)
        path.write_bytes(bad)
        with pytest.raises(UpgradeFileError):
            open_upgrade_file(path, RING)
    path.write_bytes(good)
    open_upgrade_file(path, RING)


def test_separate_keys_for_releases_and_images() -> None:
    data = small_upgrade()
    release, firmware = KeyRing.of(RELEASE.public), KeyRing.of(FIRMWARE.public)
    open_upgrade_file(data, release, firmware_keyring=firmware)
    with pytest.raises(UnknownKey, match="the image"):
        open_upgrade_file(data, release)
    with pytest.raises(UnknownKey, match="the upgrade file"):
        open_upgrade_file(data, firmware, firmware_keyring=release)


@pytest.mark.parametrize("role", ["release", "firmware"])
def test_a_test_key_is_refused_even_if_trusted(monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    key = RELEASE if role == "release" else FIRMWARE
    monkeypatch.setitem(keys.TEST_KEYS, key.key_id, "published")
    with pytest.raises(TestKeyRefused, match="published"):
        open_upgrade_file(small_upgrade(), RING)
    open_upgrade_file(small_upgrade(), RING, allow_test_keys=True)
    with pytest.raises(UnknownKey):
        open_upgrade_file(small_upgrade(), KeyRing.of(STRANGER.public), allow_test_keys=True)


def test_nothing_is_parsed_before_the_signature_holds() -> None:
    with pytest.raises(UnknownKey):
        open_upgrade_file(assemble(b"[[[", [], STRANGER), RING)
    with pytest.raises(ManifestInvalid):
        open_upgrade_file(assemble(b"[[[", [], RELEASE), RING)


def test_expiry_counts_only_when_the_date_is_known() -> None:
    data = small_upgrade(expires=date(2026, 12, 31))
    open_upgrade_file(data, RING)
    open_upgrade_file(data, RING, today=date(2026, 12, 31))
    with pytest.raises(UpgradeFileExpired):
        open_upgrade_file(data, RING, today=date(2027, 1, 1))
    open_upgrade_file(small_upgrade(), RING, today=date(2099, 1, 1))


@pytest.mark.parametrize(("lie", "why"), [({"crc32": 1}, "CRC-32"), ({"sha256": bytes(32)}, "SHA-256")])
def test_each_checksum_in_the_manifest_counts_by_itself(lie: dict[str, Any], why: str) -> None:
    upgrade = open_upgrade_file(small_upgrade(), RING)
    entry = dataclasses.replace(upgrade.manifest.images[0], **lie)
    manifest = dataclasses.replace(upgrade.manifest, images=(entry,))
    with pytest.raises(ImageCorrupt, match=why):
        open_upgrade_file(assemble(encode_manifest(manifest), [small_image()], RELEASE), RING)


def test_a_good_image() -> None:
    image = small_image()
    verified = verify_node_image(image, RING)
    assert verified.facts.node_type is NodeType.BMU
    assert verified.sha256 == hashlib.sha256(image).digest()


def test_the_right_digest_signed_by_a_stranger_under_our_id() -> None:
    class Forger:
        key_id = FIRMWARE.key_id

        def sign(self, message: bytes) -> bytes:
            return STRANGER.sign(message)

    with pytest.raises(SignatureInvalid):
        verify_node_image(small_image(signer=Forger()), RING)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (b"", ImageInvalid),
        (small_image(signer=None), SignatureMissing),
        (small_image(signer=STRANGER), UnknownKey),
        (small_image().replace(b"firmware", b"Firmware"), ImageCorrupt),
        (small_image()[:-1] + bytes([small_image()[-1] ^ 1]), SignatureInvalid),
        (small_image() + b"\0", ImageInvalid),
        (small_image(payload=bytes(896 * 1024)), FileTooLarge),
    ],
)
def test_bad_images(image: bytes, error: type[EssCanError]) -> None:
    with pytest.raises(error) as caught:
        verify_node_image(image, RING)
    assert type(caught.value) is error


def test_what_is_too_large_is_not_read() -> None:
    """However many bytes a content says it has: none of them are hashed before its size is judged."""

    class Endless:
        size = 1 << 40

        def read(self, offset: int, size: int) -> bytes:
            raise AssertionError(f"{size} bytes at {offset} were read")

    with pytest.raises(FileTooLarge):
        verify_node_image(Endless(), RING)


def test_an_image_for_a_larger_slot() -> None:
    image = small_image(payload=bytes(896 * 1024))
    with pytest.raises(FileTooLarge):
        verify_node_image(image, RING)
    verify_node_image(image, RING, slot_size=1 << 20)
