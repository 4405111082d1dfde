"""A cap on the bus load: a `Bus` around a `Bus` that hands the frames of streams on in step, and all others at once.

A schedule says when the next bulk frame is due: each one moves it on by the frame's exact wire time divided by the
share that was asked for.  Where the stream yields, every other frame, heard or of ours, moves it on in the same way, so
that all of them together stay within the share: nothing has to be estimated, and the stream gives way with the next
frame.  However much others send, the stream gets `YIELD_FLOOR`, because a receiver gives up (N_Cr) on one that stops.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ess_can.bus.around import BusAround
from ess_can.bus.load_limit import LoadLimit
from ess_can.bus.port import BULK_IN_FLIGHT, Bus, Sent
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, for_any_frame, frame_duration_s, known_duration_s
from ess_can.errors import BusError, TransmitQueueFull, UsageError

_LAG_S = 0.020  # how far behind its schedule a stream may be and still make up for it: timers are late, others send
_TURN_AROUND_S = 0.003  # the same where it was the stream that paused, as it does for a node's answer
_DEBT_S = 0.250  # how far others may put it off: it is back as soon after they fell silent
_DEPTH = 16  # frames that wait for each identifier
_RETRY_S = 0.001
_FORGOTTEN_S = 1.0  # a frame that nobody confirmed for so long (N_As) does not hold up the others


@dataclass(slots=True, eq=False)
class _Held:
    """A bulk frame on its way through, and since when the bus has it."""

    frame: CanFrame
    on_sent: Sent | None
    duration_s: float
    handed_on_at: float = 0.0


class LoadLimitedBus(BusAround):
    """A `Bus` around a bus, for streams that are to take only a share of it.  Create it on the running loop.

    Bulk frames keep their order for each identifier, and identifiers take turns; at most `BULK_IN_FLIGHT` of all are
    handed on and not confirmed.  In any second they take at most a fiftieth more than their share: that is what late
    timers may make up for.  Everything is received for a limit that yields, so that no hardware filter applies.
    Frames that are adopted are not held back.
    `close` ends the limit, not the bus; what waits is dropped.
    """

    def __init__(self, bus: Bus, limit: LoadLimit, timing: BitTiming) -> None:
        super().__init__(bus)
        self._limit = limit
        self._timing = for_any_frame(timing)
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()  # the schedule
        self._assured_at = self._due  # when the stream may go on whatever others sent
        self._queues: dict[int, deque[_Held]] = {}
        self._turns: deque[deque[_Held]] = deque()  # those of the queues that hold something
        self._handed_on: deque[_Held] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._watchers: list[Callable[[BusError], None]] = []
        # First of all watchers: who reacts to a failure by sending finds nothing of before.
        self._unwatch = bus.watch(self._failed)
        self._unsubscribe = bus.subscribe(None, self._make_way) if limit.yields else None

    # --- the Bus port -----------------------------------------------------------------------------

    def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        """Queue a frame, as `Bus.send` says; a bulk frame leaves when it is due.

        What goes wrong with a frame that had to wait is told to watchers.
        """
        if not bulk:
            self._bus.send(frame, on_sent)
            if self._limit.yields:
                self._make_way(frame, self._loop.time())
            return
        if frame.fd and not self._bus.fd:
            raise UsageError("a CAN FD frame on a classic bus", why=str(frame))
        try:
            held = _Held(frame, on_sent, frame_duration_s(frame, self._timing))
        except ValueError as error:
            raise UsageError("a frame that cannot be sent", why=str(error)) from error
        now = self._loop.time()
        if not self._turns:
            if not self._handed_on:
                self._due = max(self._due, now - _TURN_AROUND_S)
            if self._has_room(now) and now >= self._next_at:
                self._hand_on(held, now)
                return
        queue = self._queues.setdefault(frame.can_id, deque())
        if len(queue) >= _DEPTH:
            raise TransmitQueueFull(f"{len(queue)} frames already wait for their share of the bus")
        if not queue:
            self._turns.append(queue)
        queue.append(held)
        self._go_on(now)

    def withdraw(self, can_id: int) -> list[CanFrame]:
        """Take back what is held of a stream, and what the bus has not sent of it, as `Bus.withdraw` says."""
        withdrawn = self._bus.withdraw(can_id)
        for held in [held for held in self._handed_on if any(held.frame is frame for frame in withdrawn)]:
            self._settle(held)
        queue = self._queues.get(can_id)
        if queue:
            withdrawn += [held.frame for held in queue]
            queue.clear()
            self._turns = deque(turn for turn in self._turns if turn)
        return withdrawn

    def watch(self, on_error: Callable[[BusError], None]) -> Callable[[], None]:
        """Report what goes wrong, as `Bus.watch` says."""
        self._watchers.append(on_error)

        def cancel() -> None:
            if on_error in self._watchers:
                self._watchers.remove(on_error)

        return cancel

    def close(self) -> None:
        """Drop what waits, and leave the bus alone."""
        self._forget()
        self._unwatch()
        if self._unsubscribe is not None:
            self._unsubscribe()

    # --- the schedule -----------------------------------------------------------------------------

    @property
    def _next_at(self) -> float:
        """When the next bulk frame may leave, loop seconds."""
        return min(self._due, self._assured_at)

    def _make_way(self, frame: CanFrame, now: float) -> None:
        """Somebody's frame takes a part of what the stream could have had."""
        duration_s = known_duration_s(frame, self._timing)
        if duration_s is None:
            return
        due = max(self._due, now - _LAG_S) + duration_s / self._limit.share
        self._due = max(self._due, min(due, now + _DEBT_S))

    def _has_room(self, now: float) -> bool:
        handed_on = self._handed_on
        while handed_on and now >= handed_on[0].handed_on_at + _FORGOTTEN_S:
            handed_on.popleft()
        return len(handed_on) < BULK_IN_FLIGHT

    def _hand_on(self, held: _Held, now: float) -> None:
        """Give a frame that is due to the bus.  Raises what that raises; then it was not given."""
        before = self._due, self._assured_at
        self._due = max(self._due, now - _LAG_S) + held.duration_s / self._limit.share
        self._assured_at = now + held.duration_s / self._limit.assured
        held.handed_on_at = now
        self._handed_on.append(held)
        try:
            self._bus.send(held.frame, partial(self._confirmed, held), bulk=True)
        except BaseException:
            self._settle(held)
            self._due, self._assured_at = before
            raise

    def _settle(self, held: _Held) -> None:
        if held in self._handed_on:
            self._handed_on.remove(held)

    def _confirmed(self, held: _Held, at: float) -> None:
        self._settle(held)
        if held.on_sent is not None:
            held.on_sent(at)
        self._go_on(self._loop.time())

    def _go_on(self, now: float) -> None:
        """Hand on what is due, and see that the rest will be."""
        while self._turns and self._has_room(now):
            if now < self._next_at:
                self._wake_up(self._next_at)
                return
            queue = self._turns.popleft()
            held = queue.popleft()
            if queue:
                self._turns.append(queue)
            failures = self._failures
            try:
                self._hand_on(held, now)
            except TransmitQueueFull:
                if not queue:
                    self._turns.appendleft(queue)
                queue.appendleft(held)
                self._wake_up(now + _RETRY_S)
                return
            except BusError as error:
                if failures == self._failures:  # the bus has told nobody
                    self._failed(error)
                return

    def _wake_up(self, at: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._woken, at)

    def _woken(self, when: float) -> None:
        self._timer = None
        self._go_on(max(self._loop.time(), when))  # a loop may fire a timer a clock tick early

    # --- what goes wrong --------------------------------------------------------------------------

    def _failed(self, error: BusError) -> None:
        if error.ends_use:
            self._failures += 1
            self._forget()
        for on_error in tuple(self._watchers):
            on_error(error)

    def _forget(self) -> None:
        self._queues.clear()
        self._turns.clear()
        self._handed_on.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
