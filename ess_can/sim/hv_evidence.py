"""What a BMU can prove about its own high voltage.

Nothing here orders anything.  Each verdict needs positive evidence: what is missing, invalid, contradictory or old
proves nothing, and of two contradicting signs the worse one counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from ess_can.signals.messages import ContactorState, PcsState, PcsStatus
from ess_can.sim.rack import RackHardware, RackReadings

_ROUNDING_S = 0.001
"""Statuses a cycle apart on a wire do not arrive a cycle apart to the last bit."""
_ALL_OPEN = (ContactorState.OPEN, ContactorState.OPEN, ContactorState.OPEN)


@dataclass(frozen=True, slots=True)
class EvidenceSpec:
    """Thresholds and times of the evidence.

    A gap is string voltage minus link voltage.  A pole counts as welded when it holds less than
    `welded_fraction` of the gap, as open when it holds at least `open_fraction`; below `pole_gap_min_v` the gap says
    nothing, and only a current above `leak_current_a` shows that both poles conduct.
    """

    off_voltage_v: float = 60.0
    off_current_a: float = 1.0
    off_settling_s: float = 0.2
    contactor_timeout_s: float = 0.2
    pole_gap_min_v: float = 100.0
    welded_fraction: float = 0.10
    open_fraction: float = 0.25
    weld_settling_s: float = 0.1
    leak_current_a: float = 0.1
    leak_settling_s: float = 1.0
    loop_tolerance_v: float = 10.0
    pcs_idle_current_a: float = 1.0
    pcs_status_age_s: float = 0.25
    step_age_s: float = 0.25


class Held:
    """For how long a condition has held without a break."""

    __slots__ = ("since",)

    def __init__(self) -> None:
        self.since: float | None = None

    def update(self, condition: bool, now: float) -> None:
        """Note the condition's value at `now`."""
        if not condition:
            self.since = None
        elif self.since is None:
            self.since = now

    def for_at_least(self, duration_s: float, now: float) -> bool:
        """Whether it has held for `duration_s`."""
        return self.since is not None and now - self.since >= duration_s

    def updated_for(self, condition: bool, duration_s: float, now: float) -> bool:
        """`update`, then `for_at_least`."""
        if not condition:
            self.since = None
            return False
        if self.since is None:
            self.since = now
        return now - self.since >= duration_s


