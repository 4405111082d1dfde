"""The trust core: bytes in, verdict out.

Nothing here touches a plant or asks a clock.  Each check is named in the order in which it is made; the first that
fails decides, with one typed error.  A `VerifiedUpgrade` or `VerifiedImage` exists only when all of them held, and
keeps the very bytes that were checked: a file is copied before it is looked at, so what is sent later is what was
verified, whatever became of the file.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from ess_can.errors import (
    ImageCorrupt,
    ManifestInvalid,
    SignatureInvalid,
    SignatureMissing,
    TestKeyRefused,
    UnknownKey,
    UpgradeFileExpired,
    WrongHardware,
    WrongNodeType,
)
from ess_can.identity import NodeType
from ess_can.image.content import ImageContent, as_content, pieces
from ess_can.image.files import copy_limited
from ess_can.image.manifest import ImageEntry, Manifest, parse_manifest
from ess_can.image.node_image import SIGNED_TAIL_SIZE, SLOT_SIZE, NodeImage, parse_node_image
from ess_can.image.upgrade_file import MAX_FILE_SIZE, split_images, split_upgrade_file
from ess_can.trust.keys import TEST_KEYS, KeyRing, PublicKey


@dataclass(frozen=True, slots=True)
class VerifiedImage:
    """A node image whose hash and signature were checked; `sha256` (32 bytes) and `crc32` are over all of `content`."""

    content: ImageContent = field(repr=False, compare=False)  # its hash stands for it
    facts: NodeImage
    sha256: bytes
    crc32: int
    signer: PublicKey

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return self.content.size


@dataclass(frozen=True, slots=True)
class VerifiedUpgrade:
    """An upgrade file of which every byte was checked.

    `digest` (SHA-256 of all that is signed) names the release; `file` is the very bytes that were checked, with
    `file_sha256` over all of them.
    """

    manifest: Manifest
    images: tuple[VerifiedImage, ...]
    signer: PublicKey
    digest: bytes
    file: ImageContent = field(repr=False, compare=False)
    file_sha256: bytes

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.file.size

    def image_for(self, node_type: NodeType, hardware_id: int) -> VerifiedImage | None:
        """The image for such a node, if the release has one."""
        for image in self.images:
            if image.facts.node_type is node_type and hardware_id in image.facts.hardware_ids:
                return image
        return None


def open_upgrade_file(
    source: Path | ImageContent | bytes,
    keyring: KeyRing,
    *,
    firmware_keyring: KeyRing | None = None,
    allow_test_keys: bool = False,
    today: date | None = None,
    slot_size: int = SLOT_SIZE,
) -> VerifiedUpgrade:
    """Read and check an upgrade file: a private copy of the one at a path, or a content that nobody else can change.

    `keyring` holds the keys trusted to sign releases and, unless `firmware_keyring` is given, node images.  Expiry is
    checked against `today`, if given.  Memory does not grow with the images: they stay where they are.
    Raises exactly one of the errors 6, 21-35 and 38 of `ess_can.errors`.
    """
    # 1. The file can be read, is not empty, is not too large.
    file = copy_limited(source, MAX_FILE_SIZE) if isinstance(source, Path) else as_content(source)
    # 2. It starts as an upgrade file does, and its length is the announced one.
    envelope = split_upgrade_file(file)
    # 3. It is signed, by a key we trust, over header and manifest.
    signer = _check_signature(
        "the upgrade file", envelope.key_id, envelope.signature, envelope.signed, keyring, allow_test_keys
    )
    # 4. The manifest keeps every rule of its format; it describes exactly the bytes that follow.
    manifest = parse_manifest(envelope.manifest)
    parts = split_images(file, envelope, manifest)
    # 5. It has not expired.
    if today is not None and manifest.expires is not None and today > manifest.expires:
        raise UpgradeFileExpired("the release has expired", why=f"on {manifest.expires}, today is {today}")
    # 6. Each image has the announced hash, CRC and facts, and is acceptable to its node.
    trusted = keyring if firmware_keyring is None else firmware_keyring
    images = tuple(_check_entry(entry, image, trusted, allow_test_keys, slot_size) for entry, image in parts)
    digest = hashlib.sha256(envelope.signed).digest()
    return VerifiedUpgrade(manifest, images, signer, digest, file, _sha256(file))


def verify_node_image(
    source: ImageContent | bytes, keyring: KeyRing, *, allow_test_keys: bool = False, slot_size: int = SLOT_SIZE
) -> VerifiedImage:
    """Check a node image as its bootloader does, with the keys in the node's ROM.

    Raises FileTooLarge, ImageInvalid, SignatureMissing, UnknownKey, TestKeyRefused, ImageCorrupt, SignatureInvalid.
    """
    image = as_content(source)
    parse_node_image(image, slot_size)  # what cannot be an image is not read to its end, however long it says it is
    return _verify(image, _hash(image), keyring, allow_test_keys, slot_size)


@dataclass(frozen=True, slots=True)
class _Hashes:
    """SHA-256 of an image without the TLVs that a signed one ends with, and of all of it; CRC-32 of all of it."""

    signed: bytes
    whole: bytes
    crc32: int


def _sha256(content: ImageContent) -> bytes:
    state = hashlib.sha256()
    for piece in pieces(content):
        state.update(piece)
    return state.digest()


def _hash(image: ImageContent) -> _Hashes:
    """All three in one pass."""
    split = max(0, image.size - SIGNED_TAIL_SIZE)
    state, crc = hashlib.sha256(), 0
    for piece in pieces(image, 0, split):
        state.update(piece)
        crc = zlib.crc32(piece, crc)
    signed = state.digest()
    tail = image.read(split, SIGNED_TAIL_SIZE)
    state.update(tail)
    return _Hashes(signed, state.digest(), zlib.crc32(tail, crc))


def _verify(
    image: ImageContent, hashes: _Hashes, keyring: KeyRing, allow_test_keys: bool, slot_size: int
) -> VerifiedImage:
    # 1. A well-formed image that fits the slot, and is signed.
    facts = parse_node_image(image, slot_size)
    if facts.key_id is None or facts.signature is None:
        raise _unsigned("the image")
    # 2. Its hash is that of its bytes.  (A signed image ends with a tail of fixed size, so this is the right hash.)
    if hashes.signed != facts.digest:
        raise ImageCorrupt(
            "the image is damaged", why=f"SHA-256 is {hashes.signed.hex()}, the image announces {facts.digest.hex()}"
        )
    # 3. A key we trust signed that hash.
    signer = _check_signature("the image", facts.key_id, facts.signature, hashes.signed, keyring, allow_test_keys)
    return VerifiedImage(image, facts, hashes.whole, hashes.crc32, signer)


def _check_signature(
    what: str, key_id: bytes, signature: bytes | None, message: bytes, keyring: KeyRing, allow_test_keys: bool
) -> PublicKey:
    if signature is None:
        raise _unsigned(what)
    if key_id in TEST_KEYS and not allow_test_keys:
        raise TestKeyRefused(f"{what} is signed with a test key", why=f"{TEST_KEYS[key_id]}, key id {key_id.hex()}")
    key = keyring.find(key_id)
    if key is None:
        raise UnknownKey(f"{what} is signed by a key that is not trusted here", why=f"key id {key_id.hex()}")
    if not key.verify(signature, message):
        raise SignatureInvalid(
            f"the signature of {what} does not match",
            why=f"the bytes are not those that key {key.name or key_id.hex()} signed",
        )
    return key


def _unsigned(what: str) -> SignatureMissing:
    return SignatureMissing(f"{what} is not signed", remedy="Obtain a signed one from its publisher.")


def _check_entry(
    entry: ImageEntry, image: ImageContent, keyring: KeyRing, allow_test_keys: bool, slot_size: int
) -> VerifiedImage:
    label = f"the {entry.node_type.name.lower()} image {entry.version}"
    # 1. The bytes are those that the manifest announces.  Nothing in them was looked at before.
    hashes = _hash(image)
    if hashes.whole != entry.sha256:
        raise ImageCorrupt(
            f"{label} is damaged", why=f"SHA-256 is {hashes.whole.hex()}, the manifest announces {entry.sha256.hex()}"
        )
    if hashes.crc32 != entry.crc32:
        raise ImageCorrupt(
            f"{label} is damaged", why=f"CRC-32 is {hashes.crc32:08x}, the manifest announces {entry.crc32:08x}"
        )
    # 2. Its node would accept it.
    verified = _verify(image, hashes, keyring, allow_test_keys, slot_size)
    # 3. Manifest and image agree.
    facts = verified.facts
    if facts.node_type is not entry.node_type:
        raise WrongNodeType(
            "manifest and image disagree on the node type",
            why=f"{entry.node_type.name.lower()} and {facts.node_type.name.lower()}",
        )
    if facts.hardware_ids != entry.hardware_ids:
        raise WrongHardware(
            "manifest and image disagree on the hardware",
            why=f"{list(entry.hardware_ids)} and {list(facts.hardware_ids)}",
        )
    if (facts.version, facts.security_counter) != (entry.version, entry.security_counter):
        raise ManifestInvalid(
            "manifest and image disagree",
            why=f"version {entry.version} and {facts.version}, "
            f"security counter {entry.security_counter} and {facts.security_counter}",
        )
    return verified
