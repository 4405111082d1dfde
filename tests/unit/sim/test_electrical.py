from __future__ import annotations

from itertools import pairwise
from math import exp, inf, log

import pytest

from ess_can.signals.messages import ContactorState
from ess_can.sim.electrical import (
    Contactor,
    ContactorFault,
    ContactorSpec,
    LinkSpec,
    RackCircuit,
    StationCircuit,
    StringSpec,
    open_circuit_voltage,
)


def closed_station(racks: int = 1, *, link: LinkSpec | None = None, soc: float = 50.0) -> StationCircuit:
    circuits = [RackCircuit(closed=True, soc_percent=soc) for _ in range(racks)]
    return StationCircuit(circuits, 0.0, link, Contactor(ContactorSpec(), closed=True))


def open_all(circuit: StationCircuit, now: float) -> None:
    for contactor in circuit.contactors:
        contactor.drive(False, now)


@pytest.mark.parametrize(("soc", "volt"), [(-5, 2.80), (0, 2.80), (10, 3.20), (15, 3.225), (100, 3.40), (120, 3.40)])
def test_open_circuit_voltage_follows_the_curve_and_is_held_at_its_ends(soc: float, volt: float) -> None:
    assert open_circuit_voltage(soc) == pytest.approx(volt)


def test_open_circuit_voltage_rises_with_the_state_of_charge() -> None:
    curve = [open_circuit_voltage(soc) for soc in range(101)]
    assert all(low < high for low, high in pairwise(curve))


def test_a_contactor_takes_its_time_and_reports_moving_meanwhile() -> None:
    circuit = closed_station()
    contactor = circuit.pcs_contactor
    contactor.drive(False, 0.0)
    circuit.step(0.019)
    assert (contactor.closed, contactor.feedback) == (True, ContactorState.MOVING)
    circuit.step(0.020)
    assert (contactor.closed, contactor.feedback) == (False, ContactorState.OPEN)
    contactor.drive(True, 0.020)
    circuit.step(0.059)
    feedbacks = [contactor.feedback]
    circuit.step(0.061)
    feedbacks.append(contactor.feedback)
    assert feedbacks == [ContactorState.MOVING, ContactorState.CLOSED]


def test_driving_to_the_same_position_does_not_restart_the_movement() -> None:
    contactor = Contactor(ContactorSpec())
    contactor.drive(True, 0.0)
    contactor.drive(True, 1.0)
    assert contactor.due == 0.040


def test_an_order_taken_back_leaves_the_contactor_where_it_was() -> None:
    contactor = Contactor(ContactorSpec(), closed=True)
    contactor.drive(False, 0.0)
    contactor.drive(True, 0.010)
    contactor.settle(500.0)
    assert (contactor.closed, contactor.broken_a, contactor.due) == (True, 0.0, inf)


@pytest.mark.parametrize(
    ("current_a", "arcs", "opens"), [(0.0, 0, True), (10.0, 0, True), (-10.1, 1, True), (200.0, 1, True)]
)
def test_opening_up_to_the_break_current_at_worst_costs_an_arc(current_a: float, arcs: int, opens: bool) -> None:
    contactor = Contactor(ContactorSpec(), closed=True)
    contactor.drive(False, 0.0)
    contactor.settle(current_a)
    assert (contactor.arcs, not contactor.closed) == (arcs, opens)
    assert contactor.broken_a == abs(current_a)


def test_opening_above_the_break_current_welds_both_poles() -> None:
    circuit = closed_station()
    circuit.bridge_request_a = 250.0
    circuit.step(1.0)
    rack = circuit.racks[0]
    open_all(circuit, 1.0)
    circuit.step(2.0)
    assert rack.main_plus.fault is rack.main_minus.fault is ContactorFault.WELDED
    assert rack.main_plus.closed
    assert rack.main_minus.feedback is ContactorState.CLOSED, "mirror contacts tell a weld"


def test_the_second_pole_opens_without_current() -> None:
    circuit = closed_station()
    circuit.bridge_request_a = 50.0
    circuit.step(1.0)
    rack = circuit.racks[0]
    rack.main_plus.drive(False, 1.0)
    rack.main_minus.drive(False, 1.0)
    circuit.step(2.0)
    assert (rack.main_plus.arcs, rack.main_minus.arcs) == (1, 0)


