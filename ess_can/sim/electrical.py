"""The station's direct-current circuit: strings, contactors, the link and the PCS's bridge.

::

    string+ --R internal--+--main+--------------+-- link+ --+-----+--PCS contactor--bridge
                          +--precharge--R pre---+           C   bleeder
    string- -----------------main---------------+-- link- --+-----+

The racks share the link.  Between two contactor movements the circuit is linear with one capacitor, so each
step is the exact exponential: stable for every step width, and the same result however the time is cut.
A positive current discharges the battery.  All times are seconds of the running loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from math import exp, inf

from ess_can.signals.messages import ContactorState

_OCV_CURVE = (
    (0.0, 2.80),
    (10.0, 3.20),
    (20.0, 3.25),
    (50.0, 3.29),
    (90.0, 3.33),
    (100.0, 3.40),
)
"""State of charge in percent and open-circuit voltage of one LFP cell in V: the shape of such cells, rounded."""


@dataclass(frozen=True, slots=True)
class ContactorSpec:
    """One contactor.  Its contacts weld as they open above `break_current_a` or close above `making_current_a`."""

    close_time_s: float = 0.040
    open_time_s: float = 0.020
    arc_free_current_a: float = 10.0
    break_current_a: float = 200.0
    making_current_a: float = 2000.0


@dataclass(frozen=True, slots=True)
class StringSpec:
    """One rack's string of LFP cells in series, and its precharge resistor."""

    cell_count: int = 240
    capacity_ah: float = 280.0
    internal_resistance_ohm: float = 0.15
    precharge_resistance_ohm: float = 40.0


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """The PCS's capacitor and its discharge resistor.  800 V fall to 60 V in 4.97 s with these values.

    `max_voltage_v` is where the bridge's own protection stops it from charging the capacitor any further.
    """

    capacitance_f: float = 1.2e-3
    bleeder_ohm: float = 1600.0
    max_voltage_v: float = 1000.0
    external_source_ohm: float = 10.0


def open_circuit_voltage(soc_percent: float) -> float:
    """Open-circuit voltage of one cell in V at a state of charge in percent (held to 0..100)."""
    soc = min(max(soc_percent, 0.0), 100.0)
    upper = next(index for index, (limit, _) in enumerate(_OCV_CURVE) if index and soc <= limit)
    (soc_low, low), (soc_high, high) = _OCV_CURVE[upper - 1 : upper + 1]
    return low + (high - low) * (soc - soc_low) / (soc_high - soc_low)


class ContactorFault(Enum):
    """What is wrong with a contactor's main contacts."""

    NONE = "none"
    WELDED = "does not open any more"
    STUCK_OPEN = "does not close any more"


class Contactor:
    """A contactor with its coil, main contacts and auxiliary (feedback) contacts.

    `coil` is the order, `closed` what the main contacts do, `due` when they follow (infinity: they have).  `fault` and
    `feedback_fault` (what the auxiliary contacts say instead of the truth) may be set at any time.  `arcs` counts
    openings above the arc-free current, `broken_a` is the greatest current, in A, at any opening.
    """

    __slots__ = ("arcs", "broken_a", "closed", "coil", "due", "fault", "feedback_fault", "spec")

    def __init__(self, spec: ContactorSpec, *, closed: bool = False) -> None:
        self.spec = spec
        self.coil = closed
        self.closed = closed
        self.due = inf
        self.fault = ContactorFault.NONE
        self.feedback_fault: ContactorState | None = None
        self.arcs = 0
        self.broken_a = 0.0

    def drive(self, closed: bool, now: float) -> None:
        """Energise or release the coil."""
        if closed != self.coil:
            self.coil = closed
            self.due = now + (self.spec.close_time_s if closed else self.spec.open_time_s)

    @property
    def feedback(self) -> ContactorState:
        """What the auxiliary contacts report.  They are mirror contacts: a welded contactor reports closed."""
        if self.feedback_fault is not None:
            return self.feedback_fault
        if self.due != inf:
            return ContactorState.MOVING
        return ContactorState.CLOSED if self.closed else ContactorState.OPEN

    def settle(self, current_a: float) -> None:
        """The movement ends while the main contacts carry `current_a`."""
        self.due = inf
        if self.coil == self.closed:
            return
        if self.coil:
            self.closed = self.fault is not ContactorFault.STUCK_OPEN
            return
        current_a = abs(current_a)
        self.broken_a = max(self.broken_a, current_a)
        self.arcs += current_a > self.spec.arc_free_current_a
        if current_a > self.spec.break_current_a:
            self.fault = ContactorFault.WELDED
        self.closed = self.fault is ContactorFault.WELDED


