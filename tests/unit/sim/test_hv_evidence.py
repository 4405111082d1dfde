from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.signals.messages import BmsHvNotice, ContactorState, HvNoticeCondition, PcsCommandCode, PcsState, PcsStatus
from ess_can.sim.electrical import ContactorFault, LinkSpec
from ess_can.sim.hv_evidence import EvidenceSpec, PcsEvidence
from ess_can.sim.latches import Latch
from ess_can.sim.rack import SensorFault
from tests.unit.sim.hv_station import Station

C = PcsCommandCode

AT_REST = PcsStatus(PcsState.STANDBY, ContactorState.OPEN, True, True, False, False, False, 0, 0.0)


def opened(station: Station, seconds: float = 8.0) -> Station:
    """Order open and wait, whatever comes of it."""
    station.run(0.5)
    station.command(C.OPEN)
    station.run(seconds)
    return station


def condition(station: Station, rack: int = 0) -> HvNoticeCondition:
    return station.racks[rack].notice(1, station.now).condition


def test_off_is_told_once_held_and_counts_its_time() -> None:
    station = opened(Station(), 0.5)
    rack = station.rack
    assert not rack.hv_off(station.now)
    assert rack.notice(9, station.now) == BmsHvNotice(9, HvNoticeCondition.NOT_DISCONNECTED, 0.0)
    station.run_until(lambda: station.circuit.link_voltage_v < 60.0, 6.0)
    assert station.run_until(lambda: rack.hv_off(station.now), 1.0) == pytest.approx(0.2, abs=0.011)
    station.run(10.0)
    notice = rack.notice(0xABCDEF, station.now)
    assert (notice.token, notice.condition) == (0xABCDEF, HvNoticeCondition.DISCONNECTED)
    assert notice.off_duration_s == pytest.approx(10.2, abs=0.02)
    assert rack.hv_status(station.now).hv_off
    station.run(400.0)
    assert rack.notice(1, station.now).off_duration_s == 409.5


def test_slow_discharge_is_neither_off_nor_a_weld() -> None:
    station = opened(Station(link=LinkSpec(bleeder_ohm=50_000.0)), 60.0)
    assert station.circuit.link_voltage_v > 60.0
    assert condition(station) is HvNoticeCondition.NOT_DISCONNECTED
    assert not station.rack.latches


@pytest.mark.parametrize("feedback_lies", [False, True])
@pytest.mark.parametrize("pole", [0, 1, 2])
def test_a_welded_pole_is_found_by_feedback_or_by_voltage_and_latched(pole: int, feedback_lies: bool) -> None:
    station = Station(closed=pole != 2)
    contactor = station.rack_circuits[0].contactors[pole]
    contactor.fault = ContactorFault.WELDED
    if pole == 2:  # the precharge contactor welds as it opens after closing
        station.reconnect()
    if feedback_lies:
        contactor.feedback_fault = ContactorState.OPEN
    opened(station)
    rack = station.rack
    status = rack.hv_status(station.now)
    assert (status.weld_plus, status.weld_minus) == (pole != 1, pole == 1)
    assert status.link_voltage_v is not None
    assert status.link_voltage_v < 60.0, "one pole alone lets the link discharge"
    assert condition(station) is HvNoticeCondition.WELDED
    assert not status.hv_off
    assert not rack.programming_allowed(station.now)
    assert rack.alarms(station.now).weld
    contactor.fault = ContactorFault.NONE
    contactor.closed = False
    contactor.feedback_fault = None
    station.rack_circuits[0].rewire()
    station.run(5.0)
    assert condition(station) is HvNoticeCondition.WELDED, "latched although the cause is gone"
    assert not rack.hv_off(station.now)


def test_both_poles_welded_with_lying_feedback_are_found_by_their_current() -> None:
    station = Station(2)
    for contactor in station.rack_circuits[0].contactors[:2]:
        contactor.fault = ContactorFault.WELDED
        contactor.feedback_fault = ContactorState.OPEN
    opened(station)
    assert station.racks[0].latches == {Latch.WELD_PLUS, Latch.WELD_MINUS}
    assert not station.racks[1].latches, "the healthy rack on the same live link is not accused"
    assert condition(station, 1) is HvNoticeCondition.NOT_DISCONNECTED


def test_a_feedback_that_lies_closed_counts_as_a_weld() -> None:
    station = Station()
    station.rack_circuits[0].main_minus.feedback_fault = ContactorState.CLOSED
    opened(station)
    assert station.rack.latches == {Latch.WELD_MINUS}


def test_a_feedback_that_never_settles_is_not_off() -> None:
    station = opened(Station())
    station.rack_circuits[0].main_plus.feedback_fault = ContactorState.MOVING
    station.run(1.0)
    assert not station.rack.hv_off(station.now)


def test_an_invalid_feedback_is_not_off() -> None:
    station = opened(Station())
    assert station.rack.hv_off(station.now)
    station.rack_circuits[0].precharge.feedback_fault = ContactorState.INVALID
    station.step()
    assert not station.rack.hv_off(station.now)
    assert condition(station) is HvNoticeCondition.UNKNOWN
    assert station.rack.alarms(station.now).internal_fault


