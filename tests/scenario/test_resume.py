"""A gateway that is killed at any moment, and another that goes on: by the journal and by what the plant says."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from inspect import isasyncgen
from math import inf

import pytest

from ess_can.bus.clock import Cycle, now, pause, until
from ess_can.bus.station import StationLink
from ess_can.campaign.monitors import Monitors, Violation
from ess_can.cli.embedded import simulated_setup
from ess_can.errors import EmergencyStop, NodeMissing, NothingToResume, RolledBack
from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import Decided, Event, Noted
from ess_can.gateway.report import Report
from ess_can.gateway.run import roll_back_station, upgrade_station
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.journal.entries import Deed, Entry, Kind
from ess_can.journal.journal import Journal
from ess_can.signals.messages import EmsPcsCommand, ImageState, PcsCommandCode
from ess_can.sim.controller import Controller
from ess_can.sim.loop import VirtualTimeLoop, run_virtual
from ess_can.sim.node import Behaviour
from ess_can.sim.plant import Plant, PlantSpec
from ess_can.sim.process import SimulatedProcess
from ess_can.trust.verify import VerifiedUpgrade
from tests.scenario.support import BMU1, BMU2, COMM_GATEWAY, NEW, OLD, QUICK, SETTLED_S, release, small_plant

DECISION_S = 5.0
LISTENS_S = 0.75
"""So long the next process only listens."""
KIB = 8
ONE_RACK = replace(QUICK, racks=1)
WAY = (
    *(Phase.STATUS_CHECK, Phase.RAMP_DOWN, Phase.OPEN_CONTACTORS, Phase.PROVE_HV_OFF, Phase.PROGRAM, Phase.TRIAL_BOOT),
    *(Phase.CONFIRM, Phase.RECONNECT),
)
"""The phases of a good upgrade, but for its end."""


@dataclass
class Gateway:
    """The gateway's computer: what survives a process, and the process that runs now."""

    plant: Plant
    monitors: Monitors
    known: VerifiedUpgrade | None = None
    journal: Journal = field(default_factory=Journal.in_memory)
    entries: list[Entry] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    report: Report | None = None
    process: SimulatedProcess | None = None
    bus: Controller | None = None
    began_at: float = 0.0

    def start(self, upgrade: VerifiedUpgrade | None, afterwards: Afterwards = Afterwards.AS_FOUND) -> None:
        """Begin to upgrade; without a release, to roll back."""
        bus = self.bus = self.plant.gateway_controller()
        self.began_at = now()
        self.process = SimulatedProcess("gateway")
        self.process.start(self._run(bus, upgrade, afterwards))

    async def _run(self, bus: Controller, upgrade: VerifiedUpgrade | None, afterwards: Afterwards) -> None:
        setup = simulated_setup(self.plant, GatewayConfig(self.plant.addresses, afterwards=afterwards))
        self.monitors.attach_journal(self.journal)
        self.journal.on_entry.append(self.entries.append)
        tell = self.events.append
        if upgrade is None:
            self.report = await roll_back_station(bus, self.known, setup, journal=self.journal, on_progress=tell)
        else:
            self.report = await upgrade_station(bus, upgrade, setup, journal=self.journal, on_progress=tell)
        self.monitors.ended(self.report, afterwards)

    def kill(self) -> None:
        """As by SIGKILL.  The journal is what the next process opens."""
        assert self.process is not None
        assert self.bus is not None
        self.bus.detach()
        self.process.kill()
        self.journal = self.journal.survivor()

    def kill_at(self, is_it: Callable[[Entry], bool]) -> None:
        """Right after the first entry like this is on the disk."""

        def look(entry: Entry) -> None:
            if self.process is not None and self.process.alive and is_it(entry):
                self.kill()

        self.journal.on_entry.append(look)

    async def ended(self) -> bool:
        """Wait until it ended; whether by itself."""
        process = self.process
        assert process is not None
        assert await until(lambda: self.report is not None or not process.alive, 300.0)
        return process.alive

    async def again(
        self, upgrade: VerifiedUpgrade | None, afterwards: Afterwards = Afterwards.AS_FOUND
    ) -> Report | None:
        """Another process, to its end; None if it was killed, too."""
        self.report, self.events = None, []
        self.start(upgrade, afterwards)
        await self.ended()
        return self.report

    def decided_after_s(self) -> float:
        """From its start; for ever if it was refused."""
        return next((event.at for event in self.events if isinstance(event, Decided)), inf) - self.began_at


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of it."""

    reports: list[Report]
    entries: list[Entry]
    versions: dict[NodeAddress, Version]
    connected: bool
    locked: bool
    violations: list[Violation]
    decided_after_s: float
    unfinished: bool
    erased: int
    events: list[Event]
    proved: bool
    """When the next process began high voltage was on, or the PCS's lock proved that the first one opened it."""

    def require(self, result: Phase, version: Version, *, connected: bool | None = None) -> Report:
        """How it has to end; connected unless nothing proves that nobody else opened it meanwhile."""
        if connected is None:
            connected = self.proved
        report = self.reports[-1]
        assert report.result is result, (report.result, report.error)
        bmus = {v for address, v in self.versions.items() if address.node_type is NodeType.BMU}
        assert bmus == {version}
        assert (self.connected, self.locked) == (connected, False)
        assert self.violations == []
        assert not self.unfinished
        return report


