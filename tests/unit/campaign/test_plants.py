from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace

import pytest

from ess_can.campaign.plants import NEW, NEXT, SLOW_PART, SMALL_PART, SMALLEST, random_site
from ess_can.campaign.releases import FACTORY, image, make_plant, release, verify
from ess_can.errors import UnknownKey
from ess_can.gateway.config import Afterwards
from ess_can.identity import NodeType
from ess_can.image.node_image import parse_node_image
from ess_can.sim.loop import run_virtual
from ess_can.sim.parts import PARTS
from ess_can.trust.verify import open_upgrade_file
from tests.firmware_images import FIRMWARE, RING, small_image, small_upgrade

_PROGRAM = """
import random
from ess_can.campaign.plants import random_site
print([random_site(random.Random(seed), seed).text for seed in range(50)])
"""
SITES = [random_site(random.Random(seed), seed) for seed in range(400)]


def test_the_same_chance_gives_the_same_site_in_every_process() -> None:
    told = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        told.add(done.stdout.strip())
    assert told == {str([site.text for site in SITES[:50]])}


def test_sites_differ_in_everything_that_they_may_differ_in() -> None:
    assert {site.plant.racks for site in SITES} == {1, 2, 3}
    assert {site.plant.running for site in SITES} == {True, False}
    assert {site.plant.bit_timing.data_bitrate is None for site in SITES} == {True, False}
    assert {site.plant.isotp.fd for site in SITES} == {True, False}
    assert {site.plant.flash.name for site in SITES} == {SMALL_PART.name, SLOW_PART.name}
    assert {site.afterwards for site in SITES} == set(Afterwards)
    assert len({site.release for site in SITES}) == 3
    assert len({str(site.bus) for site in SITES}) == 4
    assert {site.bank for site in SITES} == {0, 1}
    assert 150 < sum(site.plant.pcs_keeps_lock for site in SITES) < 250


def test_every_image_fits_its_slot() -> None:
    for site in SITES:
        for node_type in site.release:
            assert len(image(node_type, NEW, site.payload_bytes)) <= site.plant.flash.geometry.slot_size


def test_what_a_site_is_can_be_told() -> None:
    assert SMALLEST.text == ("1 rack, 500 kbit/s, STM32G474, slots of 32 KiB, found connected, 3000 bytes for bmu")
    told = " | ".join(site.text for site in SITES)
    for word in (
        "with FD",
        "found open",
        "load cap 60 %",
        "and yielding",
        "1 node at once",
        "2 racks",
        "from bank 1",
        "a PCS that remembers its lock",
    ):
        assert word in told


def test_the_configuration_names_every_node_and_how_to_leave_the_plant() -> None:
    site = replace(SMALLEST, afterwards=Afterwards.HOLD_OPEN)
    assert site.config().expected == site.plant.addresses
    assert site.config().afterwards is Afterwards.HOLD_OPEN
    assert site.config(Afterwards.CONNECT).afterwards is Afterwards.CONNECT


def test_the_small_parts_are_like_real_ones() -> None:
    for part in (SMALL_PART, SLOW_PART):
        real = PARTS[part.name.split(",")[0]]
        assert part.timing == real.timing
        assert part.geometry.unit_size == real.geometry.unit_size


def test_a_release_is_for_these_nodes_and_newer_than_the_last() -> None:
    both = (NodeType.COMM_GATEWAY, NodeType.BMU)
    new, following = release(both, NEW, 1000), release(both, NEXT, 1000)
    assert tuple(entry.node_type for entry in new.manifest.images) == both
    assert FACTORY < NEW < NEXT
    for older, newer in zip(new.manifest.images, following.manifest.images, strict=True):
        assert older.security_counter < newer.security_counter
        assert older.sha256 != newer.sha256


def test_other_keys_are_worth_nothing_here_and_these_nowhere_else() -> None:
    stranger = small_image(signer=FIRMWARE)
    with pytest.raises(UnknownKey):
        verify(stranger)
    assert parse_node_image(stranger).key_id == FIRMWARE.key_id
    with pytest.raises(UnknownKey):
        open_upgrade_file(small_upgrade(image(NodeType.BMU, NEW, 500)), RING, firmware_keyring=RING)


def test_a_plant_runs_the_factorys_firmware() -> None:
    async def versions() -> set[str]:
        plant = make_plant(SMALLEST.plant)
        plant.start()
        return {
            str(node.bootloader.verify(image(address.node_type, FACTORY, 2048)).version)
            for address, node in plant.nodes.items()
        }

    assert run_virtual(versions()) == {"1.0.0"}
