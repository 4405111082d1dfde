from __future__ import annotations

import random

import pytest

from ess_can.errors import UsageError
from ess_can.signals.messages import ContactorState, EmsPcsCommand, PcsCommandCode, PcsState
from ess_can.sim.electrical import ContactorFault, LinkSpec
from ess_can.sim.fram import Fram
from ess_can.sim.pcs import PCS_TRANSITIONS, Pcs, PcsEvent, PcsFaultCode, PcsFaults, PcsSpec
from ess_can.sim.pcs_memory import RecordedPcsMemory
from tests.unit.sim.hv_station import STEP_S, Station

C = PcsCommandCode


def state(station: Station) -> PcsState:
    return station.pcs.status(station.now).state


def current(pcs: Pcs) -> float:
    measured = pcs.measured_current_a
    assert measured is not None
    return measured


def test_runs_its_local_setpoint_until_somebody_takes_over() -> None:
    station = Station()
    station.command(C.RELEASE)
    station.run(2.0)
    status = station.pcs.status(station.now)
    assert (status.state, status.remote_control) == (PcsState.RUNNING, False)
    assert current(station.pcs) * station.circuit.link_voltage_v == pytest.approx(-30e3, rel=0.01)


def test_without_a_local_setpoint_it_stands_by() -> None:
    station = Station(pcs_spec=PcsSpec(local_setpoint_kw=0.0))
    station.run(1.0)
    assert state(station) is PcsState.STANDBY


def test_ramps_at_its_rate_to_the_ordered_power_and_no_further_than_its_rating() -> None:
    station = Station()
    station.command(C.RUN, 10_000.0)
    station.run(1.0)
    before = current(station.pcs)
    station.run(0.1)
    assert current(station.pcs) - before == pytest.approx(20.0, abs=0.1)
    station.run(3.0)
    assert current(station.pcs) == pytest.approx(400.0)


def test_zero_power_ramps_and_then_stands_by_with_contactors_closed() -> None:
    station = Station()
    station.run(1.0)
    station.command(C.ZERO_POWER)
    station.run_until(lambda: station.pcs.state is PcsState.RAMPING, 0.1)
    took = station.run_until(lambda: station.pcs.state is PcsState.STANDBY, 1.0)
    assert took == pytest.approx(38.0 / 200.0, abs=0.03)
    assert station.pcs.status(station.now).contactors is ContactorState.CLOSED


def test_running_again_while_ramping_down() -> None:
    station = Station()
    station.command(C.RUN, 200.0)
    station.run(3.0)
    station.command(C.ZERO_POWER)
    station.run_until(lambda: station.pcs.state is PcsState.RAMPING, 0.1)
    station.command(C.RUN, 200.0)
    station.run_until(lambda: station.pcs.state is PcsState.RUNNING, 0.1)


@pytest.mark.parametrize("order", [C.OPEN, C.LOCK])
def test_contactors_open_only_after_the_current_is_at_zero(order: PcsCommandCode) -> None:
    station = Station()
    station.command(C.RUN, 250.0)
    station.run(3.0)
    station.command(order)
    station.run_until(lambda: not station.circuit.pcs_contactor.coil, 3.0)
    station.run(0.1)
    assert station.circuit.pcs_contactor.broken_a < 1.0
    assert station.pcs.status(station.now).contactors is ContactorState.OPEN


def test_lock_is_acknowledged_only_in_standby_with_contactors_open_and_no_current() -> None:
    station = Station()
    station.run(1.0)
    station.command(C.LOCK)
    while not station.pcs.status(station.now).lock_acknowledged:
        station.step()
    assert state(station) is PcsState.STANDBY
    assert not station.circuit.pcs_contactor.closed
    assert station.circuit.bridge_current_a == 0.0


@pytest.mark.parametrize("reading", [None, 5.0])
def test_lock_is_not_acknowledged_on_an_invalid_or_nonzero_current(reading: float | None) -> None:
    station = Station()
    station.isolate()
    assert station.pcs.lock_acknowledged
    station.pcs.faults = PcsFaults(current_sensor_stuck=True, current_sensor_value_a=reading)
    assert not station.pcs.status(station.now).lock_acknowledged


@pytest.mark.parametrize("order", [C.CLOSE, C.RUN])
def test_lock_refuses_close_and_run_and_only_unlock_ends_it(order: PcsCommandCode) -> None:
    station = Station()
    station.isolate()
    for other in (order, C.ZERO_POWER, C.OPEN, C.RELEASE):
        station.command(other, -30.0)
        station.run(1.0)
        assert station.pcs.locked
        assert state(station) is PcsState.STANDBY
        assert not station.circuit.pcs_contactor.coil
    assert station.pcs.refused_orders == 20
    station.command(C.UNLOCK)
    station.run(0.1)
    assert not station.pcs.locked


