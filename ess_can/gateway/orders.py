"""What the gateway keeps telling the station: the standing order to PCS and racks, and the upgrade notice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from ess_can.bus.clock import Cycle
from ess_can.bus.station import StationLink
from ess_can.errors import BusError, TransmitQueueFull
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.messages import EmsPcsCommand, EmsUpgradeNotice, PcsCommandCode, UpgradePhase

_NOTICE_PERIOD_S = 0.5

_COMMAND_PHASE_S, POLL_PHASE_S, _NOTICE_PHASE_S = 0.0, 0.020, 0.035
"""Our own cyclic frames keep apart: none that is less urgent is to be in the queue before an order."""


class Orders:
    """Sends EMS_PcsCommand every cycle (our heartbeat) and EMS_UpgradeNotice, from `start` to `stop`.

    `on_bus_error` is called when the bus ends (bus-off, adapter lost).
    """

    def __init__(self, link: StationLink, session: int, on_bus_error: Callable[[BusError], None]) -> None:
        self._link = link
        self._session = session
        self._on_bus_error = on_bus_error
        self._command = EmsPcsCommand(PcsCommandCode.ZERO_POWER, upgrade_active=True)
        self._notice = EmsUpgradeNotice(UpgradePhase.PREPARING, NodeType.BMU, 0, 0.0, session)
        self._targets: deque[NodeAddress] = deque()
        command_s = link.codec.route(EmsPcsCommand).cycle_s or 0.05
        self._commands = Cycle(command_s, self._send_command, phase_s=_COMMAND_PHASE_S)
        self._notices = Cycle(_NOTICE_PERIOD_S, self._send_notice, phase_s=_NOTICE_PHASE_S)
        self.running = False

    @property
    def standing(self) -> PcsCommandCode:
        """The order that is being sent."""
        return self._command.command

    def start(self, command: PcsCommandCode) -> None:
        """Take command of the plant with this order."""
        self._command = EmsPcsCommand(command, upgrade_active=True)
        self.running = True
        self._commands.start()
        self._notices.start()

    def give(self, command: PcsCommandCode) -> None:
        """Change the standing order; it goes out at once and then every cycle."""
        self._command = EmsPcsCommand(command, upgrade_active=True)
        if self.running:
            self._commands.start()

    def announce(self, phase: UpgradePhase, *targets: NodeAddress, silent_up_to_s: float = 0.0) -> None:
        """Say what is being done, to whom (nobody in particular unless given), and how long those nodes may be silent.

        A notice names one node: the first goes out at once, then every cycle the next one, in turn.
        """
        self._notice = EmsUpgradeNotice(phase, NodeType.BMU, 0, silent_up_to_s, self._session)
        self._targets = deque(targets)
        if self.running:
            self._notices.start()

    def stop(self) -> None:
        """Say that the upgrade has ended, and fall silent."""
        if self.running:
            self.announce(UpgradePhase.NONE)
            self._send_notice(0.0)
        self.running = False
        self._commands.stop()
        self._notices.stop()

    def _send_command(self, _at: float) -> None:
        self._send(self._command)

    def _send_notice(self, _at: float) -> None:
        if self._targets:
            target = self._targets[0]
            self._targets.rotate(-1)
            self._notice = replace(self._notice, target_type=target.node_type, target_index=target.index)
        self._send(self._notice)

    def _send(self, message: EmsPcsCommand | EmsUpgradeNotice) -> None:
        try:
            self._link.send(message)
        except TransmitQueueFull:
            pass  # cyclic: the next one is due shortly; the PCS's own heartbeat time-out covers a longer gap
        except BusError as error:
            self._commands.stop()
            self._notices.stop()
            self._on_bus_error(error)