def play(
    kill: Callable[[Gateway], None] | None,
    *,
    spec: PlantSpec = QUICK,
    wait_s: float = 0.3,
    first: VerifiedUpgrade | None = None,
    then: VerifiedUpgrade | None = None,
    roll_back: bool = False,
    afterwards: Afterwards = Afterwards.AS_FOUND,
    meanwhile: Callable[[Plant], None] | None = None,
    settles_s: float = 1.0,
    times: int = 1,
    known: bool = True,
) -> Seen:
    """Upgrade, with `kill` arranged beforehand; after `wait_s` another process resumes, takes over, or rolls back."""

    async def run() -> Seen:
        plant = small_plant(spec)
        plant.start()
        monitors = Monitors(plant)
        await pause(SETTLED_S)
        gateway = Gateway(plant, monitors, release(kib=KIB) if known else None)
        if kill is not None:
            kill(gateway)
        gateway.start(first or release(kib=KIB))
        reports = []
        if await gateway.ended():
            assert gateway.report is not None
            reports.append(gateway.report)
        await pause(wait_s)
        if meanwhile is not None:
            meanwhile(plant)
            await pause(settles_s)
        decided_after_s = 0.0
        proved = True

        def look() -> None:
            nonlocal proved
            proved = plant.pcs.locked or is_connected(plant)

        plant.wire.loop.call_later(LISTENS_S, look)  # contactors may still move when it begins to listen
        for _ in range(times if kill is not None else 0):
            unfinished = gateway.journal.unfinished() is not None
            report = await gateway.again(None if roll_back else then or release(kib=KIB), afterwards)
            if report is not None:
                reports.append(report)
            if unfinished:
                decided_after_s = gateway.decided_after_s()
        await pause(1.0)
        monitors.finish()
        seen = Seen(
            reports,
            gateway.entries,
            plant.versions(),
            is_connected(plant),
            plant.pcs.locked,
            monitors.violations,
            decided_after_s,
            gateway.journal.unfinished() is not None,
            sum(node.flash.counters.sectors_erased for node in plant.nodes.values()),
            gateway.events,
            proved,
        )
        plant.stop()
        return seen

    return run_virtual(run())


def is_connected(plant: Plant) -> bool:
    circuit = plant.circuit
    return circuit.pcs_contactor.closed and all(r.main_plus.closed and r.main_minus.closed for r in circuit.racks)


def at_entry(number: int) -> Callable[[Gateway], None]:
    return lambda gateway: gateway.kill_at(lambda entry: entry.seq == number)


def at_phase(phase: Phase, after_s: float) -> Callable[[Gateway], None]:
    """So long after a phase began."""

    def arrange(gateway: Gateway) -> None:
        def later() -> None:
            if gateway.process is not None and gateway.process.alive and gateway.report is None:
                gateway.kill()

        def look(entry: Entry) -> None:
            if entry.kind is Kind.PHASE and entry.text.startswith(phase.value):
                gateway.plant.wire.loop.call_later(after_s, later)

        gateway.journal.on_entry.append(look)

    return arrange


