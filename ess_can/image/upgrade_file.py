"""The upgrade file: one signed container for one release.

Byte by byte, all numbers little-endian, M the length of the manifest:

====== ==== ==========================================================================================
offset size field
====== ==== ==========================================================================================
0      8    magic 89 45 53 53 55 50 0D 0A (0x89 "ESSUP" CR LF: damaged by anything that treats it as text)
8      2    format version: 1
10     2    length of the signature: 64, or 0 in a draft, which is never accepted
12     4    M: length of the manifest, 1..65536
16     4    length of the whole file, at most 64 MiB
20     32   key id: SHA-256 of the SubjectPublicKeyInfo of the key that signed; zeros in a draft
52     M    manifest, see `ess_can.image.manifest`
52+M   64   Ed25519 signature over the 24 bytes ``ess-can upgrade file v1`` + 00, then bytes 0..52+M
116+M  ...  the images (`ess_can.image.node_image`) back to back in manifest order, nothing between or behind
====== ==== ==========================================================================================

The signature covers every byte before itself, and the manifest in it covers every image by length, SHA-256 and
CRC-32; so every byte of the file is covered.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from ess_can.errors import (
    FileEmpty,
    FileTooLarge,
    FileTruncated,
    ManifestInvalid,
    NotAnUpgradeFile,
    SignatureInvalid,
    TrailingBytes,
)
from ess_can.identity import Version
from ess_can.image.content import ContentPart, ImageContent, as_content
from ess_can.image.manifest import MAX_MANIFEST_SIZE, Dependency, ImageEntry, Manifest, encode_manifest
from ess_can.image.node_image import SLOT_SIZE, Signer, parse_node_image

MAGIC: Final = b"\x89ESSUP\r\n"
FORMAT_VERSION: Final = 1
MAX_FILE_SIZE: Final = 64 * 1024 * 1024

_HEADER = struct.Struct("<8sHHII32s")
_SIGNATURE_SIZE = 64
_DOMAIN = b"ess-can upgrade file v1\0"


@dataclass(frozen=True, slots=True)
class Envelope:
    """The parts of an upgrade file whose lengths add up; nothing in it is verified.

    `signed` is the message of the signature, `images_at` the offset of the first image; `signature` is None in a draft.
    """

    key_id: bytes
    manifest: bytes
    signed: bytes
    signature: bytes | None
    images_at: int


@dataclass(frozen=True, slots=True)
class Content:
    """An image to be put into an upgrade file, and what it needs of other node types."""

    image: bytes
    depends: tuple[Dependency, ...] = ()


def split_upgrade_file(source: ImageContent | bytes) -> Envelope:
    """Take a file apart by its header, reading nothing of its images.

    Raises FileEmpty, NotAnUpgradeFile, FileTooLarge, ManifestInvalid (its announced length), SignatureInvalid (its
    announced length), FileTruncated or TrailingBytes.
    """
    file = as_content(source)
    size, header = file.size, file.read(0, _HEADER.size)
    if not header:
        raise FileEmpty("the file is empty")
    if not header.startswith(MAGIC[: len(header)]):
        raise NotAnUpgradeFile(
            "this is not an upgrade file", why=f"it starts with {header[:8].hex(' ')}, not with {MAGIC.hex(' ')}"
        )
    if len(header) < _HEADER.size:
        raise FileTruncated("the file is truncated", why=f"{size} bytes, the header alone has {_HEADER.size}")
    _, version, signature_size, manifest_size, file_size, key_id = _HEADER.unpack(header)
    if version != FORMAT_VERSION:
        raise NotAnUpgradeFile(
            "this is not an upgrade file that we understand",
            why=f"format version {version}, this program knows {FORMAT_VERSION}",
            remedy="Use the version of ess-can that belongs to the file.",
        )
    if file_size > MAX_FILE_SIZE or size > MAX_FILE_SIZE:
        raise FileTooLarge(
            "the file is too large", why=f"{max(file_size, size)} bytes, at most {MAX_FILE_SIZE} are allowed"
        )
    if not 1 <= manifest_size <= MAX_MANIFEST_SIZE:
        raise ManifestInvalid(
            "the manifest has a forbidden length", why=f"{manifest_size} bytes are announced, 1..{MAX_MANIFEST_SIZE}"
        )
    if signature_size not in (0, _SIGNATURE_SIZE):
        raise SignatureInvalid("the signature has a forbidden length", why=f"{signature_size} bytes are announced")
    if size < file_size:
        raise FileTruncated("the file is truncated", why=f"{size} bytes, {file_size} are announced")
    if size > file_size:
        raise TrailingBytes("bytes follow the end", why=f"{size} bytes, {file_size} are announced")
    manifest_end = _HEADER.size + manifest_size
    images_at = manifest_end + signature_size
    if images_at > file_size:
        raise FileTruncated(
            "the file is truncated", why=f"header, manifest and signature need {images_at} bytes, there are {file_size}"
        )
    manifest = file.read(_HEADER.size, manifest_size)
    return Envelope(
        key_id=key_id,
        manifest=manifest,
        signed=_DOMAIN + header + manifest,
        signature=file.read(manifest_end, signature_size) if signature_size else None,
        images_at=images_at,
    )


def split_images(
    source: ImageContent | bytes, envelope: Envelope, manifest: Manifest
) -> Iterator[tuple[ImageEntry, ImageContent]]:
    """Tell the images apart, in order.  Raises ManifestInvalid if their sizes do not add up to the file's length."""
    file = as_content(source)
    total = sum(entry.size for entry in manifest.images)
    if envelope.images_at + total != file.size:
        raise ManifestInvalid(
            "the manifest does not describe this file",
            why=f"its images have {total} bytes, the file has {file.size - envelope.images_at} for them",
        )
    return _cut(file, envelope.images_at, manifest)


