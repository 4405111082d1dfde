"""What an earlier upgrade left, and what is done about it: by a journal of a few entries and by what the plant says.

The last tests are whole upgrades of a simulated plant, killed at one place each.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest

from ess_can.bus.clock import now, pause
from ess_can.errors import BusSilent, Interrupted, NothingToResume, RolledBack
from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.gateway.plan import Leftover, NodePlan, Plan
from ess_can.gateway.plant_view import Connection, PlantView
from ess_can.gateway.policy import Start
from ess_can.gateway.progress import Event, NodeStepEntered, Noted
from ess_can.gateway.resume import (
    Earlier,
    decision,
    given_up,
    is_as_wanted,
    is_complete,
    leftovers_of,
    let_trials_end,
    plan_to_give_up,
)
from ess_can.gateway.run import roll_back_station, upgrade_station
from ess_can.journal.entries import Deed, Kind
from ess_can.journal.journal import Journal
from ess_can.signals.messages import ContactorState, ImageState, PcsState, PcsStatus
from ess_can.sim.loop import run_virtual
from ess_can.sim.node import Behaviour
from ess_can.trust.verify import VerifiedUpgrade, open_upgrade_file
from tests.firmware_images import RING, small_image, small_upgrade
from tests.scenario.support import QUICK
from tests.scenario.support import release as plant_release
from tests.scenario.test_resume import KIB, ONE_RACK, Seen, at_deed, at_entry, mixed, when
from tests.scenario.test_resume import play as play_killed
from tests.support.memory_bus import MemoryBus, bus_pair
from tests.support.scripted_plant import (
    BMU1,
    BMU2,
    NEW,
    OLD,
    PCS_OFF,
    PCS_RUNNING,
    RACK_CLOSED,
    RACK_OFF,
    ScriptedPlant,
    node_info,
)
from tests.unit.gateway.test_plan import identity, station
from tests.unit.gateway.test_run import setup

RELEASE = open_upgrade_file(small_upgrade(small_image(version=NEW)), RING)
OTHER = open_upgrade_file(small_upgrade(small_image(version=NEW, payload=b"another")), RING)
CONFIG = GatewayConfig((BMU1, BMU2))
PCS_OPEN = replace(PCS_RUNNING, state=PcsState.STANDBY, contactors=ContactorState.OPEN, dc_current_a=0.0)
"""Opened by whoever is in charge of it."""

Order = tuple[Deed, bool | None]
"""What was ordered, and what came of it; None if nobody knows."""


def journal_of(*orders: Order, found: str = "", upgrade: VerifiedUpgrade = RELEASE) -> Journal:
    journal = Journal.in_memory()
    journal.begin("bmu 1.1.0", upgrade.file, upgrade.file_sha256, "")
    if found:
        journal.found(found)
    for deed, ok in orders:
        seq = journal.intent(deed)
        if ok is not None:
            journal.result(seq, ok)
    return journal


def earlier(*orders: Order, found: str = "") -> Earlier:
    left = Earlier.of(journal_of(*orders, found=found))
    assert left is not None
    return left


class TestEarlier:
    def test_an_upgrade_that_ended_left_nothing(self) -> None:
        journal = Journal.in_memory()
        assert Earlier.of(journal) is None
        journal = journal_of((Deed.ACTIVATE, True))
        journal.end("done", "", "")
        assert Earlier.of(journal) is None

    def test_one_that_ordered_nothing(self) -> None:
        left = earlier()
        assert (left.last_order, left.activated, left.holds_plant, left.start) == (None, False, False, Start.FRESH)

    def test_one_that_activated_an_image(self) -> None:
        assert earlier((Deed.LOCK, True), (Deed.ACTIVATE, None)).activated
        assert not earlier((Deed.LOCK, True), (Deed.TRANSFER, True)).activated

    @pytest.mark.parametrize(
        ("orders", "deed", "kind", "holds"),
        [
            ([(Deed.RAMP_DOWN, None)], Deed.RAMP_DOWN, Kind.INTENT, True),
            ([(Deed.RAMP_DOWN, True), (Deed.LOCK, True)], Deed.LOCK, Kind.RESULT, True),
            ([(Deed.LOCK, True), (Deed.RAMP_DOWN, True)], Deed.RAMP_DOWN, Kind.RESULT, True),
            ([(Deed.LOCK, True), (Deed.HAND_BACK, True)], Deed.HAND_BACK, Kind.RESULT, False),
            ([(Deed.LOCK, True), (Deed.HAND_BACK, False)], Deed.HAND_BACK, Kind.RESULT, True),
            ([(Deed.LOCK, True), (Deed.HAND_BACK, None)], Deed.HAND_BACK, Kind.INTENT, True),
            ([(Deed.LOCK, True), (Deed.TRANSFER, True)], Deed.LOCK, Kind.RESULT, True),
        ],
    )
    def test_the_last_order_says_in_whose_hands_the_plant_is(
        self, orders: list[Order], deed: Deed, kind: Kind, holds: bool
    ) -> None:
        left = earlier(*orders)
        assert left.last_order is not None
        assert (left.last_order.deed, left.last_order.kind, left.holds_plant) == (deed, kind, holds)
        assert left.start is (Start.RESUMED if holds else Start.FRESH)

    def test_it_is_known_by_the_hash_of_its_file(self) -> None:
        assert earlier().is_of(RELEASE)
        assert not earlier().is_of(OTHER)


@dataclass(frozen=True)
class Says:
    """What the plant says."""

    pcs: PcsStatus | None
    closed: bool = False

    def view(self) -> tuple[PlantView, float]:
        async def hear() -> tuple[PlantView, float]:
            bus, peer = bus_pair()
            master, plant = station(bus), ScriptedPlant(peer)
            plant.set_racks(RACK_CLOSED if self.closed else RACK_OFF)
            if self.pcs is None:
                plant.silent.add("pcs")
            else:
                plant.pcs = self.pcs
            plant.start()
            await pause(0.3)
            return master.view, now()

        return run_virtual(hear())


RUNS = Says(PCS_RUNNING, closed=True)
LOCKED = Says(PCS_OFF)
OPEN = Says(PCS_OPEN)
UNHEARD = Says(None)


class TestFound:
    @pytest.mark.parametrize(
        ("orders", "found", "says", "taken_as"),
        [
            # Nothing was ordered, or the plant was given back: as it is now.
            ([], "connected", OPEN, Connection.OPEN),
            ([(Deed.HAND_BACK, True)], "open", RUNS, Connection.CONNECTED),
            # The lock still stands: as it was before.
            ([(Deed.LOCK, True)], "connected", LOCKED, Connection.CONNECTED),
            ([(Deed.HOLD_OPEN, True)], "connected", LOCKED, Connection.CONNECTED),
            # It came to rest, and somebody took the lock away since.
            ([(Deed.LOCK, True)], "connected", OPEN, Connection.OPEN),
            ([(Deed.LOCK, True)], "open", RUNS, Connection.CONNECTED),
            ([(Deed.LOCK, True)], "connected", UNHEARD, Connection.UNKNOWN),
            # It was on its way to the lock, or from it: nothing tells what we opened from what a person opened since.
            ([(Deed.LOCK, None)], "connected", OPEN, Connection.OPEN),
            ([(Deed.LOCK, False)], "connected", OPEN, Connection.OPEN),
            ([(Deed.OPEN_CONTACTORS, True), (Deed.LOCK, None)], "connected", OPEN, Connection.OPEN),
            ([(Deed.LOCK, True), (Deed.UNLOCK, None)], "connected", OPEN, Connection.OPEN),
            ([(Deed.LOCK, True), (Deed.UNLOCK, True), (Deed.CLOSE, None)], "connected", OPEN, Connection.OPEN),
            ([(Deed.LOCK, True), (Deed.HAND_BACK, None)], "connected", OPEN, Connection.OPEN),
            ([(Deed.LOCK, True), (Deed.UNLOCK, None)], "connected", LOCKED, Connection.CONNECTED),
            # Zero power opens nothing.
            ([(Deed.RAMP_DOWN, True)], "connected", OPEN, Connection.OPEN),
            ([(Deed.RAMP_DOWN, True)], "connected", RUNS, Connection.CONNECTED),
            # In another attempt our lock still stands.
            ([(Deed.LOCK, True), (Deed.RAMP_DOWN, None)], "connected", LOCKED, Connection.CONNECTED),
            ([(Deed.LOCK, True), (Deed.UNLOCK, True), (Deed.HOLD_OPEN, None)], "open", LOCKED, Connection.OPEN),
            # The lock is somebody else's.
            ([(Deed.RAMP_DOWN, True)], "connected", LOCKED, Connection.UNKNOWN),
            ([(Deed.LOCK, True), (Deed.UNLOCK, True)], "connected", LOCKED, Connection.UNKNOWN),
            # Nobody wrote how it was found.
            ([(Deed.LOCK, True)], "", LOCKED, Connection.OPEN),
        ],
    )
    def test_as_before_while_what_was_ordered_stands(
        self, orders: list[Order], found: str, says: Says, taken_as: Connection
    ) -> None:
        assert earlier(*orders, found=found).found(*_around(says.view())) is taken_as


def _around(heard: tuple[PlantView, float]) -> tuple[PlantView, GatewayConfig, float]:
    return heard[0], CONFIG, heard[1]


@pytest.mark.parametrize(
    ("says", "afterwards", "found", "wanted"),
    [
        (OPEN, Afterwards.AS_FOUND, Connection.OPEN, True),
        (OPEN, Afterwards.AS_FOUND, Connection.CONNECTED, False),
        (RUNS, Afterwards.AS_FOUND, Connection.CONNECTED, True),
        (RUNS, Afterwards.CONNECT, Connection.OPEN, True),
        (OPEN, Afterwards.CONNECT, Connection.OPEN, False),
        (OPEN, Afterwards.HOLD_OPEN, Connection.OPEN, False),
        (LOCKED, Afterwards.AS_FOUND, Connection.OPEN, False),
        (Says(replace(PCS_OPEN, remote_control=True)), Afterwards.AS_FOUND, Connection.OPEN, False),
        (UNHEARD, Afterwards.AS_FOUND, Connection.UNKNOWN, False),
    ],
)
def test_whether_the_plant_is_as_wanted(says: Says, afterwards: Afterwards, found: Connection, wanted: bool) -> None:
    view, at = says.view()
    assert is_as_wanted(view, replace(CONFIG, afterwards=afterwards), found, at) is wanted


def plan_by(
    trial: bool, done: bool, upgrade: VerifiedUpgrade | None, left: Earlier, *, armed: bool = False
) -> tuple[Plan, list[Event]]:
    """By what the nodes say: the first may be on trial, the second may have its image confirmed."""
    events: list[Event] = []

    async def scenario() -> Plan:
        first = identity(BMU1)
        first = replace(first, boot_state=replace(first.boot_state, armed=armed))
        if trial:
            first = replace(first, boot_state=replace(first.boot_state, standing=ImageState.TRIAL, version=NEW))
        master = station(MemoryBus(), first, identity(BMU2, NEW if done else OLD))
        return await plan_to_give_up(left, master, upgrade, events.append)

    return run_virtual(scenario()), events


class TestGivingUp:
    def test_every_node_is_asked(self) -> None:
        _, events = plan_by(False, False, RELEASE, earlier())
        assert [(e.node, e.step) for e in events if isinstance(e, NodeStepEntered)] == [
            (BMU1, NodeStep.IDENTIFY),
            (BMU2, NodeStep.IDENTIFY),
        ]

    def test_where_nothing_was_activated_nothing_is_taken_back(self) -> None:
        plan, _ = plan_by(False, True, RELEASE, earlier((Deed.TRANSFER, True)))
        assert plan.leftovers == ()
        assert [node.address for node in plan.up_to_date] == [BMU2]

    def test_a_node_on_trial_is_taken_back_whatever_the_journal_says(self) -> None:
        plan, _ = plan_by(True, False, RELEASE, earlier())
        assert plan.leftovers == (Leftover(BMU1, on_trial=True), Leftover(BMU2, on_trial=False))
        assert plan.up_to_date == ()

    def test_what_may_be_activated_is_taken_back_though_no_node_is_on_trial(self) -> None:
        plan, _ = plan_by(False, False, RELEASE, earlier((Deed.ACTIVATE, None)))
        assert plan.leftovers == (Leftover(BMU1, on_trial=False), Leftover(BMU2, on_trial=False))

    def test_a_node_that_would_boot_another_image_is_taken_back_whatever_the_journal_says(self) -> None:
        plan, _ = plan_by(False, False, RELEASE, earlier(), armed=True)
        assert plan.leftovers == (Leftover(BMU1, on_trial=False), Leftover(BMU2, on_trial=False))

    def test_without_the_release_no_node_is_known_to_be_done(self) -> None:
        plan, _ = plan_by(False, True, None, earlier())
        assert plan.up_to_date == ()

    def test_how_it_ends(self) -> None:
        assert isinstance(given_up(), RolledBack)


def planned(*done: NodePlan, trials: tuple[Leftover, ...] = ()) -> Plan:
    return Plan(up_to_date=done, leftovers=trials)


def test_an_upgrade_is_complete_when_every_target_runs_it_confirmed() -> None:
    first, second = (NodePlan(address, identity(address, NEW), RELEASE.images[0]) for address in (BMU1, BMU2))
    assert is_complete(planned(first, second), RELEASE, CONFIG)
    assert is_complete(planned(first, second, trials=(Leftover(BMU1, on_trial=False),)), RELEASE, CONFIG)
    assert not is_complete(planned(first), RELEASE, CONFIG)
    assert not is_complete(planned(first, second, trials=(Leftover(BMU1, on_trial=True),)), RELEASE, CONFIG)


def test_what_another_release_may_have_activated_is_taken_back_first() -> None:
    nodes = (NodePlan(BMU2, identity(BMU2), RELEASE.images[0]),)

    async def scenario() -> None:
        bus, peer = bus_pair()
        master, plant = station(bus), ScriptedPlant(peer)
        plant.nodes[BMU2] = node_info(ImageState.TRIAL, NEW)
        plant.start()
        await pause(0.2)
        plan = Plan(nodes)
        assert leftovers_of(earlier((Deed.TRANSFER, True)), master, plan) is plan
        taken = leftovers_of(earlier((Deed.ACTIVATE, True)), master, plan)
        assert taken == Plan(nodes, (), (Leftover(BMU1, on_trial=False), Leftover(BMU2, on_trial=True)))

    run_virtual(scenario())


class TestDecision:
    """As a sentence for people."""

    NODES = tuple(NodePlan(address, identity(address), RELEASE.images[0]) for address in (BMU1, BMU2))

    def said(self, plan: Plan, afterwards: Afterwards = Afterwards.AS_FOUND, upgrade: str = "bmu 1.1.0") -> str:
        left = earlier()
        text = decision(left, plan, replace(CONFIG, afterwards=afterwards), Connection.OPEN, upgrade)
        return text.replace(f"{left.record.began_at:%Y-%m-%d %H:%M} UTC", "THEN")

    def test_everything_at_once(self) -> None:
        plan = Plan(self.NODES[:1], self.NODES[1:], (Leftover(BMU2, on_trial=True),))
        assert self.said(plan) == (
            "goes on with bmu 1.1.0, after the upgrade that began on THEN; bmu2: back to the confirmed image first; "
            "to upgrade: bmu1; done already: bmu2; high voltage is left open"
        )

    def test_what_cannot_be_explained_is_said(self) -> None:
        left = earlier((Deed.RAMP_DOWN, True), found=Connection.CONNECTED.value)
        said = decision(left, Plan(), CONFIG, Connection.OPEN, "bmu 1.1.0")
        assert "high voltage is left open" in said
        assert "--reconnect or --hold-open says otherwise" in said
        assert "connected" in said

    def test_nothing_but_the_plant(self) -> None:
        said = self.said(Plan(), Afterwards.CONNECT, "")
        assert (
            said == f"gives up, after the upgrade that began on THEN; high voltage is left {Afterwards.CONNECT.value}"
        )


def test_what_is_not_heard_again_is_not_waited_for_longer_than_a_trial_lasts() -> None:
    events: list[Event] = []

    async def scenario() -> None:
        bus, peer = bus_pair()
        master, plant = station(bus), ScriptedPlant(peer)
        plant.set_racks(RACK_OFF)
        plant.pcs = PCS_OFF
        plant.silent.add(("telemetry", BMU2.index))
        plant.start()
        await pause(2.0)
        await let_trials_end(master, events.append, Start.RESUMED)
        assert now() == pytest.approx(2.0 + master.config.times.revert_s, abs=0.1)
        assert bus.sent == []

    run_virtual(scenario())
    (told,) = [event.text for event in events if isinstance(event, Noted)]
    assert "rack 2" in told or "bmu2" in told


class TestRefusals:
    def test_with_nothing_unfinished_nothing_is_given_up_and_nothing_is_asked(self) -> None:
        async def scenario() -> None:
            bus = MemoryBus()
            report = await roll_back_station(bus, RELEASE, setup(), journal=Journal.in_memory())
            assert isinstance(report.error, NothingToResume)
            assert (report.result, report.resumable, bus.sent, now()) == (Phase.REFUSED, False, [], 0.0)

        run_virtual(scenario())

    def test_a_refusal_leaves_what_is_unfinished_to_be_resumed(self) -> None:
        async def scenario() -> None:
            for upgrade, resumable in ((RELEASE, True), (OTHER, False)):
                journal = journal_of((Deed.LOCK, True))
                report = await upgrade_station(MemoryBus(), upgrade, setup(), journal=journal)
                assert isinstance(report.error, BusSilent)
                assert report.resumable is resumable
                assert journal.unfinished() is not None

        run_virtual(scenario())

    def test_a_check_that_is_interrupted_changed_nothing(self) -> None:
        async def scenario() -> None:
            bus, journal = MemoryBus(), Journal.in_memory()
            task = asyncio.create_task(upgrade_station(bus, RELEASE, setup(), journal=journal))
            await pause(0.1)
            task.cancel()
            report = await task
            assert isinstance(report.error, Interrupted)
            assert (report.result, bus.sent, journal.unfinished()) == (Phase.REFUSED, [], None)

        run_virtual(scenario())


class TestWholeStations:
    """A gateway that is killed, and another one after it."""

    def decided(self, seen: Seen) -> list[str]:
        return [entry.text for entry in seen.entries if entry.kind is Kind.NOTE and "after the upgrade" in entry.text]

    @pytest.mark.parametrize("deed", [Deed.RAMP_DOWN, Deed.ACTIVATE, Deed.RESTART, Deed.CLOSE])
    def test_gone_on_with(self, deed: Deed) -> None:
        seen = play_killed(at_deed(Kind.RESULT, deed), spec=ONE_RACK)
        report = seen.require(Phase.DONE, NEW)
        assert (report.error, report.resumable) == (None, False)
        assert len(self.decided(seen)) == 1

    def test_what_was_given_back_before_the_end_was_written_is_only_looked_at(self) -> None:
        seen = play_killed(at_deed(Kind.RESULT, Deed.HAND_BACK), spec=ONE_RACK)
        report = seen.require(Phase.DONE, NEW)
        assert report.hv_off_s == 0.0

    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.parametrize("deed", [Deed.TRANSFER, Deed.RESTART])
    def test_given_up(self, deed: Deed, known: bool) -> None:
        seen = play_killed(at_deed(Kind.RESULT, deed), spec=ONE_RACK, roll_back=True, known=known)
        assert isinstance(seen.require(Phase.ROLLED_BACK, OLD).error, RolledBack)

    def test_given_up_before_anything_was_ordered(self) -> None:
        seen = play_killed(at_deed(Kind.INTENT, Deed.RAMP_DOWN), spec=ONE_RACK, roll_back=True)
        seen.require(Phase.ROLLED_BACK, OLD)
        seen = play_killed(at_entry(1), spec=ONE_RACK, roll_back=True)
        report = seen.require(Phase.ROLLED_BACK, OLD)
        assert report.hv_off_s == 0.0

    def test_too_late_to_be_given_up(self) -> None:
        seen = play_killed(at_deed(Kind.RESULT, Deed.CLOSE), spec=ONE_RACK, roll_back=True)
        seen.require(Phase.DONE, NEW)
        assert any(isinstance(event, Noted) and "nothing to give up" in event.text for event in seen.events)
        (note,) = [entry for entry in seen.entries if "nothing to give up" in entry.text]
        assert (note.kind, note.upgrade) == (Kind.NOTE, "1")

    def test_half_confirmed_it_is_held_open_and_stays_to_be_resumed(self) -> None:
        seen = play_killed(when(mixed), roll_back=True)
        (report,) = seen.reports
        assert (report.result, report.resumable, seen.unfinished) == (Phase.HELD_OPEN, True, True)

    def test_another_file_takes_over(self) -> None:
        newer = replace(NEW, minor=2)
        seen = play_killed(
            at_deed(Kind.RESULT, Deed.RESTART), spec=ONE_RACK, then=plant_release(version=newer, kib=KIB)
        )
        seen.require(Phase.DONE, newer)
        assert [entry.text for entry in seen.entries if entry.kind is Kind.ENDED] == ["superseded", "done"]

    def test_another_file_with_nothing_to_do_only_ends_the_first(self) -> None:
        """The node runs that file's version; what the first one began never changed anything."""
        older = plant_release(version=OLD, kib=4)
        seen = play_killed(at_entry(1), spec=ONE_RACK, then=older)
        (report,) = seen.reports
        assert (report.result, report.error, report.upgrade_id) == (Phase.NOTHING_TO_DO, None, "")
        assert (set(seen.versions.values()), seen.connected, seen.unfinished) == ({OLD}, True, False)
        assert [(entry.kind, entry.upgrade, entry.text) for entry in seen.entries[1:]] == [
            (Kind.ENDED, "1", "superseded")
        ]
        assert seen.violations == []

    def test_a_trial_that_fails_ends_it_and_leaves_nothing_to_resume(self) -> None:
        spec = replace(QUICK, racks=1, behaviours={NEW: Behaviour.WRONG_SCALE})
        seen = play_killed(at_deed(Kind.RESULT, Deed.LOCK), spec=spec)
        report = seen.require(Phase.ROLLED_BACK, OLD)
        assert not report.resumable

    def test_a_trial_that_cannot_be_heard_is_waited_for_and_that_is_told(self) -> None:
        spec = replace(QUICK, racks=1, behaviours={NEW: Behaviour.NO_HV_STATUS})
        seen = play_killed(at_deed(Kind.RESULT, Deed.RESTART), spec=spec, wait_s=3.0)
        seen.require(Phase.ROLLED_BACK, OLD)
        assert any(isinstance(event, Noted) and "which is waited for" in event.text for event in seen.events)
