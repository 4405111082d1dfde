"""Two gateways on one plant, at the same instant or a little apart: never do both change it, and both end safely."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from ess_can.bus.clock import pause
from ess_can.campaign.monitors import Monitors, Violation
from ess_can.can.frame import CanFrame
from ess_can.cli.embedded import simulated_setup
from ess_can.gateway.phases import Phase
from ess_can.gateway.report import Report
from ess_can.gateway.run import upgrade_station
from ess_can.journal.journal import Journal
from ess_can.sim.flash_cells import FlashAction
from ess_can.sim.loop import run_virtual
from tests.scenario.support import NEW, QUICK, SETTLED_S, release, small_plant

CONFLICTS = ("ID_CONFLICT", "OTHER_GATEWAY")


@dataclass(frozen=True, slots=True)
class Both:
    reports: tuple[Report, Report]
    versions: set[str]
    commanders: list[str]
    erasures: int
    violations: list[Violation]


def both(apart_s: float) -> Both:
    """Two gateways, the second `apart_s` later."""

    async def run() -> Both:
        plant = small_plant(QUICK)
        plant.start()
        monitors = Monitors(plant, gateways=frozenset({"one", "other"}))
        commanders: list[str] = []

        def on_frame(frame: CanFrame, _at: float, sender: str) -> None:
            if frame.can_id == 0x0A1:
                commanders.append(sender)

        plant.wire.on_frame.append(on_frame)
        await pause(SETTLED_S)

        async def gateway(name: str, delay_s: float) -> Report:
            bus = plant.wire.controller(name)
            await pause(delay_s)
            return await upgrade_station(bus, release(), simulated_setup(plant), journal=Journal.in_memory())

        first, second = await asyncio.gather(gateway("one", 0.0), gateway("other", apart_s))
        await pause(2.0)
        monitors.finish()
        erasures = sum(operation.action is FlashAction.ERASE for _, operation in monitors.operations)
        versions = {str(version) for address, version in plant.versions().items() if str(address) != "comm_gateway"}
        result = Both((first, second), versions, commanders, erasures, monitors.violations)
        plant.stop()
        return result

    return run_virtual(run())


@pytest.mark.parametrize("apart_s", [0.0, 0.0001, 0.0002])
def test_at_the_same_instant_one_at_most_goes_on(apart_s: float) -> None:
    """Two controllers that send different data under one identifier at once drive each other to bus-off.

    Who sends again first never hears the other, and may go on; who hears that one is refused.
    """
    seen = both(apart_s)
    (refused,) = [report for report in seen.reports if report.result is Phase.REFUSED]
    assert refused.error is not None
    assert refused.error.name == "ID_CONFLICT"
    (other,) = [report for report in seen.reports if report is not refused]
    assert (other.result, other.error) == (Phase.DONE, None)
    assert len(set(seen.commanders)) == 1
    assert (seen.versions, seen.violations) == ({str(NEW)}, [])


@pytest.mark.parametrize("apart_s", [0.0005, 0.004, 0.1, 0.7, 5.0])
def test_who_comes_later_is_refused_and_does_not_disturb_the_other(apart_s: float) -> None:
    seen = both(apart_s)
    first, second = seen.reports
    assert (first.result, first.error) == (Phase.DONE, None)
    assert second.result is Phase.REFUSED
    assert second.error is not None
    assert second.error.name in CONFLICTS
    assert set(seen.commanders) == {"one"}
    assert (seen.versions, seen.violations) == ({str(NEW)}, [])
