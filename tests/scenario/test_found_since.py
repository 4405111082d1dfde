"""What happened to a plant while no gateway ran, and while it closes: it closes for good reasons only."""

from __future__ import annotations

from functools import partial

import pytest

from ess_can.bus.clock import pause
from ess_can.campaign.faults import parse_fault
from ess_can.campaign.mixture import plain
from ess_can.campaign.monitors import Monitors, Violation
from ess_can.campaign.operator import disconnect
from ess_can.campaign.plants import NEW, SMALLEST
from ess_can.campaign.releases import make_plant, release
from ess_can.campaign.run import run_mixture
from ess_can.campaign.station import Station
from ess_can.gateway.phases import Phase
from ess_can.gateway.progress import Decided
from ess_can.gateway.report import Report
from ess_can.sim.loop import run_virtual

LATER_S = 100.0


def resumed(kill: str, *, disconnected: bool) -> tuple[Report, bool, str, list[Violation]]:
    """The gateway dies; perhaps somebody disconnects the plant by its own controls; much later it is resumed."""

    async def run() -> tuple[Report, bool, str, list[Violation]]:
        station = Station(
            SMALLEST.plant,
            release(SMALLEST.release, NEW, SMALLEST.payload_bytes),
            1,
            SMALLEST.config(),
            partial(make_plant, bank=SMALLEST.bank),
        )
        monitors = Monitors(station.plant)
        station.arm(parse_fault(kill))
        await station.settle()
        monitors.attach_journal(station.journal)
        station.start_upgrade()
        await station.ended()
        await pause(5.0)
        if disconnected:
            await disconnect(station.plant)
        await pause(LATER_S)
        monitors.attach_journal(station.journal)
        station.start_resume()
        await station.ended()
        assert station.report is not None
        monitors.ended(station.report)
        monitors.finish()
        circuit = station.plant.circuit
        connected = circuit.pcs_contactor.closed and all(rack.main_plus.closed for rack in circuit.racks)
        (decided,) = [event.text for event in station.events if isinstance(event, Decided)]
        station.switch_off()
        return station.report, connected, decided, monitors.violations

    return run_virtual(run())


@pytest.mark.parametrize("moment", ["RAMP_DOWN+0.05", "OPEN_CONTACTORS+0.03", "RECONNECT+0.2"])
def test_what_a_person_disconnected_since_is_not_closed(moment: str) -> None:
    report, connected, decided, violations = resumed(f"gateway:kill@{moment}", disconnected=True)
    assert (report.result, connected, violations) == (Phase.DONE, False, [])
    assert "left open, because it is open now" in decided
    assert "--reconnect" in decided


@pytest.mark.parametrize("moment", ["RAMP_DOWN+0.05", "PROVE_HV_OFF+0.1", "PROGRAM+0.1", "TRIAL_BOOT+1"])
def test_what_nobody_touched_is_left_as_it_was_before(moment: str) -> None:
    report, connected, decided, violations = resumed(f"gateway:kill@{moment}", disconnected=False)
    assert (report.result, connected, violations) == (Phase.DONE, True, [])
    assert "high voltage is left connected" in decided


@pytest.mark.parametrize(
    "fault",
    ["plant:pcs-restarts@RECONNECT+0.35", "gateway:starved=3@RECONNECT+0.2", "gateway:suspended=30@RECONNECT+0.1"],
)
def test_an_order_to_close_does_not_outlive_what_it_rests_on(fault: str) -> None:
    result = run_mixture(plain(fault))
    assert result.wrong == ""
    assert result.ended == "DONE"  # once it is resumed with the fault gone
    assert "RECONNECT_FAILED" in result.errors


def test_a_short_silence_while_it_closes_is_tolerated() -> None:
    result = run_mixture(plain("node:bmu1:reset@RECONNECT+0.12"))
    assert (result.wrong, result.ended, result.errors) == ("", "DONE", ())
