from __future__ import annotations

from dataclasses import fields, replace
from itertools import pairwise

import pytest

from ess_can.errors import UsageError
from ess_can.signals.messages import (
    ContactorState,
    HvNoticeCondition,
    PcsCommandCode,
    PcsState,
    PcsStatus,
    RackState,
)
from ess_can.sim.electrical import ContactorFault, LinkSpec
from ess_can.sim.hv_control import HvSpec, RackControl
from ess_can.sim.latches import Clearing, Latch
from ess_can.sim.pcs import PcsFaultCode, PcsFaults
from ess_can.sim.rack import SensorFault
from ess_can.sim.rack_states import RACK_TRANSITIONS, CloseRefusal, RackEvent
from tests.unit.sim.hv_station import Station

C = PcsCommandCode
PCS_AT_REST = PcsStatus(PcsState.STANDBY, ContactorState.OPEN, True, True, False, False, False, 0, 0.0)
ALL_TRIPS = [
    ("emergency_stop", True, Latch.EMERGENCY_STOP),
    ("fire", True, Latch.FIRE),
    ("insulation_fault", True, Latch.INSULATION),
    ("hvil_closed", False, Latch.HVIL_OPEN),
]


def state(station: Station) -> RackState:
    return station.rack.state(station.now).state


def no_coil(station: Station, rack: int = 0) -> bool:
    return not any(contactor.coil for contactor in station.rack_circuits[rack].contactors)


def isolated(racks: int = 1, *, hv_spec: HvSpec | None = None, link: LinkSpec | None = None) -> Station:
    station = Station(racks, hv_spec=hv_spec, link=link)
    station.run(0.5)
    station.isolate()
    station.command(C.UNLOCK)
    station.run(0.3)
    return station


# --- opening ------------------------------------------------------------------------------------


def test_opens_by_order_near_zero_current_without_an_arc() -> None:
    station = Station(2)
    station.command(C.RUN, 200.0)
    station.run(3.0)
    station.command(C.OPEN)
    station.run(2.0)
    for circuit, rack in zip(station.rack_circuits, station.racks, strict=True):
        assert rack.rack_state is RackState.OPEN
        assert [contactor.arcs for contactor in circuit.contactors] == [0, 0, 0]


@pytest.mark.parametrize("order", [None, C.RELEASE])
def test_opens_by_itself_once_the_pcs_has_been_silent_for_long(order: PcsCommandCode | None) -> None:
    station = Station(2)
    station.command(C.ZERO_POWER)
    station.run(2.0)
    station.circuit.place(station.circuit.pcs_contactor, False)
    station.pcs.trip(PcsFaultCode.DC_LINK, station.now)  # so that it does not run on its local set-point
    station.pcs_heard = False
    station.command(order)
    station.run(4.9)
    assert [rack.rack_state for rack in station.racks] == [RackState.CLOSED] * 2
    station.run(0.5)
    assert [rack.rack_state for rack in station.racks] == [RackState.OPEN] * 2
    assert not any(contactor.arcs for circuit in station.rack_circuits for contactor in circuit.contactors)


def test_opens_by_itself_once_the_pcs_has_been_open_for_long() -> None:
    station = Station()
    station.run(1.0)
    station.pcs.trip(PcsFaultCode.DC_LINK, station.now)
    station.run(4.9)
    assert state(station) is RackState.CLOSED
    station.run(0.5)
    assert state(station) is RackState.OPEN


def test_does_not_open_by_itself_while_somebody_commands() -> None:
    station = Station()
    station.command(C.ZERO_POWER)
    station.run(1.0)
    station.pcs_heard = False
    station.run(10.0)
    assert state(station) is RackState.CLOSED


def test_does_not_open_by_itself_under_current() -> None:
    station = Station()
    station.run(1.0)
    station.pcs_heard = False  # and it runs on
    station.run(10.0)
    assert abs(station.rack_circuits[0].current_a) > 30.0
    assert state(station) is RackState.CLOSED


def test_does_not_open_by_itself_for_a_pcs_that_was_never_there() -> None:
    station = Station()
    station.pcs.trip(PcsFaultCode.DC_LINK, station.now)
    station.pcs_heard = False
    station.run(10.0)
    assert state(station) is RackState.CLOSED


