"""A rack's hardware as its BMU meets it: sensors, inputs and cells on top of the rack's circuit.

Sensors and inputs may be made to lie; the circuit underneath goes on telling the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ess_can.signals.messages import BmsCellGroup, BmsCellSummary
from ess_can.sim.electrical import RackCircuit, StationCircuit

_SPREAD_V = 0.005
"""Largest deviation of a cell from the mean."""
CELL_GROUP_PAGES = range(1, 5)
"""The multiplexer pages of ``BMS_Cells`` that hold three cell voltages each; page 0 is the summary."""


@dataclass(frozen=True, slots=True)
class SensorFault:
    """A sensor that always reads `stuck_at`; None for a reading that the sensor itself marks invalid."""

    stuck_at: float | None = None


class RackReadings(NamedTuple):
    """What the BMU measures at one instant; None where a sensor says that it is broken.

    `across_plus_v` and `across_minus_v` are the voltages across the open poles of the rack's contactors.
    """

    string_voltage_v: float | None
    link_voltage_v: float | None
    current_a: float | None
    across_plus_v: float
    across_minus_v: float


class RackHardware:
    """One rack on a `StationCircuit`.  The public attributes are the inputs; set them at any time.

    `string_sensor`, `link_sensor` and `current_sensor` are faults (None: the sensor is good).
    """

    __slots__ = (
        "_cell_overrides_v",
        "aux_voltage_v",
        "circuit",
        "current_sensor",
        "emergency_stop",
        "fire",
        "hvil_closed",
        "insulation_fault",
        "link_sensor",
        "rack",
        "string_sensor",
        "temperature_max_degc",
        "temperature_min_degc",
    )

    def __init__(self, circuit: StationCircuit, rack: RackCircuit) -> None:
        self.circuit = circuit
        self.rack = rack
        self.string_sensor: SensorFault | None = None
        self.link_sensor: SensorFault | None = None
        self.current_sensor: SensorFault | None = None
        self.hvil_closed = True
        self.emergency_stop = False
        self.fire = False
        self.insulation_fault = False
        self.aux_voltage_v = 24.0
        self.temperature_min_degc: float | None = 25.0
        self.temperature_max_degc: float | None = 25.0
        self._cell_overrides_v: dict[int, float | None] = {}

    def read(self) -> RackReadings:
        """Read every sensor."""
        rack = self.rack
        string_v = rack.string_voltage_v
        link_v = self.circuit.link_voltage_v
        gap_v = string_v - link_v
        if rack.main_minus.closed:
            # With main+ open too, main+ carries the whole gap: across its open contacts or the precharge resistor.
            across_plus_v, across_minus_v = 0.0 if rack.main_plus.closed else gap_v, 0.0
        elif rack.main_plus.closed or rack.precharge.closed:
            across_plus_v, across_minus_v = 0.0, gap_v
        else:
            # Only the insulation resistances tie string and link together, symmetrically.
            across_plus_v = across_minus_v = 0.5 * gap_v
        return RackReadings(
            string_v if self.string_sensor is None else self.string_sensor.stuck_at,
            link_v if self.link_sensor is None else self.link_sensor.stuck_at,
            rack.current_a if self.current_sensor is None else self.current_sensor.stuck_at,
            across_plus_v,
            across_minus_v,
        )

    def freeze_link_sensor(self) -> None:
        """From now on the link sensor repeats what it reads now."""
        self.link_sensor = SensorFault(self.circuit.link_voltage_v)

    # --- cells ----------------------------------------------------------------------------------

    def set_cell_voltage(self, cell: int, voltage_v: float | None) -> None:
        """Have `cell` (from 0) read `voltage_v`; None is an invalid reading.  Raises ValueError for no such cell."""
        if not 0 <= cell < self.rack.spec.cell_count:
            raise ValueError(f"cell {cell} is outside 0..{self.rack.spec.cell_count - 1}")
        self._cell_overrides_v[cell] = voltage_v

    def repair_cell(self, cell: int) -> None:
        """Have `cell` read what it has again."""
        self._cell_overrides_v.pop(cell, None)

    def cell_voltage_v(self, cell: int) -> float | None:
        """Voltage of `cell` (from 0) in V; None if its reading is invalid."""
        if cell in self._cell_overrides_v:
            return self._cell_overrides_v[cell]
        return self._mean_cell_v() + _SPREAD_V * (cell * 7 % 11 - 5) / 5

    def cell_extremes_v(self) -> tuple[float | None, float | None]:
        """Lowest and highest cell voltage in V; both None if any cell's reading is invalid."""
        low_v, high_v = self._mean_cell_v() - _SPREAD_V, self._mean_cell_v() + _SPREAD_V
        for voltage_v in self._cell_overrides_v.values():
            if voltage_v is None:
                return None, None
            low_v, high_v = min(low_v, voltage_v), max(high_v, voltage_v)
        return low_v, high_v

    def cells(self, page: int) -> BmsCellSummary | BmsCellGroup:
        """``BMS_Cells``, one multiplexer page: 0 the extremes, 1..4 three cells each.

        Raises ValueError for any other page.
        """
        if page == 0:
            return BmsCellSummary(*self.cell_extremes_v(), self.temperature_min_degc, self.temperature_max_degc)
        if page not in CELL_GROUP_PAGES:
            raise ValueError(f"page {page} is outside 0..{CELL_GROUP_PAGES[-1]}")
        first = 3 * (page - 1)
        return BmsCellGroup(page, *(self.cell_voltage_v(cell) for cell in range(first, first + 3)))

    def _mean_cell_v(self) -> float:
        return self.rack.string_voltage_v / self.rack.spec.cell_count
