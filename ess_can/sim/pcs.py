"""The power conversion system: its operating states, the EMS's orders, the lock, and its part of the DC circuit.

The PCS obeys ``EMS_PcsCommand`` once it took remote control; until then, and after RELEASE, it runs its own set-point.
It closes its contactors on the order CLOSE alone: no restart, time-out or local control ever does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from types import MappingProxyType

from ess_can.errors import UsageError
from ess_can.signals.messages import ContactorState, EmsPcsCommand, PcsCommandCode, PcsState, PcsStatus
from ess_can.sim.electrical import StationCircuit
from ess_can.sim.pcs_memory import NoPcsMemory, PcsKept, PcsMemory


class PcsFaultCode(IntEnum):
    """The values of ``FaultCode`` in ``PCS_Status``."""

    NONE = 0
    DC_LINK = 1  # link voltage left the bridge's range while current flowed
    CONTACTOR_NOT_OPENING = 2
    CONTACTOR_NOT_CLOSING = 3
    INTERNAL = 4


class PcsEvent(Enum):
    """What moves the PCS from one state to another."""

    STARTED = "self-test done"
    START = "power wanted"
    STOP = "no power wanted"
    AT_ZERO = "current at zero"
    CLOSE = "order CLOSE"
    CLOSED = "contactors closed"
    GIVE_UP = "order withdrawn, or no rack precharged the link"
    TRIP = "fault"
    EMERGENCY = "emergency stop"
    CLEARED = "cleared by a person"
    RESTART = "restart"


PCS_TRANSITIONS: Mapping[tuple[PcsState, PcsEvent], PcsState] = MappingProxyType(
    {
        (PcsState.INIT, PcsEvent.STARTED): PcsState.STANDBY,
        (PcsState.STANDBY, PcsEvent.START): PcsState.RUNNING,
        (PcsState.RUNNING, PcsEvent.STOP): PcsState.RAMPING,
        (PcsState.RAMPING, PcsEvent.START): PcsState.RUNNING,
        (PcsState.RAMPING, PcsEvent.AT_ZERO): PcsState.STANDBY,
        (PcsState.STANDBY, PcsEvent.CLOSE): PcsState.CLOSING,
        (PcsState.CLOSING, PcsEvent.CLOSED): PcsState.STANDBY,
        (PcsState.CLOSING, PcsEvent.GIVE_UP): PcsState.STANDBY,
        (PcsState.FAULT, PcsEvent.CLEARED): PcsState.STANDBY,
        (PcsState.EMERGENCY_STOP, PcsEvent.CLEARED): PcsState.STANDBY,
        **{(state, PcsEvent.TRIP): PcsState.FAULT for state in PcsState if state is not PcsState.EMERGENCY_STOP},
        **{(state, PcsEvent.EMERGENCY): PcsState.EMERGENCY_STOP for state in PcsState},
        **{(state, PcsEvent.RESTART): PcsState.INIT for state in PcsState},
    }
)
"""Every legal change of state; all others raise KeyError, which would be a defect of this module."""


@dataclass(frozen=True, slots=True)
class PcsSpec:
    """The PCS's ratings and times.  `local_setpoint_kw` is negative for charging."""

    local_setpoint_kw: float = -30.0
    ramp_a_per_s: float = 200.0
    max_current_a: float = 400.0
    idle_current_a: float = 1.0
    heartbeat_timeout_s: float = 0.5
    self_test_s: float = 0.5
    link_min_v: float = 500.0
    link_max_v: float = 990.0
    link_steady_v: float = 1.0
    link_steady_s: float = 0.3
    close_wait_s: float = 20.0
    contactor_timeout_s: float = 0.2


@dataclass(frozen=True, slots=True)
class PcsFaults:
    """Simulated defects.

    `ignores_ramp`: the current stays where it is when it should fall to zero.  `current_sensor_stuck`: the sensor
    always reads `current_sensor_value_a` (None: invalid).
    """

    ignores_ramp: bool = False
    current_sensor_stuck: bool = False
    current_sensor_value_a: float | None = 0.0


_OPENING = (PcsCommandCode.OPEN, PcsCommandCode.LOCK)