def test_refuses_to_open_while_a_pcs_ignores_the_ramp() -> None:
    station = Station(4)
    station.run(1.0)
    station.pcs.faults = PcsFaults(ignores_ramp=True)
    station.command(C.OPEN)
    station.run(5.0)
    assert abs(station.rack_circuits[0].current_a) < 10.0, "the rack's own share alone would be near zero"
    assert all(rack.rack_state is RackState.CLOSED for rack in station.racks)


def test_own_current_counts_when_the_pcs_sensor_is_stuck_at_zero() -> None:
    station = Station()
    station.run(1.0)
    station.pcs.faults = PcsFaults(ignores_ramp=True, current_sensor_stuck=True)
    station.command(C.OPEN)
    station.run(5.0)
    assert station.pcs.status(station.now).dc_current_a == 0.0
    assert state(station) is RackState.CLOSED


@pytest.mark.parametrize("power_kw", [-280, -160, -80, -20, -2, 0, 2, 20, 80, 160, 280])
def test_current_not_near_zero_is_never_broken_by_order(power_kw: float) -> None:
    station = Station(2)
    station.command(C.RUN, power_kw)
    station.run(3.0)
    station.command(C.OPEN)
    station.run(4.0)
    contactors = [contactor for rack in station.rack_circuits for contactor in rack.contactors]
    assert max(contactor.broken_a for contactor in contactors) <= 10.0
    assert not any(contactor.closed for contactor in contactors)


def test_an_unknown_own_current_refuses_opening() -> None:
    station = Station()
    station.command(C.ZERO_POWER)
    station.run(1.0)
    station.hardware[0].current_sensor = SensorFault()
    station.command(C.OPEN)
    station.run(1.0)
    assert state(station) is RackState.CLOSED


@pytest.mark.parametrize("reading", ["silent", "invalid"])
def test_opens_by_its_own_current_when_the_pcs_tells_nothing(reading: str) -> None:
    station = Station()
    station.command(C.ZERO_POWER)
    station.run(1.0)
    station.pcs_heard = reading != "silent"
    station.pcs.faults = PcsFaults(current_sensor_stuck=True, current_sensor_value_a=None)
    station.run(0.5)
    station.command(C.OPEN)
    station.run(0.5)
    assert state(station) is RackState.OPEN


@pytest.mark.parametrize("order", [C.RELEASE, C.RUN, C.ZERO_POWER, C.LOCK, C.UNLOCK, C.CLOSE])
def test_no_order_but_open_opens(order: PcsCommandCode) -> None:
    station = Station()
    station.command(order)
    station.run(1.0)
    assert state(station) is RackState.CLOSED


def test_lost_heartbeat_holds_what_is() -> None:
    closed, held = Station(), isolated()
    closed.command(C.ZERO_POWER)
    held.rack.hold_open = True
    held.command(C.CLOSE)
    for station in (closed, held):
        station.run(0.3)
        station.command(None)
        station.run(0.6)
    held.rack.hold_open = False
    closed.run(20.0)
    held.run(20.0)
    assert closed.rack.rack_state is RackState.CLOSED
    assert held.rack.rack_state is RackState.OPEN
    assert no_coil(held), "an order from before the silence is void"


# --- emergencies --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value", "latch"), ALL_TRIPS)
def test_an_emergency_opens_at_once_latches_and_survives_a_restart(name: str, value: bool, latch: Latch) -> None:
    station = Station()
    station.run(1.0)
    setattr(station.hardware[0], name, value)
    station.run(0.05)
    assert state(station) is RackState.FAULT
    assert not station.rack_circuits[0].main_plus.closed
    setattr(station.hardware[0], name, not value)
    station.rack.power_cycle(station.now)
    station.command(C.CLOSE)
    station.run(10.0)
    assert station.rack.latches == {latch}
    assert state(station) is RackState.FAULT
    assert no_coil(station)
    assert not station.rack.programming_allowed(station.now)


@pytest.mark.parametrize(("name", "value", "latch"), ALL_TRIPS)
def test_an_emergency_while_precharging_opens(name: str, value: bool, latch: Latch) -> None:
    station = isolated()
    station.command(C.CLOSE)
    station.run_until(lambda: station.rack.rack_state is RackState.PRECHARGING, 1.0)
    setattr(station.hardware[0], name, value)
    station.step()
    assert no_coil(station)
    assert station.rack.latches == {latch}


