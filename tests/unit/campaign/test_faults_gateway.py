"""Faults of the gateway's process, computer and disk."""

from __future__ import annotations

import pytest

from ess_can.bus.clock import now, pause, until
from ess_can.campaign.station import Station
from ess_can.errors import Interrupted
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import PhaseEntered
from ess_can.journal.entries import Entry
from tests.unit.campaign.stations import healed, on_station, to_the_end


async def programming(station: Station) -> float:
    """Until it programs; gives the time."""
    assert await until(
        lambda: any(isinstance(e, PhaseEntered) and e.phase is Phase.PROGRAM for e in station.events), 60
    )
    return next(e.at for e in station.events if isinstance(e, PhaseEntered) and e.phase is Phase.PROGRAM)


def result(station: Station) -> Phase | None:
    return None if station.report is None else station.report.result


@pytest.mark.parametrize(("fault", "online"), [("kill", True), ("power", False)])
def test_killed_at_a_time(fault: str, online: bool) -> None:
    async def act(station: Station) -> None:
        assert not await to_the_end(station)
        assert now() - (station.begun_at or 0.0) == pytest.approx(1.25)
        assert (station.kills, station.controller.online) == (1, online)

    on_station(act, f"gateway:{fault}@1.25")


@pytest.mark.parametrize("step", [0, 1, 17, 150])
def test_killed_at_a_step(step: int) -> None:
    async def act(station: Station) -> None:
        assert not await to_the_end(station)
        assert (station.process.steps, station.kills) == (step, 1)
        station.start_resume()
        assert await station.ended()
        assert station.process.steps > step

    on_station(act, f"gateway:kill#{step}")


@pytest.mark.parametrize("entry", [0, 1, 5, 12])
@pytest.mark.parametrize("after", [False, True])
def test_killed_before_or_after_an_entry_is_on_the_disk(entry: int, after: bool) -> None:
    async def act(station: Station) -> None:
        assert not await to_the_end(station)
        assert station.kills == 1
        on_disk: list[Entry] = []
        station.journal.on_entry.append(on_disk.append)
        station.start_resume()
        assert await station.ended()
        assert station.report is not None
        assert station.report.result is Phase.DONE
        first = on_disk[0].seq if on_disk else 0
        assert first == entry + after + 1

    on_station(act, f"gateway:kill%{entry}:{'after' if after else 'before'}")


def test_starved() -> None:
    async def act(station: Station) -> None:
        sent: list[float] = []
        station.plant.wire.on_frame.append(lambda _f, at, sender: sent.append(at) if sender == "EMS" else None)
        station.start_upgrade()
        starved_at = await programming(station) + 0.1
        await pause(3.0)
        assert not [at for at in sent if starved_at + 0.001 < at < starved_at + 1.5]
        assert [at for at in sent if at >= starved_at + 1.5]

    on_station(act, "gateway:starved=1.5@PROGRAM+0.1")


def test_suspended_it_does_not_even_receive() -> None:
    async def act(station: Station) -> None:
        station.start_upgrade()
        asleep_at = await programming(station) + 0.1
        await pause(0.2)
        assert not station.controller.online
        heard: list[float] = []
        station.controller.subscribe(None, lambda _f, at: heard.append(at))
        await pause(4.0)
        assert station.controller.online
        assert min(heard) >= asleep_at + 3.0

    on_station(act, "gateway:suspended=3@PROGRAM+0.1")


@pytest.mark.parametrize(("fault", "years"), [("clock-forward", 10), ("clock-back", -10)])
def test_the_clock_jumps_and_nothing_else_changes(fault: str, years: int) -> None:
    async def act(station: Station) -> tuple[str, list[float]]:
        times: list[float] = []
        station.journal.on_entry.append(lambda entry: times.append(entry.at.timestamp()))
        assert await to_the_end(station)
        return station.plant.trace.hexdigest(), times

    good, _ = on_station(act)
    trace, times = on_station(act, f"gateway:{fault}@PROGRAM+0.1")
    assert trace == good
    assert (times[-1] - times[0]) / (365.25 * 86400) == pytest.approx(years, abs=0.01)


def test_a_full_disk_stays_full() -> None:
    async def act(station: Station) -> None:
        assert await to_the_end(station)
        assert station.report is not None
        assert station.report.error is not None
        assert station.report.error.name == "JOURNAL_UNWRITABLE"
        station.start_resume()
        assert await station.ended()
        assert result(station) is not Phase.DONE
        await healed(station)
        station.start_resume()
        assert await station.ended()
        assert result(station) is Phase.DONE

    on_station(act, "gateway:disk%8:full")


def test_a_disk_that_fails_once() -> None:
    async def act(station: Station) -> None:
        assert await to_the_end(station)
        assert station.report is not None
        assert station.report.error is not None
        assert station.report.error.name == "JOURNAL_UNWRITABLE"
        station.start_resume()
        assert await station.ended()
        assert station.report.result is Phase.DONE

    on_station(act, "gateway:disk%8:error")


def test_unplugged_until_it_is_plugged_in_again() -> None:
    async def act(station: Station) -> None:
        station.start_upgrade()
        await programming(station)
        await pause(0.2)
        assert not station.controller.online
        await station.ended()
        assert station.report is not None
        assert station.report.error is not None
        assert station.report.error.name == "ADAPTER_LOST"
        station.start_resume()  # without an adapter
        assert not station.controller.online
        station.kill_gateway()
        await pause(5.0)
        assert station.controller.online

    on_station(act, "gateway:unplugged@PROGRAM+0.1~5")


def test_interrupted() -> None:
    async def act(station: Station) -> None:
        assert await to_the_end(station)
        assert station.report is not None
        assert isinstance(station.report.cause, Interrupted)
        assert station.kills == 0

    on_station(act, "gateway:interrupted@PROGRAM+0.1")
