"""Faults of PCS, racks and high voltage: ``plant:weld-plus:1@RAMP_DOWN+0``, ``plant:pcs-restarts@PROGRAM+2``.

Each is one line of `_TROUBLES`: what is done to the plant, which gives how it is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self

from ess_can.bus.clock import now
from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.faults.frames import corrupted, identifiers, losing
from ess_can.campaign.faults.named import named_text, parse_named
from ess_can.campaign.moments import Moment
from ess_can.campaign.station import Station
from ess_can.errors import UsageError
from ess_can.signals.messages import BmsHvStatus, ContactorState, RackState
from ess_can.sim.electrical import Contactor, ContactorFault, RackCircuit
from ess_can.sim.rack import RackHardware, SensorFault

NAMES: Mapping[str, FaultKind] = MappingProxyType(
    {
        "ramp-ignored": FaultKind.RAMP_IGNORED,
        "pcs-current-stuck": FaultKind.PCS_CURRENT_STUCK,
        "rack-current-stuck": FaultKind.RACK_CURRENT_STUCK,
        "weld-plus": FaultKind.WELD_PLUS,
        "weld-minus": FaultKind.WELD_MINUS,
        "feedback-open": FaultKind.FEEDBACK_OPEN,
        "feedback-closed": FaultKind.FEEDBACK_CLOSED,
        "link-charged": FaultKind.LINK_CHARGED,
        "voltage-invalid": FaultKind.VOLTAGE_INVALID,
        "voltage-frozen": FaultKind.VOLTAGE_FROZEN,
        "hv-status-lost": FaultKind.HV_STATUS_LOST,
        "hv-status-bad": FaultKind.HV_STATUS_BAD,
        "hv-closes": FaultKind.HV_CLOSES,
        "closed-by-hand": FaultKind.CLOSED_BY_HAND,
        "heartbeat-unheard": FaultKind.HEARTBEAT_UNHEARD,
        "pcs-restarts": FaultKind.PCS_RESTARTS,
        "emergency-stop": FaultKind.EMERGENCY_STOP,
        "insulation": FaultKind.INSULATION,
        "fire": FaultKind.FIRE,
        "hvil": FaultKind.HVIL_OPEN,
        "aux-low": FaultKind.AUX_LOW,
        "soc-low": FaultKind.SOC_LOW,
        "precharge-fails": FaultKind.PRECHARGE_FAILS,
        "strings-apart": FaultKind.STRINGS_APART,
        "grid-service": FaultKind.GRID_SERVICE,
        "cell-high": FaultKind.CELL_HIGH,
        "cell-unknown": FaultKind.CELL_UNKNOWN,
        "cell-hot": FaultKind.CELL_HOT,
    }
)

OF_A_RACK = frozenset(NAMES.values()) - {
    FaultKind.RAMP_IGNORED,
    FaultKind.PCS_CURRENT_STUCK,
    FaultKind.LINK_CHARGED,
    FaultKind.HV_CLOSES,
    FaultKind.HEARTBEAT_UNHEARD,
    FaultKind.PCS_RESTARTS,
    FaultKind.SOC_LOW,
    FaultKind.GRID_SERVICE,
}
"""Those that are a rack's; the others are the station's."""

_CELL = 3
_NO_DISCHARGE_OHM = 1e9
_LOW_SOC_PERCENT = 4.0
_SOC_APART_PERCENT = 35.0

Undo = Callable[[], None]


@dataclass(frozen=True, slots=True)
class PlantFault:
    """Trouble at a moment; `rack` is from 1, and 1 for what is no rack's."""

    kind: FaultKind
    at: Moment
    rack: int = 1

    @property
    def text(self) -> str:
        """See `Fault`."""
        named = named_text(self.kind, NAMES, None, self.at)
        if self.kind not in OF_A_RACK:
            return f"plant:{named}"
        name, _, moment = named.partition("@")
        return f"plant:{name}:{self.rack}@{moment}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what follows ``plant:``.  Raises ValueError."""
        name, at, moment = text.partition("@")
        name, _, rack = name.partition(":")
        kind, amount, when = parse_named(f"{name}{at}{moment}", NAMES)
        if amount is not None:
            raise ValueError(f"{text!r} has an amount that means nothing")
        if rack and (kind not in OF_A_RACK or not rack.isdecimal() or int(rack) < 1):
            raise ValueError(f"{text!r} names no rack")
        return cls(kind, when, int(rack or 1))

    def arm(self, station: Station) -> None:
        """See `Fault`.  Raises UsageError if the station has no such rack."""
        if self.rack > len(station.plant.hardware):
            raise UsageError(f"the station has no rack {self.rack}", why=self.text)
        station.at(self.at, lambda: self._happen(station))

    def _happen(self, station: Station) -> None:
        station.took(self)
        station.plant.circuit.step(now())
        undo = _TROUBLES[self.kind](station, station.plant.hardware[self.rack - 1], self)
        undone = False

        def heal() -> None:
            nonlocal undone
            if not undone:
                undone = True
                station.plant.circuit.step(now())
                undo()

        station.to_heal(heal)
        if self.at.lasts_s is not None:
            station.later(self.at.lasts_s, heal)


