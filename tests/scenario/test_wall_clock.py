"""The gateway's date and time jump, by minutes or years, back and forth: nothing but what is displayed follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Monitors
from ess_can.campaign.station import Station
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import Event, PhaseEntered
from ess_can.journal.entries import Entry, Kind
from tests.scenario.support import require_only
from tests.unit.campaign.stations import on_station

NO_TIME = datetime(2000, 1, 1, tzinfo=UTC)
JUMPS = tuple(timedelta(days=days) for days in (-3653, -1 / 24, 1 / 24, 3653))
WAY = (Phase.STATUS_CHECK, Phase.OPEN_CONTACTORS, Phase.PROGRAM, Phase.TRIAL_BOOT, Phase.CONFIRM, Phase.RECONNECT)

Arrange = Callable[[Station], None]


@dataclass(frozen=True)
class Seen:
    """What came of it: how it ended, all frames, what is on record without its times, and the times."""

    result: Phase
    trace_hash: str
    record: list[Entry]
    times: list[float]


def seen(*arranged: Arrange, killed_at: Phase | None = None, between: timedelta = timedelta()) -> Seen:
    """An upgrade; if its process is killed at a phase, the clock jumps `between`, and another one resumes it."""

    async def act(station: Station) -> Seen:
        monitors = Monitors(station.plant)
        monitors.attach_journal(station.journal)
        for arrange in arranged:
            arrange(station)
        if killed_at is not None:
            at_phase(killed_at, station.kill_gateway)(station)
        station.start_upgrade()
        if not await station.ended():
            station.clock_error += between
            await pause(1.0)
            monitors.attach_journal(station.journal)
            station.start_resume()
            assert await station.ended()
        report = station.report
        assert report is not None
        await pause(1.0)
        monitors.ended(report)
        monitors.finish()
        require_only(monitors)
        with station.journal.reader() as reader:
            reader.verify(station.journal.head)
            entries = reader.entries("1")
        times = [entry.at.timestamp() for entry in entries]
        record = [replace(entry, at=NO_TIME, digest=b"") for entry in entries]
        return Seen(report.result, station.plant.trace.hexdigest(), record, times)

    return on_station(act)


def at_phase(phase: Phase, act: Callable[[], None]) -> Arrange:
    def arrange(station: Station) -> None:
        awaited = {phase}  # for the first time

        def look(event: Event) -> None:
            if isinstance(event, PhaseEntered) and event.phase in awaited:
                awaited.clear()
                act()

        station.on_event.append(look)

    return arrange


def jump_at(phase: Phase, jump: timedelta) -> Arrange:
    def arrange(station: Station) -> None:
        def act() -> None:
            station.clock_error += jump

        at_phase(phase, act)(station)

    return arrange


def require_same(disturbed: Seen, undisturbed: Seen) -> None:
    """All but the times, which are what the clock said."""
    assert disturbed.result is undisturbed.result is Phase.DONE
    assert disturbed.trace_hash == undisturbed.trace_hash
    assert disturbed.record == undisturbed.record
    assert disturbed.times != undisturbed.times


def went(times: list[float]) -> float:
    """The largest step between two entries, in seconds."""
    return max((b - a for a, b in pairwise(times)), key=abs)


@pytest.mark.parametrize("jump", JUMPS, ids=lambda jump: f"{jump.days} days")
def test_in_the_middle_of_an_upgrade(jump: timedelta) -> None:
    undisturbed = seen()
    for phase in WAY[1:]:
        disturbed = seen(jump_at(phase, jump))
        require_same(disturbed, undisturbed)
        assert went(disturbed.times) == pytest.approx(jump.total_seconds(), abs=60.0)


def test_back_and_forth_in_every_phase() -> None:
    jumps = [jump_at(phase, JUMPS[0] if number % 2 else JUMPS[3]) for number, phase in enumerate(WAY)]
    require_same(seen(*jumps), seen())


@pytest.mark.parametrize("jump", JUMPS, ids=lambda jump: f"{jump.days} days")
@pytest.mark.parametrize("phase", [Phase.PROGRAM, Phase.TRIAL_BOOT, Phase.RECONNECT], ids=lambda phase: phase.name)
def test_between_two_runs(phase: Phase, jump: timedelta) -> None:
    disturbed = seen(killed_at=phase, between=jump)
    require_same(disturbed, seen(killed_at=phase))
    assert sum(entry.kind is Kind.RESUMED for entry in disturbed.record) == 1
