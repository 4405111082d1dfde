"""What the gateway keeps telling the station: the standing order to PCS and racks, and the upgrade notice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from ess_can.bus.clock import Cycle, now, suspended_s
from ess_can.bus.station import StationLink
from ess_can.errors import BusError, EssCanError, ReconnectFailed, TransmitQueueFull
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.messages import EmsPcsCommand, EmsUpgradeNotice, PcsCommandCode, UpgradePhase

_NOTICE_PERIOD_S = 0.5

HEARTBEAT_S = 0.5
"""Whoever hears no order for longer takes ours for lapsed (docs/protocol.md)."""

_TO_CLOSE = (PcsCommandCode.UNLOCK, PcsCommandCode.CLOSE)

Refusal = Callable[[], EssCanError | None]
"""Why something must not be ordered now; None if it may be."""

_COMMAND_PHASE_S, POLL_PHASE_S, _NOTICE_PHASE_S = 0.0, 0.020, 0.035
"""Our own cyclic frames keep apart: none that is less urgent is to be in the queue before an order."""


class Orders:
    """Sends EMS_PcsCommand every cycle (our heartbeat) and EMS_UpgradeNotice, from `start` to `stop`.

    An order to unlock or to close is no more than a lease: before each time that it is sent its `refusal` is asked, and
    how long we were silent.  If either forbids it, it is `withdrawn` (zero power is ordered in its place, which closes
    and opens nothing), and not given again by itself.

    `on_bus_error` is called when the bus ends (bus-off, adapter lost); `slept_s` tells how long the machine has slept.
    """

    def __init__(
        self,
        link: StationLink,
        session: int,
        on_bus_error: Callable[[BusError], None],
        *,
        slept_s: Callable[[], float] = suspended_s,
    ) -> None:
        self.withdrawn: EssCanError | None = None
        self._refusal: Refusal = _nothing
        self._tell_slept_s = slept_s
        self._sent_at = self._slept_s = 0.0
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
        self._heard_now()
        self._stand(command, _nothing)
        self.running = True
        self._commands.start()
        self._notices.start()

    def give(self, command: PcsCommandCode, refusal: Refusal | None = None) -> None:
        """Change the standing order; it goes out at once and then every cycle.

        An order to unlock or to close is withdrawn as soon as `refusal` gives a reason.
        """
        self._stand(command, refusal or _nothing)
        if self.running:
            self._commands.start()

    def _stand(self, command: PcsCommandCode, refusal: Refusal) -> None:
        self._command = EmsPcsCommand(command, upgrade_active=True)
        self._refusal = refusal
        self.withdrawn = None

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
        if self.standing in _TO_CLOSE and (reason := self._lapsed() or self._refusal()) is not None:
            self._stand(PcsCommandCode.ZERO_POWER, _nothing)
            self.withdrawn = reason
        if self._send(self._command):
            self._heard_now()

    def _heard_now(self) -> None:
        self._sent_at, self._slept_s = now(), self._tell_slept_s()

    def _lapsed(self) -> EssCanError | None:
        """What was seen before we fell silent proves nothing now, and the plant has dropped our order."""
        silent_s = now() - self._sent_at + self._tell_slept_s() - self._slept_s
        if silent_s <= HEARTBEAT_S:
            return None
        return ReconnectFailed(
            f"the order {self.standing.name} lapsed", why=f"this gateway was silent for {silent_s:.1f} s"
        )

    def _send_notice(self, _at: float) -> None:
        if self._targets:
            target = self._targets[0]
            self._targets.rotate(-1)
            self._notice = replace(self._notice, target_type=target.node_type, target_index=target.index)
        self._send(self._notice)

    def _send(self, message: EmsPcsCommand | EmsUpgradeNotice) -> bool:
        """Whether it is on its way."""
        try:
            self._link.send(message)
            return True
        except TransmitQueueFull:
            pass  # cyclic: the next one is due shortly; the PCS's own heartbeat time-out covers a longer gap
        except BusError as error:
            self._commands.stop()
            self._notices.stop()
            self._on_bus_error(error)
        return False


def _nothing() -> None:
    """No reason against it."""