@pytest.mark.parametrize(("name", "value", "latch"), ALL_TRIPS)
def test_an_emergency_ends_the_permission_to_program(name: str, value: bool, latch: Latch) -> None:
    station = Station()
    station.run(0.5)
    station.isolate()
    setattr(station.hardware[0], name, value)
    station.run(0.02)
    assert latch in station.rack.latches
    assert not station.rack.programming_allowed(station.now)


def test_only_a_named_person_clears_latches_and_a_present_cause_latches_again() -> None:
    station = Station()
    station.hardware[0].fire = True
    station.step()
    with pytest.raises(UsageError):
        station.rack.clear_latches("", station.now)
    assert station.rack.clear_latches("a person", station.now) == {Latch.FIRE}
    assert station.rack.clearings == [Clearing(station.now, "a person", frozenset({Latch.FIRE}))]
    station.step()
    assert state(station) is RackState.FAULT
    station.hardware[0].fire = False
    station.rack.clear_latches("a person", station.now)
    assert station.stores[0].load() == frozenset()
    station.run(0.1)
    assert (station.rack.rack_state, no_coil(station)) == (RackState.OPEN, True)
    assert station.rack.clear_latches("a person", station.now) == frozenset()


def test_an_emergency_may_break_any_current() -> None:
    station = Station()
    station.command(C.RUN, 100.0)
    station.run(2.0)
    station.hardware[0].emergency_stop = True
    station.run(0.1)
    assert station.rack_circuits[0].main_plus.arcs == 1
    assert not station.rack_circuits[0].main_plus.closed


# --- closing ------------------------------------------------------------------------------------


def test_closes_in_order_minus_precharge_plus() -> None:
    station = isolated()
    rack = station.rack_circuits[0]
    sequence = [(False, False, False)]

    def observe() -> None:
        coils = (rack.main_minus.coil, rack.precharge.coil, rack.main_plus.coil)
        if coils != sequence[-1]:
            sequence.append(coils)
            if rack.main_plus.coil and rack.precharge.coil:
                assert rack.precharge.closed
                assert station.circuit.link_voltage_v >= 0.95 * rack.string_voltage_v

    station.observers.append(observe)
    station.reconnect()
    assert sequence == [
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (True, True, True),
        (True, False, True),
    ]
    assert rack.main_plus.fault is ContactorFault.NONE


def test_failing_precharge_is_tried_three_times_with_cool_down_then_latched() -> None:
    station = isolated(link=LinkSpec(bleeder_ohm=300.0))  # the link draws too much to be charged
    starts: list[float] = []
    before = [RackState.OPEN]

    def observe() -> None:
        after = station.rack.rack_state
        if after is RackState.PRECHARGING and before[0] is not after:
            starts.append(station.now)
        before[0] = after
        assert not station.rack_circuits[0].main_plus.coil

    station.observers.append(observe)
    station.command(C.CLOSE)
    station.run(60.0)
    assert len(starts) == 3
    assert all(later - earlier >= 5.0 for earlier, later in pairwise(starts))
    assert state(station) is RackState.FAULT
    assert station.rack.alarms(station.now).precharge_failed
    assert no_coil(station)
    station.rack.power_cycle(station.now)
    station.run(1.0)
    assert station.rack.latches == {Latch.PRECHARGE_FAILED}


@pytest.mark.parametrize("contactor", [0, 1, 2])
def test_a_contactor_that_does_not_close_fails_the_precharge(contactor: int) -> None:
    station = isolated()
    station.rack_circuits[0].contactors[contactor].fault = ContactorFault.STUCK_OPEN
    alarms: set[str] = set()

    def observe() -> None:
        active = station.rack.alarms(station.now)
        alarms.update(item.name for item in fields(active) if getattr(active, item.name))

    station.observers.append(observe)
    station.command(C.CLOSE)
    station.run(30.0)
    assert station.rack.latches == {Latch.PRECHARGE_FAILED}
    assert alarms == {"precharge_failed", "internal_fault"}
    assert no_coil(station)


def test_precharge_failed_does_not_forbid_programming() -> None:
    station = isolated(link=LinkSpec(bleeder_ohm=300.0))
    station.command(C.CLOSE)
    station.run(30.0)
    station.command(C.LOCK)
    station.run(5.0)
    assert station.rack.programming_allowed(station.now)


