from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ess_can.errors import SignatureInvalid
from ess_can.image.node_image import NodeImage
from ess_can.signals.messages import ImageState
from ess_can.sim.boot_records import BootRecord, ImageId, NodeRecords
from ess_can.sim.bootloader import BootDecision, Bootloader, BootReason, decide, provision
from ess_can.sim.flash import Flash
from ess_can.sim.fram import Fram
from tests.unit.sim.memory_rig import GEOMETRY, make_image, verify

OLD = make_image("1.0.0", 3)
NEW = make_image("2.0.0", 5)


def new_node(image: bytes = OLD, bank: int = 0) -> Bootloader:
    rng = random.Random(1)
    flash = Flash(rng, geometry=GEOMETRY)
    records = NodeRecords(Fram(rng))
    provision(flash, records, image, verify, bank)
    return Bootloader(flash, records, verify)


def with_other(image: bytes = NEW, old: bytes = OLD) -> Bootloader:
    """A node that runs `old` from bank 0 and has `image` complete in bank 1."""
    node = new_node(old)
    node.power_up()
    node.flash.factory_program(1, GEOMETRY.slot_offset, image)
    return node


@pytest.mark.parametrize("bank", [0, 1])
def test_a_new_node_boots_its_image_and_protects_its_bank(bank: int) -> None:
    node = new_node(bank=bank)
    decision = node.power_up()
    assert (decision.bank, decision.standing, decision.reason) == (bank, ImageState.CONFIRMED, BootReason.CONFIRMED)
    assert decision.facts == verify(OLD)
    assert node.flash.running_bank == bank
    assert node.record.security_counter == 3


def test_each_boot_counts() -> None:
    node = new_node()
    assert [node.power_up().record.boot_counter for _ in range(3)] == [1, 2, 3]
    assert node.record.boot_counter == 3


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_an_unconfirmed_image_boots_as_often_as_it_has_tries(tries: int) -> None:
    node = with_other()
    node.activate_on_trial(ImageId.of(NEW), tries)
    for _ in range(tries):
        decision = node.power_up()
        assert (decision.bank, decision.standing, decision.reason) == (1, ImageState.TRIAL, BootReason.TRIAL)
    for _ in range(3):
        decision = node.power_up()
        assert (decision.bank, decision.standing) == (0, ImageState.CONFIRMED)
    assert node.record.trial is None
    assert node.record.security_counter == 3


def test_revert_reasons_are_told_apart() -> None:
    node = with_other()
    node.activate_on_trial(ImageId.of(NEW), 1)
    node.power_up()
    assert node.power_up().reason is BootReason.TRIES_USED
    assert node.power_up().reason is BootReason.CONFIRMED


def test_confirm_is_one_record_and_raises_the_counter() -> None:
    node = with_other()
    node.activate_on_trial(ImageId.of(NEW), 1)
    trial = node.power_up()
    assert node.record.security_counter == 3  # not before confirm
    before = node.records.fram.power.operations
    assert node.confirm(trial)
    assert node.records.fram.power.operations - before == BootRecord.SIZE + 8
    assert node.record.security_counter == 5
    for _ in range(2):
        decision = node.power_up()
        assert (decision.bank, decision.standing) == (1, ImageState.CONFIRMED)


def test_confirm_needs_a_running_trial() -> None:
    node = with_other()
    running = node.power_up()
    assert not node.confirm(running)
    node.activate_on_trial(ImageId.of(NEW), 1)
    assert not node.confirm(running)  # activated, but what runs is the old image
    trial = node.power_up()
    node.revert()
    assert not node.confirm(trial)  # given up meanwhile
    assert node.power_up().bank == 0


def test_a_later_trial_in_the_other_bank_is_not_confirmed_by_the_image_that_runs() -> None:
    node = with_other()
    node.activate_on_trial(ImageId.of(NEW), 1)
    trial = node.power_up()
    assert node.confirm(trial)
    node.activate_on_trial(ImageId.of(OLD), 1)
    assert not node.confirm(trial)


def test_revert_cancels_an_activation_that_did_not_boot() -> None:
    node = with_other()
    node.activate_on_trial(ImageId.of(NEW), 1)
    node.revert()
    decision = node.power_up()
    assert (decision.bank, decision.reason) == (0, BootReason.CONFIRMED)