def test_a_release_right_after_lock_does_not_resume_local_control() -> None:
    station = Station()
    station.run(1.0)
    station.command(C.LOCK)
    station.run(0.05)
    station.command(C.RELEASE)
    station.run(1.0)
    assert state(station) is PcsState.STANDBY
    assert station.pcs.lock_acknowledged


def test_a_fault_ends_the_acknowledgement_of_the_lock() -> None:
    station = Station()
    station.isolate()
    station.pcs.trip(PcsFaultCode.INTERNAL, station.now)
    station.step()
    assert station.pcs.locked
    assert not station.pcs.lock_acknowledged


@pytest.mark.parametrize("reading", [None, 5.0])
def test_contactors_do_not_open_on_an_invalid_or_nonzero_current(reading: float | None) -> None:
    station = Station(pcs_spec=PcsSpec(local_setpoint_kw=0.0))
    station.pcs.faults = PcsFaults(current_sensor_stuck=True, current_sensor_value_a=reading)
    station.command(C.OPEN)
    station.run(2.0)
    assert station.circuit.pcs_contactor.coil


def test_a_restart_forgets_the_order_to_close() -> None:
    station = Station(closed=False)
    station.pcs_heard = False  # so the racks do not close
    station.command(C.CLOSE)
    station.run(0.2)
    station.command(None)
    station.pcs.restart(station.now)
    station.circuit.external_source_v = 790.0
    station.run(3.0)
    assert state(station) is PcsState.STANDBY
    assert not station.circuit.pcs_contactor.coil


def test_lock_survives_a_lost_heartbeat_and_nothing_closes() -> None:
    station = Station()
    station.isolate()
    station.command(None)
    station.run(5.0)
    status = station.pcs.status(station.now)
    assert (status.heartbeat_lost, status.lock_acknowledged, status.state) == (True, True, PcsState.STANDBY)


def test_lost_heartbeat_ramps_to_zero_and_a_new_order_ends_it() -> None:
    station = Station()
    station.command(C.RUN, 50.0)
    station.run(2.0)
    station.command(None)
    station.run(0.45)
    assert not station.pcs.heartbeat_lost
    station.run(0.7)
    status = station.pcs.status(station.now)
    assert (status.heartbeat_lost, status.state, status.dc_current_a) == (True, PcsState.STANDBY, 0.0)
    assert status.contactors is ContactorState.CLOSED
    station.run(60.0)
    assert state(station) is PcsState.STANDBY
    station.command(C.RUN, 50.0)
    station.run(1.0)
    assert (station.pcs.heartbeat_lost, state(station)) == (False, PcsState.RUNNING)


def test_lost_heartbeat_finishes_an_opening_that_was_ordered() -> None:
    station = Station()
    station.command(C.RUN, 300.0)
    station.run(3.0)
    station.command(C.OPEN)
    station.run(0.06)
    station.command(None)
    station.run(4.0)
    assert station.pcs.heartbeat_lost
    assert not station.circuit.pcs_contactor.closed


def test_lost_heartbeat_ends_closing() -> None:
    station = Station(closed=False)
    station.command(C.CLOSE)
    station.pcs_heard = False  # so the racks do not close
    station.run(1.0)
    assert state(station) is PcsState.CLOSING
    station.command(None)
    station.run(0.7)
    assert state(station) is PcsState.STANDBY
    station.circuit.external_source_v = 790.0
    station.run(5.0)
    assert not station.circuit.pcs_contactor.coil


def test_closes_after_a_rack_precharged_the_link_then_resumes_on_release() -> None:
    station = Station()
    station.isolate()
    station.reconnect()
    assert station.circuit.pcs_contactor.broken_a == 0.0
    assert state(station) is PcsState.STANDBY
    station.run(1.0)
    assert state(station) is PcsState.STANDBY, "CLOSE alone does not run"
    station.command(C.RELEASE)
    station.run(1.0)
    assert state(station) is PcsState.RUNNING


def test_close_gives_up_on_a_dead_link_and_tries_again_only_on_a_new_order() -> None:
    station = Station(closed=False)
    station.pcs_heard = False
    station.command(C.CLOSE)
    station.run(21.0)
    assert state(station) is PcsState.STANDBY
    station.run(5.0)
    assert state(station) is PcsState.STANDBY
    station.command(C.ZERO_POWER)
    station.run(0.1)
    station.command(C.CLOSE)
    station.run(0.1)
    assert state(station) is PcsState.CLOSING


