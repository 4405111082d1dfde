"""The BMU's application: a rack's high-voltage control on the station bus."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from ess_can.bus.clock import Cycle
from ess_can.bus.station import Received, Rejected, StationLink
from ess_can.errors import BusError
from ess_can.signals.messages import (
    BmsAlarms,
    BmsCellGroup,
    BmsHvStatus,
    BmsState,
    EmsHvStatusPoll,
    EmsPcsCommand,
    Message,
    PcsStatus,
)
from ess_can.sim.hv_control import RackControl
from ess_can.sim.node import Behaviour

CELL_PAGES = 5
"""Multiplexer pages of BMS_Cells: the summary, then four groups."""


@dataclass(frozen=True, slots=True)
class _Job:
    message_type: type[Message]
    send: Callable[[float], None]


class BmuApplication:
    """Runs `RackControl` on the bus: takes orders, answers polls, sends telemetry."""

    def __init__(self, control: RackControl, index: int) -> None:
        self.control = control
        self.index = index
        self._link: StationLink | None = None
        self._cycles: list[Cycle] = []
        self._behaviour = Behaviour.GOOD
        self._page = 0

    def start(self, link: StationLink, behaviour: Behaviour, now: float) -> None:
        """See `ess_can.sim.node.Application`."""
        if self.control.off:
            self.control.boot(now)
        self._link = link
        self._behaviour = behaviour
        link.subscribe(EmsPcsCommand, self._on_command)
        link.subscribe(PcsStatus, self._on_pcs_status, self._on_pcs_rejected)
        link.subscribe(EmsHvStatusPoll, self._on_poll)
        jobs = [
            _Job(BmsHvStatus, self._send_hv_status),
            _Job(BmsState, self._send_state),
            _Job(BmsCellGroup, self._send_cells),
            _Job(BmsAlarms, self._send_alarms),
        ]
        for number, job in enumerate(jobs):
            cycle = Cycle(link.codec.route(job.message_type, self.index).cycle_s or 0.1, job.send)
            # Nodes do not start in step: spread the first frames.
            cycle.start(delay_s=0.003 * self.index + 0.001 * number)
            self._cycles.append(cycle)

    def stop(self, now: float) -> None:
        """See `Application`.  Without its MCU the rack's contactors drop out."""
        for cycle in self._cycles:
            cycle.stop()
        self._cycles.clear()
        if self._link is not None:
            self.control.power_cycle(now)
            self.control.off = True
        self._link = None

    def hang(self) -> None:
        """See `Application`."""
        for cycle in self._cycles:
            cycle.stop()
        self.control.hung = True

    def hold(self, held: bool) -> None:
        """See `Application`."""
        self.control.hold_open = held

    def programming_allowed(self, now: float) -> bool:
        """See `Application`."""
        return self.control.programming_allowed(now)

    def reset_allowed(self, now: float) -> bool:
        """See `Application`."""
        return self.control.reset_allowed(now)

    # --- what it hears ----------------------------------------------------------------------------

    def _on_command(self, received: Received[EmsPcsCommand]) -> None:
        self.control.on_command(received.message, received.at)

    def _on_pcs_status(self, received: Received[PcsStatus]) -> None:
        self.control.on_pcs_status(received.message, received.at)

    def _on_pcs_rejected(self, _rejected: Rejected) -> None:
        self.control.on_pcs_status_rejected()

    def _on_poll(self, received: Received[EmsHvStatusPoll]) -> None:
        if self._behaviour is not Behaviour.NO_HV_STATUS:
            self._send(self.control.notice(received.message.token, received.at))

    # --- what it says -----------------------------------------------------------------------------

    def _send_hv_status(self, now: float) -> None:
        if self._behaviour is not Behaviour.NO_HV_STATUS:
            self._send(self.control.hv_status(now))

    def _send_state(self, now: float) -> None:
        state = self.control.state(now)
        if self._behaviour is Behaviour.WRONG_SCALE and state.string_voltage_v is not None:
            state = replace(state, string_voltage_v=state.string_voltage_v / 2)
        self._send(state)

    def _send_cells(self, _now: float) -> None:
        self._send(self.control.hardware.cells(self._page))
        self._page = (self._page + 1) % CELL_PAGES

    def _send_alarms(self, now: float) -> None:
        self._send(self.control.alarms(now))

    def _send(self, message: Message) -> None:
        if self._link is None:
            return
        with suppress(BusError):  # cyclic: the next one comes
            self._link.send(message, self.index)