def _ramp_ignored(station: Station, _rack: RackHardware, _fault: PlantFault) -> Undo:
    pcs = station.plant.pcs
    pcs.faults = replace(pcs.faults, ignores_ramp=True)

    def undo() -> None:
        pcs.faults = replace(pcs.faults, ignores_ramp=False)

    return undo


def _pcs_current_stuck(station: Station, _rack: RackHardware, _fault: PlantFault) -> Undo:
    pcs = station.plant.pcs
    pcs.faults = replace(pcs.faults, current_sensor_stuck=True, current_sensor_value_a=0.0)

    def undo() -> None:
        pcs.faults = replace(pcs.faults, current_sensor_stuck=False)

    return undo


def _rack_current_stuck(_station: Station, rack: RackHardware, _fault: PlantFault) -> Undo:
    rack.current_sensor = SensorFault(0.0)

    def undo() -> None:
        rack.current_sensor = None

    return undo


def _weld(of: Callable[[RackCircuit], Contactor], how: ContactorFault) -> Trouble:
    """A contactor's main contacts stay where they are: apart, or together."""

    def trouble(station: Station, rack: RackHardware, _fault: PlantFault) -> Undo:
        contactor = of(rack.rack)
        contactor.fault = how

        def undo() -> None:
            contactor.fault = ContactorFault.NONE
            if contactor.closed != contactor.coil:  # replaced by a good one, which is as its coil has it
                station.plant.circuit.place(contactor, contactor.coil)

        return undo

    return trouble


def _feedback(says: ContactorState) -> Trouble:
    def trouble(_station: Station, rack: RackHardware, _fault: PlantFault) -> Undo:
        rack.rack.main_plus.feedback_fault = says

        def undo() -> None:
            rack.rack.main_plus.feedback_fault = None

        return undo

    return trouble


def _link_charged(station: Station, _rack: RackHardware, _fault: PlantFault) -> Undo:
    circuit = station.plant.circuit
    good = circuit.link
    circuit.link = replace(good, bleeder_ohm=_NO_DISCHARGE_OHM)

    def undo() -> None:
        circuit.link = good

    return undo


def _voltage_invalid(_station: Station, rack: RackHardware, _fault: PlantFault) -> Undo:
    rack.link_sensor = SensorFault(None)
    return lambda: _good_link_sensor(rack)


def _voltage_frozen(_station: Station, rack: RackHardware, _fault: PlantFault) -> Undo:
    rack.freeze_link_sensor()
    return lambda: _good_link_sensor(rack)


def _good_link_sensor(rack: RackHardware) -> None:
    rack.link_sensor = None


def _hv_status_lost(station: Station, _rack: RackHardware, fault: PlantFault) -> Undo:
    can_id = station.plant.codec.route(BmsHvStatus, fault.rack).can_id
    return losing(station, lambda frame: frame.can_id == can_id)


def _hv_status_bad(station: Station, _rack: RackHardware, fault: PlantFault) -> Undo:
    can_id = station.plant.codec.route(BmsHvStatus, fault.rack).can_id
    chance = station.chance(fault)
    return station.on_transmission(lambda _index, frame: corrupted(frame, chance) if frame.can_id == can_id else None)


def _hv_closes(station: Station, rack: RackHardware, _fault: PlantFault) -> Undo:
    circuit = station.plant.circuit
    circuit.external_source_v = rack.rack.ocv_v

    def undo() -> None:
        circuit.external_source_v = None

    return undo


def _closed_by_hand(station: Station, rack: RackHardware, fault: PlantFault) -> Undo:
    """No order closes them, so no rule about closing is broken by it.  What the BMU itself drives later is its own."""
    circuit, control = station.plant.circuit, station.plant.racks[fault.rack - 1]
    by_hand = [each for each in (rack.rack.main_minus, rack.rack.precharge) if not each.coil]
    for contactor in by_hand:
        circuit.place(contactor, closed=True)

    def undo() -> None:
        wanted = {RackState.PRECHARGING: by_hand, RackState.CLOSED: [rack.rack.main_minus]}.get(control.rack_state, [])
        for contactor in by_hand:
            if contactor not in wanted:
                circuit.place(contactor, closed=False)

    return undo


def _heartbeat_unheard(station: Station, _rack: RackHardware, _fault: PlantFault) -> Undo:
    orders = identifiers(station.plant.codec, "command")
    return losing(station, lambda frame: frame.can_id in orders)


def _pcs_restarts(station: Station, _rack: RackHardware, _fault: PlantFault) -> Undo:
    station.plant.pcs_node.restart(now())
    return _nothing