def at_deed(kind: Kind, deed: Deed, node: str = "") -> Callable[[Gateway], None]:
    return lambda gateway: gateway.kill_at(lambda e: (e.kind, e.deed) == (kind, deed) and node in ("", e.node))


def when(condition: Callable[[Plant], bool]) -> Callable[[Gateway], None]:
    """As soon as the plant is so."""

    def arrange(gateway: Gateway) -> None:
        def look(_at: float) -> None:
            if gateway.process is not None and gateway.process.alive and condition(gateway.plant):
                gateway.kill()
                cycle.stop()

        cycle = Cycle(0.0002, look)
        cycle.start()

    return arrange


def standing(plant: Plant, node: NodeAddress) -> tuple[ImageState, Version] | None:
    simulated = plant.nodes[node]
    return (simulated.memory.standing, simulated.memory.version) if simulated.running else None


def entries_of_a_good_run(spec: PlantSpec) -> int:
    return len(play(None, spec=spec).entries)


def test_killed_after_each_entry_of_the_journal_and_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    count = entries_of_a_good_run(ONE_RACK)
    slowest = 0.0
    for number in range(1, count + 1):
        seen = play(at_entry(number), spec=ONE_RACK)
        try:
            result = Phase.NOTHING_TO_DO if number == count else Phase.DONE
            seen.require(result, NEW)
        except AssertionError as error:
            raise AssertionError(f"killed after entry {number}: {seen.entries[number - 1]}") from error
        slowest = max(slowest, seen.decided_after_s)
    assert slowest <= DECISION_S
    with capsys.disabled():
        sys.stdout.write(f" {count} kills, decided after {slowest:.2f} s at most ")


@pytest.mark.parametrize("wait_s", [0.0, 10.0, 70.0])
@pytest.mark.parametrize(
    ("phase", "after_s"),
    [
        (Phase.RAMP_DOWN, 0.05),
        (Phase.OPEN_CONTACTORS, 0.05),
        (Phase.PROVE_HV_OFF, 0.3),
        (Phase.PROGRAM, 0.15),
        (Phase.PROGRAM, 0.6),
        (Phase.TRIAL_BOOT, 0.1),
        (Phase.TRIAL_BOOT, 0.6),
        (Phase.TRIAL_BOOT, 2.0),
        (Phase.CONFIRM, 0.04),
        (Phase.RECONNECT, 0.1),
        (Phase.RECONNECT, 0.35),
        (Phase.RECONNECT, 0.9),
        (Phase.RECONNECT, 1.1),
    ],
    ids=lambda value: value.name if isinstance(value, Phase) else str(value),
)
def test_killed_in_a_phase_and_resumed_at_once_or_later(phase: Phase, after_s: float, wait_s: float) -> None:
    seen = play(at_phase(phase, after_s), wait_s=wait_s)
    assert len(seen.reports) == 1  # it was killed before its end
    assert seen.decided_after_s <= DECISION_S
    report = seen.reports[0]
    if not seen.proved and report.result is Phase.HELD_OPEN:  # some contactors had moved, others had not
        assert "nobody could tell how the plant was found" in str(report.error)
        assert report.resumable
        assert (seen.connected, seen.locked, seen.violations) == (False, True, [])
        return
    seen.require(Phase.DONE, NEW)


@pytest.mark.parametrize(
    ("phase", "steps"),
    [(phase, 3) for phase in WAY] + [(Phase.DONE, steps) for steps in range(10)],
    ids=str,
)
def test_a_dead_gateway_says_nothing_when_it_is_buried(
    monkeypatch: pytest.MonkeyPatch, phase: Phase, steps: int
) -> None:
    """No asynchronous generator hangs about: taken apart in the middle of an await it complains."""
    said: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: said.append(what.exc_value))
    monkeypatch.setattr(VirtualTimeLoop, "call_exception_handler", lambda _loop, context: said.append(context))
    generators: list[object] = []

    def arrange(gateway: Gateway) -> None:
        def kill() -> None:
            generators.extend(filter(isasyncgen, gc.get_objects()))
            gateway.kill()

        def look(entry: Entry) -> None:
            if entry.kind is Kind.PHASE and entry.text.startswith(phase.value) and gateway.process is not None:
                gateway.process.kill_at(gateway.process.steps + steps, kill)

        gateway.journal.on_entry.append(look)

    play(arrange, spec=ONE_RACK)
    gc.collect()
    assert said == []
    assert generators == []


