"""The Bus port over any adapter that python-can drives, and the one place that knows the adapters' quirks.

Sending is confirmed when the driver took the frame: python-can tells nothing later, so up to a driver's queue of frames
may still be on their way.  A full driver queue (ENOBUFS, EAGAIN) is back-pressure: frames wait here, in order, and are
offered again by timers of the loop.  One reader serves all subscriptions, on the file descriptor where the adapter has
one, else in a thread that does nothing but hand frames over to the loop.

python-can takes long to import, so that only opening an adapter and sending a first frame do it.
"""

from __future__ import annotations

import asyncio
import errno
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ess_can.bus.adapter_help import how_to_list
from ess_can.bus.port import Receive, Sent
from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.errors import AdapterLost, BusError, BusOff, InterfaceUnavailable, TransmitQueueFull, UsageError

if TYPE_CHECKING:
    import can

_BACK_PRESSURE = frozenset({errno.ENOBUFS, errno.EAGAIN, errno.EWOULDBLOCK})
_GONE = frozenset({errno.ENODEV, errno.ENETDOWN, errno.ENXIO, errno.EIO, errno.EBADF, errno.ESHUTDOWN})
_QUEUE_FULL = re.compile(r"(buffer|queue|fifo)\b.*\b(full|overflow)", re.IGNORECASE)
_SOCKETCAN_BUS_OFF = 0x40  # CAN_ERR_BUSOFF in the identifier of an error frame, linux/can/error.h
_RETRY_S = 0.0005
_LONGEST_RETRY_S = 0.008
_FRAMES_A_WAKE_UP = 64
_THREAD_POLL_S = 0.05
_READ_FAILURES_LIMIT = 100
_ECHOES_REMEMBERED = 256


def to_message(frame: CanFrame) -> can.Message:
    """The frame as python-can's message, with data of its own: some backends pad what they are given."""
    import can

    return can.Message(
        arbitration_id=frame.can_id & 0x1FFF_FFFF,
        is_extended_id=frame.extended,
        is_remote_frame=frame.remote,
        is_fd=frame.fd,
        bitrate_switch=frame.brs,
        dlc=len(frame.data),
        data=None if frame.remote else bytearray(frame.data),
    )


def from_message(message: can.Message) -> CanFrame | None:
    """The message as a frame, or None for an error frame.  A remote frame gets as many zeros as it asks for."""
    if message.is_error_frame:
        return None
    return CanFrame(
        message.arbitration_id | (EXTENDED_FLAG if message.is_extended_id else 0),
        bytes(message.dlc) if message.is_remote_frame else bytes(message.data),
        fd=message.is_fd,
        brs=message.bitrate_switch,
        remote=message.is_remote_frame,
    )


def open_bus(
    interface: str | None = None,
    channel: str | int | None = None,
    *,
    bitrate: int | None = None,
    fd: bool | None = None,
    data_bitrate: int | None = None,
    timing: can.BitTiming | can.BitTimingFd | None = None,
    filters: Sequence[tuple[int, int]] | None = None,
    bus_kwargs: Mapping[str, str | int | float | bool] | None = None,
) -> PythonCanBus:
    """Open an adapter.  What is None is left to python-can's own configuration (files, CAN_INTERFACE and the like).

    Bit rates in bit/s; `filters` are (identifier, mask) pairs; `bus_kwargs` go to python-can's backend as they are.
    Raises InterfaceUnavailable however the opening fails.  Call `start` on the result while the loop runs.
    """
    options: dict[str, Any] = {
        "bitrate": bitrate,
        "fd": fd,
        "data_bitrate": data_bitrate,
        "timing": timing,
        "can_filters": None if filters is None else [{"can_id": i, "can_mask": mask} for i, mask in filters],
        **(bus_kwargs or {}),
    }
    try:
        import can

        bus = can.Bus(channel, interface, **{name: value for name, value in options.items() if value is not None})
    except Exception as failure:  # backends raise whatever they like: OSError, NameError, ValueError, CanError...
        where = f"interface {interface}" if interface else "the configured interface"
        raise InterfaceUnavailable(
            f"cannot open {where}" + ("" if channel is None else f", channel {channel}"),
            why=f"{type(failure).__name__}: {failure}",
            remedy=how_to_list(interface),
        ) from failure
    carries_fd = bool(fd) or bus.protocol is not can.CanProtocol.CAN_20
    # Backends know themselves by module; the name given may come from python-can's configuration instead.
    backend = type(bus).__module__.removeprefix("can.interfaces.").partition(".")[0]
    return PythonCanBus(bus, backend=backend, fd=carries_fd)