class RackCircuit:
    """One rack's string and contactors: `contactors` are main+, main- and precharge.

    `current_a` is the string's current at the circuit's time; `inrush_a` the greatest peak when a contactor
    closed the path to the link.  `closed` in the constructor starts with both main contactors closed.
    """

    __slots__ = (
        "_charge_as",
        "conductance_s",
        "contactors",
        "current_a",
        "inrush_a",
        "main_minus",
        "main_plus",
        "ocv_v",
        "precharge",
        "soc_percent",
        "spec",
    )

    def __init__(
        self,
        spec: StringSpec | None = None,
        contactor: ContactorSpec | None = None,
        *,
        soc_percent: float = 50.0,
        closed: bool = False,
    ) -> None:
        self.spec = spec or StringSpec()
        contactor = contactor or ContactorSpec()
        self.main_plus = Contactor(contactor, closed=closed)
        self.main_minus = Contactor(contactor, closed=closed)
        self.precharge = Contactor(contactor)
        self.contactors = (self.main_plus, self.main_minus, self.precharge)
        self.current_a = 0.0
        self.inrush_a = 0.0
        self.conductance_s = 0.0
        self.set_soc(soc_percent)
        self.rewire()

    @property
    def string_voltage_v(self) -> float:
        """Voltage at the string's terminals, on the battery side of the contactors."""
        return self.ocv_v - self.current_a * self.spec.internal_resistance_ohm

    def set_soc(self, soc_percent: float) -> None:
        """Put the string at a state of charge in percent, held to 0..100."""
        self.soc_percent = min(max(soc_percent, 0.0), 100.0)
        self.ocv_v = self.spec.cell_count * open_circuit_voltage(self.soc_percent)
        self._charge_as = 0.0

    def rewire(self) -> None:
        """Work out the conductance between string and link, in S, from the contactors' positions."""
        resistance = self.spec.internal_resistance_ohm
        if not self.main_plus.closed:
            resistance += self.spec.precharge_resistance_ohm
        conducts = self.main_minus.closed and (self.main_plus.closed or self.precharge.closed)
        self.conductance_s = 1.0 / resistance if conducts else 0.0

    def carried_by(self, contactor: Contactor) -> float:
        """Current in A through one of the rack's contactors."""
        if contactor is self.precharge and self.main_plus.closed:
            return 0.0  # bypassed
        return self.current_a if contactor.closed else 0.0

    def count_charge(self, charge_as: float) -> None:
        """Take `charge_as` ampere-seconds from the string.  The voltage follows in steps of 0.01 % of its capacity."""
        self._charge_as += charge_as
        capacity_as = self.spec.capacity_ah * 3600.0
        if abs(self._charge_as) > 1e-4 * capacity_as:
            self.set_soc(self.soc_percent - 100.0 * self._charge_as / capacity_as)