def test_close_waits_on_a_link_that_merely_discharges() -> None:
    station = Station(link=LinkSpec(bleeder_ohm=50_000.0))
    station.run(0.5)
    station.command(C.OPEN)
    station.run(2.0)
    assert station.circuit.link_voltage_v > 600.0
    station.pcs_heard = False
    station.command(C.CLOSE)
    station.run(5.0)
    assert state(station) is PcsState.CLOSING
    assert not station.circuit.pcs_contactor.coil


@pytest.mark.parametrize("order", [C.RUN, C.RELEASE])
def test_no_order_but_close_ever_closes(order: PcsCommandCode) -> None:
    station = Station(closed=False)
    station.circuit.external_source_v = 790.0
    station.command(order, 50.0)
    station.run(5.0)
    assert state(station) is PcsState.STANDBY
    assert not station.circuit.pcs_contactor.coil


def test_restart_loses_lock_and_remote_control_and_comes_up_open() -> None:
    station = Station()
    station.isolate()
    station.pcs.restart(station.now)
    assert state(station) is PcsState.INIT
    station.run(0.3)
    status = station.pcs.status(station.now)
    assert (status.state, status.lock_acknowledged, status.remote_control) == (PcsState.INIT, False, False)
    station.run(0.5)
    assert station.pcs.status(station.now).lock_acknowledged, "the cyclic LOCK order is obeyed again"
    station.command(None)
    station.pcs.restart(station.now)
    station.run(60.0)
    status = station.pcs.status(station.now)
    assert (status.state, status.contactors) == (PcsState.STANDBY, ContactorState.OPEN)
    assert not status.lock_acknowledged


def test_a_pcs_with_a_memory_stays_locked_over_a_restart_until_it_is_unlocked() -> None:
    station = Station()
    memory = RecordedPcsMemory(Fram(random.Random(1)))
    station.pcs = Pcs(station.circuit, station.now, memory=memory)
    station.isolate()
    station.command(None)
    station.pcs.restart(station.now)
    station.run(60.0)
    assert station.pcs.status(station.now).lock_acknowledged
    # In another process: it finds the memory and nothing else.
    station.pcs = Pcs(station.circuit, station.now, memory=memory)
    station.pcs.restart(station.now)
    station.run(1.0)
    assert station.pcs.status(station.now).lock_acknowledged
    station.command(C.UNLOCK)
    station.run(0.1)
    station.command(None)
    station.pcs.restart(station.now)
    station.run(1.0)
    assert not station.pcs.locked


def test_a_pressed_button_is_found_pressed_by_another_process() -> None:
    station = Station()
    memory = RecordedPcsMemory(Fram(random.Random(1)))
    station.pcs = Pcs(station.circuit, station.now, memory=memory)
    station.pcs.press_emergency_stop(station.now)
    for pressed in (True, False):
        station.pcs = Pcs(station.circuit, station.now, memory=memory)
        station.pcs.restart(station.now)
        station.run(1.0)
        assert station.pcs.status(station.now).emergency_stop is pressed
        station.pcs.clear("Ada", station.now)


def test_local_control_waits_until_batteries_are_heard() -> None:
    station = Station()
    station.pcs.batteries_heard = False
    station.run(3.0)
    assert (state(station), current(station.pcs)) == (PcsState.STANDBY, 0.0)
    assert station.circuit.pcs_contactor.closed
    station.pcs.batteries_heard = True
    station.run(1.0)
    assert state(station) is PcsState.RUNNING


def test_restart_while_running_blocks_the_bridge_before_the_contactors_open() -> None:
    station = Station()
    station.run(1.0)
    station.pcs.restart(station.now)
    station.run(0.1)
    assert station.circuit.pcs_contactor.broken_a == 0.0


def test_ignoring_the_ramp_keeps_the_current_and_the_contactors_closed() -> None:
    station = Station()
    station.run(1.0)
    before_a = current(station.pcs)
    station.pcs.faults = PcsFaults(ignores_ramp=True)
    station.command(C.OPEN)
    station.run(12.0)
    assert state(station) is PcsState.RAMPING
    assert current(station.pcs) == pytest.approx(before_a, abs=0.1)
    assert station.circuit.pcs_contactor.closed
    assert station.rack_circuits[0].main_plus.closed


