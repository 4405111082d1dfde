"""Small releases that simulated plants accept: signed with the published test keys."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

from ess_can.identity import NodeType, Version
from ess_can.image.node_image import build_node_image
from ess_can.image.upgrade_file import Content, build_upgrade_file
from ess_can.sim.plant import BMU_HARDWARE_ID, COMM_GATEWAY_HARDWARE_ID
from tests.firmware_images import CREATED, NEWER
from tests.unit.trust.samples import script

THREE_BLOCKS_KIB = 60
"""An image of which the usual simulated node takes three blocks, of 24 KiB at most."""

_HARDWARE = {NodeType.BMU: BMU_HARDWARE_ID, NodeType.COMM_GATEWAY: COMM_GATEWAY_HARDWARE_ID}


@cache
def image(node_type: NodeType, kib: int, version: Version = NEWER) -> bytes:
    """A node image, the same every time."""
    return build_node_image(
        random.Random(f"{node_type.name} {version}").randbytes(kib * 1024),
        version=version,
        node_type=node_type,
        hardware_ids=(_HARDWARE[node_type],),
        security_counter=version.minor + 1,
        signer=script("build").test_key("firmware"),
    )


def write_release(path: Path, *node_types: NodeType, kib: int = 8, version: Version = NEWER) -> Path:
    """Write an upgrade file for these node types."""
    data = build_upgrade_file(
        [Content(image(node_type, kib, version)) for node_type in node_types],
        release_name="Bench release",
        release_version=version,
        created=CREATED,
        signer=script("build").test_key("release"),
    )
    path.write_bytes(data)
    return path
