"""An ISO-TP connection that the Linux kernel runs (a CAN_ISOTP socket, linux/can/isotp.h).

The kernel takes a whole message, and sends and receives its frames by itself.  What it does not tell, or tells in a way
of its own, ends here:

* It reports on a message by nothing but the end of it: sockets are busy (EAGAIN) while one is under way.  An empty
  message is refused by any kernel, as busy (EAGAIN) or as senseless (EINVAL), and so asks without changing anything.
* Errors of both directions share the socket's one error slot; their numbers tell them apart (`_SENDING`, `_RECEIVING`).
* What it was given it sends to the end, or until it gives up itself: `send` may be cancelled, the message may not.  A
  socket that is closed in between would block; it is closed as soon as the kernel is done.
* Its time-outs are its own: 1 s for a flow control or consecutive frame, 2 s for a frame's confirmation.  Wait frames
  are accepted for ever; a message ends here after the time that the minimum rate gives it.

It keeps one consecutive frame in flight, as it waits for that frame's echo before the next, so nothing of ours waits
behind more than one; kernels before 5.18 do not, and are not used.  Frames of a kernel socket are seen by our other
sockets as coming from this machine, not as their own: see `Bus.adopt`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType

from ess_can.bus.adapter_help import how_to_bring_up
from ess_can.bus.isotp_channel import MAX_WAITING
from ess_can.bus.kernel_socket import KernelSocket, error_text, open_kernel_socket, pdu_limit
from ess_can.bus.outgoing import Outgoing, wait_for
from ess_can.errors import (
    AdapterLost,
    BusError,
    EssCanError,
    InterfaceDown,
    IsoTpError,
    IsoTpTooSlow,
    NBufferOvflw,
    NInvalidFs,
    NTimeoutA,
    NTimeoutBs,
    NTimeoutCr,
    NWrongSn,
    TransmitQueueFull,
    UsageError,
)
from ess_can.isotp import IsoTpAddress, IsoTpParams
from ess_can.isotp.pci import fits_single_frame

OnMessage = Callable[[bytes, float], None]
OnError = Callable[[IsoTpError], None]

_ECOMM = 70  # Linux's; other systems have no such name
_RETRY_S = 0.001
_CLOSING_S = 3.0
_MESSAGES_A_WAKE_UP = 64

_SENDING: Mapping[int, tuple[type[IsoTpError], str]] = MappingProxyType(
    {
        _ECOMM: (NTimeoutBs, "no flow control within 1 s, or a frame that was not confirmed within 2 s"),
        errno.EMSGSIZE: (NBufferOvflw, "the receiver has no room for the message"),
        errno.EBADMSG: (NInvalidFs, "an invalid flow control"),
    }
)
_RECEIVING: Mapping[int, tuple[type[IsoTpError], str]] = MappingProxyType(
    {
        errno.ETIMEDOUT: (NTimeoutCr, "no consecutive frame within 1 s"),
        errno.EILSEQ: (NWrongSn, "a consecutive frame with the wrong sequence number"),
    }
)
_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL, errno.EBADF})
_NO_ROOM = frozenset({errno.ENOBUFS, errno.EAGAIN, errno.EWOULDBLOCK})


@dataclass(eq=False, slots=True)
class _Job(Outgoing):
    since: float = 0.0  # when it was first offered to the kernel
    limit: asyncio.TimerHandle | None = None


class KernelIsoTpChannel:
    """One end of an ISO-TP connection through the kernel, used as `IsoTpChannel` is.

    Create it on the running loop, which needs `add_reader`; `close` it after use.  Raises what `open_kernel_socket`
    raises.
    """

    def __init__(
        self,
        channel: str,
        address: IsoTpAddress,
        params: IsoTpParams,
        *,
        on_message: OnMessage,
        on_error: OnError,
        open_socket: Callable[[str, IsoTpAddress, IsoTpParams], KernelSocket] = open_kernel_socket,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = channel
        self._address = address
        self._params = params
        self._on_message = on_message
        self._on_error = on_error
        self._max_payload = pdu_limit()
        self._current: _Job | None = None
        self._waiting: deque[_Job] = deque()
        self._busy = False  # the kernel has a message: `_current`, or one that was given up here if there is none
        self._failure: IsoTpError | None = None  # of the message that the kernel has
        self._retry: asyncio.TimerHandle | None = None
        self._end: AdapterLost | None = None
        self._pumping = False
        self._closed = False
        self._released = asyncio.Event()
        self._socket = open_socket(channel, address, params)
        self._loop.add_reader(self._socket.fileno(), self._readable)

    @property
    def address(self) -> IsoTpAddress:
        """The identifiers of both directions."""
        return self._address

    @property
    def max_payload(self) -> int:
        """The longest message that may be sent, in bytes."""
        return self._max_payload

    async def send(self, payload: bytes) -> None:
        """Send a message; returns when the kernel has seen its last frame on the wire.

        Cancelling it stops waiting; what the kernel has taken goes out.  Raises the IsoTpError or BusError that ended
        the transmission, TransmitQueueFull if too many messages wait, UsageError for an impossible size.
        """
        job = self._enqueue(payload, self._loop.create_future())
        await wait_for(job, lambda _: self._withdraw(job))

    def send_nowait(self, payload: bytes) -> None:
        """Send a message without waiting for it; failures go to `on_error`.  Raises as `send` does at once."""
        self._enqueue(payload, None)

    def close(self) -> None:
        """Stop listening and sending.  Messages not yet sent fail with IsoTpError.  Closing again does nothing.

        A message that the kernel is sending is not stopped; the socket is closed after it.
        """
        if self._closed:
            return
        self._closed = True
        self._unwatch()
        self._loop.remove_reader(self._socket.fileno())
        self._fail_all(IsoTpError(f"{self.address}: the channel was closed while sending", remedy="Send again."))
        if self._busy:
            self._watch(self._release)  # now it would block until the kernel is done
        else:
            self._release()

    async def wait_closed(self) -> None:
        """After `close`: return once the socket is closed too.

        Until then it answers first frames, as another socket on these identifiers would.  Returns after 3 s in any
        case: by then the kernel's own time-outs have ended its message.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_S):
                await self._released.wait()

    def _release(self) -> None:
        self._socket.close()
        self._released.set()

    # --- messages on their way out ----------------------------------------------------------------

    def _enqueue(self, payload: bytes, done: asyncio.Future[None] | None) -> _Job:
        if self._closed:
            raise UsageError(f"{self.address}: the channel is closed")
        if self._end is not None:
            raise AdapterLost(self._end.what, why=self._end.why)
        if not 1 <= len(payload) <= self._max_payload:
            raise UsageError(
                f"{self.address}: an ISO-TP message through the kernel cannot have {len(payload)} bytes",
                why=f"1 to {self._max_payload} are possible",
                remedy="Use --isotp user, or the kernel module's parameter max_pdu_size.",
            )
        if len(self._waiting) >= MAX_WAITING:
            raise TransmitQueueFull(f"{self.address}: too many messages wait", why=f"{MAX_WAITING} are queued")
        job = _Job(bytes(payload), done)
        seconds = self._params.rate_grace_s + len(payload) / self._params.min_rate
        job.limit = self._loop.call_later(seconds, self._too_slow, job, seconds)
        self._waiting.append(job)
        self._pump()
        return job

    def _withdraw(self, job: _Job) -> None:
        if job.limit is not None:
            job.limit.cancel()
        if job is self._current:
            self._current = None
        elif job in self._waiting:
            self._waiting.remove(job)
        self._pump()

    def _too_slow(self, job: _Job, seconds: float) -> None:
        what = f"{self.address}: the receiver takes the message too slowly"
        self._finish(job, IsoTpTooSlow(what, why=f"{len(job.payload)} bytes are not sent after {seconds:.1f} s"))
        self._withdraw(job)

    def _finish(self, job: _Job, error: EssCanError | None) -> None:
        if job.limit is not None:
            job.limit.cancel()
        job.finish(error, self.address, self._on_error)

    def _fail_all(self, error: EssCanError) -> None:
        jobs = [*([self._current] if self._current else []), *self._waiting]
        self._current = None
        self._waiting.clear()
        for job in jobs:
            self._finish(job, error)

    def _pump(self) -> None:
        """See whether the kernel is done, and give it the next message if so."""
        if self._pumping or self._closed or self._end is not None:
            return
        self._unwatch()
        self._pumping = True
        try:
            while not self._closed and self._end is None:
                if self._busy:
                    if not self._idle():
                        self._watch(self._pump)
                        return
                    self._ended()
                elif self._current is not None and not self._current.withdrawn:
                    if not self._offer(self._current):
                        return
                elif self._waiting:
                    self._current = self._waiting.popleft()
                    self._current.since = self._loop.time()
                else:
                    self._current = None
                    return
        finally:
            self._pumping = False

    def _ended(self) -> None:
        """The kernel is done with its message."""
        self._take_error()  # only now: a time-out ends the message before it reports
        job, failure = self._current, self._failure
        self._busy, self._current, self._failure = False, None, None
        if job is not None:
            self._finish(job, failure)

    def _offer(self, job: _Job) -> bool:
        """Give a message to the kernel; false if there is nothing to do for now."""
        self._take_error()  # or it would be returned as this message's
        if self._closed or self._current is not job:
            return True
        try:
            self._socket.send(job.payload)
        except OSError as failure:
            number = failure.errno or errno.EIO
            if number in _NO_ROOM and self._loop.time() - job.since < self._params.n_as_s:
                self._retry = self._loop.call_later(_RETRY_S, self._pump)
                return False
            self._current = None
            self._finish(job, self._refusal(number))
        else:
            self._busy = True
        return True

    def _idle(self) -> bool:
        """Whether the kernel has no message of ours; see the module."""
        try:
            self._socket.send(b"")
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def _watch(self, then: Callable[[], None]) -> None:
        """Call back once the kernel is done with its message."""
        fileno = self._socket.fileno()

        def writable() -> None:
            self._loop.remove_writer(fileno)
            if self._idle():
                then()
            else:  # a kernel that always calls its sockets writable: 6.1.21 and before, 6.2
                self._retry = self._loop.call_later(_RETRY_S, self._watch, then)

        self._loop.add_writer(fileno, writable)

    def _unwatch(self) -> None:
        self._loop.remove_writer(self._socket.fileno())
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    # --- what the kernel reports ------------------------------------------------------------------

    def _readable(self) -> None:
        for _ in range(_MESSAGES_A_WAKE_UP):
            try:
                payload = self._socket.recv(self._params.max_payload + 1)
            except BlockingIOError:
                break
            except OSError as failure:
                self._reported(failure.errno or errno.EIO)
            else:
                if len(payload) > self._params.max_payload:
                    why = f"more than {self._params.max_payload} bytes"
                    self._on_error(NBufferOvflw(f"{self.address}: a message is too long for us", why=why))
                else:
                    self._on_message(payload, self._loop.time())
            if self._closed or self._end is not None:
                return
        if self._busy:
            self._pump()

    def _take_error(self) -> None:
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._reported(number)

    def _reported(self, number: int) -> None:
        """An error of the socket, which may concern either direction."""
        if number == errno.ENETDOWN:
            self._fail_all(
                InterfaceDown(f"{self._channel} is down", why=error_text(number), remedy=how_to_bring_up(self._channel))
            )
        elif number in _GONE:
            self._end = AdapterLost(f"{self._channel} is gone", why=error_text(number))
            self._loop.remove_reader(self._socket.fileno())
            self._fail_all(self._end)
        elif number in _RECEIVING or not self._busy:
            self._on_error(self._error(number))
        elif self._current is not None:
            alone = fits_single_frame(len(self._current.payload), self._params.tx_dl)
            if number == _ECOMM and alone:
                self._failure = NTimeoutA(f"{self.address}: our frame was not confirmed", why="none within 2 s")
            else:
                self._failure = self._error(number)

    def _refusal(self, number: int) -> EssCanError:
        """Why the kernel did not take a message."""
        if number == errno.ENETDOWN:
            return InterfaceDown(
                f"{self._channel} is down", why=error_text(number), remedy=how_to_bring_up(self._channel)
            )
        if number in _GONE:
            return AdapterLost(f"{self._channel} is gone", why=error_text(number))
        if number in _NO_ROOM:
            return NTimeoutA(f"{self.address}: our first frame found no room", why=error_text(number))
        return BusError(f"{self._channel} did not take a message for {self.address}", why=error_text(number))

    def _error(self, number: int) -> IsoTpError:
        kind, what = _SENDING.get(number) or _RECEIVING.get(number) or (IsoTpError, "the kernel reports an error")
        return kind(f"{self.address}: {what}", why=error_text(number))