def test_current_sensor_stuck_at_zero_does_not_open_contactors_under_load() -> None:
    station = Station()
    station.command(C.RUN, 250.0)
    station.run(3.0)
    station.pcs.faults = PcsFaults(ignores_ramp=True, current_sensor_stuck=True)
    station.command(C.OPEN)
    station.run(3.0)
    status = station.pcs.status(station.now)
    assert (status.state, status.dc_current_a) == (PcsState.STANDBY, 0.0)
    assert station.rack.hv_status(station.now).current_a == pytest.approx(320.0, abs=30.0)
    assert station.circuit.pcs_contactor.closed


def test_emergency_stop_blocks_the_bridge_and_is_held_over_a_restart_until_cleared() -> None:
    station = Station()
    station.run(1.0)
    station.pcs.press_emergency_stop(station.now)
    station.run(0.1)
    status = station.pcs.status(station.now)
    assert (status.state, status.emergency_stop, status.dc_current_a) == (PcsState.EMERGENCY_STOP, True, 0.0)
    assert status.contactors is ContactorState.OPEN
    station.pcs.trip(PcsFaultCode.INTERNAL, station.now)
    assert state(station) is PcsState.EMERGENCY_STOP
    station.pcs.restart(station.now)
    station.command(C.CLOSE)
    station.run(3.0)
    assert state(station) is PcsState.EMERGENCY_STOP
    with pytest.raises(UsageError):
        station.pcs.clear("  ", station.now)
    station.command(C.ZERO_POWER)
    station.pcs.clear("a person", station.now)
    station.run(1.0)
    assert (state(station), station.circuit.pcs_contactor.coil) == (PcsState.STANDBY, False)


def test_a_fault_is_reported_with_its_code_until_cleared() -> None:
    station = Station()
    station.pcs.clear("a person", station.now)
    assert state(station) is PcsState.STANDBY, "nothing to clear"
    station.pcs.trip(PcsFaultCode.INTERNAL, station.now)
    station.run(1.0)
    assert station.pcs.status(station.now).fault_code == PcsFaultCode.INTERNAL
    station.pcs.clear("a person", station.now)
    assert station.pcs.status(station.now).fault_code == PcsFaultCode.NONE


def test_a_link_lost_under_load_trips() -> None:
    station = Station()
    station.run(1.0)
    station.hardware[0].hvil_closed = False
    station.run(0.2)
    assert station.pcs.status(station.now).fault_code == PcsFaultCode.DC_LINK
    assert station.circuit.link_voltage_v <= LinkSpec().max_voltage_v


def test_a_welded_pcs_contactor_is_a_fault_again_after_clearing_and_never_a_lock() -> None:
    station = Station()
    station.run(1.0)
    station.circuit.pcs_contactor.fault = ContactorFault.WELDED
    station.command(C.LOCK)
    station.run(3.0)
    for _ in range(2):
        status = station.pcs.status(station.now)
        assert (status.state, status.fault_code) == (PcsState.FAULT, PcsFaultCode.CONTACTOR_NOT_OPENING)
        assert not status.lock_acknowledged
        station.pcs.clear("a person", station.now)
        station.run(0.1)


def test_a_pcs_contactor_that_does_not_close_is_a_fault() -> None:
    station = Station()
    station.isolate()
    station.circuit.pcs_contactor.fault = ContactorFault.STUCK_OPEN
    station.command(C.UNLOCK)
    station.run(0.2)
    station.command(C.CLOSE)
    station.run_until(lambda: station.pcs.state is PcsState.FAULT, 5.0)
    assert station.pcs.fault_code == PcsFaultCode.CONTACTOR_NOT_CLOSING


def test_active_grid_service_is_reported() -> None:
    station = Station()
    assert not station.pcs.status(station.now).grid_service_active
    station.pcs.grid_service_active = True
    assert station.pcs.status(station.now).grid_service_active


def test_orders_given_in_the_self_test_are_not_heard() -> None:
    station = Station()
    station.pcs.restart(station.now)
    station.pcs.receive_command(EmsPcsCommand(C.LOCK), station.now + STEP_S)
    assert not station.pcs.locked


def test_the_table_reaches_every_state_and_leaves_each() -> None:
    targets, sources = set(PCS_TRANSITIONS.values()), {state for state, _ in PCS_TRANSITIONS}
    assert targets == sources == set(PcsState)
    assert {event for _, event in PCS_TRANSITIONS} == set(PcsEvent)


def test_an_emergency_stop_is_left_by_a_person_or_a_restart_only() -> None:
    ways = {event for (state, event) in PCS_TRANSITIONS if state is PcsState.EMERGENCY_STOP}
    assert ways == {PcsEvent.CLEARED, PcsEvent.RESTART, PcsEvent.EMERGENCY}
