"""Small firmware for simulated plants, made on the spot: images and releases of any version, signed with TEST keys.

The keys' seeds stand here for everybody to read, so what they sign is worth nothing outside a simulation: no other
program trusts them.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from datetime import date
from functools import cache

from ess_can.identity import NodeType, Version
from ess_can.image.node_image import NodeImage, build_node_image
from ess_can.image.upgrade_file import Content, build_upgrade_file
from ess_can.signals.dbc import StationCodec
from ess_can.sim.plant import BMU_HARDWARE_ID, COMM_GATEWAY_HARDWARE_ID, Plant, PlantSpec
from ess_can.trust.keys import KeyRing, SigningKey
from ess_can.trust.verify import VerifiedUpgrade, open_upgrade_file, verify_node_image

FACTORY = Version(1, 0, 0)
"""What every node of a campaign's plant runs at first."""

_RELEASE = SigningKey.from_seed(hashlib.sha256(b"TEST ONLY: campaign release").digest(), "TEST-ONLY campaign release")
_FIRMWARE = SigningKey.from_seed(
    hashlib.sha256(b"TEST ONLY: campaign firmware").digest(), "TEST-ONLY campaign firmware"
)
_RELEASE_RING = KeyRing.of(_RELEASE.public)
_FIRMWARE_RING = KeyRing.of(_FIRMWARE.public)
_HARDWARE = {NodeType.BMU: BMU_HARDWARE_ID, NodeType.COMM_GATEWAY: COMM_GATEWAY_HARDWARE_ID}
_CREATED = date(2026, 1, 1)
_FACTORY_BYTES = 2048


@cache
def image(node_type: NodeType, version: Version, payload_bytes: int) -> bytes:
    """A node image with this much random payload, the same every time.  Its security counter is the minor version."""
    return build_node_image(
        random.Random(f"{node_type.name} {version}").randbytes(payload_bytes),  # noqa: S311 - it stands for firmware
        version=version,
        node_type=node_type,
        hardware_ids=(_HARDWARE[node_type],),
        security_counter=version.minor + 1,
        signer=_FIRMWARE,
    )


@cache
def release(node_types: tuple[NodeType, ...], version: Version, payload_bytes: int) -> VerifiedUpgrade:
    """A release of one image for each of these node types, opened and verified."""
    contents = [Content(image(node_type, version, payload_bytes)) for node_type in node_types]
    file = build_upgrade_file(
        contents, release_name=f"Campaign {version}", release_version=version, created=_CREATED, signer=_RELEASE
    )
    return open_upgrade_file(file, _RELEASE_RING, firmware_keyring=_FIRMWARE_RING)


@cache
def station_codec() -> StationCodec:
    """The DBC, loaded once."""
    return StationCodec.load()


def verify(content: bytes) -> NodeImage:
    """What the ROM of a campaign's nodes checks.  Raises EssCanError for an image that must not be run."""
    return verify_node_image(content, _FIRMWARE_RING).facts


def make_plant(spec: PlantSpec, bank: int = 0) -> Plant:
    """A plant whose nodes run small firmware of the factory's version from `bank`.  Call it on the running loop."""
    images = {node_type: image(node_type, FACTORY, _FACTORY_BYTES) for node_type in _HARDWARE}
    plant = Plant(spec, station_codec(), images, verify)
    for node in plant.nodes.values() if bank else ():  # both banks hold the image: which one is confirmed decides
        record = node.bootloader.record
        node.records.boot.store(replace(record, active_bank=bank, confirmed=(None, record.confirmed[0])))
    return plant
