"""An ISO-TP connection on a bus: drives the protocol core with frames, confirmations and the running loop's time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from ess_can.bus.outgoing import Outgoing, wait_for
from ess_can.bus.port import Bus
from ess_can.can.frame import CanFrame
from ess_can.errors import BusError, EssCanError, IsoTpError, TransmitQueueFull, UsageError
from ess_can.isotp import (
    Endpoint,
    Events,
    IsoTpAddress,
    IsoTpCounters,
    IsoTpParams,
    MessageReceived,
    MessageSent,
    MessageStarted,
    ReceiveFailed,
    SendFailed,
    pci,
)

MAX_WAITING = 16
"""Messages that may wait behind the one being sent."""

_FLOW_CONTROL = pci.FLOW_CONTROL  # looked up on every frame
_RETRY_S = 0.001  # how soon a frame is offered again to a bus that had no room for it


class IsoTpChannel:
    """One end of an ISO-TP connection on a bus.  Create it on the running loop; `close` it after use.

    `on_message` gets every complete message and the time of its last frame; `on_error` why a message under reception
    was lost, or one given to `send_nowait`; `on_begin` when a segmented message begins to arrive.  Messages go
    out one after another in the order given.  At most `max_in_flight` of our frames are in the bus's queue at any time,
    so nothing more urgent waits behind more.

    All frames but flow controls go out as bulk: a single or first frame must not overtake what is left of a message
    that was given up, whose consecutive frames could then be taken for its own.  A flow control belongs to the other
    direction, and there a whole stream waits for it.
    """

    def __init__(
        self,
        bus: Bus,
        address: IsoTpAddress,
        params: IsoTpParams,
        *,
        on_message: Callable[[bytes, float], None],
        on_error: Callable[[IsoTpError], None],
        on_begin: Callable[[float], None] | None = None,
        max_in_flight: int = 2,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._bus = bus
        self._endpoint = Endpoint(address, params, max_in_flight=max_in_flight)
        self._shortest_timeout_s = min(params.n_as_s, params.n_ar_s, params.n_bs_s, params.n_br_s, params.n_cr_s)
        self._on_message = on_message
        self._on_error = on_error
        self._on_begin = on_begin
        self._current: Outgoing | None = None
        self._waiting: deque[Outgoing] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._retry_at: float | None = None
        self._pumping = False
        self._closed = False
        self._unsubscribe = bus.subscribe((address.rx_id,), self._received)
        self._unwatch = bus.watch(self._bus_failed)

    @property
    def address(self) -> IsoTpAddress:
        """The identifiers of both directions."""
        return self._endpoint.address

    @property
    def counters(self) -> IsoTpCounters:
        """What was ignored, by reason."""
        return self._endpoint.counters

    @property
    def receiving(self) -> bool:
        """Whether a segmented message is on its way in."""
        return self._endpoint.receiving

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent: every message has left, or failed."""
        return self._current is None and not self._waiting

    async def send(self, payload: bytes) -> None:
        """Send a message; returns when its last frame is confirmed on the wire.

        Cancelling it stops the message: no frame is handed to the bus any more.  Raises the IsoTpError or BusError
        that ended the transmission, TransmitQueueFull if too many messages wait, UsageError for an impossible size.
        """
        await wait_for(self._enqueue(payload, self._loop.create_future()), self._withdraw)

    def send_nowait(self, payload: bytes) -> None:
        """Send a message without waiting for it, as a server does from a callback; failures go to `on_error`.

        Raises TransmitQueueFull and UsageError as `send` does.
        """
        self._enqueue(payload, None)

    def give_up(self) -> None:
        """Give up what has not left entirely, for a peer that asks anew and waits for nothing earlier.

        Failures go where they always go.
        """
        if self._current is not None or self._waiting:
            self._endpoint.abort_send(self._loop.time(), flow_control_may_come=False)
            self._take_back()
            self._fail_all(IsoTpError(f"{self.address}: given up for a newer message", remedy="Ask again."))

    def hold(self) -> None:
        """Make the peer wait before its next block: wait frames go out until `release`."""
        self._endpoint.hold()

    def release(self) -> None:
        """Let the peer go on."""
        now = self._loop.time()
        self._endpoint.release(now)
        self._pump(now)

    def close(self) -> None:
        """Stop listening and sending.  Messages not yet sent fail with IsoTpError.  Closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        self._unsubscribe()
        self._unwatch()
        if self._timer is not None:
            self._timer.cancel()
        self._abort(self._loop.time())
        self._fail_all(IsoTpError(f"{self.address}: the channel was closed while sending", remedy="Send again."))

    async def wait_closed(self) -> None:
        """Return once nothing of it is left, which is at once: `close` stops a message where it is."""

    # --- messages on their way out --------------------------------------------------------------

    def _enqueue(self, payload: bytes, done: asyncio.Future[None] | None) -> Outgoing:
        if self._closed:
            raise UsageError(f"{self.address}: the channel is closed")
        self._endpoint.check_sendable(payload)
        if len(self._waiting) >= MAX_WAITING:
            raise TransmitQueueFull(f"{self.address}: too many messages wait", why=f"{MAX_WAITING} are queued")
        job = Outgoing(payload, done)
        self._waiting.append(job)
        self._pump(self._loop.time())
        return job

    def _withdraw(self, job: Outgoing) -> None:
        now = self._loop.time()
        if job is self._current:
            self._current = None
            self._abort(now)
        elif job in self._waiting:
            self._waiting.remove(job)
        self._pump(now)

    def _abort(self, now: float) -> None:
        """Give up the message on its way out, and take back what of it has not left."""
        self._endpoint.abort_send(now)
        self._take_back()

    def _take_back(self) -> None:
        for frame in self._bus.withdraw(self.address.tx_id):
            self._endpoint.frame_withdrawn(frame)

    def _start_next(self, now: float) -> None:
        while self._current is None and self._waiting:
            job = self._waiting.popleft()
            if not job.withdrawn:
                self._current = job
                self._endpoint.send(job.payload, now)

    def _finish(self, job: Outgoing | None, error: EssCanError | None) -> None:
        if job is not None:
            job.finish(error, self.address, self._on_error)

    def _fail_all(self, error: EssCanError) -> None:
        jobs = [self._current, *self._waiting]
        self._current = None
        self._waiting.clear()
        for job in jobs:
            self._finish(job, error)

    # --- what happens ---------------------------------------------------------------------------

    def _received(self, frame: CanFrame, now: float) -> None:
        endpoint = self._endpoint
        events = endpoint.receive(frame, now)
        if events or endpoint.may_send or self._timer is None:  # else it is one more frame of many: see `_arm`
            self._proceed(events, now)

    def _confirmed(self, frame: CanFrame, now: float) -> None:
        events = self._endpoint.frame_sent(frame, now)
        if events:
            self._proceed(events, now)
        elif not self._pumping:
            self._pump(now)

    def _timer_fired(self, when: float) -> None:
        self._timer = None
        now = max(self._loop.time(), when)  # a loop may fire a timer a clock tick early
        self._proceed(self._endpoint.tick(now), now)

    def _proceed(self, events: Events, now: float) -> None:
        try:
            if events:
                self._dispatch(events, now)
        finally:
            self._pump(now)

    def _bus_failed(self, error: BusError) -> None:
        """The bus takes nothing any more and forgets what it has; of a warning nothing follows."""
        if not error.ends_use:
            return
        now = self._loop.time()
        self._abort(now)
        lost = self._endpoint.give_up_unconfirmed(now, str(error))
        self._fail_all(error)
        self._dispatch(lost, now)
        self._arm()

    def _dispatch(self, events: Events, now: float) -> None:
        for event in events:
            if self._closed:
                return
            if isinstance(event, MessageReceived):
                self._on_message(event.payload, now)
            elif isinstance(event, MessageStarted):
                if self._on_begin is not None:
                    self._on_begin(now)
            elif isinstance(event, ReceiveFailed):
                self._on_error(event.error)
            elif isinstance(event, MessageSent | SendFailed):
                if isinstance(event, SendFailed):
                    self._take_back()
                job, self._current = self._current, None
                self._finish(job, event.error if isinstance(event, SendFailed) else None)

    def _pump(self, now: float) -> None:
        """Hand over what may go out now.  A bus that confirms at once calls back into here: one round is enough."""
        if self._pumping or self._closed:
            return
        self._pumping = True
        self._retry_at = None
        current = self._current
        if current is not None and current.withdrawn:  # its task is cancelled but has not run yet
            self._current = None
            self._abort(now)
        next_frame, send = self._endpoint.next_frame, self._bus.send
        try:
            while True:
                if self._current is None and self._waiting:
                    self._start_next(now)
                frame = next_frame(now)
                if frame is None:
                    break
                try:
                    send(frame, partial(self._confirmed, frame), bulk=frame.data[0] >> 4 != _FLOW_CONTROL)
                except TransmitQueueFull:
                    self._endpoint.frame_refused(frame)
                    self._retry_at = now + _RETRY_S
                    break
                except BusError as error:
                    self._bus_failed(error)
                    if self._waiting:  # messages given as an answer to the failure
                        self._retry_at = now + _RETRY_S
                    break
        finally:
            self._pumping = False
        if self._timer is None or self._retry_at is not None or self._endpoint.holds_back:
            self._arm()

    def _arm(self) -> None:
        """See that a timer fires at the next deadline, or before: one that fires too early costs less than many.

        It fires within the shortest of the time-outs.  So none that begins to run later has to set it, which would be
        done for every frame; only what may be due earlier than any time-out does.
        """
        deadline = self._endpoint.next_deadline
        if deadline is not None:
            deadline = min(deadline, self._loop.time() + self._shortest_timeout_s)
        if self._retry_at is not None and (deadline is None or self._retry_at < deadline):
            deadline = self._retry_at
        if deadline is None or self._closed:
            return
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._timer_fired, deadline)
