"""The simulated CAN bus: one frame at a time, arbitration by identifier, exact times, error confinement.

What is modelled (ISO 11898-1): the exact length of every frame; arbitration at bus idle among the frames that the
controllers offer; acknowledgement by any other controller; error frames, error counters, error-passive and bus-off
states; automatic retransmission.  What is not: propagation delay, suspended transmission of an error-passive sender,
overload frames, and bits that only some receivers see wrongly.

A frame reaches all other controllers, and its sender its confirmation, at the end of EOF: the three bits of
intermission that follow are time enough for a program to put its answer into the next arbitration.

On a virtual loop a stretch in which only frames follow each other is worked off without timers, at the same times.

An ordinary loop fires its timers up to a millisecond or more late, several frames' time.  So a frame starts when the
one before it is over by the wire's own time, not by the loop's: the wire makes up for what its loop lags behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import copy_context
from dataclasses import dataclass
from enum import Enum, auto

from ess_can.can.frame import CanFrame
from ess_can.can.timing import INTERMISSION_BITS, BitTiming
from ess_can.sim.controller import Controller, ControllerState, QueueOrder, Subscription, Transmission
from ess_can.sim.loop import VirtualTimeLoop
from ess_can.sim.process import outside
from ess_can.sim.trace import OnFrame

# From where the intermission of a good frame would end to where it ends after an error.  An error frame is a flag of 6
# bits (7 if receivers raise it one bit before the sender does), a delimiter of 8, and intermission.
_AFTER_NO_ACK = 6  # flag from the ACK delimiter on, 11 bits before that end
_AFTER_CRC_ERROR = 8  # flags from the first bit of EOF on, 10 bits before it
_AFTER_LAST_EOF_BIT = 14  # flag from the first bit of intermission on, 3 bits before it
_AFTER_BREAK = 6 + 6 + 6 + 8 + INTERMISSION_BITS  # silence until stuffing is broken, flags one after the other
_ROUTES_LIMIT = 4096
_CATCH_UP_S = 0.1  # how far behind its own time a wire on an ordinary loop may be and still make up for it


class WireFault(Enum):
    """What a fault hook does to a transmission."""

    LOSE = auto()  # confirmed to the sender, received by nobody
    CORRUPT = auto()  # found by the CRC: error frame, retransmission
    DUPLICATE = auto()  # error in the last bit of EOF: received, and yet retransmitted
    SWAP = auto()  # received only after the next frame, and not at all if none follows


@dataclass(frozen=True, slots=True)
class Delayed:
    """What a fault hook does to a transmission: confirmed to the sender, received only `seconds` later."""

    seconds: float


FaultHook = Callable[[int, CanFrame], WireFault | Delayed | CanFrame | None]
"""Asked at the end of each transmission, with its index on this wire (retransmissions count) and its frame.

