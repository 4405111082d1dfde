"""Attacks on what a release is made of and on whom it is believed: put together anew, claimed, stolen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest

from ess_can.errors import EssCanError, ImageCorrupt, ImageInvalid, ManifestInvalid, SignatureInvalid, UnknownKey
from ess_can.gateway.phases import Phase
from ess_can.identity import NodeType, Version
from ess_can.image.manifest import Dependency
from ess_can.trust.keys import KeyRing, SigningKey
from ess_can.trust.verify import open_upgrade_file, verify_node_image
from tests.firmware_images import FIRMWARE, PROTECTED, RELEASE, RING, STRANGER, area, raw_image, small_image, tlv
from tests.firmware_images import small_upgrade as upgrade
from tests.scenario.support import NEW, OLD, QUICK, changes_plant, image, play

FIRMWARE_RING = KeyRing.of(FIRMWARE.public)


def test_p9_images_of_two_releases_put_together() -> None:
    """A mixed bundle: the manifest of one signed release, with the equally long and equally signed image of another."""
    one, other = small_image(payload=b"one firmware"), small_image(payload=b"two firmware")
    first, second = upgrade(one), upgrade(other)
    assert len(one) == len(other)
    open_upgrade_file(first, RING)
    open_upgrade_file(second, RING)
    with pytest.raises(ImageCorrupt, match="damaged"):
        open_upgrade_file(first[: -len(one)] + other, RING)
    with pytest.raises(EssCanError):
        open_upgrade_file(second[: -len(one) - 64] + first[-len(one) - 64 :], RING)


def test_p9_image_left_out_of_its_set() -> None:
    """A set is whole or nothing: of two signed images one alone is not accepted."""
    gateway = small_image(node_type=NodeType.COMM_GATEWAY, hardware_ids=(0x21,))
    both = upgrade(small_image(), gateway)
    open_upgrade_file(both, RING)
    shorter = both[: -len(gateway)]
    length = len(shorter).to_bytes(4, "little")
    with pytest.raises((SignatureInvalid, ManifestInvalid)):
        open_upgrade_file(shorter[:16] + length + shorter[20:], RING)


def test_p10_set_that_needs_what_does_not_run() -> None:
    """Mix and match: images that are signed and new, on a plant whose other nodes are too old for them."""
    needs = (Dependency(NodeType.COMM_GATEWAY, Version(9, 0, 0)),)
    content = image(NodeType.BMU, NEW, 4)
    release = open_upgrade_file(
        upgrade(content, depends=needs), KeyRing.of(RELEASE.public), firmware_keyring=FIRMWARE_RING
    )
    outcome = play(spec=QUICK, upgrade=release)
    outcome.require(Phase.REFUSED, "DEPENDENCY_UNMET", 61)
    assert not changes_plant(outcome.scene)
    outcome.require_confirmed(OLD)


@dataclass(frozen=True, slots=True)
class Pretender:
    """Signs with its own key and names another one."""

    key_id: bytes

    def sign(self, message: bytes) -> bytes:
        return STRANGER.sign(message)


def test_p16_key_id_of_another_key() -> None:
    """A file that names a trusted key is checked with that very key."""
    with pytest.raises(SignatureInvalid):
        open_upgrade_file(upgrade(signer=Pretender(RELEASE.key_id)), RING)
    with pytest.raises(SignatureInvalid):
        verify_node_image(small_image(signer=Pretender(FIRMWARE.key_id)), RING)


@pytest.mark.parametrize("kind", [0x20, 0x21, 0x22, 0x23, 0x24], ids=hex)
def test_p16_algorithm_belongs_to_the_key(kind: int) -> None:
    """The TLV of another algorithm (RSA, ECDSA) chooses nothing: only the one of our keys is known."""
    image_ = raw_image(PROTECTED)
    signed = image_[: image_.rindex(b"\x07\x69")]
    digest = hashlib.sha256(signed).digest()
    tail = area(0x6907, tlv(0x10, digest), tlv(0x01, FIRMWARE.key_id), tlv(kind, FIRMWARE.sign(digest)))
    if kind == 0x24:
        assert verify_node_image(signed + tail, RING).signer == FIRMWARE.public
    else:
        with pytest.raises(ImageInvalid):
            verify_node_image(signed + tail, RING)


def test_p17_keys_are_rotated_and_revoked() -> None:
    """Old and new key are trusted side by side for a while; a stolen one is taken out, and what it signed with it."""
    successor = SigningKey.from_seed(hashlib.sha256(b"successor").digest(), "successor")
    old, new = upgrade(), upgrade(signer=successor)
    both = KeyRing.of(RELEASE.public, successor.public)
    assert open_upgrade_file(old, both, firmware_keyring=FIRMWARE_RING).signer == RELEASE.public
    assert open_upgrade_file(new, both, firmware_keyring=FIRMWARE_RING).signer == successor.public
    revoked = KeyRing.of(successor.public)
    with pytest.raises(UnknownKey):
        open_upgrade_file(old, revoked, firmware_keyring=FIRMWARE_RING)
    open_upgrade_file(new, revoked, firmware_keyring=FIRMWARE_RING)


def test_p17_firmware_key_signs_no_release() -> None:
    """Each key is for one purpose: whoever stole one of them cannot do the other's part."""
    releases = KeyRing.of(RELEASE.public)
    open_upgrade_file(upgrade(), releases, firmware_keyring=FIRMWARE_RING)
    with pytest.raises(UnknownKey):
        open_upgrade_file(upgrade(signer=FIRMWARE), releases, firmware_keyring=FIRMWARE_RING)
    with pytest.raises(UnknownKey):
        open_upgrade_file(upgrade(small_image(signer=RELEASE)), releases, firmware_keyring=FIRMWARE_RING)