@pytest.mark.parametrize("damage", ["changed", "unreadable", "other image", "bad signature", "too long"])
def test_an_image_that_is_not_the_activated_one_does_not_boot(damage: str) -> None:
    node = with_other()
    wanted = ImageId.of(NEW)
    if damage == "changed":
        node.flash.inject_bit_rot(1, GEOMETRY.slot_offset + 60, 0x10)
    elif damage == "unreadable":
        node.flash.inject_ecc_error(1, GEOMETRY.slot_offset + 60)
    elif damage == "other image":  # validly signed, yet not what was verified and activated
        wanted = ImageId.of(make_image("3.0.0", 5))
    elif damage == "bad signature":
        forged = NEW[:-1] + bytes([NEW[-1] ^ 1])
        node = with_other(forged)
        wanted = ImageId.of(forged)
    else:
        wanted = replace(wanted, size=GEOMETRY.slot_size + 1)
    node.activate_on_trial(wanted, 1)
    decision = node.power_up()
    assert (decision.bank, decision.reason) == (0, BootReason.TRIAL_REFUSED)
    assert node.record.trial is None


def test_an_ecc_error_in_the_other_bank_does_not_disturb_booting() -> None:
    node = with_other()
    node.flash.inject_ecc_error(1, GEOMETRY.slot_offset)
    assert [node.power_up().reason for _ in range(3)] == [BootReason.CONFIRMED] * 3


def test_a_trial_below_the_security_counter_does_not_boot() -> None:
    node = with_other(make_image("2.0.0", 2))
    node.activate_on_trial(ImageId.of(make_image("2.0.0", 2)), 1)
    assert node.power_up().reason is BootReason.TRIAL_REFUSED


def confirmed_upgrade(image: bytes) -> Bootloader:
    node = with_other(image)
    node.activate_on_trial(ImageId.of(image), 1)
    assert node.confirm(node.power_up())
    return node


def test_rot_in_the_active_bank_boots_the_other_confirmed_image() -> None:
    node = confirmed_upgrade(make_image("2.0.0", 3))
    node.flash.inject_bit_rot(1, GEOMETRY.slot_offset + 70, 1)
    decision = node.power_up()
    assert (decision.bank, decision.standing, decision.reason) == (0, ImageState.CONFIRMED, BootReason.FALLBACK)
    assert node.record.active_bank == 0
    assert node.power_up().reason is BootReason.CONFIRMED


def test_the_fallback_must_not_be_below_the_security_counter() -> None:
    node = confirmed_upgrade(NEW)
    node.flash.inject_bit_rot(1, GEOMETRY.slot_offset + 70, 1)
    decision = node.power_up()
    assert (decision.bank, decision.standing, decision.facts) == (1, ImageState.RECOVERY, None)
    assert decision.reason is BootReason.NOTHING_BOOTABLE
    assert node.record.security_counter == 5


def test_an_image_that_was_never_confirmed_is_no_fallback() -> None:
    node = with_other()
    node.activate_on_trial(ImageId.of(NEW), 1)
    node.power_up()
    node.flash.inject_bit_rot(0, GEOMETRY.slot_offset + 70, 1)
    assert node.power_up().standing is ImageState.RECOVERY


def test_lost_records_lead_to_recovery_not_to_a_guess() -> None:
    node = new_node()
    node.records.fram.restore(bytes(node.records.fram.size))
    decision = node.power_up()
    assert (decision.bank, decision.standing, decision.reason) == (0, ImageState.RECOVERY, BootReason.NO_RECORD)
    assert node.power_up().reason is BootReason.NOTHING_BOOTABLE


def test_decide_is_pure() -> None:
    asked: list[tuple[int, ImageId]] = []

    def check(bank: int, image: ImageId) -> NodeImage | None:
        asked.append((bank, image))
        return verify(OLD) if bank == 0 else None

    record = BootRecord(0, (ImageId.of(OLD), ImageId.of(NEW)), ImageId.of(NEW), 2, 3, 7)
    decision = decide(record, check)
    assert asked == [(1, ImageId.of(NEW)), (0, ImageId.of(OLD))]
    assert decision.record == replace(record, trial=None, tries_left=0, boot_counter=8)
    assert decision == decide(record, check)


def test_provision_refuses_what_would_not_boot() -> None:
    rng = random.Random(1)
    flash, records = Flash(rng, geometry=GEOMETRY), NodeRecords(Fram(rng))
    with pytest.raises(SignatureInvalid):
        provision(flash, records, OLD[:-1] + b"\0", verify)
    with pytest.raises(ValueError, match="does not fit"):
        provision(flash, records, make_image("1.0.0", size=GEOMETRY.slot_size + 1), verify)
    with pytest.raises(ValueError, match="does not fit"):
        provision(flash, records, OLD, verify, bank=2)
    assert records.boot.load() is None


def test_whoever_watches_is_told_of_a_boot_unless_power_fails_in_it() -> None:
    node, told = new_node(), list[BootDecision]()
    node.on_boot.append(told.append)
    decision = node.power_up()
    assert told == [decision]
    node.flash.power.powered = False
    node.power_up()
    assert told == [decision]
