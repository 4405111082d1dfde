"""A Linux SocketCAN interface, through the socket that python-can opened.

python-can hides what tells our own frames from those of other programs on this host: both are marked as sent
(MSG_DONTROUTE), and only our own carry MSG_CONFIRM.  So frames are read and written here, as the kernel's
documentation describes them (Documentation/networking/can.rst, linux/can.h, linux/can/raw.h, linux/can/error.h).

No privilege is needed for any of it.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from ess_can.bus.adapter_help import how_to_bring_up, how_to_carry_fd
from ess_can.bus.driver import Echo, ErrorReport, ErrorState, Heard, HostFrame, IdFilter, OwnFrame
from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.can.timing import BitTiming
from ess_can.errors import AdapterLost, BusError, InterfaceDown, InterfaceUnavailable

_CAN_FRAME = struct.Struct("=IB3x8s")  # can_id, len, 3 unused, data
_CANFD_FRAME = struct.Struct("=IBB2x64s")  # can_id, len, flags, 2 unused, data
_RTR_FLAG = 0x4000_0000
_ERR_FLAG = 0x2000_0000
_INV_FILTER = 0x2000_0000
_IDENTIFIER = 0x1FFF_FFFF | EXTENDED_FLAG
_CANFD_BRS = 0x01

_MSG_DONTROUTE = 0x004
_MSG_CONFIRM = 0x800
_SO_PRIORITY = 12
_SO_RXQ_OVFL = 40
_SO_TIMESTAMPNS = 35
_SOL_CAN_RAW = 101
_CAN_RAW_FILTER = 1
_CAN_RAW_ERR_FILTER = 2
_CAN_RAW_RECV_OWN_MSGS = 4
_CAN_RAW_FILTER_MAX = 512
_SIOCGIFFLAGS = 0x8913
_SIOCGIFMTU = 0x8921
_IFF_UP = 1
_CAN_FILTER = struct.Struct("=II")

_PRIORITY_URGENT = 6  # the first of pfifo_fast's three bands, and the highest that needs no privilege
_PRIORITY_BULK = 2  # its last band: behind the frames of other programs, too
_RECEIVE_BUFFER = 4 << 20  # the kernel cuts it to net.core.rmem_max

# Classes of error frames, in can_id
_ERR_TX_TIMEOUT = 0x001
_ERR_CRTL = 0x004
_ERR_ACK = 0x020
_ERR_BUSOFF = 0x040
_ERR_RESTARTED = 0x100
_ERR_CNT = 0x200
_ERRORS_WANTED = _ERR_TX_TIMEOUT | _ERR_CRTL | _ERR_ACK | _ERR_BUSOFF | _ERR_RESTARTED
# Controller state, in data[1]
_CRTL_WARNING = 0x04 | 0x08
_CRTL_PASSIVE = 0x10 | 0x20
_CRTL_ACTIVE = 0x40

_NO_ROOM = frozenset({errno.ENOBUFS, errno.EAGAIN, errno.EWOULDBLOCK})
_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.EBADF, errno.ENOTCONN, errno.ESHUTDOWN})


class Socket(Protocol):
    """What is used of the socket."""

    def setblocking(self, flag: bool, /) -> None:
        """As `socket.socket` does."""

    def setsockopt(self, level: int, name: int, value: int | bytes, /) -> None:
        """As `socket.socket` does."""

    def send(self, data: bytes, /) -> int:
        """As `socket.socket` does."""

    def recvmsg(self, bufsize: int, ancbufsize: int, /) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        """As `socket.socket` does."""

    def fileno(self) -> int:
        """As `socket.socket` does."""


def pack_frame(frame: CanFrame) -> bytes:
    """The frame as struct can_frame (16 bytes) or canfd_frame (72 bytes), in host byte order."""
    data = frame.data
    if frame.fd:
        return _CANFD_FRAME.pack(frame.can_id, len(data), _CANFD_BRS if frame.brs else 0, data)
    if frame.remote:
        return _CAN_FRAME.pack(frame.can_id | _RTR_FLAG, len(data), b"")
    return _CAN_FRAME.pack(frame.can_id, len(data), data)


def unpack_frame(raw: bytes) -> CanFrame | ErrorReport | None:
    """What the kernel gave: a frame, an error report, or None if it is neither."""
    if len(raw) == _CAN_FRAME.size:
        can_id, length, data = _CAN_FRAME.unpack(raw)
        if can_id & _ERR_FLAG:
            return error_report(can_id, data)
        length = min(length, 8)
        if can_id & _RTR_FLAG:
            return CanFrame(can_id & _IDENTIFIER, bytes(length), remote=True)
        return CanFrame(can_id, data[:length])
    if len(raw) == _CANFD_FRAME.size:
        can_id, length, flags, data = _CANFD_FRAME.unpack(raw)
        return CanFrame(can_id & _IDENTIFIER, data[:length], fd=True, brs=bool(flags & _CANFD_BRS))
    return None


def error_report(can_id: int, data: bytes) -> ErrorReport:
    """What an error frame says: `can_id` with its class bits, and its eight bytes (linux/can/error.h)."""
    state = None
    if can_id & _ERR_BUSOFF:
        state = ErrorState.BUS_OFF
    elif can_id & _ERR_CRTL:
        if data[1] & _CRTL_PASSIVE:
            state = ErrorState.PASSIVE
        elif data[1] & _CRTL_WARNING:
            state = ErrorState.WARNING
        elif data[1] & _CRTL_ACTIVE:
            state = ErrorState.ACTIVE
    counted = bool(can_id & _ERR_CNT or data[6] or data[7])  # kernels before 6.0 do not flag them
    return ErrorReport(
        state=state,
        restarted=bool(can_id & _ERR_RESTARTED),
        not_acknowledged=bool(can_id & _ERR_ACK),
        transmit_timeout=bool(can_id & _ERR_TX_TIMEOUT),
        tec=data[6] if counted else None,
        rec=data[7] if counted else None,
    )


class SocketCanDriver:
    """A `Driver` over an open CAN_RAW socket that is bound to `channel`; `release` closes it."""

    name = "socketcan"
    timing: BitTiming | None = None  # the kernel tells when a frame was sent
    echo = Echo.CERTAIN
    marks_echo = True
    reorders = True
    filters_ids = True
    polls_state = False

    def __init__(
        self,
        sock: Socket,
        channel: str,
        release: Callable[[], None],
        *,
        fd: bool = False,
        user_filters: Sequence[IdFilter] = (),
    ) -> None:
        self.fd = fd
        self.user_filters = user_filters
        self._socket = sock
        self._channel = channel
        self._release = release
        self._priority = -1
        self._overruns = 0
        sock.setblocking(False)
        sock.setsockopt(_SOL_CAN_RAW, _CAN_RAW_RECV_OWN_MSGS, 1)
        sock.setsockopt(_SOL_CAN_RAW, _CAN_RAW_ERR_FILTER, _ERRORS_WANTED)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 0)  # our time is the loop's
        sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)

    def fileno(self) -> int:
        """The socket's."""
        return self._socket.fileno()

    def write(self, frame: CanFrame, *, bulk: bool) -> bool:
        """Give a frame to the kernel; false if its queue or the socket's share of it is full.

        Raises InterfaceDown, AdapterLost, or BusError for a frame that the kernel does not take.
        """
        priority = _PRIORITY_BULK if bulk else _PRIORITY_URGENT
        try:
            if priority != self._priority:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_PRIORITY, priority)
                self._priority = priority
            self._socket.send(pack_frame(frame))
        except OSError as failure:
            if failure.errno in _NO_ROOM:
                return False
            raise self._meaning(failure, f"the kernel did not take frame {frame}") from failure
        return True

    def read(self, limit: int, wait_s: float) -> list[Heard]:
        """What the socket holds, up to `limit` frames.  Never waits."""
        heard: list[Heard] = []
        for _ in range(limit):
            try:
                raw, ancillary, flags, _ = self._socket.recvmsg(_CANFD_FRAME.size, 64)
            except BlockingIOError:
                break
            except OSError as failure:
                heard.append(self._meaning(failure, f"cannot read from {self._channel}"))
                break
            if ancillary:
                self._look_for_overrun(ancillary, heard)
            what = unpack_frame(raw)
            if what is None:
                heard.append(BusError(f"{self._channel} gave {len(raw)} bytes that are no frame"))
            elif flags & _MSG_CONFIRM and isinstance(what, CanFrame):
                heard.append(OwnFrame(what))
            elif flags & _MSG_DONTROUTE and isinstance(what, CanFrame):
                heard.append(HostFrame(what))
            else:
                heard.append(what)
        return heard

    def set_filters(self, filters: Sequence[IdFilter] | None) -> None:
        """Let the kernel drop what none of these admits.  With more than it can hold everything is received."""
        if filters is None or len(filters) > _CAN_RAW_FILTER_MAX:
            filters = (IdFilter(0, 0),)
        packed = b"".join(
            _CAN_FILTER.pack(can_id | _INV_FILTER if inverted else can_id, mask) for can_id, mask, inverted in filters
        )
        try:
            self._socket.setsockopt(_SOL_CAN_RAW, _CAN_RAW_FILTER, packed)
        except OSError as failure:
            raise self._meaning(failure, f"the kernel did not take filters for {self._channel}") from failure

    def state(self) -> ErrorReport | None:
        """Nothing: the kernel reports by error frames."""
        return None

    def restart(self) -> bool:
        """Nothing: with restart-ms the kernel does it by itself, without it takes CAP_NET_ADMIN."""
        return True

    def close(self) -> None:
        """Close the socket."""
        self._release()

    def _look_for_overrun(self, ancillary: list[tuple[int, int, bytes]], heard: list[Heard]) -> None:
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                overruns = int.from_bytes(data[:4], sys.byteorder)
                if overruns != self._overruns:
                    heard.append(ErrorReport(overrun=(overruns - self._overruns) & 0xFFFF_FFFF))
                    self._overruns = overruns

    def _meaning(self, failure: OSError, what: str) -> BusError:
        why = str(failure)
        if failure.errno == errno.ENETDOWN:
            return InterfaceDown(f"{self._channel} is down", why=why, remedy=how_to_bring_up(self._channel))
        if failure.errno in _GONE:
            return AdapterLost(f"the CAN interface {self._channel} is gone", why=why)
        return BusError(what, why=why)


def check_link(sock: socket.socket, channel: str, *, fd: bool) -> None:
    """Raise InterfaceDown if the interface is down, InterfaceUnavailable if it cannot carry what is asked of it."""
    import fcntl

    if not channel:
        raise InterfaceUnavailable(
            "no channel was named for interface socketcan", remedy="Name one, for example -c can0."
        )
    request = struct.Struct("16sh22x")  # struct ifreq: the name, then flags
    name = channel.encode()
    _, flags = request.unpack(fcntl.ioctl(sock, _SIOCGIFFLAGS, request.pack(name, 0)))
    if not flags & _IFF_UP:
        raise InterfaceDown(f"{channel} is down", remedy=how_to_bring_up(channel))
    request = struct.Struct("16si20x")  # struct ifreq: the name, then the MTU
    _, mtu = request.unpack(fcntl.ioctl(sock, _SIOCGIFMTU, request.pack(name, 0)))
    if fd and mtu < _CANFD_FRAME.size:
        raise InterfaceUnavailable(
            f"{channel} does not carry CAN FD",
            why=f"its MTU is {mtu}, not {_CANFD_FRAME.size}",
            remedy=how_to_carry_fd(channel),
        )
