"""What a monitor once saw, or came too late to see, neither blinds it for good nor makes it accuse falsely."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Invariant, Monitors
from ess_can.gateway.phases import Phase
from ess_can.gateway.plant_view import Connection
from ess_can.gateway.report import NodeRecord, Report
from ess_can.identity import Version
from ess_can.signals.messages import BmsHvStatus, NodeInfo, PcsCommandCode, PcsStatus, UpgradePhase
from ess_can.sim.latches import Latch
from ess_can.sim.pcs_memory import PcsKept
from ess_can.sim.wire import WireFault
from tests.scenario.support import BMU1
from tests.unit.campaign.monitor_rig import ONE_RACK, Rig, seen, watch

I = Invariant  # noqa: E741 - the tests read better
REMEMBERS = replace(ONE_RACK, pcs_keeps_lock=True)


async def announced(rig: Rig) -> None:
    await rig.isolate()
    rig.notice(UpgradePhase.PROGRAMMING)
    await pause(0.1)


# --- the PCS's lock ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarts", [0, 1, 2])
def test_15_a_restart_that_kept_the_lock_excuses_nothing_later(restarts: int) -> None:
    async def script(rig: Rig) -> None:
        await announced(rig)
        for _ in range(restarts):
            rig.plant.pcs.restart(rig.now)
            await pause(2.0)
            assert rig.plant.pcs.locked
        assert rig.broken == set()
        rig.fall_silent()
        await pause(0.1)
        rig.plant.pcs.locked = False
        await pause(0.3)

    assert seen(script, spec=REMEMBERS) == {I.LOCK}


def test_15_a_pcs_that_is_built_to_remember_its_lock_and_does_not() -> None:
    async def script(rig: Rig) -> None:
        await announced(rig)
        rig.fall_silent()
        pcs = rig.plant.pcs
        pcs._memory.save(PcsKept())
        pcs.restart(rig.now)
        await pause(0.3)

    assert seen(script, spec=REMEMBERS) == {I.LOCK}


def test_15_a_restart_of_a_pcs_that_was_not_locked_excuses_nothing() -> None:
    async def script(rig: Rig) -> None:
        await rig.read_all()
        rig.plant.pcs.restart(rig.now)
        await pause(2.0)
        rig.monitors._high_voltage.change_begins("a deed")

    assert seen(script) == {I.LOCK}


# --- latches ----------------------------------------------------------------------------------------------


def test_12_who_clears_when_nothing_is_latched_has_cleared_nothing() -> None:
    async def script(rig: Rig) -> None:
        rack = rig.plant.racks[0]
        rack.clear_latches("A. Technician", rig.now)
        await pause(0.1)
        rig.plant.hardware[0].fire = True
        await pause(0.1)
        rig.plant.hardware[0].fire = False
        assert Latch.FIRE in rack.latches
        rack._latches = frozenset()
        await pause(0.1)

    assert seen(script) == {I.LATCHES}


# --- what was read back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [True, False])
def test_20_each_confirmation_needs_a_verification_of_its_own(again: bool) -> None:
    async def script(rig: Rig) -> None:
        outcome, address = rig.monitors._outcome, BMU1
        record = rig.node.records.boot.load()
        assert record is not None
        for verified in (True, again):
            if verified:
                outcome._verified[address] = rig.now
            for tell in outcome._memories[address].on_selection:
                tell(rig.now, record, replace(record, active_bank=1 - record.active_bank))
        report = Report(result=Phase.DONE, hv_after=Connection.CONNECTED)
        report.nodes = [NodeRecord(address, Version(0, 9, 0), rig.node.memory.version, 1000)]
        rig.monitors.ended(report)

    told = " ".join(violation.text for violation in watch(script).violations)
    assert ("did not read its image back" in told) is not again


# --- monitors that come late ---------------------------------------------------------------------------------


def test_a_monitor_that_comes_late_accuses_nobody_who_is_honest() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        late = Monitors(rig.plant)
        rig.write_request()
        rig.node.flash.start_erase(1, rig.node.flash.geometry.protected_sectors, rig.now)
        await pause(3.0)
        rig.write_request()
        await pause(0.1)
        at_close = Monitors(rig.plant)
        await rig.close()
        await pause(0.1)
        later = Monitors(rig.plant)
        await pause(3.0)
        assert [late.broken, at_close.broken, later.broken] == [set(), set(), set()]

    assert seen(script) == set()


def silent(rig: Rig) -> None:
    """Nobody hears PCS, racks and nodes any more."""
    codec = rig.plant.codec
    ids = {route.can_id for kind in (PcsStatus, BmsHvStatus, NodeInfo) for route in codec.routes(kind)}
    rig.plant.wire.fault = lambda _index, frame: WireFault.LOSE if frame.can_id in ids else None


def test_10_a_monitor_that_comes_to_an_order_to_close_judges_it_when_words_are_due() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        silent(rig)
        rig.command(PcsCommandCode.UNLOCK)
        await pause(0.3)
        rig.command(PcsCommandCode.CLOSE)
        late = Monitors(rig.plant)
        await pause(1.5)
        assert late.broken == set()
        await pause(0.3)
        assert late.broken == {I.COMPLETE_SET}

    seen(script)


@pytest.mark.parametrize(("after_s", "broken"), [(0.2, set()), (1.2, {I.PERMIT, I.SILENCE})])
def test_1_a_monitor_that_comes_late_sees_what_is_not_proved_after_a_second(
    after_s: float, broken: set[Invariant]
) -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        rig.stop_polling()
        late = Monitors(rig.plant)
        await pause(after_s)
        rig.write_request()
        await pause(0.1)
        assert late.broken == broken

    seen(script)


def test_18_a_monitor_that_comes_late_judges_the_next_run() -> None:
    async def script(rig: Rig) -> None:
        await rig.isolate()
        late = Monitors(rig.plant)
        await pause(0.2)
        rig.raw("021101")
        await pause(3.0)
        assert late.broken == set()
        rig.die()
        await pause(1.0)
        again = Rig(rig.plant)
        again.command(PcsCommandCode.LOCK)
        await pause(0.1)
        assert late.broken == {I.READ_FIRST}

    seen(script)
