"""The alarms that a BMU derives from its cells, inputs and latches."""

from __future__ import annotations

from dataclasses import dataclass

from ess_can.signals.messages import BmsAlarms
from ess_can.sim.latches import WELDS, Latch
from ess_can.sim.rack import RackHardware


@dataclass(frozen=True, slots=True)
class AlarmSpec:
    """The limits outside of which an alarm is active."""

    cell_max_v: float = 3.65
    cell_min_v: float = 2.50
    temperature_max_degc: float = 55.0
    temperature_min_degc: float = -20.0
    current_max_a: float = 350.0


def rack_alarms(
    hardware: RackHardware, latches: frozenset[Latch], current_a: float | None, hv_fault: bool, spec: AlarmSpec
) -> BmsAlarms:
    """``BMS_Alarms``: what is wrong now or latched.

    `current_a` is the measured current; `hv_fault` says that the high-voltage logic found its evidence invalid or
    contradictory.  An invalid cell or temperature reading is an internal fault and raises no limit alarm.
    """
    low_v, high_v = hardware.cell_extremes_v()
    cold, hot = hardware.temperature_min_degc, hardware.temperature_max_degc
    return BmsAlarms(
        overvoltage=high_v is not None and high_v > spec.cell_max_v,
        undervoltage=low_v is not None and low_v < spec.cell_min_v,
        overtemperature=hot is not None and hot > spec.temperature_max_degc,
        undertemperature=cold is not None and cold < spec.temperature_min_degc,
        overcurrent=current_a is not None and abs(current_a) > spec.current_max_a,
        insulation=hardware.insulation_fault or Latch.INSULATION in latches,
        hvil_open=not hardware.hvil_closed or Latch.HVIL_OPEN in latches,
        emergency_stop=hardware.emergency_stop or Latch.EMERGENCY_STOP in latches,
        fire=hardware.fire or Latch.FIRE in latches,
        weld=bool(latches & WELDS),
        precharge_failed=Latch.PRECHARGE_FAILED in latches,
        internal_fault=hv_fault or low_v is None or cold is None or hot is None,
    )