@dataclass(slots=True, eq=False)
class _Subscription:
    can_ids: frozenset[int] | None
    receive: Receive
    live: bool = True


class PythonCanBus:
    """A `Bus` over an open python-can bus.

    `backend` is python-can's name of it.  Up to `depth` frames wait here while the driver's queue is full, for up to
    `patience_s` seconds without progress; then they are dropped, and watchers get TransmitQueueFull.
    `unreadable` counts what the adapter gave that is no frame.
    """

    def __init__(
        self, bus: can.BusABC, *, backend: str, fd: bool = False, depth: int = 16, patience_s: float = 1.0
    ) -> None:
        self.unreadable = 0
        self._bus = bus
        self._backend = backend
        self._fd = fd
        self._depth = depth
        self._patience_s = patience_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fileno: int | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._end: BusError | None = None  # why nothing can be sent any more
        self._closed = False
        self._failures = 0
        self._waiting: deque[tuple[CanFrame, Sent | None]] = deque()
        self._retry: asyncio.TimerHandle | None = None
        self._retry_s = _RETRY_S
        self._stuck_since = 0.0
        self._subscriptions: list[_Subscription] = []
        self._watchers: list[Callable[[BusError], None]] = []
        # udp_multicast gives our own frames back, marked as received
        self._echoes: deque[CanFrame] | None = deque(maxlen=_ECHOES_REMEMBERED) if backend == "udp_multicast" else None

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Read from the adapter on the running loop, until `close`."""
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        try:
            fileno = self._bus.fileno()
        except Exception:  # NotImplementedError by contract, and what backends raise in its place
            fileno = -1
        if fileno >= 0:
            try:
                self._loop.add_reader(fileno, self._read_some)
            except NotImplementedError:  # Windows' proactor loop
                fileno = -1
            else:
                self._fileno = fileno
        if fileno < 0:
            self._thread = threading.Thread(
                target=self._read_in_thread, args=(self._loop,), name=f"can-{self._backend}", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Release the adapter.  Frames that wait are dropped.  Waits shortly for the reader thread, if there is one."""
        if self._closed:
            return
        self._closed = True
        self._stop(AdapterLost("the bus was closed"))
        if self._thread is not None:
            self._thread.join()
        self._bus.shutdown()

    # --- the Bus port -----------------------------------------------------------------------------

    @property
    def fd(self) -> bool:
        """Whether CAN FD frames may be sent."""
        return self._fd

    def send(self, frame: CanFrame, on_sent: Sent | None = None) -> None:
        """Give a frame to the driver, or queue it, as `Bus.send` says; `on_sent` when the driver has taken it.

        Raises UsageError for a CAN FD frame on a classic bus, and BusError for a frame that the driver rejects.
        """
        if self._end is not None:
            raise AdapterLost(self._end.what, why=self._end.why)
        if self._loop is None:
            raise UsageError("the bus was not started")
        if frame.fd and not self._fd:
            raise UsageError("a CAN FD frame on a classic bus", why=str(frame))
        if len(self._waiting) >= self._depth:
            raise TransmitQueueFull(f"{len(self._waiting)} frames already wait for the adapter's driver")
        if self._waiting:
            self._waiting.append((frame, on_sent))
        elif not self._write(self._loop, frame, on_sent):
            self._waiting.append((frame, on_sent))
            self._stuck_since = self._loop.time()
            self._retry = self._loop.call_later(self._retry_s, self._flush, self._loop)

    def subscribe(self, can_ids: Iterable[int] | None, receive: Receive) -> Callable[[], None]:
        """Deliver frames from others, as `Bus.subscribe` says."""
        subscription = _Subscription(None if can_ids is None else frozenset(can_ids), receive)
        self._subscriptions.append(subscription)

        def cancel() -> None:
            if subscription.live:
                subscription.live = False
                self._subscriptions.remove(subscription)

        return cancel

    def watch(self, on_error: Callable[[BusError], None]) -> Callable[[], None]:
        """Report AdapterLost, BusOff and a transmit queue that stays full, as `Bus.watch` says."""
        self._watchers.append(on_error)

        def cancel() -> None:
            if on_error in self._watchers:
                self._watchers.remove(on_error)

        return cancel

    # --- sending ----------------------------------------------------------------------------------

    def _write(self, loop: asyncio.AbstractEventLoop, frame: CanFrame, on_sent: Sent | None) -> bool:
        """Offer a frame to the driver; false if its queue is full.  Raises AdapterLost or BusError."""
        try:
            self._bus.send(to_message(frame))
        except Exception as failure:
            if _is_back_pressure(failure):
                return False
            if _is_gone(failure):
                raise self._lost(failure) from failure
            raise BusError(f"the adapter did not take frame {frame}", why=str(failure)) from failure
        self._retry_s = _RETRY_S
        if self._echoes is not None:
            self._echoes.append(frame)
        if on_sent is not None:
            loop.call_soon(lambda: on_sent(loop.time()))  # not from inside send: the sender may send its next one
        return True

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        self._retry = None
        while self._waiting:
            frame, on_sent = self._waiting[0]
            try:
                taken = self._write(loop, frame, on_sent)
            except AdapterLost:
                return
            except BusError as error:
                self._waiting.popleft()
                self._report(error)
                continue
            if not taken:
                break
            self._stuck_since = loop.time()
            self._waiting.popleft()
        if not self._waiting:
            return
        stuck_s = loop.time() - self._stuck_since
        if stuck_s < self._patience_s:
            self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
            self._retry = loop.call_later(self._retry_s, self._flush, loop)
            return
        self._waiting.clear()
        self._report(
            TransmitQueueFull(
                f"the adapter's transmit queue has been full for {stuck_s:.1f} s",
                why="no node acknowledges, the bit rate is wrong, or the adapter or its hub hangs",
            )
        )

    # --- receiving --------------------------------------------------------------------------------

    def _read_some(self) -> None:
        """Read what is there, up to a bound that keeps the loop responsive."""
        for _ in range(_FRAMES_A_WAKE_UP):
            try:
                message = self._bus.recv(0)
            except Exception as failure:
                self._read_failed(failure)
                return
            if message is None:
                return
            self._received(message)
            if self._end is not None:
                return

    def _read_in_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand over what arrives.  Touches nothing of the bus but `recv`."""
        while not self._stopping.is_set():
            try:
                message = self._bus.recv(_THREAD_POLL_S)
            except Exception as failure:
                if not _call_in(loop, self._read_failed, failure):
                    return
                self._stopping.wait(_THREAD_POLL_S)
                continue
            if message is not None and not _call_in(loop, self._received, message):
                return

    def _read_failed(self, failure: Exception) -> None:
        self.unreadable += 1
        self._failures += 1
        if self._end is None and (_is_gone(failure) or self._failures >= _READ_FAILURES_LIMIT):
            self._lost(failure)

    def _received(self, message: can.Message) -> None:
        if self._end is not None:
            return
        self._failures = 0
        frame = from_message(message)
        if frame is None:
            if self._backend == "socketcan" and message.arbitration_id & _SOCKETCAN_BUS_OFF:
                self._report(BusOff("the controller went bus-off", why="reported by the kernel"))
            return
        if not message.is_rx or self._is_echo(frame):
            return
        now = asyncio.get_running_loop().time()
        for subscription in tuple(self._subscriptions):
            if subscription.live and (subscription.can_ids is None or frame.can_id in subscription.can_ids):
                subscription.receive(frame, now)

    def _is_echo(self, frame: CanFrame) -> bool:
        """Whether this is the oldest of our own frames that equals it; those before it were lost on the way."""
        if self._echoes is None or frame not in self._echoes:
            return False
        while self._echoes.popleft() != frame:
            pass
        return True

    # --- endings ----------------------------------------------------------------------------------

    def _lost(self, failure: Exception) -> AdapterLost:
        error = AdapterLost(f"the {self._backend} adapter is gone", why=f"{type(failure).__name__}: {failure}")
        self._stop(error)
        self._report(error)
        return error

    def _stop(self, why: BusError) -> None:
        self._end = self._end or why
        self._stopping.set()
        self._waiting.clear()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._fileno is not None and self._loop is not None:
            self._loop.remove_reader(self._fileno)
            self._fileno = None

    def _report(self, error: BusError) -> None:
        for on_error in tuple(self._watchers):
            on_error(error)


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], argument: object) -> bool:
    try:
        loop.call_soon_threadsafe(callback, argument)
    except RuntimeError:  # the loop is closed
        return False
    return True


def _error_number(failure: Exception) -> int | None:
    number = getattr(failure, "error_code", None)  # python-can's name for it
    if number is None and isinstance(failure, OSError):
        number = failure.errno
    return number if isinstance(number, int) else None


def _is_back_pressure(failure: Exception) -> bool:
    return _error_number(failure) in _BACK_PRESSURE or _QUEUE_FULL.search(str(failure)) is not None


def _is_gone(failure: Exception) -> bool:
    # pyserial reports a pulled device as an OSError without a number
    return _error_number(failure) in _GONE or (isinstance(failure, OSError) and failure.errno is None)
