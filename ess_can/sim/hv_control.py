"""The BMU's high-voltage logic: it closes and opens its rack's contactors, and guards itself.

It obeys OPEN and CLOSE of ``EMS_PcsCommand``.  It closes on a fresh order CLOSE alone, after a precharge, and never
while `hold_open` is set.  It opens by order only near zero current, and so it does by itself when the PCS has left the
link and nobody commands; HVIL, insulation, fire and emergency stop open it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from ess_can.errors import UsageError
from ess_can.signals.messages import (
    BmsAlarms,
    BmsHvNotice,
    BmsHvStatus,
    BmsState,
    ContactorState,
    EmsPcsCommand,
    HvNoticeCondition,
    PcsCommandCode,
    PcsState,
    PcsStatus,
    RackState,
)
from ess_can.sim.alarms import AlarmSpec, rack_alarms
from ess_can.sim.hv_evidence import EvidenceSpec, PcsEvidence, RackEvidence
from ess_can.sim.latches import WELDS, Clearing, Latch, LatchStore
from ess_can.sim.rack import RackHardware
from ess_can.sim.rack_states import RACK_TRANSITIONS, CloseRefusal, RackEvent

_OFF_DURATION_MAX_S = 409.5


class _Step(Enum):
    """Steps of closing."""

    MINUS = "main- is closing"
    PRECHARGE = "the link is charged through the resistor"
    PLUS = "main+ is closing"


@dataclass(frozen=True, slots=True)
class HvSpec:
    """The BMU's limits and times.

    `open_current_a` is what "near zero" means for opening by order.  Rack n waits (n - 1) * `stagger_s` after the order
    CLOSE, so that no two racks precharge together and the second sees the first's voltage on the link.  A PCS that was
    there and has been silent or open for `pcs_away_s` is lost: it needs the link to be precharged anew.
    """

    evidence: EvidenceSpec = field(default_factory=EvidenceSpec)
    alarms: AlarmSpec = field(default_factory=AlarmSpec)
    heartbeat_timeout_s: float = 0.5
    self_test_s: float = 0.2
    open_current_a: float = 10.0
    break_current_a: float = 200.0
    precharged_fraction: float = 0.95
    precharge_timeout_s: float = 1.0
    precharge_tries: int = 3
    cool_down_s: float = 5.0
    stagger_s: float = 1.0
    parallel_difference_v: float = 3.0
    pcs_away_s: float = 5.0


class RackControl:
    """One BMU's high-voltage part.  A rack whose main contactors are found closed at construction starts closed.

    `hold_open` belongs to the node: set while a programming session is active or the running image is unconfirmed.
    `hung` until its watchdog restarts it, and `off` until its MCU runs again, it neither measures nor acts.
    `refusal` says why the last order CLOSE was not followed; None if it was, or if there was none.  Whoever watches is
    in `on_event`, and in `on_clear`, called with the name of whoever cleared the latches.
    """

    def __init__(
        self, hardware: RackHardware, store: LatchStore, now: float, *, index: int = 1, spec: HvSpec | None = None
    ) -> None:
        self.spec = spec or HvSpec()
        self.hardware = hardware
        self.index = index
        self.hold_open = False
        self.refusal: CloseRefusal | None = None
        self.clearings: list[Clearing] = []
        self.on_event: list[Callable[[RackEvent], None]] = []
        self.on_clear: list[Callable[[str], None]] = []
        rack = hardware.rack
        self.rack_state = RackState.CLOSED if rack.main_plus.coil and rack.main_minus.coil else RackState.INIT
        self._contactors = rack.contactors
        self._plus, self._minus, self._precharge = rack.contactors
        self._store = store
        self._latches = store.load()
        self.boot(now)

    def boot(self, now: float) -> None:
        """Begin with nothing but the stored latches: what was true before proves nothing now."""
        self.hung = False
        self.off = False
        self._latches = self._store.load()
        self._own = RackEvidence(self.hardware, self.spec.evidence)
        self._pcs = PcsEvidence(self.spec.evidence)
        self._pcs_joined_at: float | None = None
        self._order: PcsCommandCode | None = None
        self._order_at = now
        self._close_ordered_at: float | None = None
        self._closing_step = _Step.MINUS
        self._closing_step_at = now
        self._tries = 0
        self._cool_until = now
        self._entered_at = now
        self.refusal = None

    # --- inputs ---------------------------------------------------------------------------------

    def on_command(self, command: EmsPcsCommand, now: float) -> None:
        """Take a valid ``EMS_PcsCommand``."""
        lapsed = now - self._order_at > self.spec.heartbeat_timeout_s
        self._order = command.command
        self._order_at = now
        if self._order is not PcsCommandCode.CLOSE:
            self._close_ordered_at = None
        elif lapsed or self._close_ordered_at is None:
            self._close_ordered_at = now

    def on_pcs_status(self, status: PcsStatus, now: float) -> None:
        """Take a valid ``PCS_Status``."""
        self._pcs.receive(status, now)
        if self._pcs_joined_at is None or status.contactors is not ContactorState.OPEN:
            self._pcs_joined_at = now

    def on_pcs_status_rejected(self) -> None:
        """A ``PCS_Status`` failed its E2E check: what the PCS said before proves nothing any more."""
        self._pcs.reject()

    def clear_latches(self, by: str, now: float) -> frozenset[Latch]:
        """A named person clears every latch; gives what was cleared.  A cause that persists latches again.

        It is on record in `clearings`.  Raises UsageError without a name.
        """
        if not by.strip():
            raise UsageError("The latched faults were not cleared", why="nobody's name was given")
        for tell in self.on_clear:
            tell(by)
        cleared = self._latches
        self.clearings.append(Clearing(now, by, cleared))
        self._latches = frozenset()
        self._store.save(self._latches)
        self._tries = 0
        if self.rack_state is RackState.FAULT:
            self._fire(RackEvent.CLEARED, now)
        return cleared

    def power_cycle(self, now: float) -> None:
        """The controller restarts: every coil drops, whatever the current; only latches are remembered."""
        self.hardware.circuit.step(now)
        self._release_all(now)
        self._fire(RackEvent.RESTART, now)
        self.boot(now)

    # --- outputs --------------------------------------------------------------------------------

    @property
    def latches(self) -> frozenset[Latch]:
        """The latched faults."""
        return self._latches

    def hv_off(self, now: float) -> bool:
        """Whether the rack's own evidence proves high voltage off, held for the settling time."""
        return self._own.hv_off_since(now) is not None

    def programming_allowed(self, now: float) -> bool:
        """The BMU's own HV-off gate: its evidence, the PCS proved at rest, open and locked, no emergency latched."""
        return (
            self.hv_off(now)
            and not self._own.is_contradicted()
            and self._pcs.held_open(now)
            and not self._latches - {Latch.PRECHARGE_FAILED}
        )

    def reset_allowed(self, now: float) -> bool:
        """Whether a restart changes nothing: no coil is energised and every contactor reports open."""
        return not any(contactor.coil for contactor in self._contactors) and all(
            contactor.feedback is ContactorState.OPEN for contactor in self._contactors
        )

    def hv_status(self, now: float) -> BmsHvStatus:
        """``BMS_HvStatus`` as of the last step.  Weld and emergency stop are told while latched."""
        return BmsHvStatus(
            main_plus=self._plus.feedback,
            main_minus=self._minus.feedback,
            precharge=self._precharge.feedback,
            hvil_closed=self.hardware.hvil_closed,
            weld_plus=Latch.WELD_PLUS in self._latches,
            weld_minus=Latch.WELD_MINUS in self._latches,
            hv_off=self.hv_off(now),
            emergency_stop=Latch.EMERGENCY_STOP in self._latches,
            link_voltage_v=self._own.link_voltage_v,
            current_a=self._own.readings.current_a,
        )

    def notice(self, token: int, now: float) -> BmsHvNotice:
        """``BMS_HvNotice``: the answer to a poll with `token`."""
        since = self._own.hv_off_since(now)
        duration_s = 0.0
        if self._latches & WELDS:
            condition = HvNoticeCondition.WELDED
        elif since is not None:
            condition = HvNoticeCondition.DISCONNECTED
            duration_s = min(now - since, _OFF_DURATION_MAX_S)
        elif not self._own.known or self.rack_state is RackState.INIT:
            condition = HvNoticeCondition.UNKNOWN
        else:
            condition = HvNoticeCondition.NOT_DISCONNECTED
        return BmsHvNotice(token, condition, duration_s)

    def state(self, now: float) -> BmsState:
        """``BMS_State`` as of the last step."""
        hardware = self.hardware
        return BmsState(
            self.rack_state, hardware.rack.soc_percent, self._own.readings.string_voltage_v, hardware.aux_voltage_v
        )

    def alarms(self, now: float) -> BmsAlarms:
        """``BMS_Alarms``: what is wrong now or latched."""
        not_closing = any(
            contactor.feedback in (ContactorState.OPEN, ContactorState.INVALID)
            for contactor in self._contactors
            if contactor.coil
        )
        hv_fault = not_closing or not self._own.known
        return rack_alarms(self.hardware, self._latches, self._own.readings.current_a, hv_fault, self.spec.alarms)

    # --- behaviour ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Act on what is measured and ordered at `now`.  Steps the circuit first."""
        self.hardware.circuit.step(now)
        if self.hung or self.off:
            return
        self._own.update(not WELDS.isdisjoint(self._latches), now)
        self._latch_inputs()
        if self._latches and self.rack_state is not RackState.FAULT and self.rack_state is not RackState.CLOSED:
            self._release_all(now)
            self._fire(RackEvent.LATCH, now)
        order = self._order if now - self._order_at <= self.spec.heartbeat_timeout_s else None
        to_close = order is PcsCommandCode.CLOSE
        if not to_close:
            self.refusal = None
        state = self.rack_state
        if state is RackState.CLOSED:
            self._stay_closed(order, now)
        elif state is RackState.PRECHARGING:
            self._precharging(order, now)
        elif state is RackState.OPEN:
            if to_close:
                self.refusal = self._reason_against_closing(now)
                if self.refusal is None:
                    self._minus.drive(True, now)
                    self._next_step(_Step.MINUS, now)
                    self._fire(RackEvent.CLOSE, now)
        elif state is RackState.INIT and now - self._entered_at >= self.spec.self_test_s:
            self._fire(RackEvent.STARTED, now)

    def _stay_closed(self, order: PcsCommandCode | None, now: float) -> None:
        if self._latches:  # an emergency: at once, whatever the current
            self._release_all(now)
            self._fire(RackEvent.LATCH, now)
        elif order is PcsCommandCode.OPEN and self._current_near_zero(now):
            self._release_all(now)
            self._fire(RackEvent.OPEN, now)
        elif self._left_alone(order, now) and self._current_near_zero(now):
            self._release_all(now)
            self._fire(RackEvent.LEFT_ALONE, now)

    def _left_alone(self, order: PcsCommandCode | None, now: float) -> bool:
        """Whether nobody commands, and the PCS, which was there, has been silent or open for long."""
        if order not in (None, PcsCommandCode.RELEASE) or self._pcs_joined_at is None:
            return False
        return now - self._pcs_joined_at > self.spec.pcs_away_s

    def _current_near_zero(self, now: float) -> bool:
        """Whether opening by order is harmless: own current small, and a PCS that can be heard does not contradict."""
        current_a = self._own.readings.current_a
        if current_a is None or abs(current_a) > self.spec.open_current_a:
            return False
        pcs = self._pcs.fresh(now)
        if pcs is None or pcs.dc_current_a is None:
            return True
        return abs(pcs.dc_current_a) < self.spec.evidence.pcs_idle_current_a

    def _reason_against_closing(self, now: float) -> CloseRefusal | None:
        spec, own = self.spec, self._own
        refusal = self._reason_against_staying(now)
        if refusal is not None:
            return refusal
        link_v, string_v = own.link_voltage_v, own.readings.string_voltage_v
        if not own.known or link_v is None or string_v is None:
            return CloseRefusal.SENSOR_INVALID
        if not (own.feedbacks_open and own.weld_judged(now)):
            return CloseRefusal.CONTACTORS_NOT_OPEN
        if now < self._cool_until:
            return CloseRefusal.COOL_DOWN
        if self._close_ordered_at is None or now - self._close_ordered_at < (self.index - 1) * spec.stagger_s:
            return CloseRefusal.STAGGER
        # A link above the safe voltage counts as energised by another rack until it has discharged.
        if abs(link_v) >= spec.evidence.off_voltage_v and abs(string_v - link_v) > spec.parallel_difference_v:
            return CloseRefusal.VOLTAGES_APART
        return None

    def _reason_against_staying(self, now: float) -> CloseRefusal | None:
        """What forbids to begin closing and also to go on with it."""
        if self.hold_open:
            return CloseRefusal.HELD_OPEN
        pcs = self._pcs.fresh(now)
        if pcs is None:
            return CloseRefusal.PCS_SILENT
        if pcs.lock_acknowledged:
            return CloseRefusal.PCS_LOCKED
        idle = pcs.dc_current_a is not None and abs(pcs.dc_current_a) < self.spec.evidence.pcs_idle_current_a
        if not idle or pcs.emergency_stop or pcs.state not in (PcsState.STANDBY, PcsState.CLOSING):
            return CloseRefusal.PCS_NOT_READY
        return None

    def _precharging(self, order: PcsCommandCode | None, now: float) -> None:
        current_a = self._own.readings.current_a
        if current_a is not None and abs(current_a) > self.spec.break_current_a:
            return  # no opening now; what limits the current lets it fall
        if order is PcsCommandCode.CLOSE:
            self.refusal = self._reason_against_staying(now)
        if order is not PcsCommandCode.CLOSE or self.refusal is not None:
            self._end_precharge(RackEvent.OPEN, now)
            return
        elapsed_s = now - self._closing_step_at
        timeout_s = self.spec.evidence.contactor_timeout_s
        if self._closing_step is _Step.MINUS:
            if self._minus.feedback is ContactorState.CLOSED:
                self._precharge.drive(True, now)
                self._next_step(_Step.PRECHARGE, now)
        elif self._closing_step is _Step.PRECHARGE:
            timeout_s = self.spec.precharge_timeout_s
            if self._precharge.feedback is ContactorState.CLOSED and self._link_precharged():
                self._plus.drive(True, now)
                self._next_step(_Step.PLUS, now)
        elif self._plus.feedback is ContactorState.CLOSED:
            self._precharge.drive(False, now)
            self._tries = 0
            self._fire(RackEvent.PRECHARGED, now)
            return
        if elapsed_s > timeout_s:
            self._tries += 1
            self._end_precharge(RackEvent.FAILED, now)
            if self._tries >= self.spec.precharge_tries:
                self._latch(Latch.PRECHARGE_FAILED)

    def _link_precharged(self) -> bool:
        link_v, string_v = self._own.link_voltage_v, self._own.readings.string_voltage_v
        return link_v is not None and string_v is not None and link_v >= self.spec.precharged_fraction * string_v

    def _end_precharge(self, event: RackEvent, now: float) -> None:
        self._release_all(now)
        self._cool_until = now + self.spec.cool_down_s
        self._fire(event, now)

    def _next_step(self, step: _Step, now: float) -> None:
        self._closing_step = step
        self._closing_step_at = now

    def _latch_inputs(self) -> None:
        hardware, own = self.hardware, self._own
        if hardware.emergency_stop:
            self._latch(Latch.EMERGENCY_STOP)
        if hardware.fire:
            self._latch(Latch.FIRE)
        if hardware.insulation_fault:
            self._latch(Latch.INSULATION)
        if not hardware.hvil_closed:
            self._latch(Latch.HVIL_OPEN)
        if own.weld_plus:
            self._latch(Latch.WELD_PLUS)
        if own.weld_minus:
            self._latch(Latch.WELD_MINUS)

    def _latch(self, latch: Latch) -> None:
        if latch not in self._latches:
            self._latches |= {latch}
            self._store.save(self._latches)

    def _release_all(self, now: float) -> None:
        for contactor in self._contactors:
            contactor.drive(False, now)

    def _fire(self, event: RackEvent, now: float) -> None:
        self.rack_state = RACK_TRANSITIONS[self.rack_state, event]
        self._entered_at = now
        for tell in self.on_event:
            tell(event)
