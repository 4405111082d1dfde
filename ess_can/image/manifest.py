"""The manifest of an upgrade file: what a release holds, as canonical JSON.

Canonical means: ASCII only, keys sorted, no white space, integers only, no key twice.  A manifest is accepted only if
encoding what was read gives the same bytes again, so one meaning has one form.  The object and its members, all of
them required and no others allowed:

================  =====================================================================================
member            value
================  =====================================================================================
created           date ``YYYY-MM-DD`` that the publisher chose
expires           date after which the release must not be installed any more, or null
images            1 to 16 objects, in the order in which nodes are programmed
release_name      1 to 64 printable characters: letters, digits, space and ``._+-()``
release_version   version such as ``1.2.0`` or ``1.2.0+7``
================  =====================================================================================

An image:

================  =====================================================================================
member            value
================  =====================================================================================
crc32             CRC-32 (zlib) of the image's bytes, 8 lower-case hexadecimal digits
depends           objects {min_version, node_type}: every node of that other type must run at least that
                  version when this image is activated; sorted by node type, none twice
hardware_ids      1 to 8 integers 0..255, ascending
node_type         ``bmu``, ``cmu`` or ``comm_gateway``
security_counter  integer 0..4294967295
sha256            SHA-256 of the image's bytes, 64 lower-case hexadecimal digits
size              bytes of the image
version           version such as ``1.2.0``
================  =====================================================================================

No two images may be for the same node type and hardware id.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date
from typing import Final

from ess_can.errors import ManifestInvalid
from ess_can.identity import NodeType, Version
from ess_can.image.node_image import hardware_ids_problem

MAX_MANIFEST_SIZE: Final = 64 * 1024
MAX_IMAGES: Final = 16

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._+()-]{0,62}[A-Za-z0-9._+()-])?")
_U32_MAX = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Dependency:
    """Nodes of `node_type` must run at least `min_version`."""

    node_type: NodeType
    min_version: Version


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """What the manifest says of one image.  `size` in bytes; `sha256` has 32 bytes."""

    node_type: NodeType
    hardware_ids: tuple[int, ...]
    version: Version
    security_counter: int
    size: int
    sha256: bytes
    crc32: int
    depends: tuple[Dependency, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A release: its name, its dates as its publisher gave them, and its images in programming order."""

    release_name: str
    release_version: Version
    created: date
    images: tuple[ImageEntry, ...]
    expires: date | None = None


def encode_manifest(manifest: Manifest) -> bytes:
    """The canonical bytes.  Raises ManifestInvalid if a rule of the format is broken."""
    data = _dump(_manifest_object(manifest))
    parse_manifest(data)
    return data


def parse_manifest(data: bytes) -> Manifest:
    """Read canonical bytes.  Raises ManifestInvalid for everything else."""
    if len(data) > MAX_MANIFEST_SIZE:
        raise _invalid(f"it has {len(data)} bytes, at most {MAX_MANIFEST_SIZE} are allowed")
    try:
        document: object = json.loads(
            data.decode("ascii"), object_pairs_hook=_no_duplicates, parse_float=_refuse, parse_constant=_refuse
        )
    except (ValueError, RecursionError) as error:
        raise _invalid(f"it is not the JSON we allow: {error}") from error
    manifest = _read_manifest(_Object(document, "the manifest"))
    if _dump(_manifest_object(manifest)) != data:
        raise _invalid("it is not in canonical form")
    return manifest


def _read_manifest(source: _Object) -> Manifest:
    source.expect("created", "expires", "images", "release_name", "release_version")
    name = source.text("release_name")
    if _NAME.fullmatch(name) is None:
        raise _invalid("release_name has forbidden characters or a forbidden length")
    items = source.items("images")
    if not 1 <= len(items) <= MAX_IMAGES:
        raise _invalid(f"it names {len(items)} images, 1 to {MAX_IMAGES} are allowed")
    images = tuple(_read_image(item) for item in items)
    seen: set[tuple[NodeType, int]] = set()
    for image in images:
        targets = {(image.node_type, number) for number in image.hardware_ids}
        if targets & seen:
            raise _invalid(f"two images are for {image.node_type.name.lower()} with the same hardware id")
        seen |= targets
    return Manifest(
        release_name=name,
        release_version=source.version("release_version"),
        created=source.date("created"),
        expires=None if source.member("expires") is None else source.date("expires"),
        images=images,
    )