def _emergency_stop(station: Station, rack: RackHardware, _fault: PlantFault) -> Undo:
    rack.emergency_stop = True
    station.plant.pcs.press_emergency_stop(now())

    def undo() -> None:
        rack.emergency_stop = False

    return undo


def _insulation(_station: Station, rack: RackHardware, _fault: PlantFault) -> Undo:
    rack.insulation_fault = True

    def undo() -> None:
        rack.insulation_fault = False

    return undo


def _fire(_station: Station, rack: RackHardware, _fault: PlantFault) -> Undo:
    rack.fire = True

    def undo() -> None:
        rack.fire = False

    return undo


def _hvil(_station: Station, rack: RackHardware, _fault: PlantFault) -> Undo:
    rack.hvil_closed = False

    def undo() -> None:
        rack.hvil_closed = True

    return undo


def _aux_low(_station: Station, rack: RackHardware, _fault: PlantFault) -> Undo:
    good = rack.aux_voltage_v
    rack.aux_voltage_v = 18.0

    def undo() -> None:
        rack.aux_voltage_v = good

    return undo


def _soc_low(station: Station, _rack: RackHardware, _fault: PlantFault) -> Undo:
    racks = station.plant.circuit.racks
    before = [rack.soc_percent for rack in racks]
    for rack in racks:
        rack.set_soc(_LOW_SOC_PERCENT)

    def undo() -> None:
        for rack, soc in zip(racks, before, strict=True):
            rack.set_soc(soc)

    return undo


def _strings_apart(_station: Station, rack: RackHardware, _fault: PlantFault) -> Undo:
    """Half a volt to each side of the others' curve is far enough; connected, they draw a harmless current."""
    before = rack.rack.soc_percent
    rack.rack.set_soc(before + _SOC_APART_PERCENT)

    def undo() -> None:
        rack.rack.set_soc(before)

    return undo


def _grid_service(station: Station, _rack: RackHardware, _fault: PlantFault) -> Undo:
    pcs = station.plant.pcs
    pcs.grid_service_active = True

    def undo() -> None:
        pcs.grid_service_active = False

    return undo


def _cell(reads_v: float | None) -> Trouble:
    def trouble(_station: Station, rack: RackHardware, _fault: PlantFault) -> Undo:
        rack.set_cell_voltage(_CELL, reads_v)
        return lambda: rack.repair_cell(_CELL)

    return trouble


def _cell_hot(_station: Station, rack: RackHardware, _fault: PlantFault) -> Undo:
    good = rack.temperature_max_degc
    rack.temperature_max_degc = 52.0

    def undo() -> None:
        rack.temperature_max_degc = good

    return undo


def _nothing() -> None:
    """It heals by itself."""


Trouble = Callable[[Station, RackHardware, PlantFault], Undo]

_TROUBLES: Mapping[FaultKind, Trouble] = MappingProxyType(
    {
        FaultKind.RAMP_IGNORED: _ramp_ignored,
        FaultKind.PCS_CURRENT_STUCK: _pcs_current_stuck,
        FaultKind.RACK_CURRENT_STUCK: _rack_current_stuck,
        FaultKind.WELD_PLUS: _weld(lambda rack: rack.main_plus, ContactorFault.WELDED),
        FaultKind.WELD_MINUS: _weld(lambda rack: rack.main_minus, ContactorFault.WELDED),
        FaultKind.FEEDBACK_OPEN: _feedback(ContactorState.OPEN),
        FaultKind.FEEDBACK_CLOSED: _feedback(ContactorState.CLOSED),
        FaultKind.LINK_CHARGED: _link_charged,
        FaultKind.VOLTAGE_INVALID: _voltage_invalid,
        FaultKind.VOLTAGE_FROZEN: _voltage_frozen,
        FaultKind.HV_STATUS_LOST: _hv_status_lost,
        FaultKind.HV_STATUS_BAD: _hv_status_bad,
        FaultKind.HV_CLOSES: _hv_closes,
        FaultKind.CLOSED_BY_HAND: _closed_by_hand,
        FaultKind.HEARTBEAT_UNHEARD: _heartbeat_unheard,
        FaultKind.PCS_RESTARTS: _pcs_restarts,
        FaultKind.EMERGENCY_STOP: _emergency_stop,
        FaultKind.INSULATION: _insulation,
        FaultKind.FIRE: _fire,
        FaultKind.HVIL_OPEN: _hvil,
        FaultKind.AUX_LOW: _aux_low,
        FaultKind.SOC_LOW: _soc_low,
        FaultKind.PRECHARGE_FAILS: _weld(lambda rack: rack.precharge, ContactorFault.STUCK_OPEN),
        FaultKind.STRINGS_APART: _strings_apart,
        FaultKind.GRID_SERVICE: _grid_service,
        FaultKind.CELL_HIGH: _cell(3.62),
        FaultKind.CELL_UNKNOWN: _cell(None),
        FaultKind.CELL_HOT: _cell_hot,
    }
)
