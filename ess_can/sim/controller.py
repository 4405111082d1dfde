"""A CAN controller of the simulation: transmit queue, subscriptions and error confinement (ISO 11898-1)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from dataclasses import dataclass
from enum import Enum, auto
from heapq import heappop, heappush
from typing import Protocol

from ess_can.bus.port import BULK_IN_FLIGHT, Receive, Sent
from ess_can.can.frame import CanFrame, arbitration_field
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.errors import AdapterLost, BusError, BusOff, ErrorPassive, TransmitQueueFull, UsageError
from ess_can.sim.process import SimulatedProcess, current_process

ERROR_PASSIVE_LIMIT = 128
BUS_OFF_LIMIT = 256
RECOVERY_BITS = 128 * 11
_BULK_DEPTH = 64


class QueueOrder(Enum):
    """Which of its waiting frames a controller offers to the bus."""

    FIFO = auto()  # the oldest: a Linux transmit queue
    PRIORITY = auto()  # the one that wins arbitration: an MCU's mailboxes


class ControllerState(Enum):
    """Error confinement."""

    ERROR_ACTIVE = auto()
    ERROR_PASSIVE = auto()
    BUS_OFF = auto()


@dataclass(slots=True, eq=False)
class Transmission:
    """A frame that waits for the bus or is on it."""

    frame: CanFrame
    field: int
    duration_s: float
    on_sent: Sent | None
    place: tuple[int, int]  # in its controller's queue: rank, then order of sending
    bulk: bool
    offered_at: float = 0.0  # since when it cannot be taken back


@dataclass(slots=True, eq=False)
class Subscription:
    """Who receives which identifiers (all if None)."""

    owner: Controller
    can_ids: frozenset[int] | None
    receive: Receive
    live: bool = True


class Medium(Protocol):
    """The wire, as its controllers see it."""

    timing: BitTiming
    loop: asyncio.AbstractEventLoop
    context: Context

    def frame_waits(self) -> None:
        """A controller has a frame to send."""

    def subscriptions_changed(self) -> None:
        """A controller's `subscriptions` changed."""

    def controller_left(self, controller: Controller) -> None:
        """A controller lost power."""


