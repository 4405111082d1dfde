"""Invariants 1 to 3 and 10 to 15, each broken by a gateway or a plant that does not keep to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Invariant
from ess_can.can.frame import CanFrame
from ess_can.signals.messages import (
    BmsHvStatus,
    ContactorState,
    EmsPcsCommand,
    PcsCommandCode,
    PcsStatus,
    UpgradePhase,
)
from ess_can.sim.electrical import LinkSpec
from ess_can.sim.hv_control import HvSpec
from ess_can.sim.latches import Latch
from ess_can.sim.pcs import PcsEvent, PcsSpec
from ess_can.sim.wire import Delayed, WireFault
from tests.scenario.support import COMM_GATEWAY, QUICK
from tests.unit.campaign.monitor_rig import ONE_RACK, Rig, seen, watch

I = Invariant  # noqa: E741 - the tests read better


Evidence = type[BmsHvStatus] | type[PcsStatus]
Disturbance = Callable[[Rig, Evidence], None]


def lose(rig: Rig, message: Evidence) -> None:
    """From now on nobody receives it."""
    ids = {route.can_id for route in rig.plant.codec.routes(message)}
    rig.plant.wire.fault = lambda _index, frame: WireFault.LOSE if frame.can_id in ids else None


def spoil(rig: Rig, message: Evidence) -> None:
    """From now on its checksum is wrong."""
    ids = {route.can_id for route in rig.plant.codec.routes(message)}
    rig.plant.wire.fault = lambda _index, frame: (
        frame._replace(data=bytes([frame.data[0] ^ 1]) + frame.data[1:]) if frame.can_id in ids else None
    )


# --- nothing at all ---------------------------------------------------------------------------------


def test_an_honest_gateway_breaks_nothing() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.write_request()
        await pause(0.3)
        await rig.close()
        assert rig.monitors.closings == 1

    assert seen(script) == set()


# --- 1 and 14: the permit -----------------------------------------------------------------------------


def test_1_writing_while_high_voltage_is_on() -> None:
    async def script(rig: Rig) -> None:
        await rig.read_all()
        rig.write_request()
        await pause(0.1)

    # Nothing was ever heard that could be a proof: that is missing evidence, too.
    assert I.PERMIT in seen(script)


def test_1_writing_after_the_proof_was_contradicted() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.plant.circuit.external_source_v = 700.0
        await pause(0.3)
        rig.write_request()
        await pause(0.1)

    assert seen(script) == {I.PERMIT}


def test_1_what_was_under_way_when_the_proof_ended_may_still_leave() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.plant.circuit.external_source_v = 700.0
        await pause(0.06)
        rig.write_request()
        await pause(0.1)

    assert seen(script) == set()


@pytest.mark.parametrize("message", [BmsHvStatus, PcsStatus])
@pytest.mark.parametrize("how", [lose, spoil])
def test_14_silence_and_invalid_data_are_no_proof(how: Disturbance, message: Evidence) -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        how(rig, message)
        await pause(0.4)
        rig.write_request()
        await pause(0.1)

    assert seen(script) == {I.PERMIT, I.SILENCE}


def test_14_a_short_silence_is_within_the_age() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        lose(rig, BmsHvStatus)
        await pause(0.2)
        rig.write_request()
        await pause(0.01)

    assert seen(script) == set()


def test_1_what_a_jammed_bus_keeps_back_nobody_can_recall() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        jam = rig.plant.wire.controller("babbler")
        rig.fall_silent()
        rig.stop_polling()
        end = rig.now + 0.6

        def babble(_at: float) -> None:
            if rig.now < end:
                jam.send(CanFrame(0x001, bytes(8)), babble)

        for _ in range(3):
            babble(0.0)
        await pause(0.01)
        rig.write_request()
        lose(rig, BmsHvStatus)
        await pause(0.9)

    monitors = watch(script)
    assert not monitors.violations
    assert any("kept a frame to bmu1 back" in note for note in monitors.notes)


@pytest.mark.parametrize(("after_s", "broken"), [(0.06, {I.PERMIT}), (0.8, set())])
def test_1_statuses_that_waited_behind_a_jam_are_no_proof_at_once(after_s: float, broken: set[Invariant]) -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        statuses = {route.can_id for kind in (BmsHvStatus, PcsStatus) for route in rig.plant.codec.routes(kind)}
        end = rig.now + 0.6

        def keep_back(_index: int, frame: CanFrame) -> Delayed | None:
            """They come one after the other within 6 ms."""
            left_s = end - rig.now
            return Delayed(0.99 * left_s) if frame.can_id in statuses and left_s > 0 else None

        rig.plant.wire.fault = keep_back
        await pause(0.6 + after_s)
        rig.write_request()
        await pause(0.01)

    assert seen(script) - {I.SILENCE} == broken


def test_1_a_replayed_notification_is_no_proof() -> None:
    """An answer to a poll that nobody sent lately says nothing."""

    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.stop_polling()
        await pause(0.8)
        rig.write_request()
        await pause(0.01)

    assert seen(script) == {I.PERMIT, I.SILENCE}


# --- 2: the node's own gate -----------------------------------------------------------------------------


def erase(rig: Rig) -> None:
    """As a node would that asks nobody."""
    flash = rig.node.flash
    assert isinstance(flash.start_erase(1, flash.geometry.protected_sectors, rig.now), float)


def test_2_a_node_that_erases_under_high_voltage() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.plant.circuit.external_source_v = 700.0
        await pause(0.05)
        erase(rig)

    assert seen(script) == {I.NODE_GATE}


def test_2_and_14_a_node_that_erases_without_a_word_of_the_pcs() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        lose(rig, PcsStatus)
        await pause(0.4)
        erase(rig)

    assert seen(script) == {I.NODE_GATE, I.SILENCE}


def test_2_a_node_that_activates_under_high_voltage() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        held = rig.hold_new_image()
        rig.plant.circuit.external_source_v = 700.0
        await pause(0.05)
        rig.activate(held)

    assert seen(script) == {I.NODE_GATE}


def test_2_a_node_with_its_proof_may_erase() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        erase(rig)

    assert seen(script) == set()


# --- 3: break current -----------------------------------------------------------------------------------


AT_300_A = replace(ONE_RACK, pcs=PcsSpec(local_setpoint_kw=-240.0))


def test_3_ordered_open_under_load() -> None:
    async def script(rig: Rig) -> None:
        await rig.read_all()
        await pause(2.0)
        assert abs(rig.plant.circuit.bridge_current_a) > 200.0
        rig.link.send(EmsPcsCommand(PcsCommandCode.OPEN))
        await pause(0.02)

    assert seen(script, spec=AT_300_A) == {I.BREAK_CURRENT}


def test_3_a_contactor_that_opens_under_load() -> None:
    async def script(rig: Rig) -> None:
        await pause(2.0)
        rig.plant.circuit.racks[0].main_plus.drive(False, rig.now)
        await pause(0.1)

    assert seen(script, spec=AT_300_A) == {I.BREAK_CURRENT}


def test_3_an_emergency_may_open_under_load_and_that_is_noted() -> None:
    async def script(rig: Rig) -> None:
        await pause(2.0)
        rig.plant.hardware[0].emergency_stop = True
        await pause(0.1)

    monitors = watch(script, spec=AT_300_A)
    assert not monitors.violations
    assert "in an emergency" in monitors.notes[0]


# --- 10: a complete set ---------------------------------------------------------------------------------


def test_10_ordered_to_close_with_a_node_that_is_not_heard() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.plant.nodes[COMM_GATEWAY].power_off(rig.now)
        await pause(2.0)
        rig.command(PcsCommandCode.CLOSE)
        await pause(0.06)

    assert seen(script) == {I.COMPLETE_SET}


def test_10_a_rack_that_closes_with_a_node_away() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.plant.nodes[COMM_GATEWAY].power_off(rig.now)
        await pause(3.5)
        await rig.close()
        assert rig.monitors.closings == 1

    monitors = watch(script)
    assert monitors.broken == {I.COMPLETE_SET}
    assert any("closes while comm_gateway is off" in violation.text for violation in monitors.violations)


def test_10_and_15_a_rack_that_closes_while_on_trial() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.activate(rig.hold_new_image())
        rig.node.reset(rig.now)
        await pause(3.0)
        rig.plant.racks[0].hold_open = False
        rig.node.application.hold = lambda held: None  # type: ignore[method-assign]
        await rig.close()
        assert rig.monitors.closings == 1

    assert seen(script) == {I.COMPLETE_SET, I.LOCK}


# --- 11: precharge --------------------------------------------------------------------------------------


def test_11_a_rack_that_does_not_wait_for_the_precharge() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        await rig.close()

    careless = HvSpec(precharged_fraction=0.0)
    assert seen(script, spec=replace(ONE_RACK, hv=careless, link=LinkSpec())) == {I.PRECHARGE}


# --- 12: latches ----------------------------------------------------------------------------------------


def test_12_a_latch_that_a_restart_forgets() -> None:
    async def script(rig: Rig) -> None:
        rig.plant.hardware[0].emergency_stop = True
        await pause(0.5)
        rig.plant.hardware[0].emergency_stop = False
        rig.plant.racks[0]._store.save(frozenset())  # the memory that should have kept it
        rig.node.reset(rig.now)
        await pause(2.0)

    assert seen(script) == {I.LATCHES}


def test_12_a_named_person_may_clear_it_and_a_restart_keeps_it() -> None:
    async def script(rig: Rig) -> None:
        rig.plant.hardware[0].fire = True
        await pause(0.5)
        rig.plant.hardware[0].fire = False
        rig.node.reset(rig.now)
        await pause(2.0)
        assert Latch.FIRE in rig.plant.racks[0].latches
        rig.plant.racks[0].clear_latches("K. Lindqvist", rig.now)
        await pause(1.0)

    assert seen(script) == set()


def test_12_a_pcs_that_leaves_its_emergency_stop_by_itself() -> None:
    async def script(rig: Rig) -> None:
        pcs = rig.plant.pcs
        pcs.press_emergency_stop(rig.now)
        await pause(0.5)
        pcs._fire(PcsEvent.RESTART, rig.now)  # and nothing remembers the button
        await pause(2.0)

    assert seen(script) == {I.LATCHES}


# --- 13: heartbeat --------------------------------------------------------------------------------------


def test_13_a_rack_that_closes_when_the_orders_have_fallen_silent() -> None:
    async def script(rig: Rig) -> None:
        await rig.fall_silent_while_closing(0.1)
        assert rig.monitors.closings == 2

    patient = replace(QUICK, hv=HvSpec(heartbeat_timeout_s=10.0))
    assert seen(script, spec=patient) == {I.HEARTBEAT}


def test_13_a_rack_by_the_rules_does_not_close_then() -> None:
    async def script(rig: Rig) -> None:
        await rig.fall_silent_while_closing(0.1)

    assert seen(script, spec=QUICK) == set()


# --- 15: the lock ---------------------------------------------------------------------------------------


def test_15_unlocked_while_an_image_is_on_trial() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.activate(rig.hold_new_image())
        rig.command(PcsCommandCode.UNLOCK)
        await pause(0.1)

    assert seen(script) == {I.LOCK}


def test_15_a_pcs_that_forgets_its_lock_while_an_upgrade_is_announced() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.notice(UpgradePhase.PROGRAMMING)
        await pause(0.1)
        rig.fall_silent()
        await pause(0.1)
        rig.plant.pcs.locked = False
        await pause(0.1)

    assert seen(script) == {I.LOCK}


def test_15_a_node_that_is_changed_while_nothing_is_locked() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.command(PcsCommandCode.UNLOCK)
        await pause(0.3)
        erase(rig)

    assert seen(script) == {I.LOCK, I.NODE_GATE}


def test_15_a_lock_that_a_restart_of_the_pcs_costs_is_not_held_against_anybody() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.notice(UpgradePhase.PROGRAMMING)
        await pause(0.1)
        rig.plant.pcs_node.restart(rig.now)
        await pause(2.0)
        assert rig.plant.circuit.pcs_contactor.feedback is ContactorState.OPEN
        assert rig.plant.pcs.locked

    assert seen(script) == set()