@pytest.mark.parametrize("kind", [Kind.INTENT, Kind.RESULT])
@pytest.mark.parametrize("deed", [Deed.CONFIRM, Deed.RESTART, Deed.ACTIVATE, Deed.CLOSE, Deed.UNLOCK, Deed.HAND_BACK])
def test_killed_between_two_nodes(kind: Kind, deed: Deed) -> None:
    seen = play(at_deed(kind, deed))
    seen.require(Phase.DONE, NEW)


def mixed(plant: Plant) -> bool:
    return (standing(plant, BMU1), standing(plant, BMU2)) == ((ImageState.CONFIRMED, NEW), (ImageState.TRIAL, NEW))


@pytest.mark.parametrize("wait_s", [0.0, 0.6, 70.0])
def test_killed_when_one_rack_is_confirmed_and_the_other_is_not(wait_s: float) -> None:
    seen = play(when(mixed), wait_s=wait_s)
    assert len(seen.reports) == 1
    report = seen.require(Phase.DONE, NEW)
    assert sum(node.bytes_sent for node in report.nodes) == 0  # what is held is only verified and activated again
    assert [e.node for e in seen.entries if (e.kind, e.deed) == (Kind.INTENT, Deed.CONFIRM)] == ["bmu1", "bmu2", "bmu2"]


def test_a_set_that_is_half_confirmed_cannot_be_rolled_back_and_stays_open() -> None:
    seen = play(when(mixed), roll_back=True)
    (report,) = seen.reports
    assert (report.result, report.resumable, seen.connected, seen.locked) == (Phase.HELD_OPEN, True, False, True)
    assert "different versions" in str(report.error)
    assert seen.unfinished


def held(plant: Plant) -> int:
    """How much of the image the first rack's BMU has verified."""
    node = plant.nodes[BMU1]
    return node.memory.resume_state().verified_offset if node.running else 0


def test_what_a_node_holds_is_not_sent_again() -> None:
    killed = play(at_deed(Kind.RESULT, Deed.TRANSFER), spec=ONE_RACK)
    assert killed.require(Phase.DONE, NEW).nodes[0].bytes_sent == 0
    halfway = play(when(lambda plant: held(plant) > 4096), spec=ONE_RACK, first=release(kib=20), then=release(kib=20))
    (node,) = halfway.require(Phase.DONE, NEW).nodes
    assert 0 < node.bytes_sent < node.image_bytes - 4096


@pytest.mark.parametrize("deed", [Deed.RAMP_DOWN, Deed.TRANSFER, Deed.ACTIVATE, Deed.RESTART, Deed.CLOSE])
@pytest.mark.parametrize("kind", [Kind.INTENT, Kind.RESULT])
@pytest.mark.parametrize("known", [True, False], ids=["known", "release unreadable"])
def test_given_up(kind: Kind, deed: Deed, known: bool) -> None:
    seen = play(at_deed(kind, deed), roll_back=True, known=known)
    if known and deed is Deed.CLOSE:  # too late
        report = seen.require(Phase.DONE, NEW)
        assert (report.exit_code, seen.entries[-1].text) == (0, "done")
        return
    report = seen.require(Phase.ROLLED_BACK, NEW if deed is Deed.CLOSE else OLD)
    assert (report.exit_code, seen.entries[-1].text) == (100, "rolled_back")


MUTE = replace(QUICK, behaviours={NEW: Behaviour.NO_HV_STATUS})


