"""What went wrong in other updaters, and must not here."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from ess_can.errors import EssCanError, FileTooLarge, FileTruncated, ManifestInvalid
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.image.upgrade_file import MAX_FILE_SIZE, split_upgrade_file
from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import ImageId
from ess_can.sim.bootloader import BootReason
from ess_can.sim.node import Behaviour, SimulatedNode
from ess_can.sim.plant import Plant
from ess_can.sim.power_cut import CutMode
from ess_can.trust.keys import KeyRing
from ess_can.trust.verify import open_upgrade_file
from ess_can.uds.target import Nrc, Operation
from tests.firmware_images import FIRMWARE, RELEASE, small_upgrade
from tests.scenario.support import BMU1, BMU2, NEW, OLD, QUICK, Outcome, Scene, image, play
from tests.unit.sim.memory_rig import GEOMETRY, PowerLostError, Rig, RigState, make_image

RINGS = (KeyRing.of(RELEASE.public), KeyRing.of(FIRMWARE.public))
ONE_RACK = replace(QUICK, racks=1)
RAN = make_image("2.0.0", 3)
NEXT = make_image("3.0.0", 5)
LATER = make_image("4.0.0", 6)


# --- RAUC -------------------------------------------------------------------------------------------


def overwrite(path: Path) -> None:
    path.write_bytes(b"\x00" * path.stat().st_size)


def replace_by_rename(path: Path) -> None:
    other = path.with_suffix(".other")
    other.write_bytes(b"something else")
    other.replace(path)


def truncate(path: Path) -> None:
    os.truncate(path, 10)


@pytest.mark.parametrize("change", [overwrite, replace_by_rename, truncate, Path.unlink])
def test_rauc_cve_2020_25860_file_changed_between_check_and_use(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """The signature was checked, then the payload was read from the file again: it could be another one by then.

    Ours checks a private copy and sends what it checked, whatever becomes of the file, also in mid-transfer.
    """
    path = tmp_path / "release.essup"
    content = image(BMU1.node_type, NEW, 20)
    path.write_bytes(small_upgrade(content))
    upgrade = open_upgrade_file(path, RINGS[0], firmware_keyring=RINGS[1])

    async def interfere(scene: Scene) -> None:
        await scene.verified(4000)
        change(path)

    outcome = play(interfere, spec=ONE_RACK, upgrade=upgrade)
    outcome.require(Phase.DONE)
    outcome.require_confirmed(NEW)
    flash = outcome.scene.plant.nodes[BMU1].flash
    assert flash.read(1, flash.geometry.slot_offset, len(content)) == content


BEYOND = (MAX_FILE_SIZE + 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1)


@pytest.mark.parametrize("announced", BEYOND)
def test_rauc_cve_2026_34155_announced_beyond_two_gib(announced: int) -> None:
    """Bundles over 2 GiB were signed wrongly, and what the signature covered was not what was installed.

    Ours has no such sizes: whatever a header announces beyond the limit is refused before anything is read.
    """
    good = small_upgrade()
    header = good[:16] + struct.pack("<I", announced) + good[20:]
    with pytest.raises(FileTooLarge):
        split_upgrade_file(header)
    manifest = good[:12] + struct.pack("<I", announced) + good[16:]
    with pytest.raises(ManifestInvalid):
        split_upgrade_file(manifest)


@pytest.mark.parametrize("size", [2**31, 2**31 + 4096, 2**32 + 1])
def test_rauc_cve_2026_34155_file_beyond_two_gib(tmp_path: Path, size: int) -> None:
    """The same for a file that has that size: its length is not cut to 32 bits on the way to the check."""
    path = tmp_path / "large.essup"
    path.write_bytes(small_upgrade())
    os.truncate(path, size)
    with pytest.raises(FileTooLarge):
        open_upgrade_file(path, RINGS[0], firmware_keyring=RINGS[1])


def test_rauc_cve_2026_34155_every_byte_is_covered() -> None:
    """And nothing of a file of ours is outside the signature: any byte changed, any byte missing is found."""
    good = small_upgrade()
    open_upgrade_file(good, RINGS[0], firmware_keyring=RINGS[1])
    for at in range(len(good)):
        changed = bytearray(good)
        changed[at] ^= 1 << at % 8
        with pytest.raises(EssCanError):
            open_upgrade_file(bytes(changed), RINGS[0], firmware_keyring=RINGS[1])
    with pytest.raises(FileTruncated):
        open_upgrade_file(good[:-1], RINGS[0], firmware_keyring=RINGS[1])


# --- Espressif --------------------------------------------------------------------------------------


def put_into(rig: Rig, content: bytes) -> None:
    """Somebody with access to the flash exchanges what is in the other bank."""
    other = Rig(RAN)
    other.put(content)
    rig.flash.restore_bank(1, other.flash.export_bank(1))


def verified() -> Rig:
    rig = Rig(RAN)
    rig.put(NEXT)
    rig.verify(NEXT)
    return rig


def before_activation(rig: Rig, content: bytes) -> None:
    put_into(rig, content)
    rig.activate()


def before_the_boot(rig: Rig, content: bytes) -> None:
    rig.activate()
    put_into(rig, content)


def before_the_boot_and_its_record_too(rig: Rig, content: bytes) -> None:
    put_into(rig, content)
    rig.bootloader.activate_on_trial(ImageId.of(content), 1)


LOWER = make_image("2.9.0", 2)


@pytest.mark.parametrize("exchange", [before_activation, before_the_boot, before_the_boot_and_its_record_too])
def test_espressif_cve_2024_28183_image_exchanged_after_the_rollback_check(
    exchange: Callable[[Rig, bytes], None],
) -> None:
    """Anti-rollback was checked, then the image was loaded from flash again: an older signed one could take its place.

    Ours runs what it has just hashed, and checks the counter of that very image at the boot itself.
    """
    rig = verified()
    exchange(rig, LOWER)
    rig.reset()
    assert (rig.version, rig.standing) == ("2.0.0", ImageState.CONFIRMED)
    assert rig.memory.running.reason is BootReason.TRIAL_REFUSED
    assert rig.bootloader.record.security_counter == 3


def test_espressif_cve_2024_28183_image_exchanged_after_confirmation() -> None:
    """The same once it is confirmed: another image never runs in its name, and a lower one not as a way out."""
    rig = Rig(RAN)
    rig.upgrade(NEXT)
    put_into(rig, LATER)
    rig.reset()
    assert rig.standing is ImageState.RECOVERY
    assert rig.memory.running.facts is None


# --- Zephyr -----------------------------------------------------------------------------------------


def send_a_damaged_image(rig: Rig) -> None:
    """All of it arrives, one bit is wrong, and the node says so."""
    damaged = NEXT[:40] + bytes([NEXT[40] ^ 1]) + NEXT[41:]
    rig.reset()
    rig.announce(NEXT)
    rig.download(damaged)
    assert rig.wait(rig.memory.verify(zlib.crc32(NEXT), rig.now)) is not None
    rig.check_power()
    rig.announce(NEXT)  # what a client does next: power may be lost while that is given up and erased
    rig.download(NEXT[:], 0)


def send_again(rig: Rig, content: bytes) -> None:
    """As the gateway does: what is there counts; if it turns out not to be the image, all of it is sent again."""
    rig.put(content)
    if rig.wait(rig.memory.verify(zlib.crc32(content), rig.now)) is not None:
        assert rig.memory.resume_state().verified_offset == 0
        rig.put(content)
    rig.upgrade(content)


@pytest.mark.parametrize("content", [NEXT, LATER], ids=["the same again", "another one"])
def test_zephyr_19438_device_that_can_never_be_upgraded_again(content: bytes) -> None:
    """After a reset while a bad image was being erased its slot counted as in use for ever: no upload, no erase.

    (So zephyr#26738 and mcuboot#762 tell it.)  Ours takes a good image after a cut at any operation of a bad one.
    """
    start = Rig(make_image("1.0.0", 2))
    start.upgrade(RAN)
    state: RigState = start.state()
    whole = Rig()
    whole.take_over(state)
    before = whole.power.operations
    send_a_damaged_image(whole)
    for at in range(whole.power.operations - before):
        rig = Rig(seed=at)
        rig.take_over(state)
        rig.power.arm(at, CutMode.BITS)
        with suppress(PowerLostError):
            send_a_damaged_image(rig)
        rig.power_cycle()
        send_again(rig, content)
        assert (rig.memory.running.facts is not None, rig.standing) == (True, ImageState.CONFIRMED)
        assert rig.flash.read(rig.memory.running.bank, GEOMETRY.slot_offset, len(content)) == content


def test_zephyr_19438_damaged_image_is_not_resumed_for_ever() -> None:
    """And without any cut: what was judged bad does not count as a download to be gone on with."""
    rig = Rig(RAN)
    rig.announce(NEXT)
    rig.download(NEXT[:-1] + b"\0")
    for _ in range(2):
        assert rig.wait(rig.memory.verify(zlib.crc32(NEXT), rig.now)) is not None
    assert rig.memory.resume_state().image_sha256 != hashlib.sha256(NEXT).digest()
    rig.upgrade(NEXT)
    assert rig.version == "3.0.0"


# --- OpenSOVD ---------------------------------------------------------------------------------------

REFUSALS = (
    (Nrc.REQUEST_SEQUENCE_ERROR, "UDS_NEGATIVE_RESPONSE"),
    (Nrc.REQUEST_OUT_OF_RANGE, "UDS_NEGATIVE_RESPONSE"),
    (Nrc.CONDITIONS_NOT_CORRECT, "UDS_NEGATIVE_RESPONSE"),
    (Nrc.TRANSFER_DATA_SUSPENDED, "UDS_NEGATIVE_RESPONSE"),
    (Nrc.GENERAL_PROGRAMMING_FAILURE, "FLASH_WRITE_FAILED"),
)


def refuses(accepted: int, nrc: Nrc) -> Callable[[Plant], None]:
    """A node that takes so many blocks, and none after them."""

    def prepare(plant: Plant) -> None:
        node = plant.nodes[BMU1]
        write, taken = node.write, 0

        def refuse(data: bytes, now: float) -> Operation | Nrc:
            nonlocal taken
            taken += 1
            return write(data, now) if taken <= accepted else nrc

        node.write = refuse  # type: ignore[method-assign] # this one node only

    return prepare


@pytest.mark.parametrize(("nrc", "error"), REFUSALS, ids=[nrc.name for nrc, _ in REFUSALS])
@pytest.mark.parametrize("accepted", [0, 2])
def test_classic_diagnostic_adapter_545_success_after_a_negative_response(accepted: int, nrc: Nrc, error: str) -> None:
    """A negative response to TransferData was no error there: a transfer refused as a whole ended as "finished".

    Ours ends with the node's refusal as its error; nothing is verified, activated or restarted.
    """
    outcome = play(prepare=refuses(accepted, nrc), spec=ONE_RACK)
    outcome.require(Phase.FAILED, error, 91 if error == "FLASH_WRITE_FAILED" else 82)
    assert not outcome.scene.all_steps(NodeStep.VERIFY)
    assert not outcome.scene.all_steps(NodeStep.TRIAL_BOOT)
    assert outcome.scene.plant.nodes[BMU1].boots == 1
    assert outcome.report.nodes[0].bytes_sent == accepted * ONE_RACK.flash.block_bytes
    outcome.require_confirmed(OLD)


# --- hawkBit ----------------------------------------------------------------------------------------


def not_booted(outcome: Outcome) -> None:
    outcome.require(Phase.ROLLED_BACK, "ROLLED_BACK", 100)
    outcome.require_confirmed(OLD)
    assert [node.runs for node in outcome.report.nodes] == [OLD]


def forgets(step: str) -> Callable[[Plant], None]:
    """A node that answers this step positively and does nothing."""

    def prepare(plant: Plant) -> None:
        def forget(_now: float) -> None:
            return None

        setattr(plant.nodes[BMU1], step, forget)

    return prepare


def test_hawkbit_3185_success_before_the_boot() -> None:
    """A rollout counted a device as done when its image was written, before it had ever booted.

    Ours is done only when each node itself has said twice, running it, that it runs the new version: on trial, then
    confirmed.  Here the activation does not take, and the restart boots what ran before.
    """
    not_booted(play(prepare=forgets("activate_on_trial"), spec=ONE_RACK))


def test_hawkbit_3185_success_stands_after_a_fall_back() -> None:
    """There a device that fell back to its old slot stayed recorded as updated.  Ours reports what it runs."""
    not_booted(play(spec=replace(ONE_RACK, behaviours={NEW: Behaviour.HANGS})))


def test_hawkbit_3185_confirmation_that_does_not_hold() -> None:
    """The last word is the node's too: an answer to "confirm" alone is not success."""
    not_booted(play(prepare=forgets("confirm"), spec=ONE_RACK))


def test_hawkbit_3185_done_is_the_last_thing_said() -> None:
    """In a good upgrade no final phase is told before every node has said that it is confirmed."""
    said: list[bool] = []

    async def watch(scene: Scene) -> None:
        await scene.phase(Phase.RECONNECT)
        said.extend(confirmed(scene.plant.nodes[address]) for address in (BMU1, BMU2))

    outcome = play(watch)
    outcome.require(Phase.DONE)
    assert said
    assert all(said)


def confirmed(node: SimulatedNode) -> bool:
    return node.running and (node.memory.version, node.memory.standing) == (NEW, ImageState.CONFIRMED)