def test_a_stuck_open_contactor_never_closes_and_says_so() -> None:
    contactor = Contactor(ContactorSpec())
    contactor.fault = ContactorFault.STUCK_OPEN
    contactor.drive(True, 0.0)
    contactor.settle(0.0)
    assert contactor.feedback is ContactorState.OPEN


def test_a_feedback_fault_hides_the_truth() -> None:
    contactor = Contactor(ContactorSpec(), closed=True)
    contactor.feedback_fault = ContactorState.OPEN
    assert contactor.closed
    assert contactor.feedback is ContactorState.OPEN


def test_800_v_fall_to_60_v_in_five_seconds_by_default() -> None:
    circuit = StationCircuit([RackCircuit()], 0.0)
    circuit.link_voltage_v = 800.0
    circuit.step(4.9)
    assert circuit.link_voltage_v > 60.0
    circuit.step(5.0)
    assert circuit.link_voltage_v < 60.0
    spec = LinkSpec()
    assert spec.capacitance_f * spec.bleeder_ohm * log(800 / 60) == pytest.approx(4.97, abs=0.01)


def test_a_slow_discharge_looks_like_itself_not_like_a_weld() -> None:
    circuit = closed_station(link=LinkSpec(bleeder_ohm=50_000.0))
    voltage_v = circuit.link_voltage_v
    open_all(circuit, 0.0)
    circuit.step(0.02)
    circuit.step(60.02)
    assert circuit.link_voltage_v == pytest.approx(voltage_v * exp(-1.0), rel=1e-6)
    assert circuit.racks[0].current_a == 0.0


def test_the_result_does_not_depend_on_how_the_time_is_cut() -> None:
    def run(steps: int) -> tuple[float, float]:
        circuit = StationCircuit([RackCircuit()], 0.0)
        rack = circuit.racks[0]
        rack.main_minus.drive(True, 0.0)
        rack.precharge.drive(True, 0.013)
        for step in range(1, steps + 1):
            circuit.step(0.6 * step / steps)
        return circuit.link_voltage_v, rack.current_a

    once, often = run(1), run(777)
    assert once == pytest.approx(often, rel=1e-9)


def test_a_huge_step_is_stable() -> None:
    circuit = closed_station(2)
    circuit.bridge_request_a = 100.0
    circuit.step(100.0)
    assert circuit.racks[0].current_a + circuit.racks[1].current_a == pytest.approx(100.0 + 0.49, abs=0.02)


def test_time_does_not_run_backwards() -> None:
    circuit = closed_station()
    circuit.bridge_request_a = 100.0
    circuit.step(1.0)
    before = circuit.link_voltage_v
    circuit.step(0.5)
    assert circuit.link_voltage_v == before


def test_the_pcs_current_splits_over_the_closed_racks() -> None:
    circuit = closed_station(2)
    circuit.bridge_request_a = -60.0
    circuit.step(1.0)
    assert circuit.racks[0].current_a == pytest.approx(-29.75, abs=0.1)
    assert circuit.racks[0].current_a == circuit.racks[1].current_a
    circuit.racks[1].main_minus.drive(False, 1.0)
    circuit.step(2.0)
    assert circuit.racks[0].current_a == pytest.approx(-59.5, abs=0.1)
    assert circuit.racks[1].current_a == 0.0


def test_precharge_reaches_95_percent_of_the_string_and_takes_no_inrush() -> None:
    circuit = StationCircuit([RackCircuit()], 0.0)
    rack = circuit.racks[0]
    rack.main_minus.drive(True, 0.0)
    rack.precharge.drive(True, 0.0)
    circuit.step(0.24)
    assert circuit.link_voltage_v > 0.95 * rack.string_voltage_v
    rack.main_plus.drive(True, 0.24)
    circuit.step(0.5)
    assert rack.main_plus.fault is ContactorFault.NONE
    assert rack.inrush_a < 300.0
    assert rack.carried_by(rack.precharge) == 0.0, "bypassed by main+"