def _read_image(source: _Object) -> ImageEntry:
    source.expect(
        "crc32", "depends", "hardware_ids", "node_type", "security_counter", "sha256", "size", "version"
    )  # fmt: skip
    hardware_ids = source.integers("hardware_ids")
    if (problem := hardware_ids_problem(hardware_ids)) is not None:
        raise _invalid(problem)
    node_type = source.node_type("node_type")
    depends = tuple(_read_dependency(item) for item in source.items("depends"))
    types = [dependency.node_type for dependency in depends]
    if types != sorted(set(types)) or node_type in types:
        raise _invalid("depends must be sorted by node type, without its own type and without repetition")
    size = source.integer("size")
    if size == 0:
        raise _invalid("an image has size 0")
    return ImageEntry(
        node_type=node_type,
        hardware_ids=hardware_ids,
        version=source.version("version"),
        security_counter=source.integer("security_counter"),
        size=size,
        sha256=source.hexadecimal("sha256", 32),
        crc32=int.from_bytes(source.hexadecimal("crc32", 4), "big"),
        depends=depends,
    )


def _read_dependency(source: _Object) -> Dependency:
    source.expect("min_version", "node_type")
    return Dependency(source.node_type("node_type"), source.version("min_version"))


class _Object:
    """A JSON object that is read with the type of each member in mind."""

    def __init__(self, value: object, label: str) -> None:
        if not isinstance(value, dict):
            raise _invalid(f"{label} is not an object")
        self._members: dict[str, object] = value
        self._label = label

    def expect(self, *names: str) -> None:
        unknown = sorted(self._members.keys() - set(names))
        missing = sorted(set(names) - self._members.keys())
        if unknown or missing:
            raise _invalid(f"{self._label} has unknown members {unknown} and lacks {missing}")

    def member(self, name: str) -> object:
        return self._members[name]

    def text(self, name: str) -> str:
        value = self._members[name]
        if not isinstance(value, str):
            raise _invalid(f"{name} is not a string")
        return value

    def integer(self, name: str) -> int:
        return _integer(self._members[name], name)

    def integers(self, name: str) -> tuple[int, ...]:
        return tuple(_integer(value, name) for value in self._list(name))

    def items(self, name: str) -> tuple[_Object, ...]:
        return tuple(_Object(value, f"an item of {name}") for value in self._list(name))

    def hexadecimal(self, name: str, size: int) -> bytes:
        text = self.text(name)
        if re.fullmatch(f"[0-9a-f]{{{2 * size}}}", text) is None:
            raise _invalid(f"{name} is not {2 * size} lower-case hexadecimal digits")
        return bytes.fromhex(text)

    def version(self, name: str) -> Version:
        try:
            return Version.parse(self.text(name))
        except ValueError as error:
            raise _invalid(f"{name}: {error}") from error

    def date(self, name: str) -> date:
        try:
            return date.fromisoformat(self.text(name))
        except ValueError as error:
            raise _invalid(f"{name} is not a date such as 2026-11-20") from error

    def node_type(self, name: str) -> NodeType:
        text = self.text(name)
        for node_type in NodeType:
            if node_type.name.lower() == text:
                return node_type
        raise _invalid(f"{name} is not a node type that we know")

    def _list(self, name: str) -> list[object]:
        value = self._members[name]
        if not isinstance(value, list):
            raise _invalid(f"{name} is not a list")
        return value


def _integer(value: object, name: str) -> int:
    # bool is a kind of int in Python, not in JSON
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _U32_MAX:
        raise _invalid(f"{name} is not an integer within 0..{_U32_MAX}")
    return value


def _manifest_object(manifest: Manifest) -> dict[str, object]:
    return {
        "created": manifest.created.isoformat(),
        "expires": None if manifest.expires is None else manifest.expires.isoformat(),
        "images": [_image_object(image) for image in manifest.images],
        "release_name": manifest.release_name,
        "release_version": str(manifest.release_version),
    }


def _image_object(image: ImageEntry) -> dict[str, object]:
    return {
        "crc32": f"{image.crc32:08x}",
        "depends": [
            {"min_version": str(need.min_version), "node_type": need.node_type.name.lower()} for need in image.depends
        ],
        "hardware_ids": list(image.hardware_ids),
        "node_type": image.node_type.name.lower(),
        "security_counter": image.security_counter,
        "sha256": image.sha256.hex(),
        "size": image.size,
        "version": str(image.version),
    }


def _dump(document: dict[str, object]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key occurs twice")
    return members


def _refuse(text: str) -> object:
    raise ValueError(f"{text} is not an integer")


def _invalid(why: str) -> ManifestInvalid:
    return ManifestInvalid("the manifest breaks a rule of the format", why=why)