def test_success_resets_the_count_of_tries() -> None:
    station = isolated()
    for _ in range(3):
        station.rack_circuits[0].precharge.fault = ContactorFault.STUCK_OPEN
        station.command(C.CLOSE)
        station.run_until(lambda: station.rack.rack_state is RackState.PRECHARGING, 10.0)
        station.run(1.5)
        assert state(station) is RackState.OPEN
        station.rack_circuits[0].precharge.fault = ContactorFault.NONE
        station.run_until(lambda: station.rack.rack_state is RackState.CLOSED, 10.0)
        station.run(1.0)
        station.command(C.OPEN)
        station.run(8.0)
    assert not station.rack.latches


def test_string_voltages_too_far_apart_keep_the_second_rack_open() -> None:
    station = Station(2, closed=False, soc_percent=(20.0, 80.0))
    station.run(0.5)
    station.command(C.CLOSE)
    station.run(10.0)
    assert [rack.rack_state for rack in station.racks] == [RackState.CLOSED, RackState.OPEN]
    assert station.racks[1].refusal is CloseRefusal.VOLTAGES_APART
    assert no_coil(station, 1)
    assert station.rack_circuits[1].current_a == 0.0


def test_racks_close_one_after_the_other() -> None:
    station = isolated(4)
    station.command(C.CLOSE)
    precharging = 0

    def observe() -> None:
        nonlocal precharging
        precharging = max(precharging, sum(rack.rack_state is RackState.PRECHARGING for rack in station.racks))

    station.observers.append(observe)
    station.run(0.5)
    assert station.racks[3].refusal is CloseRefusal.STAGGER
    station.run(4.5)
    assert all(rack.rack_state is RackState.CLOSED for rack in station.racks)
    assert precharging == 1


def test_an_order_that_lapsed_and_comes_again_is_a_new_one() -> None:
    """Or all racks would precharge at once, each before it could compare its voltage with the others'."""
    station = isolated(2)
    station.command(C.CLOSE)
    station.run(5.0)
    first = station.racks[1]._close_ordered_at
    station.command(None)
    station.run(1.0)
    station.command(C.CLOSE)
    station.run(0.1)
    second = station.racks[1]._close_ordered_at
    assert first is not None
    assert second is not None
    assert second > first + 5.0


def refusal(station: Station) -> CloseRefusal | None:
    station.command(C.CLOSE)
    station.run(0.2)
    assert no_coil(station)
    assert state(station) is RackState.OPEN
    return station.rack.refusal


def test_held_open_refuses_closing() -> None:
    station = isolated()
    station.rack.hold_open = True
    assert refusal(station) is CloseRefusal.HELD_OPEN
    station.command(C.ZERO_POWER)
    station.run(0.1)
    assert station.rack.refusal is None


def test_a_silent_pcs_refuses_closing() -> None:
    station = isolated()
    station.pcs_heard = False
    station.run(0.3)
    assert refusal(station) is CloseRefusal.PCS_SILENT


def test_a_rejected_pcs_status_refuses_closing() -> None:
    station = isolated()
    station.pcs_heard = False
    station.rack.on_pcs_status_rejected()
    assert refusal(station) is CloseRefusal.PCS_SILENT


def test_a_locked_pcs_refuses_closing() -> None:
    station = Station()
    station.isolate()
    assert refusal(station) is CloseRefusal.PCS_LOCKED


@pytest.mark.parametrize("case", ["emergency", "fault", "current", "invalid"])
def test_a_pcs_that_is_not_at_rest_refuses_closing(case: str) -> None:
    station = isolated()
    if case == "emergency":
        station.pcs.press_emergency_stop(station.now)
    elif case == "fault":
        station.circuit.pcs_contactor.feedback_fault = ContactorState.INVALID
    else:
        value = 5.0 if case == "current" else None
        station.pcs.faults = PcsFaults(current_sensor_stuck=True, current_sensor_value_a=value)
    station.run(0.3)
    assert refusal(station) is CloseRefusal.PCS_NOT_READY


@pytest.mark.parametrize("sensor", ["string_sensor", "link_sensor", "current_sensor"])
def test_an_invalid_sensor_refuses_closing(sensor: str) -> None:
    station = isolated()
    setattr(station.hardware[0], sensor, SensorFault())
    assert refusal(station) is CloseRefusal.SENSOR_INVALID


