"""Stations for tests: an upgrade under faults, looked at while it runs and after everything was healed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from ess_can.bus.clock import pause
from ess_can.campaign.faults import parse_fault
from ess_can.campaign.plants import NEW, SMALLEST
from ess_can.campaign.releases import release
from ess_can.campaign.station import Station
from ess_can.sim.loop import run_virtual

T = TypeVar("T")

HEALED_S = 5.0


def on_station(act: Callable[[Station], Awaitable[T]], *faults: str, seed: int = 1, racks: int = 1) -> T:
    """What `act` gives with a station that has run in, has these faults, and is switched off in the end."""

    async def main() -> T:
        spec = replace(SMALLEST.plant, racks=racks, seed=seed)
        upgrade = release(SMALLEST.release, NEW, SMALLEST.payload_bytes)
        station = Station(spec, upgrade, seed, faults=[parse_fault(text) for text in faults])
        await station.settle()
        try:
            return await act(station)
        finally:
            station.switch_off()

    return run_virtual(main())


async def to_the_end(station: Station) -> bool:
    """An upgrade until the gateway ended; whether it did not die."""
    station.start_upgrade()
    return await station.ended()


async def healed(station: Station) -> None:
    """All is repaired, and had time to show."""
    station.heal()
    await pause(HEALED_S)
