"""Invariants 4 to 9 and 17, each broken by a node that does not keep to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Invariant
from ess_can.image.node_image import NodeImage
from ess_can.signals.messages import ImageState
from ess_can.sim import bootloader
from ess_can.sim.boot_records import BootRecord, ImageId
from ess_can.sim.bootloader import BootDecision, Check
from ess_can.sim.flash import FlashError
from ess_can.sim.node import SimulatedNode
from ess_can.sim.power_cut import CutMode
from tests.scenario.support import NEW
from tests.unit.campaign.monitor_rig import Rig, seen, watch

I = Invariant  # noqa: E741 - the tests read better


def record_of(node: SimulatedNode) -> BootRecord:
    record = node.records.boot.load()
    assert record is not None
    return record


def silently_change(node: SimulatedNode, bank: int) -> None:
    """A byte of an image becomes another one, and neither flash nor monitors are told."""
    geometry = node.flash.geometry
    node.flash.cells.banks[bank].content[geometry.slot_offset + 2000] ^= 0xFF


# --- by the rules -------------------------------------------------------------------------------------


def test_activation_trial_boot_and_confirmation_by_the_rules() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.activate(rig.hold_new_image())
        rig.node.reset(rig.now)
        await pause(4.0)
        assert (rig.node.memory.version, rig.node.memory.standing) == (NEW, ImageState.TRIAL)
        assert rig.node.memory.confirm(rig.now) is None
        rig.node.reset(rig.now)
        await pause(2.0)
        assert rig.node.memory.standing is ImageState.CONFIRMED

    assert seen(script) == set()


def test_a_trial_that_nobody_confirms_by_the_rules() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.activate(rig.hold_new_image())
        rig.node.reset(rig.now)
        await pause(2.0)
        rig.node.reset(rig.now)
        await pause(2.0)
        assert rig.node.memory.version != NEW

    assert seen(script) == set()


@pytest.mark.parametrize("seed", range(8))
def test_a_record_that_is_torn_and_undecided_is_what_the_node_then_reads(seed: int) -> None:
    """It reads either way, anew each time, until the node has looked once and written down what it saw."""

    async def script(rig: Rig) -> None:
        await rig.isolate()
        image = rig.hold_new_image()
        node, power = rig.node, rig.node.flash.power
        node.records.fram._rng.seed(seed)
        power.arm(node.records.boot.end // 2 - 1, CutMode.UNSTABLE)  # its last byte
        rig.activate(image)
        assert node.records.fram.unstable
        await pause(0.1)
        node.power_off(rig.now)
        power.restore()
        node.power_on()
        await pause(4.0)
        assert not node.records.fram.unstable
        node.reset(rig.now)
        await pause(4.0)

    assert seen(script) == set()


# --- 4 ------------------------------------------------------------------------------------------------


def test_4_a_record_that_names_nothing_to_boot() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.node.records.boot.store(replace(record_of(rig.node), confirmed=(None, None)))

    assert seen(script) == {I.BOOTABLE}


def test_4_an_image_that_only_looks_as_if_it_would_boot() -> None:
    async def script(rig: Rig) -> None:
        silently_change(rig.node, 0)
        rig.node.power_off(rig.now)
        await pause(0.1)

    assert I.BOOTABLE in seen(script)


def test_4_damage_from_outside_is_noted_and_not_held_against_the_node() -> None:
    async def script(rig: Rig) -> None:
        rig.node.flash.inject_bit_rot(0, rig.node.flash.geometry.slot_offset + 2000, 0x10)
        await pause(0.1)
        rig.node.reset(rig.now)
        await pause(2.0)
        assert rig.node.memory.standing is ImageState.RECOVERY

    monitors = watch(script)
    assert not monitors.violations
    assert "damage from outside" in monitors.notes[0]


# --- 5 ------------------------------------------------------------------------------------------------


def test_5_the_running_bank_is_erased() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        flash = rig.node.flash
        flash.running_bank = None  # what would have refused it
        flash.start_erase(0, flash.geometry.protected_sectors, rig.now)

    assert seen(script, finish=False) == {I.RUNNING_BANK}


def test_5_the_flash_has_to_refuse() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.node.flash.start_erase(0, rig.node.flash.geometry.protected_sectors, rig.now)

    assert seen(script) == {I.RUNNING_BANK}


@pytest.mark.parametrize("damaged", [False, True])
def test_5_a_unit_that_does_not_take_its_data(damaged: bool) -> None:
    """Whoever programs what was not erased is at fault, unless a cell went bad under him."""

    async def script(rig: Rig) -> None:
        await rig.isolate()
        flash = rig.node.flash
        offset = flash.geometry.slot_offset
        if damaged:
            flash.inject_ecc_error(1, offset)
        assert flash.start_program(1, offset, bytes(flash.geometry.unit_size), rig.now) is FlashError.NOT_ERASED

    assert seen(script) == (set() if damaged else {I.RUNNING_BANK})


# --- 6 ------------------------------------------------------------------------------------------------


def test_6_a_bootloader_that_verifies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(rig: Rig) -> None:
        facts = rig.node.memory.running.facts

        def trusting(_bank: int, _image: ImageId) -> NodeImage | None:
            return facts

        monkeypatch.setattr(rig.node.bootloader, "_check", trusting)
        rig.node.power_off(rig.now)
        silently_change(rig.node, 0)
        rig.node.power_on()
        await pause(2.0)
        assert rig.node.running
        silently_change(rig.node, 0)  # back
        rig.node.flash.cells.banks[0].changed(from_outside=True)

    assert seen(script) == {I.SIGNED}


def test_6_an_image_that_the_security_counter_forbids(monkeypatch: pytest.MonkeyPatch) -> None:
    decide = bootloader.decide

    def careless(record: BootRecord | None, check: Check) -> BootDecision:
        assert record is not None
        decision = decide(replace(record, security_counter=0), check)
        return replace(decision, record=replace(decision.record, security_counter=record.security_counter))

    async def script(rig: Rig) -> None:
        rig.node.records.boot.store(replace(record_of(rig.node), security_counter=7))
        monkeypatch.setattr(bootloader, "decide", careless)
        rig.node.reset(rig.now)
        await pause(2.0)

    assert seen(script) == {I.SIGNED, I.BOOTABLE, I.ROLLBACK_COUNTER}


# --- 7 ------------------------------------------------------------------------------------------------


def test_7_activated_without_reading_it_back() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.node.bootloader.activate_on_trial(rig.hold_new_image(), 1)

    assert seen(script) == {I.ATOMIC_SELECTION}


def test_7_read_back_but_not_to_its_end() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        held = rig.hold_new_image()
        rig.read_back(ImageId(held.size - 1, held.sha256))
        rig.node.bootloader.activate_on_trial(held, 1)

    assert seen(script) == {I.ATOMIC_SELECTION}


def test_7_activated_and_the_bank_holds_something_else() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        held = rig.hold_new_image()
        silently_change(rig.node, 1)
        rig.activate(held)

    assert seen(script) == {I.ATOMIC_SELECTION}


def test_7_a_record_in_two_writes() -> None:
    async def script(rig: Rig) -> None:
        records = rig.node.records
        size = records.boot.end // 2
        half = records.fram.read(0, size)
        records.fram.write(0, half[: size // 2])
        records.fram.write(size // 2, half[size // 2 :])

    assert seen(script) == {I.ATOMIC_SELECTION}


def test_7_confirmed_without_a_trial() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        record, held = record_of(rig.node), rig.hold_new_image()
        rig.node.records.boot.store(replace(record, active_bank=1, confirmed=(record.confirmed[0], held)))

    assert seen(script) == {I.ATOMIC_SELECTION}


# --- 8 ------------------------------------------------------------------------------------------------


def test_8_a_bootloader_that_takes_no_try(monkeypatch: pytest.MonkeyPatch) -> None:
    decide = bootloader.decide

    def generous(record: BootRecord | None, check: Check) -> BootDecision:
        decision = decide(record, check)
        if record is None or decision.standing is not ImageState.TRIAL:
            return decision
        return replace(decision, record=replace(decision.record, tries_left=record.tries_left))

    async def script(rig: Rig) -> None:
        await rig.isolate()
        monkeypatch.setattr(bootloader, "decide", generous)
        rig.activate(rig.hold_new_image())
        for _ in range(2):
            rig.node.reset(rig.now)
            await pause(2.0)

    assert seen(script) == {I.TRIAL_BOOTS}


def test_8_a_node_that_gives_more_tries_than_are_allowed() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.activate(rig.hold_new_image(), tries=3)
        for _ in range(2):
            rig.node.reset(rig.now)
            await pause(2.0)

    assert seen(script) == {I.TRIAL_BOOTS}


# --- 9 ------------------------------------------------------------------------------------------------


def test_9_the_security_counter_falls() -> None:
    async def script(rig: Rig) -> None:
        record = record_of(rig.node)
        assert record.security_counter
        rig.node.records.boot.store(replace(record, security_counter=record.security_counter - 1))

    assert seen(script) == {I.ROLLBACK_COUNTER}


def test_9_the_security_counter_rises_before_the_confirmation() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.activate(rig.hold_new_image())
        record = record_of(rig.node)
        rig.node.records.boot.store(replace(record, security_counter=record.security_counter + 1))

    assert I.ROLLBACK_COUNTER in seen(script)


# --- 17 -----------------------------------------------------------------------------------------------


def test_17_a_trial_is_given_its_tries_again() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        held = rig.hold_new_image()
        rig.activate(held)
        rig.node.reset(rig.now)
        await pause(3.0)
        rig.activate(held)

    assert I.ONCE in seen(script)


def test_17_the_same_activation_repeated_before_the_restart_changes_nothing() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        held = rig.hold_new_image()
        rig.activate(held)
        rig.activate(held)

    assert seen(script) == set()
