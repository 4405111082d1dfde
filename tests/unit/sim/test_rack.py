from __future__ import annotations

import pytest

from ess_can.signals.messages import BmsCellGroup, BmsCellSummary
from ess_can.sim.alarms import AlarmSpec, rack_alarms
from ess_can.sim.electrical import RackCircuit, StationCircuit
from ess_can.sim.latches import Latch
from ess_can.sim.rack import RackHardware, SensorFault


def hardware(*, closed: bool = False) -> RackHardware:
    rack = RackCircuit(closed=closed)
    return RackHardware(StationCircuit([rack], 0.0), rack)


def settle(rack: RackHardware, *, plus: bool = False, minus: bool = False, precharge: bool = False) -> None:
    for contactor, position in zip(rack.rack.contactors, (plus, minus, precharge), strict=True):
        contactor.closed = contactor.coil = position
    rack.rack.rewire()


@pytest.mark.parametrize(
    ("plus", "minus", "precharge", "across"),
    [
        (False, False, False, (0.5, 0.5)),
        (True, False, False, (0.0, 1.0)),
        (False, False, True, (0.0, 1.0)),
        (False, True, False, (1.0, 0.0)),
        (False, True, True, (1.0, 0.0)),
        (True, True, False, (0.0, 0.0)),
    ],
)
def test_voltages_across_the_contactors(plus: bool, minus: bool, precharge: bool, across: tuple[float, float]) -> None:
    rack = hardware()
    settle(rack, plus=plus, minus=minus, precharge=precharge)
    if plus and minus:
        rack.circuit.step(1.0)
    readings = rack.read()
    gap_v = rack.rack.string_voltage_v - rack.circuit.link_voltage_v
    assert (readings.across_plus_v, readings.across_minus_v) == pytest.approx((across[0] * gap_v, across[1] * gap_v))


def test_sensors_tell_the_truth_unless_broken() -> None:
    rack = hardware(closed=True)
    rack.circuit.step(1.0)
    true = rack.read()
    assert true.string_voltage_v == true.link_voltage_v == pytest.approx(789.6, abs=0.2)
    assert true.current_a == pytest.approx(0.49, abs=0.01)
    rack.string_sensor = SensorFault()
    rack.link_sensor = SensorFault(12.0)
    rack.current_sensor = SensorFault(0.0)
    lying = rack.read()
    assert (lying.string_voltage_v, lying.link_voltage_v, lying.current_a) == (None, 12.0, 0.0)


def test_a_frozen_link_sensor_repeats_itself() -> None:
    rack = hardware(closed=True)
    frozen_v = rack.circuit.link_voltage_v
    rack.freeze_link_sensor()
    settle(rack)
    rack.circuit.step(5.0)
    assert rack.read().link_voltage_v == frozen_v
    assert rack.circuit.link_voltage_v < 100.0


def test_cells_spread_around_the_mean_and_the_summary_holds_their_extremes() -> None:
    rack = hardware()
    voltages = [rack.cell_voltage_v(cell) for cell in range(240)]
    known = [voltage for voltage in voltages if voltage is not None]
    assert len(known) == 240
    assert sum(known) / 240 == pytest.approx(3.29, abs=0.001)
    summary = rack.cells(0)
    assert isinstance(summary, BmsCellSummary)
    assert (summary.cell_voltage_min_v, summary.cell_voltage_max_v) == pytest.approx((min(known), max(known)))
    assert (summary.cell_temperature_min_degc, summary.cell_temperature_max_degc) == (25.0, 25.0)


def test_cell_pages_hold_three_cells_each() -> None:
    rack = hardware()
    page = rack.cells(4)
    assert page == BmsCellGroup(4, rack.cell_voltage_v(9), rack.cell_voltage_v(10), rack.cell_voltage_v(11))
    for missing in (-1, 5):
        with pytest.raises(ValueError, match="page"):
            rack.cells(missing)


def test_a_cell_can_be_set_and_can_be_invalid() -> None:
    rack = hardware()
    rack.set_cell_voltage(200, 3.7)
    rack.set_cell_voltage(1, 2.4)
    assert rack.cell_extremes_v() == (2.4, 3.7)
    assert rack.cell_voltage_v(200) == 3.7
    rack.set_cell_voltage(7, None)
    assert rack.cell_extremes_v() == (None, None)
    with pytest.raises(ValueError, match="cell 240"):
        rack.set_cell_voltage(240, 3.3)


def test_alarms_tell_cells_and_temperatures_out_of_limits() -> None:
    rack = hardware()

    def alarms(current_a: float | None = 0.0, latches: frozenset[Latch] = frozenset()) -> set[str]:
        result = rack_alarms(rack, latches, current_a, False, AlarmSpec())
        return {name for name in result.__slots__ if getattr(result, name)}

    assert alarms() == set()
    assert alarms(current_a=-351.0) == {"overcurrent"}
    assert alarms(current_a=None) == set()
    rack.set_cell_voltage(0, 3.66)
    rack.set_cell_voltage(1, 2.49)
    rack.temperature_max_degc, rack.temperature_min_degc = 56.0, -21.0
    assert alarms() == {"overvoltage", "undervoltage", "overtemperature", "undertemperature"}
    rack.set_cell_voltage(2, None)
    assert alarms() == {"overtemperature", "undertemperature", "internal_fault"}
    rack.temperature_max_degc = rack.temperature_min_degc = None
    assert alarms() == {"internal_fault"}


def test_alarms_tell_inputs_and_latches() -> None:
    rack = hardware()
    result = rack_alarms(rack, frozenset(Latch), 0.0, True, AlarmSpec())
    assert all(getattr(result, name) for name in ("weld", "precharge_failed", "fire", "insulation", "internal_fault"))
    assert result.emergency_stop
    assert result.hvil_open
    rack.hvil_closed = False
    rack.fire = rack.insulation_fault = rack.emergency_stop = True
    result = rack_alarms(rack, frozenset(), 0.0, False, AlarmSpec())
    assert result.fire
    assert result.insulation
    assert result.hvil_open
    assert result.emergency_stop
    assert not result.weld
