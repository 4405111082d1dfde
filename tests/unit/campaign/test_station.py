"""The station under test: its gateway runs, dies, comes back, and the journal outlives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ess_can.bus.clock import now, pause, until
from ess_can.campaign.moments import Moment
from ess_can.campaign.plants import NEW, SMALLEST
from ess_can.campaign.releases import FACTORY, release
from ess_can.campaign.station import Station
from ess_can.errors import UsageError
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import PhaseEntered
from ess_can.identity import NodeAddress, NodeType
from ess_can.sim.loop import run_virtual
from tests.unit.campaign.stations import healed, on_station, to_the_end

BMU1 = NodeAddress(NodeType.BMU, 1)


async def entered(station: Station, phase: Phase) -> None:
    assert await until(lambda: any(isinstance(e, PhaseEntered) and e.phase is phase for e in station.events), 60.0)


def test_an_upgrade_comes_to_its_end() -> None:
    async def act(station: Station) -> Station:
        assert await to_the_end(station)
        assert station.plant.versions()[BMU1] == NEW
        return station

    station = on_station(act)
    assert station.report is not None
    assert (station.report.result, station.kills, station.unfinished) == (Phase.DONE, 0, False)
    phases = [event.phase for event in station.events if isinstance(event, PhaseEntered)]
    assert phases[0] is Phase.STATUS_CHECK
    assert phases[-1] is Phase.DONE
    assert station.disk.writes > 10


def test_a_dry_run_looks_and_changes_nothing() -> None:
    async def act(station: Station) -> Station:
        station.start_upgrade(dry_run=True)
        assert await station.ended()
        assert station.plant.versions()[BMU1] == FACTORY
        return station

    station = on_station(act)
    assert station.report is not None
    assert (station.report.result, station.report.dry_run, station.disk.writes) == (Phase.CHECKED, True, 0)


@pytest.mark.parametrize("power", [False, True])
def test_a_killed_gateway_does_nothing_more_and_its_successor_goes_on(power: bool) -> None:
    async def act(station: Station) -> None:
        sent: list[float] = []
        station.plant.wire.on_frame.append(lambda _frame, at, sender: sent.append(at) if sender == "EMS" else None)
        station.start_upgrade()
        await entered(station, Phase.PROGRAM)
        await pause(0.1)
        events, killed_at = len(station.events), now()
        station.kill_gateway(power=power)
        assert not await station.ended()
        assert station.unfinished
        await pause(3.0)
        assert (len(station.events), station.report, station.kills) == (events, None, 1)
        assert max(sent) < killed_at + 0.005  # what the controller already had
        assert station.controller.online is not power
        assert station.plant.versions()[BMU1] == FACTORY
        station.start_resume()
        assert await station.ended()
        assert station.report is not None
        assert (station.report.result, station.unfinished) == (Phase.DONE, False)
        assert station.plant.versions()[BMU1] == NEW

    on_station(act)


def test_an_unfinished_upgrade_can_be_given_up() -> None:
    async def act(station: Station) -> None:
        station.start_upgrade()
        await entered(station, Phase.TRIAL_BOOT)
        station.kill_gateway()
        await pause(1.0)
        station.start_resume(roll_back=True)
        assert await station.ended()
        assert station.report is not None
        assert (station.report.result, station.unfinished) == (Phase.ROLLED_BACK, False)
        assert station.plant.versions()[BMU1] == FACTORY

    on_station(act)


def test_a_journal_in_a_directory_outlives_its_process_too(tmp_path: Path) -> None:
    async def main() -> None:
        upgrade = release(SMALLEST.release, NEW, SMALLEST.payload_bytes)
        station = Station(SMALLEST.plant, upgrade, 1, directory=tmp_path / "journal")
        await station.settle()
        station.start_upgrade()
        await entered(station, Phase.PROGRAM)
        station.kill_gateway()
        assert station.unfinished
        station.start_resume()
        assert await station.ended()
        assert not station.unfinished
        station.plant.stop()
        station.journal.close()

    run_virtual(main())


def test_one_gateway_at_a_time() -> None:
    async def act(station: Station) -> None:
        with pytest.raises(UsageError):
            _ = station.process
        station.start_upgrade()
        with pytest.raises(UsageError):
            station.start_resume()
        station.kill_gateway()
        station.kill_gateway()
        assert station.kills == 1

    on_station(act)


def test_moments_count_from_the_first_begin_and_from_the_first_entry_of_a_phase() -> None:
    async def act(station: Station) -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []

        def note(name: str) -> Callable[[], None]:
            return lambda: seen.append((name, round(now() - (station.begun_at or 0.0), 9)))

        station.at(Moment(0.25), note("early"))
        station.at(Moment(0.5, Phase.PROGRAM), note("program"))
        station.start_upgrade()
        station.at(Moment(0.125), note("late"))
        await station.ended()
        entered_at = next(e.at for e in station.events if isinstance(e, PhaseEntered) and e.phase is Phase.PROGRAM)
        seen.append(("entered", round(entered_at - (station.begun_at or 0.0), 9)))
        return seen

    (late, early, program, entered_program) = on_station(act)
    assert (late, early) == (("late", 0.125), ("early", 0.25))
    assert program[0] == "program"
    assert program[1] == pytest.approx(entered_program[1] + 0.5)


def test_a_moment_of_an_attempt_is_in_no_other() -> None:
    async def act(station: Station) -> list[str]:
        seen: list[str] = []

        def note(moment: Moment) -> None:
            station.at(moment, lambda: seen.append(f"{moment.text} in attempt {station.attempts}"))

        begun: list[float] = []
        station.on_start.append(lambda _process: begun.append(now()))
        note(Moment(0.25, attempt=2))
        note(Moment(0.0, Phase.STATUS_CHECK, attempt=2))
        note(Moment(0.5, attempt=1))
        note(Moment(0.0, Phase.STATUS_CHECK))
        station.at(Moment(0.25, attempt=2), lambda: seen.append(f"{now() - begun[1]:g} s after it began"))
        station.start_upgrade()
        await pause(1.0)
        station.kill_gateway()
        station.start_resume()
        note(Moment(0.125, attempt=2))
        await station.ended()
        return seen

    assert on_station(act) == [
        "STATUS_CHECK+0 in attempt 1",
        "1:0.5 in attempt 1",
        "2:STATUS_CHECK+0 in attempt 2",
        "2:0.125 in attempt 2",
        "2:0.25 in attempt 2",
        "0.25 s after it began",
    ]


def test_healing_forgets_what_was_still_to_come() -> None:
    async def act(station: Station) -> list[str]:
        seen: list[str] = []
        station.at(Moment(1.0), lambda: seen.append("act"))
        station.at(Moment(0.0, Phase.PROGRAM), lambda: seen.append("act"))
        station.to_heal(lambda: seen.append("first"))
        station.to_heal(lambda: seen.append("second"))
        station.start_upgrade()
        await pause(0.5)
        await healed(station)
        await station.ended()
        return seen

    assert on_station(act) == ["second", "first"]


def test_the_wall_clock_follows_the_loop_and_its_own_mistakes() -> None:
    async def act(station: Station) -> float:
        before = station.clock()
        await pause(10.0)
        return (station.clock() - before).total_seconds()

    assert on_station(act) == pytest.approx(10.0)


def test_the_same_seed_is_the_same_run_and_another_one_is_not() -> None:
    async def act(station: Station) -> str:
        await to_the_end(station)
        return station.plant.trace.hexdigest()

    assert on_station(act, seed=5) == on_station(act, seed=5) != on_station(act, seed=6)