def test_closing_without_precharge_welds() -> None:
    circuit = StationCircuit([RackCircuit()], 0.0)
    rack = circuit.racks[0]
    rack.main_minus.drive(True, 0.0)
    rack.main_plus.drive(True, 0.0)
    circuit.step(1.0)
    assert rack.inrush_a == pytest.approx(rack.ocv_v / 0.15)
    assert ContactorFault.WELDED in {rack.main_plus.fault, rack.main_minus.fault}


def test_one_welded_pole_lets_the_link_discharge_but_two_hold_it() -> None:
    one, two = closed_station(), closed_station()
    one.racks[0].main_plus.fault = ContactorFault.WELDED
    for pole in (two.racks[0].main_plus, two.racks[0].main_minus):
        pole.fault = ContactorFault.WELDED
    for circuit in (one, two):
        open_all(circuit, 0.0)
        circuit.step(10.0)
    assert one.link_voltage_v < 10.0
    assert two.link_voltage_v == pytest.approx(two.racks[0].ocv_v, abs=0.2)


def test_an_open_pcs_contactor_carries_nothing() -> None:
    circuit = StationCircuit([RackCircuit(closed=True)], 0.0)
    circuit.bridge_request_a = 100.0
    circuit.step(1.0)
    assert circuit.bridge_current_a == 0.0


@pytest.mark.parametrize(("request_a", "end_v"), [(100.0, 0.0), (-100.0, 1000.0)])
def test_the_bridge_alone_neither_empties_nor_overfills_the_link(request_a: float, end_v: float) -> None:
    circuit = closed_station()
    circuit.bridge_request_a = request_a
    for contactor in circuit.racks[0].contactors:
        contactor.drive(False, 0.0)
    circuit.step(1.0)
    assert circuit.link_voltage_v == end_v
    assert circuit.bridge_current_a == 0.0


def test_a_foreign_source_energises_the_link() -> None:
    circuit = StationCircuit([RackCircuit()], 0.0)
    circuit.external_source_v = 700.0
    circuit.step(5.0)
    assert circuit.link_voltage_v == pytest.approx(700.0, rel=0.01)


def test_charging_raises_and_discharging_lowers_the_state_of_charge() -> None:
    up, down = closed_station(), closed_station()
    up.bridge_request_a, down.bridge_request_a = -280.0, 280.0
    for step in range(1, 361):
        up.step(step * 1.0)
        down.step(step * 1.0)
    assert up.racks[0].soc_percent == pytest.approx(60.0, abs=0.1)
    assert down.racks[0].soc_percent == pytest.approx(40.0, abs=0.1)
    assert up.racks[0].ocv_v > down.racks[0].ocv_v


def test_terminal_voltage_sags_by_the_internal_resistance() -> None:
    circuit = closed_station()
    circuit.bridge_request_a = 100.0
    circuit.step(1.0)
    rack = circuit.racks[0]
    assert rack.string_voltage_v == pytest.approx(circuit.link_voltage_v)
    assert rack.ocv_v - rack.string_voltage_v == pytest.approx(rack.current_a * StringSpec().internal_resistance_ohm)


def test_a_contactor_placed_from_afar_is_there_at_once_and_does_not_wear() -> None:
    circuit = closed_station(racks=2)
    circuit.bridge_request_a = 300.0
    circuit.step(1.0)
    rack = circuit.racks[0]
    rack.main_plus.drive(False, 1.0)
    for contactor in (*rack.contactors, circuit.pcs_contactor):
        circuit.place(contactor, False)
        assert (contactor.closed, contactor.coil, contactor.due) == (False, False, inf)
        assert (contactor.arcs, contactor.broken_a, contactor.fault) == (0, 0.0, ContactorFault.NONE)
    assert (rack.current_a, circuit.bridge_current_a) == (0.0, 0.0)
    circuit.link_voltage_v = 0.0
    for contactor in (rack.main_minus, rack.main_plus):
        circuit.place(contactor, True)
        circuit.step(2.0)
    assert rack.main_plus.fault is ContactorFault.NONE
    assert rack.inrush_a == 0.0
    assert rack.conductance_s > 0
