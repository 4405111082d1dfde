"""A gateway that is killed at any moment, and another that goes on: by the journal and by what the plant says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from ess_can.bus.clock import now, pause, until
from ess_can.campaign.monitors import Monitors, Violation
from ess_can.cli.embedded import simulated_setup
from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import Decided, Event
from ess_can.gateway.report import Report
from ess_can.gateway.run import roll_back_station, upgrade_station
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.journal.entries import Deed, Entry, Kind
from ess_can.journal.journal import Journal
from ess_can.sim.controller import Controller
from ess_can.sim.loop import run_virtual
from ess_can.sim.plant import Plant, PlantSpec
from ess_can.sim.process import SimulatedProcess
from ess_can.trust.verify import VerifiedUpgrade
from tests.scenario.support import NEW, QUICK, SETTLED_S, release, small_plant

DECISION_S = 5.0
KIB = 8
ONE_RACK = replace(QUICK, racks=1)


@dataclass
class Gateway:
    """The gateway's computer: what survives a process, and the process that runs now."""

    plant: Plant
    monitors: Monitors
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
            self.report = await roll_back_station(bus, None, setup, journal=self.journal, on_progress=tell)
        else:
            self.report = await upgrade_station(bus, upgrade, setup, journal=self.journal, on_progress=tell)
        self.monitors.ended(self.report)

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

    async def again(self, upgrade: VerifiedUpgrade | None, afterwards: Afterwards = Afterwards.AS_FOUND) -> Report:
        """Another process, to its end."""
        self.report, self.events = None, []
        self.start(upgrade, afterwards)
        await self.ended()
        report: Report | None = self.report
        assert report is not None
        return report

    def decided_after_s(self) -> float:
        return next(event.at for event in self.events if isinstance(event, Decided)) - self.began_at


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

    def require(self, result: Phase, version: Version, *, connected: bool = True) -> Report:
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
    then: VerifiedUpgrade | None = None,
    roll_back: bool = False,
    afterwards: Afterwards = Afterwards.AS_FOUND,
    meanwhile: Callable[[Plant], None] | None = None,
    times: int = 1,
) -> Seen:
    """Upgrade, with `kill` arranged beforehand; after `wait_s` another process resumes, takes over, or rolls back."""

    async def run() -> Seen:
        plant = small_plant(spec)
        plant.start()
        monitors = Monitors(plant)
        await pause(SETTLED_S)
        gateway = Gateway(plant, monitors)
        if kill is not None:
            kill(gateway)
        gateway.start(release(kib=KIB))
        reports = []
        if await gateway.ended():
            assert gateway.report is not None
            reports.append(gateway.report)
        await pause(wait_s)
        if meanwhile is not None:
            meanwhile(plant)
            await pause(1.0)
        decided_after_s = 0.0
        for _ in range(times if kill is not None else 0):
            unfinished = gateway.journal.unfinished() is not None
            reports.append(await gateway.again(None if roll_back else then or release(kib=KIB), afterwards))
            if unfinished:
                decided_after_s = gateway.decided_after_s()
        await pause(1.0)
        monitors.finish()
        circuit = plant.circuit
        seen = Seen(
            reports,
            gateway.entries,
            plant.versions(),
            circuit.pcs_contactor.closed and all(r.main_plus.closed and r.main_minus.closed for r in circuit.racks),
            plant.pcs.locked,
            monitors.violations,
            decided_after_s,
            gateway.journal.unfinished() is not None,
            sum(node.flash.counters.sectors_erased for node in plant.nodes.values()),
            gateway.events,
        )
        plant.stop()
        return seen

    return run_virtual(run())


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
        print(f" {count} kills, decided after {slowest:.2f} s at most", end=" ")