class RackEvidence:
    """The BMU's evidence about its own rack.  Call `update` at every step; the verdicts are those of the last one.

    `weld_plus` and `weld_minus` say that a pole conducts now although it was ordered open; whoever reads them latches
    them.  `link_voltage_v` is the link voltage if it can be believed, else None.  `known` is False while anything
    that the HV-off verdict needs is invalid.
    """

    def __init__(self, hardware: RackHardware, spec: EvidenceSpec) -> None:
        self._hardware = hardware
        self._spec = spec
        self._ordered_open = Held()
        self._off = Held()
        self._gap_plus = Held()
        self._gap_minus = Held()
        self._leak = Held()
        self._updated_at: float | None = None
        self.readings: RackReadings = hardware.read()
        self.link_voltage_v = self.readings.link_voltage_v
        self.weld_plus = False
        self.weld_minus = False
        self.known = False
        self.feedbacks_open = False

    def update(self, weld_latched: bool, now: float) -> None:
        """Read the hardware at `now` and judge."""
        spec = self._spec
        if self._updated_at is not None and now - self._updated_at > spec.step_age_s:
            self._off.since = None  # nobody looked meanwhile
        self._updated_at = now
        hardware = self._hardware
        readings = self.readings = hardware.read()
        plus, minus, precharge = hardware.rack.contactors
        feedbacks = (plus.feedback, minus.feedback, precharge.feedback)
        self.feedbacks_open = feedbacks_open = feedbacks == _ALL_OPEN
        self.link_voltage_v = link_v = self._believable_link_voltage(readings)
        self.known = (
            link_v is not None
            and readings.string_voltage_v is not None
            and readings.current_a is not None
            and (feedbacks_open or ContactorState.INVALID not in feedbacks)
        )
        self.weld_plus = self.weld_minus = poles_open = False
        if plus.coil or minus.coil or precharge.coil:
            self._ordered_open.since = self._off.since = None
            return
        if self._ordered_open.updated_for(True, spec.contactor_timeout_s, now):
            if not feedbacks_open:
                self.weld_plus = ContactorState.CLOSED in (feedbacks[0], feedbacks[2])
                self.weld_minus = feedbacks[1] is ContactorState.CLOSED
            poles_open = self._check_poles(readings, now)
        self._off.update(
            poles_open  # which implies that both voltages are valid
            and feedbacks_open
            and not (self.weld_plus or self.weld_minus or weld_latched)
            and _below(link_v, spec.off_voltage_v)
            and _below(readings.current_a, spec.off_current_a),
            now,
        )

    def weld_judged(self, now: float) -> bool:
        """Whether the contactors have been ordered open for long enough to have shown a weld."""
        return self._ordered_open.for_at_least(self._spec.contactor_timeout_s + self._spec.weld_settling_s, now)

    def is_contradicted(self) -> bool:
        """Whether what the sensors show this instant speaks against "off": the last verdict may be one step old."""
        readings = self._hardware.read()
        return not (
            _below(readings.link_voltage_v, self._spec.off_voltage_v)
            and _below(readings.current_a, self._spec.off_current_a)
            and all(contactor.feedback is ContactorState.OPEN for contactor in self._hardware.rack.contactors)
        )

    def hv_off_since(self, now: float) -> float | None:
        """Since when HV has been off, settling time included; None unless it is proved off at `now`."""
        if self._updated_at is None or now - self._updated_at > self._spec.step_age_s:
            return None
        return self._off.since if self._off.for_at_least(self._spec.off_settling_s, now) else None

    def _believable_link_voltage(self, readings: RackReadings) -> float | None:
        """None if the voltages around the loop do not add up (Kirchhoff): the link sensor may be stuck."""
        string_v, link_v = readings.string_voltage_v, readings.link_voltage_v
        if string_v is None or link_v is None:
            return link_v
        rest_v = string_v - link_v - readings.across_plus_v - readings.across_minus_v
        return link_v if abs(rest_v) <= self._spec.loop_tolerance_v else None

    def _check_poles(self, readings: RackReadings, now: float) -> bool:
        """Look for poles that conduct although ordered open; True if both are seen to hold voltage."""
        spec = self._spec
        string_v, link_v = readings.string_voltage_v, self.link_voltage_v
        if string_v is None or link_v is None:
            return False
        gap_v = string_v - link_v
        telling = gap_v >= spec.pole_gap_min_v
        if not telling:
            self._gap_plus.since = self._gap_minus.since = None
            leaks = readings.current_a is not None and abs(readings.current_a) >= spec.leak_current_a
            if self._leak.updated_for(leaks, spec.leak_settling_s, now):
                self.weld_plus = self.weld_minus = True
            return False
        self._leak.since = None
        across_plus_v, across_minus_v = readings.across_plus_v, readings.across_minus_v
        welded_v = spec.welded_fraction * gap_v
        if self._gap_plus.updated_for(across_plus_v < welded_v, spec.weld_settling_s, now):
            self.weld_plus = True
        if self._gap_minus.updated_for(across_minus_v < welded_v, spec.weld_settling_s, now):
            self.weld_minus = True
        open_v = spec.open_fraction * gap_v
        return across_plus_v >= open_v and across_minus_v >= open_v


class PcsEvidence:
    """What the PCS says about itself, as far as it is fresh.  Feed it with E2E-valid statuses only."""

    def __init__(self, spec: EvidenceSpec) -> None:
        self._spec = spec
        self._status: PcsStatus | None = None
        self._received_at = 0.0
        self._held_open = Held()

    def receive(self, status: PcsStatus, now: float) -> None:
        """Take a valid ``PCS_Status``."""
        if self.fresh(now) is None:
            self._held_open.since = None
        self._status = status
        self._received_at = now
        self._held_open.update(
            status.state is PcsState.STANDBY
            and status.contactors is ContactorState.OPEN
            and status.lock_acknowledged
            and not status.emergency_stop
            and _below(status.dc_current_a, self._spec.pcs_idle_current_a),
            now,
        )

    def reject(self) -> None:
        """A status failed its E2E check: all evidence from the PCS is void."""
        self._status = None
        self._held_open.since = None

    def fresh(self, now: float) -> PcsStatus | None:
        """The last status unless it is too old."""
        return self._status if now - self._received_at <= self._spec.pcs_status_age_s else None

    def held_open(self, now: float) -> bool:
        """Whether the PCS is proved in standby, open, without current and locked, for the settling time.

        Its own word spans that time: what came at once from a queue is one moment, however long ago.
        """
        return self.fresh(now) is not None and self._held_open.for_at_least(
            self._spec.off_settling_s - _ROUNDING_S, self._received_at
        )


def _below(value: float | None, limit: float) -> bool:
    return value is not None and -limit < value < limit