@pytest.mark.parametrize("roll_back", [False, True])
@pytest.mark.parametrize(("wait_s", "waits"), [(0.0, True), (30.0, True), (70.0, False)])
def test_a_trial_whose_firmware_says_nothing_of_high_voltage_is_waited_for(
    wait_s: float, waits: bool, roll_back: bool
) -> None:
    """A rack that does not say that high voltage is off is not restarted: it goes back by itself, after 60 s."""
    seen = play(at_phase(Phase.TRIAL_BOOT, 1.5), spec=MUTE, wait_s=wait_s, roll_back=roll_back)
    report = seen.require(Phase.ROLLED_BACK, OLD)
    assert (len(seen.reports), report.resumable) == (1, False)
    told = [event for event in seen.events if isinstance(event, Noted) and "which is waited for" in event.text]
    written = [entry for entry in seen.entries if entry.kind is Kind.NOTE and "which is waited for" in entry.text]
    assert (len(told), len(written)) == ((1, 1) if waits else (0, 0))
    assert seen.decided_after_s <= (62.0 - wait_s if waits else DECISION_S)


def test_a_rack_that_stays_silent_is_not_waited_for_longer_than_a_trial_lasts() -> None:
    """Nor is it read as high voltage off: the attempt is refused, and may be made again."""

    def silences(plant: Plant) -> None:
        plant.nodes[BMU1].controller.detach()

    seen = play(at_deed(Kind.RESULT, Deed.ACTIVATE), meanwhile=silences, settles_s=3.0)
    (report,) = seen.reports
    assert (report.result, type(report.error), report.resumable) == (Phase.REFUSED, NodeMissing, True)
    assert 75.0 <= report.bus_time_s <= 85.0
    assert seen.unfinished


def test_other_reasons_are_not_waited_for() -> None:
    def trouble(plant: Plant) -> None:
        plant.nodes[BMU1].controller.detach()
        plant.pcs.press_emergency_stop(now())

    seen = play(at_deed(Kind.RESULT, Deed.ACTIVATE), meanwhile=trouble, settles_s=3.0)
    (report,) = seen.reports
    assert (report.result, type(report.error), report.resumable) == (Phase.REFUSED, EmergencyStop, True)
    assert report.bus_time_s <= DECISION_S


def test_killed_while_it_rolls_back_and_again_while_it_resumes() -> None:
    """The new image is refused on its trial; the rolling back is killed, and so is the resuming."""

    def arrange(gateway: Gateway) -> None:
        at_deed(Kind.INTENT, Deed.REVERT)(gateway)
        gateway.plant.wire.loop.call_later(0.0, lambda: None)

    spec = replace(QUICK, behaviours={NEW: Behaviour.WRONG_SCALE})
    seen = play(arrange, spec=spec)
    report = seen.require(Phase.ROLLED_BACK, OLD)
    assert isinstance(report.error, RolledBack)


def test_resumed_twice_the_second_time_there_is_nothing_to_do() -> None:
    seen = play(at_deed(Kind.INTENT, Deed.ACTIVATE), times=2)
    assert [report.result for report in seen.reports] == [Phase.DONE, Phase.NOTHING_TO_DO]
    seen.require(Phase.NOTHING_TO_DO, NEW)


def test_with_nothing_to_resume_nothing_is_rolled_back() -> None:
    async def run() -> Report:
        plant = small_plant(ONE_RACK)
        plant.start()
        await pause(SETTLED_S)
        report = await Gateway(plant, Monitors(plant)).again(None)
        plant.stop()
        assert report is not None
        return report

    report = run_virtual(run())
    assert (report.result, type(report.error)) == (Phase.REFUSED, NothingToResume)


NEXT = Version(1, 2, 0)


@pytest.mark.parametrize("deed", [Deed.RAMP_DOWN, Deed.TRANSFER, Deed.ACTIVATE, Deed.RESTART, Deed.CONFIRM, Deed.CLOSE])
@pytest.mark.parametrize("kind", [Kind.INTENT, Kind.RESULT])
def test_an_upgrade_of_another_file_takes_over(kind: Kind, deed: Deed) -> None:
    seen = play(at_deed(kind, deed), then=release(version=NEXT, kib=KIB))
    seen.require(Phase.DONE, NEXT)
    ended = [entry.text for entry in seen.entries if entry.kind is Kind.ENDED]
    assert ended == ["superseded", "done"]


