"""How the plant is left: where nothing was ordered yet, where it is only to be put back, and after leftovers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from ess_can.bus.clock import pause
from ess_can.errors import (
    BusUnusable,
    ConfirmFailed,
    DbcMismatch,
    EmergencyStop,
    EssCanError,
    HeldOpen,
    JournalUnwritable,
    NodeMissing,
    RolledBack,
    TrialBootFailed,
    VerificationFailed,
)
from ess_can.gateway import upgrade as module
from ess_can.gateway.phases import Phase
from ess_can.gateway.plan import Leftover, Plan
from ess_can.gateway.plant_view import Connection
from ess_can.gateway.progress import Noted, PhaseEntered
from ess_can.gateway.record import UpgradeLog
from ess_can.gateway.station_master import StationMaster
from ess_can.journal.entries import Deed, Entry, Kind
from ess_can.signals.messages import ContactorState, PcsCommandCode, PcsState, UpgradePhase
from tests.support.scripted_plant import BMU1, BMU2, PCS_OFF, RACK_CLOSED, RACK_OFF, node_info
from tests.unit.gateway import test_upgrade as rig
from tests.unit.gateway.test_upgrade import Bench, is_back, is_open_and_locked, no_plan, plan_of, play, raising

C = PcsCommandCode
_fake_nodes = rig._fake_nodes


def opened(bench: Bench) -> None:
    """By somebody, without our lock."""
    bench.plant.set_racks(RACK_OFF)
    bench.plant.pcs = replace(bench.plant.pcs, state=PcsState.STANDBY, contactors=ContactorState.OPEN, dc_current_a=0.0)


def left_locked(bench: Bench) -> None:
    """As an earlier upgrade leaves it."""
    bench.plant.set_racks(RACK_OFF)
    bench.plant.pcs = PCS_OFF


def deeds(bench: Bench) -> list[tuple[Deed | None, bool | None, str]]:
    with bench.journal.reader() as reader:
        return [(e.deed, e.ok, e.text) for e in reader.entries("1") if e.kind is Kind.RESULT]


class TestNothingWasOrdered:
    """The journal fails with the first intent."""

    def play(self, prepare: Callable[[Bench], object]) -> Bench:
        def fail(entry: Entry) -> None:
            if entry.kind is Kind.INTENT:
                raise sqlite3.OperationalError("disk I/O error")

        def both(bench: Bench) -> None:
            prepare(bench)
            bench.journal.on_entry.append(fail)

        return play(prepare=both)

    def test_a_plant_under_its_own_control_is_left_alone(self) -> None:
        bench = self.play(lambda _: None)
        assert isinstance(bench.report.error, JournalUnwritable)
        assert bench.report.result is Phase.FAILED
        assert bench.plant.orders == []
        assert bench.steps == []

    @pytest.mark.parametrize("lock", [True, False], ids=["locked", "under remote control"])
    def test_a_plant_that_an_earlier_upgrade_holds_is_not_said_to_be_well(self, lock: bool) -> None:
        def prepare(bench: Bench) -> None:
            left_locked(bench)
            bench.plant.pcs = replace(bench.plant.pcs, lock_acknowledged=lock)

        bench = self.play(prepare)
        assert isinstance(bench.report.error, HeldOpen)
        assert "as an earlier upgrade left it" in str(bench.report.error)
        assert bench.report.result is Phase.HELD_OPEN
        assert not bench.report.proved_safe
        assert bench.plant.orders == []


class TestOnlyPutBack:
    """The plan has no work: an upgrade that did not end left the plant in some state."""

    def test_a_plant_that_is_open_is_locked_first(self) -> None:
        bench = play(prepare=left_locked, plan=Plan())
        assert bench.report.error is None
        assert bench.phases == [Phase.RECONNECT, Phase.DONE]
        assert deeds(bench) == [(Deed.LOCK, True, ""), (Deed.HAND_BACK, True, "")]
        assert bench.plant.orders[0] is C.LOCK
        assert bench.plant.orders[-1] is C.RELEASE
        assert C.CLOSE not in bench.plant.orders
        assert bench.steps == []

    def test_a_lock_that_is_not_acknowledged_is_recorded_as_not_done(self) -> None:
        def prepare(bench: Bench) -> None:
            opened(bench)
            bench.plant.ignores.add(C.LOCK)

        bench = play(prepare=prepare, plan=Plan())
        assert deeds(bench)[0] == (Deed.LOCK, False, "not acknowledged")

    def test_a_plant_that_is_connected_is_given_back_connected(self) -> None:
        bench = play(plan=Plan())
        assert bench.report.error is None
        assert is_back(bench)
        assert C.OPEN not in bench.plant.orders
        assert deeds(bench)[0] == (Deed.RAMP_DOWN, True, "")

    def test_a_plant_that_is_neither_is_opened(self) -> None:
        def half_open(bench: Bench) -> None:
            bench.plant.racks[2] = RACK_OFF

        bench = play(prepare=half_open, plan=Plan())
        assert bench.plant.orders[:3] == [C.ZERO_POWER, C.OPEN, C.LOCK]
        assert is_open_and_locked(bench)
        assert bench.report.result is Phase.HELD_OPEN  # nobody could tell how it was found

    def test_an_upgrade_that_is_given_up_ends_so(self) -> None:
        bench = play(prepare=left_locked, plan=Plan(), replan=None)
        assert isinstance(bench.report.error, RolledBack)
        assert "given up" in str(bench.report.error)
        assert bench.report.result is Phase.ROLLED_BACK


class TestLeftovers:
    """Nodes of an upgrade that did not end go back first."""

    LEFT = Plan(leftovers=(Leftover(BMU1, on_trial=True), Leftover(BMU2, on_trial=False)))

    @pytest.fixture(autouse=True)
    def _takes_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def take_back(master: StationMaster, leftover: Leftover, log: UpgradeLog) -> None:
            async with log.doing(Deed.REVERT, leftover.address):
                bench = rig._BENCH[-1]
                await pause(0.1)
                bench.steps.append(f"take back:{leftover.address}")
                if hook := bench.hooks.get("take back"):
                    await hook(bench)
                bench.plant.nodes[leftover.address] = node_info()
                master.armed.ended(leftover.address)

        monkeypatch.setattr(module, "take_back", take_back)

    def test_they_go_back_with_high_voltage_off_and_then_it_is_said_anew_what_is_to_be_done(self) -> None:
        async def replan() -> Plan:
            bench = rig._BENCH[-1]
            assert is_open_and_locked(bench)
            bench.steps.append("plan")
            return plan_of(BMU1, BMU2)

        bench = play(plan=self.LEFT, replan=replan)
        assert bench.report.error is None
        assert bench.phases[:5] == [
            *(Phase.RAMP_DOWN, Phase.OPEN_CONTACTORS, Phase.PROVE_HV_OFF, Phase.ROLL_BACK, Phase.PROGRAM)
        ]
        assert bench.steps[:4] == ["take back:bmu1", "take back:bmu2", "plan", "program:bmu1"]
        assert [node.address for node in bench.report.nodes] == [BMU1, BMU2]
        assert set(bench.plant.targets[UpgradePhase.ACTIVATING][:1]) == {BMU1.index}  # only that one restarts
        assert is_back(bench)

    def test_where_there_is_nothing_left_to_do_the_plant_is_only_put_back(self) -> None:
        bench = play(plan=self.LEFT, replan=no_plan)
        assert bench.report.error is None
        assert bench.steps == ["take back:bmu1", "take back:bmu2"]
        assert is_back(bench)

    def test_given_up_nothing_is_planned_anew(self) -> None:
        bench = play(plan=self.LEFT, replan=None)
        assert bench.report.result is Phase.ROLLED_BACK
        assert bench.steps == ["take back:bmu1", "take back:bmu2"]
        assert is_back(bench)

    def test_one_that_does_not_go_back_ends_it(self) -> None:
        bench = play({"take back": raising(TrialBootFailed("bmu1 stays"))}, plan=self.LEFT)
        assert bench.report.error is not None
        assert "bmu1 stays" in str(bench.report.error)
        assert "may still boot another image" in str(bench.report.error)
        assert bench.report.result is Phase.HELD_OPEN
        assert C.CLOSE not in bench.plant.orders
        assert not [step for step in bench.steps if step.startswith("program")]

    def test_a_rack_that_does_not_measure_afterwards_ends_it(self) -> None:
        async def silence(bench: Bench) -> None:
            bench.plant.silent.add(("telemetry", 2))

        bench = play({"take back": silence}, plan=self.LEFT)
        assert NodeMissing("").name in f"{bench.report.cause and bench.report.cause.name}"
        assert "with its confirmed firmware" in str(bench.report.cause)
        assert C.CLOSE not in bench.plant.orders


class TestWhatIsTold:
    def test_what_fails_the_same_way_on_both_nodes_is_told_once(self) -> None:
        async def fail_while_stopping(_bench: Bench) -> None:
            try:
                await pause(30.0)
            finally:
                raise DbcMismatch("another DBC")

        bench = play({"program:bmu1": fail_while_stopping, "program:bmu2": raising(DbcMismatch("another DBC"))})
        assert isinstance(bench.report.error, DbcMismatch)
        assert not [event for event in bench.events if isinstance(event, Noted)]

    def test_an_error_that_names_its_node_is_not_given_the_name_again(self) -> None:
        bench = play({"program:bmu2": raising(VerificationFailed("bmu2 has bad flash"))})
        assert str(bench.report.error) == "bmu2 has bad flash"

    def test_the_end_is_the_last_that_is_told(self) -> None:
        bench = play(plan=Plan())
        last = bench.events[-1]
        assert isinstance(last, PhaseEntered)
        assert (last.phase, bench.report.hv_after) == (Phase.DONE, Connection.CONNECTED)


def every_error(error: type[EssCanError] = EssCanError) -> Iterator[type[EssCanError]]:
    """All there are."""
    yield error
    for kind in error.__subclasses__():
        yield from every_error(kind)


@pytest.mark.parametrize("step", ["prepare:bmu1", "confirm:bmu2", "see confirmed:bmu2"])
def test_whatever_goes_wrong_in_confirm_what_was_activated_is_looked_after_next(step: str) -> None:
    """So the table of phases has no way from CONFIRM to HOLD_OPEN."""
    failures = [*(error("no") for error in every_error()), RuntimeError("a defect"), asyncio.CancelledError()]
    for failure in failures:
        phases = play({step: raising(failure)}).phases
        assert phases[phases.index(Phase.CONFIRM) + 1] is Phase.ROLL_BACK, failure
    assert len(failures) > 90


class TestGraver:
    """What is said where several things went wrong."""

    def test_the_bus_is_lost_and_then_an_emergency_is_heard(self) -> None:
        async def both(bench: Bench) -> None:
            await pause(0.05)
            bench.master.watch.trip(BusUnusable("it breaks off again and again"))
            bench.master.watch.on_emergency(EmergencyStop("pressed"))
            await pause(30.0)

        bench = play({"program:bmu1": both})
        assert isinstance(bench.report.error, BusUnusable)
        assert "EMERGENCY_STOP: pressed" in bench.report.error.why

    def test_nothing_is_restarted_under_high_voltage_even_if_it_was_expected_back(self) -> None:
        async def closes(bench: Bench) -> None:
            bench.master.interlock.expect_return()
            bench.plant.set_racks(RACK_CLOSED)
            await pause(0.5)
            raise ConfirmFailed("no")

        bench = play({"prepare:bmu2": closes})
        assert "no node is restarted while high voltage is on" in str(bench.report.error)
        assert not [step for step in bench.steps if step.startswith("revert")]

    def test_high_voltage_that_came_back_and_went_is_proved_off(self) -> None:
        async def blinks(bench: Bench) -> None:
            bench.plant.set_racks(RACK_CLOSED)
            await pause(0.12)
            bench.plant.set_racks(RACK_OFF)
            await pause(30.0)

        bench = play({"program:bmu1": blinks})
        assert "HV_CLOSED" in str(bench.report.error)
        assert bench.report.result is Phase.HELD_OPEN
        assert bench.report.proved_safe
