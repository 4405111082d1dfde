"""An image of 1 MiB, which needs nodes with more flash than the usual ones have."""

from __future__ import annotations

from dataclasses import replace

from ess_can.cli.embedded import flash_for, upgrade_simulated_plant
from ess_can.gateway.phases import Phase
from ess_can.identity import NodeType
from ess_can.image.upgrade_file import Content, build_upgrade_file
from ess_can.trust.keys import KeyRing
from ess_can.trust.verify import open_upgrade_file
from tests.firmware_images import CREATED, FIRMWARE, NEWER, RELEASE
from tests.scenario.support import QUICK, image


def test_an_image_of_one_mebibyte() -> None:
    flash = flash_for(1100)
    content = image(NodeType.BMU, NEWER, 1024)
    file = build_upgrade_file(
        [Content(content, ())],
        release_name="Large",
        release_version=NEWER,
        created=CREATED,
        signer=RELEASE,
        slot_size=flash.geometry.slot_size,
    )
    upgrade = open_upgrade_file(
        file,
        KeyRing.of(RELEASE.public),
        firmware_keyring=KeyRing.of(FIRMWARE.public),
        slot_size=flash.geometry.slot_size,
    )
    spec = replace(QUICK, racks=1, flash=flash, speed=10.0)
    run = upgrade_simulated_plant(upgrade, spec, lambda _event: None, firmware_keys=KeyRing.of(FIRMWARE.public))
    assert (run.report.result, run.report.error) == (Phase.DONE, None)
    (node,) = run.report.nodes
    assert node.runs == NEWER
    assert node.bytes_sent > 1024 * 1024
