from __future__ import annotations

import pytest

from ess_can.bus.clock import pause
from ess_can.cli.embedded import simulated_setup
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.estimate import Estimate, ExpectedPhase
from ess_can.gateway.losses import losses
from ess_can.gateway.phases import Phase
from ess_can.gateway.plan import Leftover, NodePlan, Plan
from ess_can.gateway.progress import Event, Noted
from ess_can.gateway.report import Report
from ess_can.gateway.report_document import report_document
from ess_can.gateway.run import upgrade_station
from ess_can.journal.entries import Entry, Kind
from ess_can.journal.journal import Journal
from ess_can.sim.loop import run_virtual
from ess_can.trust.verify import open_upgrade_file
from tests.firmware_images import RING, small_image, small_upgrade
from tests.scenario.support import QUICK, SETTLED_S, play, release, small_plant
from tests.support.scripted_plant import BMU1, BMU2, NEW
from tests.unit.gateway.test_plan import identity

CONFIG = GatewayConfig((BMU1, BMU2))
IMAGE = open_upgrade_file(small_upgrade(small_image(version=NEW)), RING).images[0]
EXPECTED = Estimate((ExpectedPhase(Phase.RAMP_DOWN, 1.0), ExpectedPhase(Phase.PROVE_HV_OFF, 12.4)), 9.0)
POWER = "unavailable during the upgrade: charging, discharging and grid services"
RESTART = "unavailable for up to 15 s each, while they restart: all messages of "


def planned(*trials: Leftover, nodes: bool = True) -> Plan:
    return Plan(tuple(NodePlan(node, identity(node), IMAGE) for node in (BMU2, BMU1) if nodes), leftovers=trials)


@pytest.mark.parametrize(
    ("plan", "expected", "told"),
    [
        (Plan(), EXPECTED, []),
        (planned(), EXPECTED, [f"{POWER}; high voltage is off for about 12 s", f"{RESTART}bmu1, bmu2"]),
        (
            planned(Leftover(BMU1, on_trial=True), Leftover(BMU2, on_trial=False), nodes=False),
            None,
            [POWER, f"{RESTART}bmu1"],
        ),
        (planned(Leftover(BMU1, on_trial=False), nodes=False), None, [POWER]),
    ],
)
def test_what_is_lost_meanwhile(plan: Plan, expected: Estimate | None, told: list[str]) -> None:
    assert losses(plan, CONFIG, expected) == told


def test_it_is_told_before_anything_is_changed_and_is_on_record() -> None:
    journal, events = Journal.in_memory(), list[Event]()
    entries: list[Entry] = []
    journal.on_entry.append(entries.append)

    async def upgrade() -> Report:
        plant = small_plant(QUICK)
        plant.start()
        await pause(SETTLED_S)
        report = await upgrade_station(
            plant.gateway_controller(), release(), simulated_setup(plant), journal=journal, on_progress=events.append
        )
        plant.stop()
        return report

    assert run_virtual(upgrade()).error is None
    told = [event for event in events if isinstance(event, Noted) and "unavailable" in event.text]
    written = [entry for entry in entries if entry.kind is Kind.NOTE and "unavailable" in entry.text]
    assert [event.text for event in told] == [entry.text for entry in written]
    assert (len(told), "bmu1, bmu2" in told[1].text) == (2, True)
    first_deed = next(entry for entry in entries if entry.kind is Kind.INTENT)
    assert written[-1].seq < first_deed.seq


def test_a_dry_run_tells_it_too() -> None:
    checked = play(dry_run=True)
    told = [event.text for event in checked.scene.events if isinstance(event, Noted) and "unavailable" in event.text]
    assert len(told) == 2
    assert report_document(checked.report)["unavailable"] == told
