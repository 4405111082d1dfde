"""Our frames on their way: those that wait for the driver, and those in the driver that are not confirmed yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from ess_can.bus.driver import Driver, Echo
from ess_can.bus.port import BULK_IN_FLIGHT, Sent
from ess_can.bus.wire_pace import WirePace
from ess_can.can.frame import CanFrame
from ess_can.errors import BusError, TransmitQueueFull, TransmitStalled

_RETRY_S = 0.0005
_LONGEST_RETRY_S = 0.008
_IN_FLIGHT_REMEMBERED = 256
_REMEMBERED_UNTIL_LEARNED = 32  # every frame received may be compared with each of them
_LOSSY_PATIENCE_S = 0.05

_AT_ONCE = 256
"""Bulk frames handed over in one turn of the loop where there is no wire to wait for."""


class _Sending(NamedTuple):
    frame: CanFrame
    on_sent: Sent | None
    bulk: bool
    open: bool = True  # false once its fate is settled, and it is only remembered to know it when it comes back

    @property
    def settled(self) -> _Sending:
        return _Sending(self.frame, None, bulk=False, open=False)


class TransmitQueue:
    """Hands frames to a driver, those that are not bulk first, and tells when they were sent.

    A driver that gives own frames back confirms them by that; one such frame also confirms those handed over before it,
    because some interfaces lose what they give back; where that is usual, it counts as sent soon anyway.  Elsewhere a
    frame counts as sent when the driver took it, and a bulk frame when it should have left the wire, if there is one.
    Without a wire nothing waits behind a stream: up to `_AT_ONCE` of its frames are handed over and confirmed in one
    go.

    Up to `depth` frames of each kind wait while the driver has no room or `BULK_IN_FLIGHT` is reached; where nothing is
    confirmed, `wire_pace.AHEAD_S` comes on top.  After
    `patience_s` seconds without progress everything is dropped and `report` gets TransmitStalled if the driver has
    unconfirmed frames, else TransmitQueueFull.
    """

    def __init__(
        self,
        driver: Driver,
        loop: asyncio.AbstractEventLoop,
        *,
        depth: int,
        patience_s: float,
        report: Callable[[BusError], None],
    ) -> None:
        self.hint = ""  # what is known about why nothing goes out
        self._driver = driver
        self._loop = loop
        self._depth = depth
        self._patience_s = patience_s
        self._report = report
        self._echoes = driver.echo in (Echo.CERTAIN, Echo.LOSSY)
        self._pace = None if driver.timing is None else WirePace(driver.timing, loop, self._flush)
        self._no_wire = driver.timing is None and driver.echo is Echo.NONE
        self._this_turn = 0  # bulk frames handed over at once since the loop came round
        self._echo_patience_s = _LOSSY_PATIENCE_S if driver.echo is Echo.LOSSY else patience_s
        self._urgent: deque[_Sending] = deque()
        self._bulk: deque[_Sending] = deque()
        # Inside the driver each of these keeps its order, so that one confirmation stands for all before it.
        self._in_flight: tuple[deque[_Sending], ...] = tuple(deque() for _ in range(2 if driver.reorders else 1))
        self._open = 0
        self._open_bulk = 0
        self._retry: asyncio.TimerHandle | None = None
        self._retry_s = _RETRY_S
        self._stuck_since: float | None = None  # the driver had no room then, and took nothing since
        self._confirmed_at = 0.0
        self._stall_watch: asyncio.TimerHandle | None = None

    def send(self, frame: CanFrame, on_sent: Sent | None, *, bulk: bool) -> None:
        """Hand over a frame, or let it wait.  Raises TransmitQueueFull, and the BusError of a driver that fails."""
        waiting = self._bulk if bulk else self._urgent
        if self._no_wire and bulk and self._this_turn < _AT_ONCE and not (self._bulk or self._urgent):
            if not self._driver.write(frame, bulk=True):
                waiting.append(_Sending(frame, on_sent, bulk))
                self._try_later()
            else:
                self._sent_at_once(on_sent)  # the usual case without a wire, in few steps
            return
        if len(waiting) >= self._depth:
            raise TransmitQueueFull(f"{len(waiting)} frames already wait for the adapter's driver")
        sending = _Sending(frame, on_sent, bulk)
        if waiting or (bulk and (self._urgent or not self._room_for_bulk)):
            waiting.append(sending)
        elif not self._write(sending):
            waiting.append(sending)
            self._try_later()

    def withdraw(self, can_id: int) -> list[CanFrame]:
        """See `Bus.withdraw`."""
        withdrawn = [sending.frame for sending in self._bulk if sending.frame.can_id == can_id]
        if withdrawn:
            self._bulk = deque(sending for sending in self._bulk if sending.frame.can_id != can_id)
        return withdrawn

    @property
    def _room_for_bulk(self) -> bool:
        if self._echoes:
            return self._open_bulk < BULK_IN_FLIGHT
        if self._no_wire:
            return self._this_turn < _AT_ONCE
        return self._pace is None or self._pace.under_way < BULK_IN_FLIGHT

    @property
    def paced(self) -> bool:
        """Whether `heard` needs the frames of others."""
        return self._pace is not None and not self._echoes

    def heard(self, frame: CanFrame) -> None:
        """A frame of others was on the wire; told while `paced`."""
        if self._pace is not None:
            self._pace.heard(frame)

    def confirm(self, frame: CanFrame) -> bool:
        """A frame came back that may be ours: whether it is.  It and those before it were sent."""
        for in_flight in self._in_flight:
            if not any(sending.frame == frame for sending in in_flight):
                continue
            self._echoes = True
            self._confirmed_at = self._loop.time()
            self.hint = ""
            while True:
                sending = self._take_off(in_flight)
                if sending.on_sent is not None:
                    sending.on_sent(self._confirmed_at)
                if sending.frame == frame or not in_flight:  # a callback may have dropped the rest
                    break
            self._flush()
            return True
        return False

    def drop(self) -> None:
        """Forget everything: nothing that waits is sent, and nothing is confirmed any more."""
        self._urgent.clear()
        self._bulk.clear()
        for in_flight in self._in_flight:
            remembered = () if self._driver.marks_echo else [sending.settled for sending in in_flight]
            in_flight.clear()
            in_flight.extend(remembered)
        self._open = self._open_bulk = 0
        self._stuck_since = None
        if self._pace is not None:
            self._pace.clear()
        for timer in (self._retry, self._stall_watch):
            if timer is not None:
                timer.cancel()
        self._retry = self._stall_watch = None

    # ----------------------------------------------------------------------------------------------

    def _take_off(self, in_flight: deque[_Sending]) -> _Sending:
        sending = in_flight.popleft()
        self._open -= sending.open
        self._open_bulk -= sending.bulk
        return sending

    def _write(self, sending: _Sending) -> bool:
        """Offer a frame to the driver; false if it has no room."""
        if not self._driver.write(sending.frame, bulk=sending.bulk):
            if self._stuck_since is None:
                self._stuck_since = self._loop.time()
            return False
        self._stuck_since = None
        self._retry_s = _RETRY_S
        if not self._echoes:
            on_sent = sending.on_sent
            if self._pace is not None:
                self._pace.put(sending.frame, on_sent, bulk=sending.bulk)
            if self._no_wire and sending.bulk:
                self._sent_at_once(on_sent)
            elif on_sent is not None and (self._pace is None or not sending.bulk):
                # not from inside send: the sender may send its next one
                self._loop.call_soon(self._taken, on_sent)
        if self._driver.echo is not Echo.NONE:
            self._put_in_flight(sending if self._echoes else sending.settled)
        return True

    def _sent_at_once(self, on_sent: Sent | None) -> None:
        if not self._this_turn:
            self._loop.call_soon(self._next_turn)
        self._this_turn += 1
        if on_sent is not None:
            on_sent(self._loop.time())

    def _next_turn(self) -> None:
        self._this_turn = 0
        if self._bulk and self._retry is None:
            self._flush()

    def _taken(self, on_sent: Sent) -> None:
        on_sent(self._loop.time())

    def _put_in_flight(self, sending: _Sending) -> None:
        if not self._open:
            self._confirmed_at = self._loop.time()
        in_flight = self._in_flight[-1 if sending.bulk else 0]
        if len(in_flight) >= (_IN_FLIGHT_REMEMBERED if self._echoes else _REMEMBERED_UNTIL_LEARNED):
            self._take_off(in_flight)
        in_flight.append(sending)
        self._open += sending.open
        self._open_bulk += sending.bulk
        if self._open and self._stall_watch is None:
            self._stall_watch = self._loop.call_later(self._echo_patience_s, self._look_for_stall)

    def _look_for_stall(self) -> None:
        self._stall_watch = None
        if not self._open:
            return
        patience_ends = self._confirmed_at + self._echo_patience_s
        if self._loop.time() < patience_ends:
            self._stall_watch = self._loop.call_at(patience_ends, self._look_for_stall)
        elif self._driver.echo is Echo.LOSSY:
            self.settle()
        else:
            self._give_up()

    def settle(self) -> None:
        """Take what is in the driver as sent: what came back was lost.  Know it if it comes back after all."""
        told = [sending.on_sent for in_flight in self._in_flight for sending in in_flight]
        for in_flight in self._in_flight:
            for index, sending in enumerate(in_flight):
                in_flight[index] = sending.settled
        self._open = self._open_bulk = 0
        for on_sent in told:
            if on_sent is not None:
                on_sent(self._loop.time())
        self._flush()

    def _try_later(self) -> None:
        if self._retry is None:
            self._retry = self._loop.call_later(self._retry_s, self._retry_now)

    def _retry_now(self) -> None:
        self._retry = None
        self._flush()

    def _flush(self) -> None:
        """Hand over what there is room for."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        while True:
            if self._urgent:
                waiting = self._urgent
            elif self._bulk and self._room_for_bulk:
                waiting = self._bulk
            else:
                return
            sending = waiting.popleft()
            try:
                if not self._write(sending):
                    waiting.appendleft(sending)
                    break
            except BusError as error:
                self._report(error)
        if self._stuck_since is not None and self._loop.time() - self._stuck_since >= self._patience_s:
            self._give_up()
            return
        self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
        self._retry = self._loop.call_later(self._retry_s, self._retry_now)

    def _give_up(self) -> None:
        why = self.hint or "no node acknowledges, the bit rate is wrong, or the adapter or its hub hangs"
        error: BusError
        if self._open:
            error = TransmitStalled(f"none of {self._open} frames was sent within {self._patience_s:.1f} s", why=why)
        else:
            error = TransmitQueueFull(f"the adapter's queue has been full for {self._patience_s:.1f} s", why=why)
        self.drop()
        self._report(error)