class Pcs:
    """A PCS on a `StationCircuit`.  It stands by, or runs its local set-point, with the contactors as it finds them.

    `faults`, `grid_service_active` and the contactor's own faults (``circuit.pcs_contactor``) may be set at any time.
    Local control runs only once `batteries_heard`.
    `refused_orders` counts CLOSE and RUN orders that the lock refused.  Whoever watches is in `on_event`.  `memory` is
    what outlives a restart; without one the lock does not.
    """

    def __init__(
        self, circuit: StationCircuit, now: float, spec: PcsSpec | None = None, memory: PcsMemory | None = None
    ) -> None:
        self.spec = spec or PcsSpec()
        self.faults = PcsFaults()
        self.grid_service_active = False
        self.batteries_heard = True
        self.refused_orders = 0
        self.on_event: list[Callable[[PcsEvent], None]] = []
        self.state = PcsState.STANDBY
        self.remote_control = False
        self.locked = False
        self.heartbeat_lost = False
        self.fault_code = PcsFaultCode.NONE
        self._memory = memory or NoPcsMemory()
        self._circuit = circuit
        self._contactor = circuit.pcs_contactor
        self._order = PcsCommandCode.RELEASE
        self._setpoint_kw = 0.0
        self._heard_at = now
        self._stepped_at = now
        self._entered_at = now
        self._driven_at = now
        self._steady_since = now
        self._steady_v = 0.0
        self._closing_failed = False

    # --- inputs ---------------------------------------------------------------------------------

    def receive_command(self, command: EmsPcsCommand, now: float) -> None:
        """Take a valid ``EMS_PcsCommand``.  A PCS in its self-test does not listen."""
        if self.state is PcsState.INIT:
            return
        order = command.command
        self._heard_at = now
        self.heartbeat_lost = False
        self.remote_control = order is not PcsCommandCode.RELEASE
        if self.locked and order in (PcsCommandCode.CLOSE, PcsCommandCode.RUN):
            self.refused_orders += 1
            order = PcsCommandCode.ZERO_POWER
        if order is PcsCommandCode.LOCK:
            self.locked = True
        elif order is PcsCommandCode.UNLOCK:
            self.locked = False
        self._keep()
        if order is not PcsCommandCode.CLOSE:
            self._closing_failed = False
        self._order = order
        self._setpoint_kw = command.power_setpoint_kw

    def press_emergency_stop(self, now: float) -> None:
        """The bridge is blocked and the contactors open, now, whatever the current.  Held until `clear`."""
        self._shut_down(PcsEvent.EMERGENCY, now)
        self._keep()

    def trip(self, code: PcsFaultCode, now: float) -> None:
        """A fault: the bridge is blocked, the contactors open.  Held until `clear`.  An emergency stop outranks it."""
        if self.state is not PcsState.EMERGENCY_STOP:
            self.fault_code = code
            self._shut_down(PcsEvent.TRIP, now)

    def clear(self, by: str, now: float) -> None:
        """A named person clears a fault or an emergency stop.  Raises UsageError without a name."""
        if not by.strip():
            raise UsageError("The PCS was not cleared", why="nobody's name was given")
        if self.state in (PcsState.FAULT, PcsState.EMERGENCY_STOP):
            self.fault_code = PcsFaultCode.NONE
            self._fire(PcsEvent.CLEARED, now)
            self._keep()

    def restart(self, now: float) -> None:
        """The controller restarts: the contactors drop; remote control and fault are forgotten, and the lock, too,
        unless there is a memory for it.

        A pressed emergency stop is a switch: it is found pressed again.
        """
        kept = self._memory.load()
        self._shut_down(PcsEvent.RESTART, now)
        self.remote_control = False
        self.locked = kept.locked
        self.heartbeat_lost = False
        self.fault_code = PcsFaultCode.NONE
        self._order = PcsCommandCode.RELEASE
        if kept.emergency_stop:
            self._fire(PcsEvent.EMERGENCY, now)

    # --- output ---------------------------------------------------------------------------------

    @property
    def keeps_lock(self) -> bool:
        """Whether it is built to remember its lock over a restart."""
        return not isinstance(self._memory, NoPcsMemory)

    @property
    def measured_current_a(self) -> float | None:
        """What the PCS's current sensor reads, in A; positive when the battery discharges.  None: invalid."""
        if self.faults.current_sensor_stuck:
            return self.faults.current_sensor_value_a
        return self._circuit.bridge_current_a

    @property
    def lock_acknowledged(self) -> bool:
        """Locked, and proved to be at rest: standby, contactors open, no current."""
        return (
            self.locked
            and self.state is PcsState.STANDBY
            and self._contactor.feedback is ContactorState.OPEN
            and self._at_zero()
        )

    def status(self, now: float) -> PcsStatus:
        """``PCS_Status`` as of the last step."""
        return PcsStatus(
            state=self.state,
            contactors=self._contactor.feedback,
            lock_acknowledged=self.lock_acknowledged,
            remote_control=self.remote_control,
            grid_service_active=self.grid_service_active,
            emergency_stop=self.state is PcsState.EMERGENCY_STOP,
            heartbeat_lost=self.heartbeat_lost,
            fault_code=self.fault_code,
            dc_current_a=self.measured_current_a,
        )

    # --- behaviour ------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Act on what is known at `now`.  Steps the circuit first."""
        self._circuit.step(now)
        self._watch_heartbeat(now)
        elapsed_s = now - self._stepped_at
        self._stepped_at = now
        if self.state is PcsState.INIT:
            if now - self._entered_at >= self.spec.self_test_s:
                self._fire(PcsEvent.STARTED, now)
            return
        if self.state in (PcsState.FAULT, PcsState.EMERGENCY_STOP):
            return
        self._watch_contactor(now)
        if self.state is PcsState.STANDBY:
            self._stand_by(now)
        elif self.state is PcsState.CLOSING:
            self._close(now)
        elif self.state in (PcsState.RUNNING, PcsState.RAMPING):
            self._run_or_ramp(now)
        self._ramp(elapsed_s)

    def _stand_by(self, now: float) -> None:
        contactor = self._contactor
        if self.locked or self._order in _OPENING:
            # The bridge's own set-point counts as well as the sensor: a stuck sensor must not open contactors on load.
            if contactor.coil and self._at_zero() and abs(self._circuit.bridge_request_a) < self.spec.idle_current_a:
                self._drive(False, now)
        elif self._order is PcsCommandCode.CLOSE and not contactor.coil and not self._closing_failed:
            self._fire(PcsEvent.CLOSE, now)
            self._steady_since = now
        elif (
            self._wanted_kw() and contactor.coil and contactor.feedback is ContactorState.CLOSED and self._link_usable()
        ):
            self._fire(PcsEvent.START, now)

    def _close(self, now: float) -> None:
        if self._order is not PcsCommandCode.CLOSE:
            self._drive(False, now)
            self._fire(PcsEvent.GIVE_UP, now)
        elif self._contactor.coil:
            if self._contactor.feedback is ContactorState.CLOSED:
                self._fire(PcsEvent.CLOSED, now)
        elif self._link_precharged(now):
            self._drive(True, now)
        elif now - self._entered_at >= self.spec.close_wait_s:
            self._closing_failed = True
            self._fire(PcsEvent.GIVE_UP, now)

    def _run_or_ramp(self, now: float) -> None:
        if not self._link_usable():
            self.trip(PcsFaultCode.DC_LINK, now)
        elif self.state is PcsState.RUNNING:
            if not self._wanted_kw():
                self._fire(PcsEvent.STOP, now)
        elif self._wanted_kw():
            self._fire(PcsEvent.START, now)
        elif self._at_zero():
            self._fire(PcsEvent.AT_ZERO, now)

    def _wanted_kw(self) -> float:
        """The power to run at in kW; 0 for standing by."""
        if self.locked:
            return 0.0
        if not self.remote_control:
            return self.spec.local_setpoint_kw if self.batteries_heard else 0.0
        return self._setpoint_kw if self._order is PcsCommandCode.RUN else 0.0

    def _ramp(self, elapsed_s: float) -> None:
        circuit = self._circuit
        goal_a = 0.0
        if self.state is PcsState.RUNNING:
            limit_a = self.spec.max_current_a
            goal_a = max(-limit_a, min(limit_a, 1000.0 * self._wanted_kw() / circuit.link_voltage_v))
        elif self.faults.ignores_ramp and self.state is not PcsState.FAULT:
            return
        request_a = circuit.bridge_request_a
        if request_a != goal_a:
            step_a = self.spec.ramp_a_per_s * elapsed_s
            circuit.bridge_request_a = max(request_a - step_a, min(request_a + step_a, goal_a))

    def _watch_heartbeat(self, now: float) -> None:
        if self.remote_control and now - self._heard_at > self.spec.heartbeat_timeout_s:
            self.heartbeat_lost = True
            if self._order not in _OPENING:  # opening is finished, nothing else is
                self._order = PcsCommandCode.ZERO_POWER

    def _watch_contactor(self, now: float) -> None:
        expected = ContactorState.CLOSED if self._contactor.coil else ContactorState.OPEN
        if self._contactor.feedback is not expected and now - self._driven_at > self.spec.contactor_timeout_s:
            closing = self._contactor.coil
            self.trip(PcsFaultCode.CONTACTOR_NOT_CLOSING if closing else PcsFaultCode.CONTACTOR_NOT_OPENING, now)

    def _at_zero(self) -> bool:
        current_a = self.measured_current_a
        return current_a is not None and abs(current_a) < self.spec.idle_current_a

    def _link_usable(self) -> bool:
        return self.spec.link_min_v <= self._circuit.link_voltage_v <= self.spec.link_max_v

    def _link_precharged(self, now: float) -> bool:
        """Whether a rack holds the link: in range, and steady (a capacitor alone falls, a precharge rises)."""
        voltage_v = self._circuit.link_voltage_v
        if not self._link_usable() or abs(voltage_v - self._steady_v) > self.spec.link_steady_v:
            self._steady_v = voltage_v
            self._steady_since = now
        return now - self._steady_since >= self.spec.link_steady_s

    def _shut_down(self, event: PcsEvent, now: float) -> None:
        self._circuit.step(now)
        self._circuit.bridge_request_a = 0.0
        self._drive(False, now)
        self._fire(event, now)

    def _keep(self) -> None:
        self._memory.save(PcsKept(self.locked, self.state is PcsState.EMERGENCY_STOP))

    def _drive(self, closed: bool, now: float) -> None:
        if closed != self._contactor.coil:
            self._contactor.drive(closed, now)
            self._driven_at = now

    def _fire(self, event: PcsEvent, now: float) -> None:
        self.state = PCS_TRANSITIONS[self.state, event]
        self._entered_at = now
        for tell in self.on_event:
            tell(event)