def test_contactors_that_just_opened_are_not_closed_before_a_weld_could_show() -> None:
    station = Station()
    station.command(C.ZERO_POWER)
    station.run(1.0)
    station.command(C.OPEN)
    station.run_until(lambda: station.rack.rack_state is RackState.OPEN, 1.0)
    assert refusal(station) is CloseRefusal.CONTACTORS_NOT_OPEN


def test_a_contactor_that_does_not_report_open_refuses_closing() -> None:
    station = isolated()
    station.rack_circuits[0].main_plus.feedback_fault = ContactorState.MOVING
    assert refusal(station) is CloseRefusal.CONTACTORS_NOT_OPEN


def test_a_link_that_has_not_discharged_counts_as_energised() -> None:
    station = Station()
    station.command(C.OPEN)
    station.run(2.0)
    assert refusal(station) is CloseRefusal.VOLTAGES_APART
    station.run_until(lambda: station.rack.rack_state is RackState.CLOSED, 6.0)


@pytest.mark.parametrize("cause", ["order", "heartbeat", "hold_open", "pcs"])
def test_closing_is_broken_off_when_its_reason_goes(cause: str) -> None:
    station = isolated()
    station.command(C.CLOSE)
    station.run_until(lambda: station.rack_circuits[0].precharge.closed, 1.0)
    if cause == "order":
        station.command(C.ZERO_POWER)
    elif cause == "heartbeat":
        station.command(None)
    elif cause == "hold_open":
        station.rack.hold_open = True
    else:
        station.pcs_heard = False
    station.hardware[0].link_sensor = SensorFault(0.0)  # would precharge until its time-out
    station.run(0.6)
    assert no_coil(station)
    assert state(station) is RackState.OPEN
    station.run(20.0)
    assert not station.rack.latches, "breaking off is no failed try"


def test_breaking_off_starts_the_cool_down() -> None:
    station = isolated()
    station.command(C.CLOSE)
    station.run_until(lambda: station.rack_circuits[0].precharge.closed, 1.0)
    station.command(C.ZERO_POWER)
    station.run(0.1)
    station.command(C.CLOSE)
    station.run(1.5)
    assert station.rack.refusal is CloseRefusal.COOL_DOWN


def test_breaking_off_waits_while_the_current_is_above_the_break_limit() -> None:
    station = isolated()
    station.command(C.CLOSE)
    station.run_until(lambda: station.rack_circuits[0].precharge.closed, 1.0)
    station.hardware[0].current_sensor = SensorFault(201.0)
    station.command(C.ZERO_POWER)
    station.run(0.2)
    assert station.rack_circuits[0].precharge.coil
    station.hardware[0].current_sensor = None
    station.run(0.1)
    assert no_coil(station)


# --- restart, programming, reset ----------------------------------------------------------------


def test_a_restart_drops_the_contactors_and_remembers_only_latches() -> None:
    station = Station()
    station.run(1.0)
    assert not station.rack.reset_allowed(station.now)
    station.rack.power_cycle(station.now)
    assert state(station) is RackState.INIT
    assert station.rack.notice(1, station.now).condition is HvNoticeCondition.UNKNOWN
    station.run(1.0)
    assert state(station) is RackState.OPEN
    assert station.rack_circuits[0].main_plus.arcs == 1, "an update that restarts a rack under load costs contacts"


def test_off_is_proved_anew_after_a_restart() -> None:
    station = Station()
    station.run(0.5)
    station.isolate()
    rack = station.rack
    assert rack.reset_allowed(station.now)
    rack.power_cycle(station.now)
    assert not rack.hv_off(station.now)
    assert not rack.programming_allowed(station.now)
    station.run(0.1)
    assert not rack.hv_off(station.now)
    station.run(0.6)
    assert rack.programming_allowed(station.now)


def test_reset_is_not_allowed_on_feedback_that_lies_open() -> None:
    station = Station()
    for contactor in station.rack_circuits[0].contactors:
        contactor.feedback_fault = ContactorState.OPEN
    assert not station.rack.reset_allowed(station.now)


def test_reset_is_not_allowed_while_a_contactor_moves_or_is_welded() -> None:
    station = Station()
    station.command(C.OPEN)
    station.run_until(lambda: station.rack.rack_state is RackState.OPEN, 2.0)
    assert not station.rack.reset_allowed(station.now)
    station.run(0.1)
    assert station.rack.reset_allowed(station.now)
    station.rack_circuits[0].main_minus.feedback_fault = ContactorState.CLOSED
    assert not station.rack.reset_allowed(station.now)


