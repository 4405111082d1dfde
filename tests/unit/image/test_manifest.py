from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from ess_can.errors import ManifestInvalid
from ess_can.identity import NodeType, Version
from ess_can.image.manifest import (
    MAX_IMAGES,
    MAX_MANIFEST_SIZE,
    Dependency,
    ImageEntry,
    Manifest,
    encode_manifest,
    parse_manifest,
)

ENTRY = ImageEntry(NodeType.BMU, (0x11, 0x12), Version(1, 1, 0), 2, 1000, bytes(range(32)), 0x0123ABCD)
GATEWAY = dataclasses.replace(
    ENTRY,
    node_type=NodeType.COMM_GATEWAY,
    depends=(Dependency(NodeType.BMU, Version(1, 0, 0)), Dependency(NodeType.CMU, Version(0, 9, 0, 5))),
)
MANIFEST = Manifest("Site release (1)", Version(2, 0, 0), date(2026, 11, 20), (ENTRY, GATEWAY), date(2027, 1, 1))

Json = dict[str, Any]


def edited(change: Callable[[Json], object]) -> bytes:
    document: Json = json.loads(encode_manifest(MANIFEST))
    change(document)
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def test_what_is_encoded_is_what_is_read() -> None:
    assert parse_manifest(encode_manifest(MANIFEST)) == MANIFEST
    endless = dataclasses.replace(MANIFEST, expires=None)
    assert parse_manifest(encode_manifest(endless)) == endless


def test_the_editor_of_these_tests_changes_nothing_by_itself() -> None:
    assert edited(lambda document: None) == encode_manifest(MANIFEST)


def image(index: int, key: str, value: object) -> Callable[[Json], object]:
    return lambda document: document["images"][index].update({key: value})


def member(key: str, value: object) -> Callable[[Json], object]:
    return lambda document: document.update({key: value})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (member("extra", 1), "unknown members"),
        (lambda document: document.pop("expires"), "lacks"),
        (member("release_name", ""), "release_name"),
        (member("release_name", "x" * 65), "release_name"),
        (member("release_name", "ends in a space "), "release_name"),
        (member("release_name", "\x1b[31mred"), "release_name"),
        (member("release_name", "\ud800"), "release_name"),
        (member("release_name", 5), "not a string"),
        (member("release_version", "1.1"), "not a version"),
        (member("release_version", "01.1.0"), "canonical"),
        (member("release_version", "1.1.\u0661"), "canonical"),
        (member("release_version", "256.0.0"), "outside 0..255"),
        (member("created", "20.11.2026"), "not a date"),
        (member("created", "20261120"), "canonical"),
        (member("created", None), "not a string"),
        (member("expires", 5), "not a string"),
        (member("images", {}), "not a list"),
        (member("images", []), "names 0 images"),
        (member("images", [1]), "not an object"),
        (member("images", [{}] * (MAX_IMAGES + 1)), "names 17 images"),
        (image(0, "extra", 1), "unknown members"),
        (lambda document: document["images"][0].pop("sha256"), "lacks"),
        (image(0, "node_type", "pcs"), "node type"),
        (image(0, "node_type", "BMU"), "node type"),
        (image(0, "hardware_ids", []), "0 hardware ids"),
        (image(0, "hardware_ids", [256]), "outside"),
        (image(0, "hardware_ids", [2, 1]), "ascend"),
        (image(0, "hardware_ids", [True]), "not an integer"),
        (image(0, "hardware_ids", "17"), "not a list"),
        (image(0, "security_counter", -1), "not an integer"),
        (image(0, "security_counter", 1 << 32), "not an integer"),
        (image(0, "security_counter", "1"), "not an integer"),
        (image(0, "security_counter", 1.0), "not the JSON"),
        (image(0, "security_counter", float("nan")), "not the JSON"),
        (image(0, "size", 0), "size 0"),
        (image(0, "sha256", "0" * 63), "hexadecimal"),
        (image(0, "sha256", "A" * 64), "hexadecimal"),
        (image(0, "crc32", "0123abc"), "hexadecimal"),
        (image(0, "depends", [{"node_type": "bmu", "min_version": "1.0.0"}]), "depends must"),
        (image(0, "depends", [{"node_type": "cmu"}]), "lacks"),
        (image(1, "depends", [{"node_type": "cmu", "min_version": "1.0.0"}] * 2), "depends must"),
        (image(1, "node_type", "bmu"), "depends must"),
    ],
)
def test_every_broken_rule_is_found(change: Callable[[Json], object], why: str) -> None:
    with pytest.raises(ManifestInvalid, match=why):
        parse_manifest(edited(change))


def test_two_images_for_one_kind_of_node() -> None:
    other = dataclasses.replace(ENTRY, hardware_ids=(0x12, 0x13))
    with pytest.raises(ManifestInvalid, match="two images"):
        encode_manifest(dataclasses.replace(MANIFEST, images=(ENTRY, other)))
    apart = dataclasses.replace(ENTRY, hardware_ids=(0x13,))
    encode_manifest(dataclasses.replace(MANIFEST, images=(ENTRY, apart)))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not the JSON"),
        (b"{", "not the JSON"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b'{"created":"\xff"}', "not the JSON"),
        (b'{"a":1,"a":1}', "twice"),
        (b'{"a":{"b":1,"b":1}}', "twice"),
        (b"[" * 60000, "not the JSON"),
        (b"1" * 5000, "not the JSON"),
        (b" " * (MAX_MANIFEST_SIZE + 1), "at most"),
        (b" " + encode_manifest(MANIFEST), "canonical"),
        (encode_manifest(MANIFEST) + b"\n", "canonical"),
        (encode_manifest(MANIFEST).replace(b"Site", b"\\u0053ite"), "canonical"),
        (encode_manifest(MANIFEST) + b"{}", "not the JSON"),
    ],
)
def test_other_bytes(data: bytes, why: str) -> None:
    with pytest.raises(ManifestInvalid, match=why):
        parse_manifest(data)


def test_what_cannot_be_read_back_is_not_written() -> None:
    with pytest.raises(ManifestInvalid, match="release_name"):
        encode_manifest(dataclasses.replace(MANIFEST, release_name="a\nb"))
