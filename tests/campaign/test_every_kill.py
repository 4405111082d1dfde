"""The gateway is killed at every step of its tasks, and before and after every entry of its journal; then resumed.

A step is what a task does between two awaits: so it is killed at every await.  Either nothing else happens, or the BMS
loses power in the same instant.  What is resumed is done in the end, each node on the new version.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.faults import parse_fault
from ess_can.campaign.faults.nodes import lose_power
from ess_can.campaign.mixture import plain
from ess_can.campaign.run import run_mixture
from ess_can.campaign.station import Station
from ess_can.sim.process import SimulatedProcess
from tests.campaign.cases import BMU1, undisturbed
from tests.campaign.counts import Count
from tests.campaign.scale import chosen

OFF_S = 1.5
LISTENS_S = 0.75
"""For so long a gateway listens at least, before it decides how it found the plant."""


@dataclass(frozen=True)
class BmsLosesPowerToo:
    """When the gateway dies, so does the BMS; its power comes back by itself."""

    kind = FaultKind.NODE_POWER_LOST
    text = "the BMS loses power when the gateway dies"

    def arm(self, station: Station) -> None:
        def on_start(process: SimulatedProcess) -> None:
            process.on_death.append(died)

        def died() -> None:
            station.took(self)
            lose_power(station, station.plant.nodes[BMU1], OFF_S)

        station.on_start.append(on_start)


@dataclass(eq=False)
class HalfWay:
    """Not a fault: notes whether the next gateway finds the plant partly connected, and not locked."""

    kind = FaultKind.NODE_POWER_LOST
    text = "none"
    seen: bool = False

    def arm(self, station: Station) -> None:
        def look() -> None:
            circuit = station.plant.circuit
            mains = {each.closed for rack in circuit.racks for each in (rack.main_plus, rack.main_minus)}
            self.seen |= not station.plant.pcs.locked and len({circuit.pcs_contactor.closed, *mains}) == 2

        def on_start(_process: SimulatedProcess) -> None:
            if station.attempts == 2:
                for after_s in (0.0, LISTENS_S):
                    station.later(after_s, look)

        station.on_start.append(on_start)


def killed(text: str, *, bms_too: bool) -> str:
    """Kill the gateway as `text` says, and resume; what is wrong afterwards."""
    half_way = HalfWay()
    faults = [parse_fault(text), half_way, *([BmsLosesPowerToo()] if bms_too else [])]
    result = run_mixture(plain(text), faults=faults)
    if result.wrong:
        return f"{text}: {result.wrong}"
    if result.kills != 1:
        return f"{text}: killed {result.kills} times"
    tripped = any(edge.startswith("pcs ") and edge.endswith(" TRIP") for edge in result.edges)
    if tripped and (result.ended, result.errors) == ("REFUSED", ("PCS_FAULT",)):
        return ""  # the contactors dropped under load, before anything was changed: a person clears that first
    if half_way.seen and result.ended == "HELD_OPEN" and set(result.errors) == {"HELD_OPEN"}:
        return ""  # without a lock nothing proves whose doing that is
    if (result.ended, result.errors) == ("NOTHING_TO_DO", ()):
        return ""  # it died with its last entry written: the journal has the end, and the nodes run the release
    return "" if result.ended == "DONE" else f"{text}: {result.ended} {result.errors}"


@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("bms_too", [False, True], ids=["gateway", "both"])
def test_killed_at_every_step(bms_too: bool, part: int, count: Count) -> None:
    steps = undisturbed().steps
    assert steps > 200
    chosen_steps = chosen(range(1, steps), quick=10, slice_=80, part=part, parts=2)
    wrong = [killed(f"gateway:kill#{step}", bms_too=bms_too) for step in chosen_steps]
    count(f"gateway killed at a step of its tasks{', BMS loses power too' if bms_too else ''}", len(chosen_steps))
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.parametrize("bms_too", [False, True], ids=["gateway", "both"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_every_entry_of_the_journal(when: str, bms_too: bool, count: Count) -> None:
    entries = undisturbed().entries
    assert entries > 20
    chosen_entries = chosen(range(entries), quick=5, slice_=40)
    wrong = [killed(f"gateway:kill%{entry}:{when}", bms_too=bms_too) for entry in chosen_entries]
    count(f"gateway killed {when} a journal entry{', BMS loses power too' if bms_too else ''}", len(chosen_entries))
    assert not any(wrong), "\n".join(filter(None, wrong))