None leaves it alone; a frame is what everybody receives in its place: corruption that the CRC did not find.
"""


class Wire:
    """A CAN bus in the running loop's time; create it while the loop runs.

    `timing` has a data bit rate if the bus carries CAN FD.  All of `on_frame` are called for every frame that ends
    well, all of `on_delivered` when what became of it reaches the receivers; `fault` decides on faults and may be set
    at any time.  `transmissions` counts frames begun to their end, with or without error, and `error_frames` those with
    error.
    """

    def __init__(self, timing: BitTiming, *, on_frame: OnFrame | None = None, fault: FaultHook | None = None) -> None:
        self.timing = timing
        self.loop = asyncio.get_running_loop()
        self.context = outside(copy_context)
        self.on_frame: list[OnFrame] = [] if on_frame is None else [on_frame]
        self.on_delivered: list[OnFrame] = []
        self.fault = fault
        self.transmissions = 0
        self.error_frames = 0
        self._skip_to = self.loop.skip_to if isinstance(self.loop, VirtualTimeLoop) else _never
        self._bit_s = 1 / timing.bitrate
        self._controllers: list[Controller] = []
        self._all_tuned = True
        self._routes: dict[int, tuple[Subscription, ...]] = {}
        self._busy_s: dict[int, float] = {}
        self._occupied = False  # from a first frame that waits until none does
        self._free_at = 0.0  # when intermission is over
        self.offered_at = 0.0
        """Since when the frame that `on_frame` tells of could not be taken back any more."""
        self._current: tuple[Controller, Transmission, float] | None = None  # sender, what, since when
        self._rivals: list[Controller] = []  # that send other bits under the same identifier at the same time
        self._end: asyncio.TimerHandle | None = None
        self._end_at = 0.0
        self._held: tuple[CanFrame, Controller] | None = None  # by SWAP

    def controller(
        self, name: str, *, depth: int = 10, order: QueueOrder = QueueOrder.FIFO, bitrate: int | None = None
    ) -> Controller:
        """Connect a new controller, which holds up to `depth` unconfirmed frames.

        With another `bitrate` than the wire's it receives nothing, and destroys every frame until it is error passive.
        """
        tuned = bitrate is None or bitrate == self.timing.bitrate
        controller = Controller(self, name, depth=depth, order=order, tuned=tuned)
        self._controllers.append(controller)
        self._all_tuned = self._all_tuned and tuned
        return controller

    def busy_s(self, can_ids: Iterable[int] | None = None) -> float:
        """Seconds for which frames with these identifiers (all if None) have occupied the wire.

        Intermission, error frames and retransmissions are included; the transmission in progress is not.
        """
        return sum(self._busy_s.values() if can_ids is None else (self._busy_s.get(i, 0.0) for i in set(can_ids)))

    # --- what controllers report ------------------------------------------------------------------

    def frame_waits(self) -> None:
        """A controller has a frame to send: arbitrate once everybody has acted in this instant."""
        if not self._occupied:
            self._occupied = True
            # Whoever sends first sets it off, but the wire is the wire's.
            self.loop.call_soon(self._arbitrate, self.loop.time(), context=self.context)

    def subscriptions_changed(self) -> None:
        """Forget who receives what."""
        self._routes.clear()

    def controller_left(self, controller: Controller) -> None:
        """A controller lost power.  If it was sending, its frame breaks off and the others see an error."""
        if self._current is not None and self._current[0] is controller and self._end is not None:
            self._end.cancel()
            self._end = None
            self._error(self.loop.time() - self._current[2] + _AFTER_BREAK * self._bit_s)
            self.loop.call_at(self._free_at, self._arbitrate, self._free_at, context=self.context)

    # --- one transmission -------------------------------------------------------------------------

    def _arbitrate(self, due: float) -> None:
        """Bus idle: send, one after the other, whatever wins."""
        while self._start(due):
            end = self._end_at
            if not self._skip_to(end):
                self._end = self.loop.call_at(end, self._ended)
                return
            try:
                self._finish()
            except BaseException:
                self.loop.call_at(self._free_at, self._arbitrate, self._free_at)
                raise
            due = self._free_at
            if not self._skip_to(due):
                self.loop.call_at(due, self._arbitrate, due)
                return

    def _ended(self) -> None:
        self._end = None
        try:
            self._finish()
        finally:  # whatever a receiver did, the wire goes on
            self.loop.call_at(self._free_at, self._arbitrate, self._free_at)

    def _start(self, due: float) -> bool:
        """Begin the frame that wins arbitration; false if there is none."""
        winner: Controller | None = None
        best: Transmission | None = None
        rivals: list[Controller] = []
        for controller in self._controllers:
            if controller.waiting:
                offer = controller.waiting[0][1]
                if best is None or offer.field < best.field:
                    winner, best, rivals = controller, offer, []
                elif offer.field == best.field and offer.frame != best.frame:
                    rivals.append(controller)
        if winner is None:
            self._occupied = False
            return False
        transmission = winner.take()
        since = max(due, self.loop.time() - _CATCH_UP_S)
        self._current = winner, transmission, since
        self._rivals = rivals
        self._end_at = since + transmission.duration_s - INTERMISSION_BITS * self._bit_s
        return True

    def _finish(self) -> None:
        """The last bit of the frame's end is over."""
        if self._current is None:
            return
        sender, transmission, _ = self._current
        frame, duration_s = transmission.frame, transmission.duration_s
        self.offered_at = transmission.offered_at
        fault = None if self.fault is None else self.fault(self.transmissions, frame)
        destroyed = not self._all_tuned and (self._destroyed_by_others(sender) or not sender.tuned)
        if destroyed or self._rivals or fault is WireFault.CORRUPT:
            self._error(duration_s + _AFTER_CRC_ERROR * self._bit_s)
            for rival in self._rivals:
                rival.transmit_error()
            sender.not_sent(transmission)
        elif not self._acknowledged(sender):
            self._error(duration_s + _AFTER_NO_ACK * self._bit_s)
            sender.not_sent(transmission, acknowledged=False)
        elif fault is WireFault.DUPLICATE:
            self._release(duration_s + _AFTER_LAST_EOF_BIT * self._bit_s)
            self.error_frames += 1
            self._record(frame, sender)
            sender.not_sent(transmission)
            self._deliver(frame, sender)
        else:
            self._release(duration_s)
            received = fault if isinstance(fault, CanFrame) else frame
            self._record(received, sender)
            sender.sent(transmission)
            if transmission.on_sent is not None:
                transmission.on_sent(self.loop.time())
            if fault is WireFault.SWAP and self._held is None:
                self._held = frame, sender
            elif isinstance(fault, Delayed):
                self.loop.call_later(fault.seconds, self._deliver, frame, sender)
            elif fault is not WireFault.LOSE:
                self._deliver(received, sender)

    def _acknowledged(self, sender: Controller) -> bool:
        for controller in self._controllers:  # `any` would take twice the time, for every frame
            if controller.online and controller.tuned and controller is not sender:
                return True
        return False

    def _destroyed_by_others(self, sender: Controller) -> bool:
        """Whether controllers with another bit rate destroy the frame."""
        mistuned = [one for one in self._controllers if one.online and not one.tuned and one is not sender]
        destroyers = [one for one in mistuned if one.state is ControllerState.ERROR_ACTIVE]
        for controller in destroyers:
            controller.receive_error(8)  # the first to raise an error flag counts eight
        return bool(destroyers)

    def _release(self, occupied_s: float) -> None:
        """The transmission is over; the wire is free for the next `occupied_s` after its start."""
        if self._current is not None:
            _, transmission, since = self._current
            can_id = transmission.frame.can_id
            self._busy_s[can_id] = self._busy_s.get(can_id, 0.0) + occupied_s
            self._current = None
            self.transmissions += 1
            self._free_at = since + occupied_s

    def _error(self, occupied_s: float) -> None:
        """The transmission ended in an error frame, which every receiver counts."""
        sender = None if self._current is None else self._current[0]
        self._release(occupied_s)
        self.error_frames += 1
        for controller in self._controllers:
            if controller.online and controller.tuned and controller is not sender and controller not in self._rivals:
                controller.receive_error()

    def _record(self, frame: CanFrame, sender: Controller) -> None:
        now, name = self.loop.time(), sender.name
        for tell in self.on_frame:
            tell(frame, now, name)

    def _deliver(self, frame: CanFrame, sender: Controller) -> None:
        """Hand a frame to all who want it but its sender, in the order in which they connected and subscribed."""
        now = self.loop.time()
        if self.error_frames:
            for controller in self._controllers:
                if controller.rec and controller.online and controller.tuned and controller is not sender:
                    controller.received()
        route = self._routes.get(frame.can_id)
        if route is None:
            route = self._route(frame.can_id)
        for subscription in route:
            owner = subscription.owner
            if owner is not sender and subscription.live and owner.online:
                subscription.receive(frame, now)
        for tell in self.on_delivered:
            tell(frame, now, sender.name)
        if self._held is not None:
            (frame, sender), self._held = self._held, None
            self._deliver(frame, sender)

    def _route(self, can_id: int) -> tuple[Subscription, ...]:
        """Find, and remember, who wants an identifier."""
        if len(self._routes) >= _ROUTES_LIMIT:
            self._routes.clear()
        route = self._routes[can_id] = tuple(
            subscription
            for controller in self._controllers
            if controller.tuned
            for subscription in controller.subscriptions
            if subscription.can_ids is None or can_id in subscription.can_ids
        )
        return route


def _never(_when: float) -> bool:
    """An ordinary loop cannot skip time."""
    return False