@pytest.mark.parametrize("deed", [Deed.LOCK, Deed.ACTIVATE])
@pytest.mark.parametrize("after", range(1, 5))
def test_killed_while_an_upgrade_of_another_file_takes_over(deed: Deed, after: int) -> None:
    """Right after the end of the older one, and so many entries later: what that one did is not forgotten."""
    other = release(NodeType.COMM_GATEWAY, kib=KIB)

    def arrange(gateway: Gateway) -> None:
        at_deed(Kind.RESULT, deed)(gateway)
        started = gateway.start

        def start(upgrade: VerifiedUpgrade | None, afterwards: Afterwards = Afterwards.AS_FOUND) -> None:
            started(upgrade, afterwards)
            ended = [entry for entry in gateway.entries if entry.kind is Kind.ENDED]
            if not ended and gateway.entries:
                killed_at = gateway.entries[-1].seq + after
                gateway.kill_at(lambda entry: entry.seq == killed_at)

        gateway.start = start  # type: ignore[method-assign]

    seen = play(arrange, then=other, times=2)
    assert [report.result for report in seen.reports] == [Phase.DONE]
    seen.require(Phase.DONE, OLD)
    assert seen.versions[COMM_GATEWAY] == NEW
    if deed is Deed.ACTIVATE:
        reverted = {e.node for e in seen.entries if (e.kind, e.deed, e.ok) == (Kind.RESULT, Deed.REVERT, True)}
        assert reverted >= {"bmu1", "bmu2"}


def test_another_file_for_other_nodes_leaves_no_activation_behind() -> None:
    seen = play(at_deed(Kind.RESULT, Deed.ACTIVATE), then=release(NodeType.COMM_GATEWAY, kib=KIB))
    seen.require(Phase.DONE, OLD)
    assert seen.versions[COMM_GATEWAY] == NEW
    reverted = {e.node for e in seen.entries if (e.kind, e.deed, e.ok) == (Kind.RESULT, Deed.REVERT, True)}
    assert reverted == {"bmu1", "bmu2", "comm_gateway"}


def test_how_the_plant_is_left_may_be_said_anew() -> None:
    seen = play(at_deed(Kind.INTENT, Deed.ACTIVATE), afterwards=Afterwards.HOLD_OPEN)
    (report,) = seen.reports
    assert (report.result, report.exit_code, seen.connected, seen.locked) == (Phase.HELD_OPEN, 102, False, True)
    assert not seen.unfinished


def test_who_commanded_the_plant_meanwhile_decides_how_it_is_left() -> None:
    """Somebody released the lock, and left high voltage off."""

    def unlock(plant: Plant) -> None:
        link = StationLink(plant.wire.controller("somebody"), plant.codec)
        orders = [PcsCommandCode.UNLOCK] * 3 + [PcsCommandCode.RELEASE]
        for number, order in enumerate(orders):  # one alone is no valid sequence yet
            plant.wire.loop.call_later(0.05 * number, link.send, EmsPcsCommand(order))

    seen = play(at_deed(Kind.RESULT, Deed.LOCK), wait_s=1.0, meanwhile=unlock, settles_s=6.0)
    seen.require(Phase.DONE, NEW, connected=False)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda plant: plant.circuit.racks[0].set_soc(3.0), "SOC_OUT_OF_BAND"),
        (lambda plant: plant.pcs.press_emergency_stop(plant.wire.loop.time()), "EMERGENCY_STOP"),
        (lambda plant: plant.nodes[BMU2].power_off(plant.wire.loop.time()), "NODE_MISSING"),
    ],
)
def test_a_real_fault_refuses_and_leaves_the_upgrade_unfinished(spoil: Callable[[Plant], None], error: str) -> None:
    seen = play(at_deed(Kind.RESULT, Deed.TRANSFER), meanwhile=spoil)
    (report,) = seen.reports
    assert report.error is not None
    assert (report.result, report.error.name, report.resumable) == (Phase.REFUSED, error, True)
    assert seen.unfinished
    assert not seen.connected


def test_a_plant_out_of_its_band_may_still_be_given_back() -> None:
    def discharge(plant: Plant) -> None:
        for rack in plant.circuit.racks:
            rack.set_soc(3.0)

    seen = play(at_deed(Kind.RESULT, Deed.TRANSFER), meanwhile=discharge, roll_back=True)
    seen.require(Phase.ROLLED_BACK, OLD)