class Controller:
    """One node's CAN controller, and its `Bus` port.  Made by `Wire.controller`.

    `tec` and `rec` are the transmit and receive error counters; `online` says whether it takes part in the bus, that is
    neither detached nor bus-off.
    """

    def __init__(self, medium: Medium, name: str, *, depth: int, order: QueueOrder, tuned: bool) -> None:
        self.name = name
        self.tec = 0
        self.rec = 0
        self.online = True
        self.tuned = tuned
        self.waiting: list[tuple[tuple[int, int], Transmission]] = []  # a heap
        self.subscriptions: list[Subscription] = []
        self._medium = medium
        self._depth = depth
        self._order = order
        self._attached = True
        self._sending = False
        self._bulk: deque[Transmission] = deque()  # of streams, behind those that are offered
        self._bulk_offered = 0
        self._passive = False  # and watchers know
        self._accepted = 0
        self._restart: asyncio.TimerHandle | None = None
        self._watchers: list[Callable[[BusError], None]] = []

    # --- the Bus port -----------------------------------------------------------------------------

    @property
    def fd(self) -> bool:
        """Whether the wire carries CAN FD."""
        return self._medium.timing.data_bitrate is not None

    def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        """Queue a frame, as `Bus.send` says.

        A FIFO takes at most `BULK_IN_FLIGHT` bulk frames at a time; the others wait behind it, in their order.  To
        mailboxes, which are offered by priority, bulk frames are like others.  Raises UsageError for a CAN FD frame on
        a classic wire and ValueError for a frame that cannot exist.
        """
        process = current_process()
        if process is not None:
            process.require_alive()
            on_sent = None if on_sent is None else process.calling(on_sent)
        if not self.online:
            raise self._why_offline()
        if frame.fd and not self.fd:
            raise UsageError(f"{self.name}: a CAN FD frame on a classic bus", why=str(frame))
        bulk = bulk and self._order is QueueOrder.FIFO
        field = arbitration_field(frame)
        duration_s = frame_duration_s(frame, self._medium.timing)
        transmission = Transmission(frame, field, duration_s, on_sent, (0, 0), bulk)
        if bulk and (self._bulk_offered >= BULK_IN_FLIGHT or self._bulk):
            if len(self._bulk) >= _BULK_DEPTH:
                raise TransmitQueueFull(f"{self.name}: {_BULK_DEPTH} frames of streams already wait for the bus")
            self._bulk.append(transmission)
            return
        if len(self.waiting) + self._sending >= self._depth:
            raise TransmitQueueFull(f"{self.name}: {self._depth} frames already wait for the bus")
        self._offer(transmission)
        self._medium.frame_waits()

    def _offer(self, transmission: Transmission) -> None:
        self._accepted += 1
        self._bulk_offered += transmission.bulk
        rank = transmission.field if self._order is QueueOrder.PRIORITY else 0
        transmission.place = place = (rank, self._accepted)
        transmission.offered_at = self._medium.loop.time()
        heappush(self.waiting, (place, transmission))

    def withdraw(self, can_id: int) -> list[CanFrame]:
        """Take back frames of a stream that wait behind the FIFO, as `Bus.withdraw` says."""
        withdrawn = [waiting.frame for waiting in self._bulk if waiting.frame.can_id == can_id]
        if withdrawn:
            self._bulk = deque(waiting for waiting in self._bulk if waiting.frame.can_id != can_id)
        return withdrawn

    def subscribe(self, can_ids: Iterable[int] | None, receive: Receive) -> Callable[[], None]:
        """Deliver frames from others, as `Bus.subscribe` says.  A process that is killed hears nothing any more."""
        process = current_process()
        if process is not None:
            receive = self._received_by(process, receive)
        subscription = Subscription(self, None if can_ids is None else frozenset(can_ids), receive)
        self.subscriptions.append(subscription)
        self._medium.subscriptions_changed()

        def cancel() -> None:
            if subscription.live:
                subscription.live = False
                self.subscriptions.remove(subscription)
                self._medium.subscriptions_changed()

        if process is not None:
            process.on_death.append(cancel)
        return cancel

    def _received_by(self, process: SimulatedProcess, receive: Receive) -> Receive:
        """A program that was starved reads its frames late, and takes them for new: as from a socket's buffer."""
        time = self._medium.loop.time
        return process.calling(lambda frame, _at: receive(frame, time()))

    def adopt(self, can_id: int) -> None:
        """Nothing: nobody else shares this controller."""

    def watch(self, on_error: Callable[[BusError], None]) -> Callable[[], None]:
        """Report error passive, bus-off and `unplug`, as `Bus.watch` says."""
        process = current_process()
        if process is not None:
            on_error = process.calling(on_error)
        self._watchers.append(on_error)

        def cancel() -> None:
            if on_error in self._watchers:
                self._watchers.remove(on_error)

        if process is not None:
            process.on_death.append(cancel)
        return cancel

    # --- what a node or a test does to it ---------------------------------------------------------

    @property
    def state(self) -> ControllerState:
        """Where error confinement has this controller."""
        if self.tec >= BUS_OFF_LIMIT:
            return ControllerState.BUS_OFF
        passive = self.tec >= ERROR_PASSIVE_LIMIT or self.rec >= ERROR_PASSIVE_LIMIT
        return ControllerState.ERROR_PASSIVE if passive else ControllerState.ERROR_ACTIVE

    @property
    def pending(self) -> int:
        """Frames accepted and not yet confirmed."""
        return len(self.waiting) + len(self._bulk) + self._sending

    def detach(self) -> None:
        """Leave the bus at once, as a node that loses power: what was queued is gone and never confirmed."""
        if self._attached:
            self._attached = False
            self._stop()
            self._medium.controller_left(self)

    def attach(self) -> None:
        """Come back with empty queue and counters, as a node that starts.  Subscriptions stand."""
        if not self._attached:
            self._attached = True
            self._recover()

    def unplug(self) -> None:
        """`detach`, as an adapter that is pulled: watchers get AdapterLost."""
        if self._attached:
            self.detach()
            self._report(self._why_offline())

    def disturb(self, errors: int) -> None:
        """That many of its transmissions fail in a row, as on a bad line: 16 make it error passive, 32 bus-off."""
        for _ in range(errors):
            if self.online:
                self.transmit_error()
        if self._attached and not self.online:
            self._medium.controller_left(self)

    def restart(self) -> bool:
        """Recover from bus-off, after as long as an idle bus takes to show 128 times 11 recessive bits."""
        if self._attached and not self.online and self._restart is None:
            loop = self._medium.loop
            idle_s = RECOVERY_BITS / self._medium.timing.bitrate
            self._restart = loop.call_later(idle_s, self._recover, context=self._medium.context)
        return self._attached

    # --- what the wire does to it -----------------------------------------------------------------

    def take(self) -> Transmission:
        """The frame that the controller offers goes on the wire."""
        self._sending = True
        return heappop(self.waiting)[1]

    def sent(self, transmission: Transmission) -> None:
        """It was sent."""
        self._sending = False
        if transmission.bulk:
            self._bulk_offered -= 1
            if self._bulk:
                self._offer(self._bulk.popleft())
        if self.tec:
            self.tec -= 1
            self._note_state()

    def not_sent(self, transmission: Transmission, *, acknowledged: bool = True) -> None:
        """An error ended it: retransmit, count, and go bus-off at the limit.

        An error-passive sender that merely nobody acknowledges does not count any further.
        """
        self._sending = False
        heappush(self.waiting, (transmission.place, transmission))
        self.transmit_error(acknowledged=acknowledged)

    def transmit_error(self, *, acknowledged: bool = True) -> None:
        """Count a transmit error; bus-off at the limit."""
        if acknowledged or self.tec < ERROR_PASSIVE_LIMIT:
            self.tec += 8
        if self.tec >= BUS_OFF_LIMIT:
            self._stop()
            self._report(self._why_offline())
        else:
            self._note_state()

    def receive_error(self, increment: int = 1) -> None:
        """Count a receive error.  Beyond error passive the count has no meaning."""
        self.rec = min(self.rec + increment, ERROR_PASSIVE_LIMIT)
        self._note_state()

    def received(self) -> None:
        """Count a frame received well; out of error passive the standard allows 119..127."""
        self.rec = 119 if self.rec >= ERROR_PASSIVE_LIMIT else max(self.rec - 1, 0)
        self._note_state()

    # ----------------------------------------------------------------------------------------------

    def _why_offline(self) -> BusError:
        if self._attached:
            return BusOff(f"{self.name} is bus-off", why=f"its transmit error counter reached {BUS_OFF_LIMIT}")
        return AdapterLost(f"{self.name} is not attached to the bus")

    def _note_state(self) -> None:
        """Warn once of becoming error passive."""
        passive = self.state is ControllerState.ERROR_PASSIVE
        if passive and not self._passive:
            self._report(ErrorPassive(f"{self.name} is error passive", why=f"TEC {self.tec}, REC {self.rec}"))
        self._passive = passive

    def _report(self, error: BusError) -> None:
        for on_error in tuple(self._watchers):
            on_error(error)

    def _stop(self) -> None:
        self.online = False
        self.waiting.clear()
        self._bulk.clear()
        self._bulk_offered = 0
        self._sending = False
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None

    def _recover(self) -> None:
        self._restart = None
        self.tec = self.rec = 0
        self._passive = False
        self.online = True
