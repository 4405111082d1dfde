"""A gateway died with an image activated, and before the restart: high voltage waits until every node gave that up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from ess_can.bus.clock import now, pause
from ess_can.campaign.mixture import plain
from ess_can.campaign.monitors import Monitors, Violation
from ess_can.campaign.plants import NEW, NEXT, SMALLEST
from ess_can.campaign.releases import make_plant, release
from ess_can.campaign.run import run_mixture
from ess_can.campaign.station import Station, Verdict
from ess_can.can.frame import CanFrame
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import Event, PhaseEntered
from ess_can.gateway.report import Report
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.journal.entries import Deed, Entry, Kind
from ess_can.sim.loop import run_virtual
from ess_can.sim.wire import WireFault

BMU1 = NodeAddress(NodeType.BMU, 1)
BOOTED_S = 3.0

Attempt = Callable[[Station], None]
Disturb = Callable[[Station], None]


@dataclass
class Seen:
    """What became of the second attempt, and of a restart of bmu1 after it."""

    reports: list[Report] = field(default_factory=list)
    armed: bool = False
    connected: bool = False
    locked: bool = False
    boots: Version | None = None
    violations: list[Violation] = field(default_factory=list)

    @property
    def report(self) -> Report:
        return self.reports[-1]


def resume(station: Station) -> None:
    station.start_resume()


def roll_back(station: Station) -> None:
    station.start_resume(roll_back=True)


def other_file(station: Station) -> None:
    station.start_upgrade(release((NodeType.COMM_GATEWAY,), NEXT, SMALLEST.payload_bytes))


def armed(station: Station) -> bool:
    return any(node.running and node.memory.armed for node in station.plant.nodes.values())


def play(*attempts: tuple[Attempt, Disturb]) -> Seen:
    """The gateway dies when all images are activated; then come these attempts, each disturbed."""

    async def run() -> Seen:
        station = Station(
            SMALLEST.plant,
            release(SMALLEST.release, NEW, SMALLEST.payload_bytes),
            1,
            SMALLEST.config(),
            partial(make_plant, bank=SMALLEST.bank),
        )
        monitors = Monitors(station.plant)
        seen = Seen()

        def dies(entry: Entry) -> None:
            if (entry.kind, entry.deed) == (Kind.INTENT, Deed.RESTART):
                station.kill_gateway()
                station.process.require_alive()

        await station.settle()
        monitors.attach_journal(station.journal)
        station.journal.on_entry.append(dies)
        station.start_upgrade()
        await station.ended()
        await pause(2.0)
        assert armed(station)
        for start, disturb in attempts:
            monitors.attach_journal(station.journal)
            disturb(station)
            start(station)
            await station.ended()
            assert station.report is not None
            monitors.ended(station.report)
            seen.reports.append(station.report)
        circuit = station.plant.circuit
        seen.armed, seen.locked = armed(station), station.plant.pcs.locked
        seen.connected = circuit.pcs_contactor.closed and all(rack.main_plus.closed for rack in circuit.racks)
        if not seen.connected:
            station.plant.nodes[BMU1].reset(now())
            await pause(BOOTED_S)
            seen.boots = station.plant.nodes[BMU1].memory.version
        monitors.finish()
        seen.violations = monitors.violations
        station.switch_off()
        return seen

    return run_virtual(run())


def in_phase(phase: Phase, act: Callable[[Station], None], after_s: float = 0.0) -> Disturb:
    """Once, so long after the attempt enters a phase."""

    def disturb(station: Station) -> None:
        def on_event(event: Event) -> None:
            if isinstance(event, PhaseEntered) and event.phase is phase:
                station.on_event.remove(on_event)
                asyncio.get_running_loop().call_later(after_s, act, station)

        station.on_event.append(on_event)

    return disturb


def interrupts(station: Station) -> None:
    """Ctrl-C."""
    if station.running and station.process.task is not None:
        station.process.task.cancel()


def unheard(station: Station) -> None:
    """Nothing that bmu1 is asked reaches it."""
    request_id = station.plant.codec.diagnostic_ids(BMU1)[0]

    def rule(_index: int, frame: CanFrame) -> Verdict:
        return WireFault.LOSE if frame.can_id == request_id else None

    station.on_transmission(rule)


def interrupts_unheard(station: Station) -> None:
    unheard(station)
    interrupts(station)


def heals(station: Station) -> None:
    station.heal()


@pytest.mark.parametrize("after_s", [0.0, 0.03, 0.3])
@pytest.mark.parametrize(
    "phase", [Phase.RAMP_DOWN, Phase.OPEN_CONTACTORS, Phase.PROVE_HV_OFF, Phase.PROGRAM, Phase.ROLL_BACK]
)
@pytest.mark.parametrize("attempt", [resume, roll_back, other_file])
def test_whoever_is_interrupted_disarms_before_high_voltage_closes(
    attempt: Attempt, phase: Phase, after_s: float
) -> None:
    seen = play((attempt, in_phase(phase, interrupts, after_s)))
    assert seen.violations == []
    assert not (seen.connected and seen.armed)
    assert seen.armed is False


@pytest.mark.parametrize("phase", [Phase.RAMP_DOWN, Phase.OPEN_CONTACTORS, Phase.PROVE_HV_OFF, Phase.ROLL_BACK])
@pytest.mark.parametrize("attempt", [resume, roll_back, other_file])
def test_what_cannot_be_asked_is_held_open_and_can_be_resumed(attempt: Attempt, phase: Phase) -> None:
    if (attempt, phase) == (resume, Phase.ROLL_BACK):
        phase = Phase.PROGRAM  # an upgrade of the same file gives nothing up before it
    seen = play((attempt, in_phase(phase, interrupts_unheard)))
    report = seen.report
    assert seen.violations == []
    assert (report.result, report.resumable, seen.connected, seen.locked) == (Phase.HELD_OPEN, True, False, True)
    assert "TRIAL_BOOT_FAILED: bmu1: may still boot another image at the next restart" in str(report.error)
    assert seen.boots == NEW  # it was right to wait
    mended = play((attempt, in_phase(phase, interrupts_unheard)), (attempt, heals))
    assert mended.violations == []
    assert mended.report.result in (Phase.DONE, Phase.ROLLED_BACK)
    assert (mended.connected, mended.armed) == (True, False)


def test_a_leftover_that_does_not_answer_is_no_reason_to_reconnect() -> None:
    seen = play((roll_back, in_phase(Phase.ROLL_BACK, unheard)))
    assert seen.violations == []
    assert (seen.report.result, seen.connected, seen.locked) == (Phase.HELD_OPEN, False, True)
    assert "may still boot another image" in str(seen.report.error)


@pytest.mark.parametrize("entry", [27, 28, 29])  # of the journal: bmu1 is activated, and not yet restarted
def test_a_resume_that_fails_before_it_took_the_activation_back(entry: int) -> None:
    result = run_mixture(plain(f"gateway:kill%{entry}:before", "frame:hv-notice#18x130:lost"))
    assert not result.wrong