@pytest.mark.parametrize(
    "status",
    [
        replace(PCS_AT_REST, lock_acknowledged=False),
        replace(PCS_AT_REST, contactors=ContactorState.CLOSED),
        replace(PCS_AT_REST, state=PcsState.RUNNING),
    ],
)
def test_programming_needs_the_pcs_at_rest_and_locked(status: PcsStatus) -> None:
    station = Station()
    station.run(0.5)
    station.isolate()
    station.rack.on_pcs_status(PCS_AT_REST, station.now)
    assert station.rack.programming_allowed(station.now)
    station.rack.on_pcs_status(status, station.now)
    assert station.rack.hv_off(station.now)
    assert not station.rack.programming_allowed(station.now)


def test_programming_is_not_allowed_on_a_silent_pcs() -> None:
    station = Station()
    station.run(0.5)
    station.isolate()
    station.pcs_heard = False
    station.run(0.3)
    assert station.rack.hv_off(station.now)
    assert not station.rack.programming_allowed(station.now)


def test_a_restarted_pcs_is_seen_unlocked_and_proved_again() -> None:
    station = Station()
    station.run(0.5)
    station.isolate()
    station.pcs.restart(station.now)
    station.run(0.06)
    assert not station.rack.programming_allowed(station.now)
    station.run(1.5)
    assert station.rack.programming_allowed(station.now)


def test_state_and_status_show_the_rack() -> None:
    station = Station(soc_percent=(70.0,))
    station.hardware[0].aux_voltage_v = 19.5
    station.run(1.0)
    shown = station.rack.state(station.now)
    assert (shown.state, shown.soc_percent, shown.aux_voltage_v) == (RackState.CLOSED, 70.0, 19.5)
    assert shown.string_voltage_v == pytest.approx(station.rack_circuits[0].string_voltage_v)
    status = station.rack.hv_status(station.now)
    assert (status.main_plus, status.main_minus, status.precharge) == (
        ContactorState.CLOSED,
        ContactorState.CLOSED,
        ContactorState.OPEN,
    )
    station.hardware[0].emergency_stop = True
    station.step()
    assert station.rack.hv_status(station.now).emergency_stop


def test_an_open_rack_begins_with_its_self_test() -> None:
    station = Station(closed=False)
    assert state(station) is RackState.INIT
    station.run(0.3)
    assert state(station) is RackState.OPEN
    latched = station.stores[0]
    latched.save(frozenset({Latch.WELD_PLUS}))
    rack = RackControl(station.hardware[0], latched, station.now)
    rack.step(station.now)
    assert rack.rack_state is RackState.FAULT
    assert rack.notice(1, station.now).condition is HvNoticeCondition.WELDED


def test_the_table_reaches_every_state_and_closes_only_out_of_precharging() -> None:
    assert set(RACK_TRANSITIONS.values()) == set(RackState)
    assert {event for _, event in RACK_TRANSITIONS} == set(RackEvent)
    into_closed = [source for (source, _), target in RACK_TRANSITIONS.items() if target is RackState.CLOSED]
    assert into_closed == [RackState.PRECHARGING]


# --- without its MCU ------------------------------------------------------------------------------


def test_what_was_measured_while_it_was_off_proves_nothing_when_it_is_up_again() -> None:
    station = isolated()
    assert station.rack.hv_off(station.now)
    station.rack.power_cycle(station.now)
    station.rack.off = True
    station.run(5.0)
    station.rack.boot(station.now)
    up_at = station.now
    assert not station.rack.hv_off(station.now)
    assert not station.rack.programming_allowed(station.now)
    took_s = station.run_until(lambda: station.rack.hv_off(station.now), 2.0)
    spec = station.rack.spec.evidence
    assert took_s >= spec.contactor_timeout_s + spec.off_settling_s - 0.011
    notice = station.rack.notice(7, station.now)
    assert notice.off_duration_s <= station.now - up_at


def test_a_sensor_that_failed_while_it_was_off_is_seen_before_anything_is_said() -> None:
    station = isolated()
    station.rack.power_cycle(station.now)
    station.rack.off = True
    station.run(1.0)
    station.hardware[0].link_sensor = SensorFault()
    station.rack.boot(station.now)
    assert station.rack.hv_status(station.now).link_voltage_v is None