def _cut(file: ImageContent, offset: int, manifest: Manifest) -> Iterator[tuple[ImageEntry, ImageContent]]:
    for entry in manifest.images:
        yield entry, ContentPart(file, offset, entry.size)
        offset += entry.size


def describe_image(image: bytes, depends: tuple[Dependency, ...] = (), slot_size: int = SLOT_SIZE) -> ImageEntry:
    """The manifest entry of a node image.  Raises FileTooLarge, ImageInvalid."""
    facts = parse_node_image(image, slot_size)
    return ImageEntry(
        node_type=facts.node_type,
        hardware_ids=facts.hardware_ids,
        version=facts.version,
        security_counter=facts.security_counter,
        size=len(image),
        sha256=hashlib.sha256(image).digest(),
        crc32=zlib.crc32(image),
        depends=tuple(sorted(depends, key=lambda need: need.node_type)),
    )


def build_upgrade_file(
    contents: Sequence[Content],
    *,
    release_name: str,
    release_version: Version,
    created: date,
    expires: date | None = None,
    signer: Signer | None,
    slot_size: int = SLOT_SIZE,
) -> bytes:
    """Make an upgrade file of node images, in programming order.  A draft, unsigned, if `signer` is None.

    Raises FileTooLarge, ImageInvalid, ManifestInvalid.
    """
    manifest = Manifest(
        release_name=release_name,
        release_version=release_version,
        created=created,
        expires=expires,
        images=tuple(describe_image(content.image, content.depends, slot_size) for content in contents),
    )
    return assemble(encode_manifest(manifest), [content.image for content in contents], signer)


def assemble(manifest: bytes, images: Sequence[bytes], signer: Signer | None) -> bytes:
    """Put header, encoded manifest, signature and images together.  Raises FileTooLarge."""
    signature_size = 0 if signer is None else _SIGNATURE_SIZE
    file_size = _HEADER.size + len(manifest) + signature_size + sum(map(len, images))
    if file_size > MAX_FILE_SIZE:
        raise FileTooLarge("the file would be too large", why=f"{file_size} bytes, at most {MAX_FILE_SIZE} are allowed")
    key_id = bytes(32) if signer is None else signer.key_id
    head = _HEADER.pack(MAGIC, FORMAT_VERSION, signature_size, len(manifest), file_size, key_id) + manifest
    signature = b"" if signer is None else signer.sign(_DOMAIN + head)
    return b"".join((head, signature, *images))
