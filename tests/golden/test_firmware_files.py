"""The bytes of a node image and an upgrade file, locked: nodes and gateways in the field must go on reading them.

To make the golden files again after a deliberate change of the format, write what the two functions below return.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

from ess_can.identity import NodeType, Version
from ess_can.image.manifest import Dependency
from ess_can.image.node_image import build_node_image
from ess_can.image.upgrade_file import Content, build_upgrade_file
from ess_can.trust.keys import KeyRing, SigningKey
from ess_can.trust.verify import open_upgrade_file, verify_node_image

FOLDER = Path(__file__).parent
KEY = SigningKey.from_seed(bytes(range(32)))
RING = KeyRing.of(KEY.public)


def golden_image() -> bytes:
    return build_node_image(
        b"golden firmware",
        version=Version(1, 2, 3, 4),
        node_type=NodeType.COMM_GATEWAY,
        hardware_ids=(0x21, 0x22),
        security_counter=0x01020304,
        signer=KEY,
    )


def golden_upgrade() -> bytes:
    return build_upgrade_file(
        [Content(golden_image(), (Dependency(NodeType.BMU, Version(1, 0, 0)),))],
        release_name="Golden release",
        release_version=Version(1, 2, 3),
        created=date(2026, 11, 20),
        expires=date(2030, 1, 31),
        signer=KEY,
    )


def test_the_node_image() -> None:
    golden = (FOLDER / "node_image.bin").read_bytes()
    assert golden == golden_image()
    assert verify_node_image(golden, RING).facts.version == Version(1, 2, 3, 4)


def test_the_upgrade_file() -> None:
    golden = (FOLDER / "release.essup").read_bytes()
    assert golden == golden_upgrade()
    assert open_upgrade_file(golden, RING).manifest.release_name == "Golden release"


def test_the_layout_is_the_documented_one() -> None:
    golden = (FOLDER / "release.essup").read_bytes()
    manifest = (
        b'{"created":"2026-11-20","expires":"2030-01-31","images":[{"crc32":"CRC","depends":'
        b'[{"min_version":"1.0.0","node_type":"bmu"}],"hardware_ids":[33,34],"node_type":"comm_gateway",'
        b'"security_counter":16909060,"sha256":"SHA","size":SIZE,"version":"1.2.3+4"}],'
        b'"release_name":"Golden release","release_version":"1.2.3"}'
    )
    verified = verify_node_image(golden_image(), RING)
    manifest = manifest.replace(b"CRC", f"{verified.crc32:08x}".encode())
    manifest = manifest.replace(b"SHA", verified.sha256.hex().encode())
    manifest = manifest.replace(b"SIZE", str(verified.size).encode())
    head = b"\x89ESSUP\r\n" + b"\x01\x00" + b"\x40\x00"
    head += len(manifest).to_bytes(4, "little") + len(golden).to_bytes(4, "little") + KEY.key_id + manifest
    assert golden == head + KEY.sign(b"ess-can upgrade file v1\0" + head) + golden_image()