class StationCircuit:
    """The whole DC circuit.  `step` advances it; whoever looks at it or drives a contactor steps it first.

    `bridge_request_a` is the current the PCS's bridge is told to draw; `bridge_current_a` what it does draw, which is
    0 while `pcs_contactor` is open or the link has no more to give or to take.  `external_source_v` connects a foreign
    source to the link: somebody energises it behind our back.  Whoever watches is in `on_contactor`, called when a
    contactor has closed or opened, with it, the time, and the current in A that it carried just before; and in
    `on_break`, called likewise when one has parted its contacts, whether it welded or not.
    """

    __slots__ = (
        "_time",
        "bridge_current_a",
        "bridge_request_a",
        "contactors",
        "external_source_v",
        "link",
        "link_voltage_v",
        "on_break",
        "on_contactor",
        "pcs_contactor",
        "racks",
    )

    def __init__(
        self,
        racks: Sequence[RackCircuit],
        now: float,
        link: LinkSpec | None = None,
        pcs_contactor: Contactor | None = None,
    ) -> None:
        self.racks = tuple(racks)
        self.link = link or LinkSpec()
        self.pcs_contactor = pcs_contactor or Contactor(ContactorSpec())
        self.contactors = (self.pcs_contactor, *(contactor for rack in self.racks for contactor in rack.contactors))
        self.bridge_request_a = 0.0
        self.bridge_current_a = 0.0
        self.external_source_v: float | None = None
        self.on_contactor: list[Callable[[Contactor, float, float], None]] = []
        self.on_break: list[Callable[[Contactor, float, float], None]] = []
        self._time = now
        conductance, source_a = self._sources()
        self.link_voltage_v = source_a / conductance
        self._update_currents()

    def step(self, now: float) -> None:
        """Advance to `now`, moving each contactor at its own instant.  A `now` that is not later changes nothing."""
        if now <= self._time:
            return
        for contactor in self.contactors:
            if contactor.due <= now:
                self._move_contactors(now)
                break
        if now > self._time:
            self._advance(now)

    def _move_contactors(self, now: float) -> None:
        """Advance to each movement that ends by `now`, and let it end."""
        while (mover := min(self.contactors, key=_due)).due <= now:
            if mover.due > self._time:
                self._advance(mover.due)
            self._settle(mover)

    def place(self, contactor: Contactor, closed: bool) -> None:
        """Put a contactor at once where it is seen to be: one that moves elsewhere, and wears there."""
        contactor.coil = contactor.closed = closed
        contactor.due = inf
        for rack in self.racks:
            rack.rewire()
        self._update_currents()
        self.bridge_current_a = self._bridge()

    def _settle(self, contactor: Contactor) -> None:
        was_closed, breaks = contactor.closed, contactor.closed and not contactor.coil
        if contactor is self.pcs_contactor:
            carried_a = self.bridge_current_a
            contactor.settle(carried_a)
            self.bridge_current_a = self._bridge()
        else:
            rack = next(rack for rack in self.racks if contactor in rack.contactors)
            carried_a = rack.carried_by(contactor)
            contactor.settle(carried_a)
            self._rewire(rack, contactor, was_closed)
        if contactor.closed != was_closed:
            for tell in self.on_contactor:
                tell(contactor, self._time, carried_a)
        for tell in self.on_break if breaks else ():
            tell(contactor, self._time, carried_a)

    def _rewire(self, rack: RackCircuit, contactor: Contactor, was_closed: bool) -> None:
        before_s = rack.conductance_s
        rack.rewire()
        self._update_currents()
        if contactor.closed and not was_closed and rack.conductance_s > before_s:
            rack.inrush_a = max(rack.inrush_a, abs(rack.current_a))
            if abs(rack.current_a) > contactor.spec.making_current_a:
                contactor.fault = ContactorFault.WELDED

    def _sources(self) -> tuple[float, float]:
        """Norton's equivalent of all on the link but the bridge: conductance in S, short-circuit current in A."""
        conductance = 1.0 / self.link.bleeder_ohm
        source_a = 0.0
        for rack in self.racks:
            if rack.conductance_s:
                conductance += rack.conductance_s
                source_a += rack.ocv_v * rack.conductance_s
        if self.external_source_v is not None:
            conductance += 1.0 / self.link.external_source_ohm
            source_a += self.external_source_v / self.link.external_source_ohm
        return conductance, source_a

    def _bridge(self) -> float:
        return self.bridge_request_a if self.pcs_contactor.closed else 0.0

    def _advance(self, time: float) -> None:
        dt = time - self._time
        self._time = time
        bridge_a = self.bridge_current_a = self._bridge()
        conductance, source_a = self._sources()
        target_v = (source_a - bridge_a) / conductance
        rate = conductance * dt / self.link.capacitance_f
        decay = exp(-rate)
        distance_v = self.link_voltage_v - target_v
        mean_v = target_v + distance_v * (1.0 - decay) / rate
        voltage_v = target_v + distance_v * decay
        limit_v = 0.0 if bridge_a > 0.0 else self.link.max_voltage_v
        if bridge_a and (voltage_v - limit_v) * bridge_a < 0.0:
            # The bridge alone emptied or filled the capacitor: its protection blocks it.
            voltage_v = limit_v
            self.bridge_current_a = 0.0
        self.link_voltage_v = voltage_v
        self._update_currents()
        for rack in self.racks:
            if rack.conductance_s:
                rack.count_charge((rack.ocv_v - mean_v) * rack.conductance_s * dt)

    def _update_currents(self) -> None:
        for rack in self.racks:
            rack.current_a = (rack.ocv_v - self.link_voltage_v) * rack.conductance_s


def _due(contactor: Contactor) -> float:
    return contactor.due
