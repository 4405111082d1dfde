"""What went wrong in MCUboot (github.com/mcu-tools/mcuboot), and must not here.

Its nodes swap two images in flash and keep the swap's progress in trailers behind them; ours leave both images where
they are and change one record.  Each test takes the situation of the report, not its mechanism.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ess_can.errors import ImageInvalid, TestKeyRefused
from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import ImageId
from ess_can.sim.bootloader import BootReason
from ess_can.sim.flash import FlashError
from ess_can.sim.image_verdict import FailureReason
from ess_can.sim.plant import Plant
from ess_can.sim.power_cut import CutMode
from ess_can.trust.keys import TEST_KEYS, KeyRing, load_public_key
from ess_can.trust.verify import open_upgrade_file, verify_node_image
from ess_can.uds.target import Nrc
from tests.firmware_images import (
    COUNTER,
    FIRMWARE,
    HARDWARE,
    PROTECTED,
    RING,
    TYPE,
    area,
    raw_image,
    small_image,
    small_upgrade,
    tlv,
)
from tests.scenario.support import NEW, Scene, play
from tests.unit.sim.memory_rig import GEOMETRY, PowerLostError, Rig, RigState, make_image

OLD = make_image("2.0.0", 3)
NEXT = make_image("3.0.0", 5)
LATER = make_image("4.0.0", 6)
SAMPLES = Path(__file__).parents[2] / "firmware_samples"
TORN_SEEDS = (1, 2)

Act = Callable[[Rig], None]


def activated() -> RigState:
    """The memory of a node that is off, ran OLD, and will boot NEXT on trial."""
    rig = Rig(OLD)
    rig.put(NEXT)
    rig.verify(NEXT)
    rig.activate()
    return rig.state()


def off(state: RigState, seed: int = 1) -> Rig:
    rig = Rig(seed=seed)
    rig.take_over(state)
    return rig


def boot(rig: Rig) -> None:
    rig.reset()


def ask_to_revert(rig: Rig) -> None:
    rig.memory.revert(rig.now)
    rig.check_power()


def activate_boot_confirm(rig: Rig) -> None:
    rig.reset()
    rig.verify(NEXT)
    rig.activate()
    rig.reset()
    rig.confirm()


def cuts(start: RigState, prepare: Act, act: Act) -> Iterator[Rig]:
    """The node after `prepare`, and power lost at each operation of `act` in turn: before, in, and after it."""

    def prepared(seed: int = 1) -> Rig:
        rig = off(start, seed)
        prepare(rig)
        return rig

    whole = prepared()
    before = whole.power.operations
    act(whole)
    operations = whole.power.operations - before
    assert operations
    for at in range(operations):
        for mode in CutMode:
            for seed in TORN_SEEDS if mode is CutMode.BITS else (1,):
                rig = prepared(seed)
                rig.power.arm(at, mode)
                with suppress(PowerLostError):
                    act(rig)
                assert not rig.power.powered
                yield rig


@pytest.mark.parametrize("revert", [boot, ask_to_revert], ids=["by itself", "asked to"])
def test_mcuboot_1966_torn_magic_during_revert(revert: Act) -> None:
    """A revert began by rewriting a trailer; power lost in its magic left a state that no rule knew, and a brick.

    Ours reverts by one record in two slots: cut and torn anywhere, the old image boots and another upgrade succeeds.
    """
    for rig in cuts(activated(), boot, revert):
        rig.power_cycle()
        if rig.standing is ImageState.TRIAL:  # power was lost before a single bit of the request to revert was kept
            rig.power_cycle()
        assert (rig.version, rig.standing) == ("2.0.0", ImageState.CONFIRMED)
        assert rig.bootloader.record.trial is None
    rig.upgrade(LATER)
    assert (rig.version, rig.standing) == ("4.0.0", ImageState.CONFIRMED)


def test_mcuboot_829_reset_during_swap_of_a_node_never_upgraded_before() -> None:
    """After a reset in the middle of the first swap the boot looked for progress that nobody had ever written.

    Ours starts from a record of which one slot was never written: any cut leaves the old image or the new one.
    """
    rig = Rig()
    rig.take_over(Rig(OLD).state())
    rig.reset()
    rig.put(NEXT)
    for cut in cuts(rig.state(), lambda _: None, activate_boot_confirm):
        cut.power_cycle()
        assert cut.version in ("2.0.0", "3.0.0")
        assert cut.memory.running.reason in (BootReason.CONFIRMED, BootReason.TRIAL, BootReason.TRIES_USED)


def test_mcuboot_1588_power_lost_while_images_are_moved() -> None:
    """Power lost while the primary image was moved up by one sector left its header where the boot did not look.

    Ours moves nothing: from activation to confirmation no byte of flash changes, and the running bank refuses to.
    """
    rig = Rig(OLD)
    rig.put(NEXT)
    start = rig.state()
    for cut in cuts(start, lambda _: None, activate_boot_confirm):
        assert cut.state().banks == start.banks
    rig.reset()
    assert rig.flash.running_bank == 0
    for sector in range(GEOMETRY.sectors_per_bank):
        at = sector * GEOMETRY.sector_size
        assert rig.flash.start_erase(0, sector, rig.now) is FlashError.RUNNING_BANK
        assert rig.flash.start_program(0, at, bytes(GEOMETRY.unit_size), rig.now) is FlashError.RUNNING_BANK
    assert rig.state().banks == start.banks


def test_mcuboot_480_interrupted_revert_is_not_swapped_back() -> None:
    """A revert that was interrupted and resumed confirmed the wrong slot: the next boot ran the bad image again.

    Ours takes the try before the image runs: however often the revert is cut, the bad image never boots again.
    """
    for rig in cuts(activated(), boot, boot):
        rig.power_cycle()
        for _ in range(3):
            assert (rig.version, rig.standing) == ("2.0.0", ImageState.CONFIRMED)
            rig.reset()
        assert rig.bootloader.record.security_counter == 3


@pytest.mark.parametrize("on_trial", [False, True])
def test_mcuboot_2832_ecc_error_in_the_other_slot(on_trial: bool) -> None:
    """An uncorrectable read error in the secondary slot ended every boot in the same assertion, for ever.

    Ours boots the image that is confirmed, whichever unit of the other bank cannot be read, and erases it by upgrading.
    """
    start = activated() if on_trial else Rig(OLD).state()
    for offset in range(0, GEOMETRY.bank_size, GEOMETRY.unit_size):
        rig = off(start)
        rig.flash.inject_ecc_error(1, offset)
        rig.reset()
        inside = GEOMETRY.slot_offset <= offset < GEOMETRY.slot_offset + len(NEXT)
        assert rig.version == ("3.0.0" if on_trial and not inside else "2.0.0")
        rig.reset()
        assert (rig.version, rig.standing) == ("2.0.0", ImageState.CONFIRMED)
        if offset >= GEOMETRY.slot_offset:  # what is in front of it is the bootloader's, and never written
            rig.upgrade(LATER)
            assert (rig.version, rig.standing) == ("4.0.0", ImageState.CONFIRMED)


@pytest.mark.parametrize("more", [b"\0", b"\xff", bytes(range(32)), bytes(1024)], ids=len)
def test_mcuboot_1894_bytes_after_the_tlvs(more: bytes) -> None:
    """Bytes behind an image's TLVs, covered by no signature, were copied to where code runs.

    Ours refuses them in the image, and a slot that has anything behind its image.
    """
    with pytest.raises(ImageInvalid, match="nothing covers them"):
        verify_node_image(small_image() + more, RING)


def test_mcuboot_1894_bytes_that_an_older_image_left_behind() -> None:
    """The same in the node: what an older, longer image left behind the new one is never activated with it."""
    rig = Rig(OLD)
    rig.put(NEXT)
    rig.verify(NEXT)
    tail = GEOMETRY.slot_offset + len(NEXT) + -len(NEXT) % GEOMETRY.unit_size
    rig.flash.factory_program(1, tail, b"\x90" * GEOMETRY.unit_size)
    assert rig.wait(rig.memory.verify(zlib.crc32(NEXT), rig.now)) is Nrc.GENERAL_PROGRAMMING_FAILURE
    assert rig.memory.last_failure is not None
    assert rig.memory.last_failure.reason is FailureReason.SLOT_NOT_CLEAN
    assert rig.memory.activate_on_trial(rig.now) is Nrc.REQUEST_SEQUENCE_ERROR


@pytest.mark.parametrize("moved", [COUNTER, TYPE, HARDWARE], ids=["counter", "type", "hardware"])
@pytest.mark.parametrize("copied", [False, True])
def test_mcuboot_cve_2024_32883_field_outside_the_signature(moved: bytes, copied: bool) -> None:
    """A field that belongs into the signed TLVs was believed as well where no signature covers it.

    Ours takes facts from the signed part only, and refuses an image that has them elsewhere, also a second time.
    """
    fields = [field for field in (COUNTER, TYPE, HARDWARE) if copied or field is not moved]
    protected = area(0x6908, *fields)
    image = raw_image(protected)
    signed = image[: image.rindex(b"\x07\x69")]
    digest = hashlib.sha256(signed).digest()
    tail = (tlv(0x10, digest), tlv(0x01, FIRMWARE.key_id), tlv(0x24, FIRMWARE.sign(digest)))
    assert verify_node_image(raw_image(PROTECTED), RING).facts.security_counter == 2
    for at in range(len(tail) + 1):
        with pytest.raises(ImageInvalid):
            verify_node_image(signed + area(0x6907, *tail[:at], moved, *tail[at:]), RING)


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.essup")), ids=lambda path: path.name)
def test_mcuboot_ghsa_gcxh_546h_phg4_development_keys(path: Path) -> None:
    """Example keys, private halves published, were one forgotten build option away from every product.

    Ours refuses what they sign outside a bench, even where somebody trusts them: our own and MCUboot's.
    """
    ring = KeyRing.of(*(load_public_key(key) for key in (SAMPLES / "keys").glob("*.pub.pem")))
    with pytest.raises(TestKeyRefused):
        open_upgrade_file(path, ring)
    assert open_upgrade_file(path, ring, allow_test_keys=True).images


@dataclass(frozen=True, slots=True)
class Claims:
    """Somebody with a published key; refused before the signature is looked at."""

    key_id: bytes

    def sign(self, message: bytes) -> bytes:
        return bytes(64)


@pytest.mark.parametrize("key_id", TEST_KEYS, ids=TEST_KEYS.values())
def test_mcuboot_ghsa_gcxh_546h_phg4_example_keys_of_others(key_id: bytes) -> None:
    """The same for every key that is known to be published, of a release and of an image."""
    with pytest.raises(TestKeyRefused, match="test key"):
        open_upgrade_file(small_upgrade(signer=Claims(key_id)), RING)
    with pytest.raises(TestKeyRefused, match="test key"):
        verify_node_image(small_image(signer=Claims(key_id)), RING)


def test_mcuboot_2811_installed_image_is_confirmed() -> None:
    """An image that the bootloader had installed by itself was never marked confirmed: the next reset took it away.

    Ours confirms what the production line or an upgrade installed: no later restart boots anything else.
    """
    rig = Rig(OLD)
    for _ in range(3):
        assert (rig.version, rig.standing) == ("2.0.0", ImageState.CONFIRMED)
        rig.reset()

    async def restart_all(scene: Scene) -> None:
        for node in scene.plant.nodes.values():
            for _ in range(3):
                node.reset(scene.plant.wire.loop.time())
                await scene.until(lambda node=node: node.running, 5.0)  # type: ignore[misc]

    def held_open(plant: Plant) -> GatewayConfig:  # racks that restart in operation would drop their contactors
        return GatewayConfig(plant.addresses, afterwards=Afterwards.HOLD_OPEN)

    outcome = play(config=held_open, after=restart_all)
    outcome.require(Phase.HELD_OPEN, "HELD_OPEN_BY_CHOICE", 102)
    assert outcome.scene.all_steps(NodeStep.CONFIRM)
    outcome.require_confirmed(NEW)


def test_mcuboot_pr_628_rollback_by_a_reset_after_erase() -> None:
    """A newer image begun, a reset once the old one was erased, an older signed image put in: it was believed.

    Ours keeps the counter apart from the slots: at whatever operation the reset comes, the older image never boots.
    """
    start = Rig(OLD)
    start.put(make_image("1.0.0", 3))  # a slot that has to be erased
    older = make_image("2.0.1", 2)  # its version is no objection: only the counter is
    for rig in cuts(start.state(), boot, lambda rig: rig.put(NEXT)):
        rig.power_cycle()
        rig.put(older)
        assert rig.wait(rig.memory.verify(zlib.crc32(older), rig.now)) is Nrc.CONDITIONS_NOT_CORRECT
        assert rig.memory.activate_on_trial(rig.now) is Nrc.REQUEST_SEQUENCE_ERROR
    rig.bootloader.activate_on_trial(ImageId.of(older), 1)  # even with a record that asks for it
    rig.reset()
    assert (rig.version, rig.memory.running.reason) == ("2.0.0", BootReason.TRIAL_REFUSED)
    assert rig.bootloader.record.security_counter == 3