@pytest.mark.parametrize("sensor", ["string_sensor", "link_sensor", "current_sensor"])
def test_an_invalid_reading_is_not_zero(sensor: str) -> None:
    station = opened(Station())
    setattr(station.hardware[0], sensor, SensorFault())
    station.run(1.0)
    assert not station.rack.hv_off(station.now)
    assert condition(station) is HvNoticeCondition.UNKNOWN
    assert station.rack.alarms(station.now).internal_fault
    setattr(station.hardware[0], sensor, None)
    station.step()
    assert not station.rack.hv_off(station.now), "settling starts anew"
    station.run(0.2)
    assert station.rack.hv_off(station.now)


def test_a_frozen_link_voltage_never_becomes_off() -> None:
    station = Station()
    station.run(0.5)
    station.hardware[0].freeze_link_sensor()
    opened(station, 20.0)
    assert not station.rack.hv_off(station.now)


def test_a_link_voltage_frozen_near_zero_is_not_believed_once_the_link_lives() -> None:
    station = opened(Station())
    station.hardware[0].freeze_link_sensor()
    station.circuit.external_source_v = 700.0
    station.run(0.1)
    assert not station.rack.hv_off(station.now)
    assert station.rack.hv_status(station.now).link_voltage_v is None
    assert condition(station) is HvNoticeCondition.UNKNOWN


def test_two_broken_sensors_that_agree_still_prove_nothing() -> None:
    station = opened(Station(link=LinkSpec(bleeder_ohm=500_000.0)), 0.5)
    station.hardware[0].string_sensor = station.hardware[0].link_sensor = SensorFault(0.0)
    station.run(0.4)
    assert station.circuit.link_voltage_v > 60.0
    assert station.rack.hv_status(station.now).link_voltage_v == 0.0, "the loop's voltages do add up"
    assert not station.rack.hv_off(station.now)


def test_a_current_that_should_not_flow_is_not_off() -> None:
    station = opened(Station())
    station.hardware[0].current_sensor = SensorFault(-1.5)
    station.run(2.0)
    assert not station.rack.hv_off(station.now)
    assert not station.rack.latches


def test_hv_that_comes_back_ends_off_at_once() -> None:
    station = opened(Station())
    station.circuit.external_source_v = 790.0
    station.run(0.02)
    assert not station.rack.hv_off(station.now)
    assert condition(station) is HvNoticeCondition.NOT_DISCONNECTED


def test_evidence_that_nobody_looked_at_is_old() -> None:
    station = opened(Station())
    rack = station.rack
    assert rack.hv_off(station.now)
    assert not rack.hv_off(station.now + 0.3)
    station.now += 5.0
    station.step()
    assert not rack.hv_off(station.now), "what happened meanwhile is unknown"


# --- the PCS's word -----------------------------------------------------------------------------


def heard(evidence: PcsEvidence, status: PcsStatus, start: float, seconds: float) -> float:
    now = start
    while now < start + seconds:
        evidence.receive(status, now)
        now += 0.05
    return now - 0.05


def test_the_pcs_is_believed_after_settling_and_while_fresh() -> None:
    evidence = PcsEvidence(EvidenceSpec())
    assert not evidence.held_open(0.0), "silence"
    now = heard(evidence, AT_REST, 1.0, 0.1)
    assert not evidence.held_open(now)
    now = heard(evidence, AT_REST, 1.1, 0.2)
    assert evidence.held_open(now)
    assert evidence.held_open(now + 0.25)
    assert not evidence.held_open(now + 0.26)
    evidence.receive(AT_REST, now + 0.5)
    assert not evidence.held_open(now + 0.5), "a gap starts settling anew"


@pytest.mark.parametrize(
    "status",
    [
        replace(AT_REST, state=PcsState.RAMPING),
        replace(AT_REST, state=PcsState.INIT),
        replace(AT_REST, contactors=ContactorState.CLOSED),
        replace(AT_REST, contactors=ContactorState.INVALID),
        replace(AT_REST, lock_acknowledged=False),
        replace(AT_REST, emergency_stop=True),
        replace(AT_REST, dc_current_a=None),
        replace(AT_REST, dc_current_a=-1.0),
        replace(AT_REST, dc_current_a=1.0),
    ],
)
def test_one_status_that_is_not_at_rest_voids_the_pcs_evidence(status: PcsStatus) -> None:
    evidence = PcsEvidence(EvidenceSpec())
    now = heard(evidence, AT_REST, 1.0, 1.0)
    assert evidence.held_open(now)
    evidence.receive(status, now + 0.05)
    assert not evidence.held_open(now + 0.05)
    evidence.receive(AT_REST, now + 0.1)
    assert not evidence.held_open(now + 0.1)


def test_statuses_that_come_at_once_prove_nothing_later_either() -> None:
    """They waited in a queue: what followed is not known."""
    evidence = PcsEvidence(EvidenceSpec())
    for n in range(12):
        evidence.receive(AT_REST, 1.0 + n * 0.00025)
    assert not evidence.held_open(1.0)
    assert not evidence.held_open(1.24)
    evidence.receive(AT_REST, 1.2)
    assert evidence.held_open(1.24)


def test_one_rejected_status_voids_the_pcs_evidence() -> None:
    evidence = PcsEvidence(EvidenceSpec())
    now = heard(evidence, AT_REST, 1.0, 1.0)
    evidence.reject()
    assert not evidence.held_open(now)
    assert evidence.fresh(now) is None
