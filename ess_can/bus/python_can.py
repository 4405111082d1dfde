"""Opens any interface that python-can has, and the one place that knows the quirks of its backends.

python-can takes long to import, so that only opening an interface and sending a first frame do it.
"""

from __future__ import annotations

import errno
import io
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from ess_can.bus.adapter import PythonCanBus
from ess_can.bus.adapter_help import remedy_for
from ess_can.bus.driver import Driver, Echo, ErrorReport, ErrorState, Heard, IdFilter, OwnFrame
from ess_can.bus.serial_port import outlet_of
from ess_can.bus.socketcan import SocketCanDriver, check_link, error_report
from ess_can.can.frame import EXTENDED_FLAG, CanFrame, new_frame
from ess_can.can.timing import BitTiming
from ess_can.errors import AdapterLost, BusError, BusOff, InterfaceDown, InterfaceUnavailable

if TYPE_CHECKING:
    import can

__all__ = ["PythonCanBus", "open_bus"]

_BACK_PRESSURE = frozenset({errno.ENOBUFS, errno.EAGAIN, errno.EWOULDBLOCK})
_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.EIO, errno.EBADF, errno.ESHUTDOWN})
_QUEUE_FULL = re.compile(r"(buffer|queue|fifo)\b.*\b(full|overflow)", re.IGNORECASE)
_BUS_OFF = re.compile(r"bus[ -]?off", re.IGNORECASE)
_INV_FILTER = 0x2000_0000
_USUAL_BITRATE = 500_000
_NO_INTERFACE = 'Unknown interface type "None"'  # as python-can says it


@dataclass(frozen=True, slots=True)
class Quirks:
    """What is peculiar to one python-can backend.

    `echo` tells whether own frames come back; with LEARNED they do once `receive_own_messages` is set, which opening
    does itself if `asks`.  `marks_echo`: they come with `is_rx` false.  `kernel_errors`: error frames are coded as in
    linux/can/error.h.  `polls_state`: `state` asks the controller, cheaply.  `resets`: it has a `reset` that takes the
    controller out of bus-off (PCAN's only empties its queues, NI's stops the interface).
    `wire`: there is one, on which frames take time.  `copies`: it copies each message, once for each receiver.
    """

    echo: Echo = Echo.NONE
    marks_echo: bool = True
    asks: bool = False
    kernel_errors: bool = False
    polls_state: bool = False
    resets: bool = False
    wire: bool = True
    copies: bool = False


# Read from the backends of python-can 4.6.1.  None of them filters several identifiers in hardware (kvaser, vector and
# systec take one mask; the others filter in Python, slower than our own dispatching), so none gets filters from us.
QUIRKS: Mapping[str, Quirks] = {
    "etas": Quirks(echo=Echo.LEARNED, polls_state=True),
    "gs_usb": Quirks(echo=Echo.CERTAIN, kernel_errors=True),  # ignores receive_own_messages: always
    "ics_neovi": Quirks(echo=Echo.LEARNED),  # on by default
    "ixxat": Quirks(echo=Echo.LEARNED, marks_echo=False, asks=True, polls_state=True),
    "kvaser": Quirks(echo=Echo.LEARNED, marks_echo=False, asks=True),  # marked only with single_handle
    "nixnet": Quirks(echo=Echo.LEARNED),
    "pcan": Quirks(echo=Echo.LEARNED, asks=True),
    "socketcan": Quirks(echo=Echo.LEARNED, kernel_errors=True),  # see ess_can.bus.socketcan, which is used instead
    "systec": Quirks(echo=Echo.LEARNED, marks_echo=False),
    "udp_multicast": Quirks(echo=Echo.LOSSY, marks_echo=False, wire=False),
    "vector": Quirks(echo=Echo.LEARNED, asks=True, resets=True),
    "virtual": Quirks(wire=False, copies=True),  # gives own frames back only if opened so, and they tell nothing then
}


def confirms_frames(interface: str) -> bool:
    """Whether an interface, by python-can's name, can tell when a frame of ours was sent; not known means yes."""
    from can.interfaces import BACKENDS

    if interface not in BACKENDS:
        return True
    home = BACKENDS[interface][0].split(".")[2]
    return QUIRKS.get(home, Quirks()).echo is not Echo.NONE


def from_message(message: can.Message) -> CanFrame | None:
    """The message as a frame, or None for an error frame.  A remote frame gets as many zeros as it asks for."""
    if message.is_error_frame:
        return None
    can_id = message.arbitration_id | EXTENDED_FLAG if message.is_extended_id else message.arbitration_id
    if message.is_remote_frame:
        return CanFrame(can_id, bytes(message.dlc), message.is_fd, message.bitrate_switch, remote=True)
    return new_frame((can_id, bytes(message.data), message.is_fd, message.bitrate_switch, False))


class MessageDriver:
    """A `Driver` over any python-can bus, through its messages.

    `name` is python-can's name of its backend, `timing` that of the wire, if there is one and it is known.
    """

    reorders = False
    filters_ids = False

    def __init__(self, bus: can.BusABC, name: str, *, fd: bool = False, timing: BitTiming | None = None) -> None:
        from ess_can.bus.message import FrameStencil, to_message

        quirks = QUIRKS.get(name, Quirks())
        self._to_message = FrameStencil().show if quirks.copies else to_message
        self.name = name
        self.fd = fd
        self.timing = timing if quirks.wire else None
        self.echo = quirks.echo
        self.marks_echo = quirks.marks_echo
        self.polls_state = quirks.polls_state
        self.user_filters: Sequence[IdFilter] = filters_of(bus)
        self._bus = bus
        self._outlet = outlet_of(bus, name)
        self._kernel_errors = quirks.kernel_errors
        self._resets = quirks.resets
        if self.user_filters and quirks.echo is not Echo.NONE:
            bus.set_filters(None)  # they would drop our own frames, too

    def fileno(self) -> int:
        """The bus's, or -1."""
        try:
            return self._bus.fileno()
        except Exception:  # NotImplementedError by contract, and what backends raise in its place
            return -1

    def write(self, frame: CanFrame, *, bulk: bool) -> bool:
        """Give a frame to the backend; false if its queue, or its serial port, is full.

        Raises InterfaceDown, AdapterLost, BusOff, or BusError for a frame that the backend rejects.
        """
        try:
            if self._outlet is None:
                self._bus.send(self._to_message(frame))
            elif self._outlet.has_room():
                # slcan gives the time-out to its port, at some cost if it changes
                self._bus.send(self._to_message(frame), timeout=0)
            else:
                return False
        except Exception as failure:
            if _is_back_pressure(failure):
                return False
            raise self._meaning(failure, f"the adapter did not take frame {frame}") from failure
        return True

    def read(self, limit: int, wait_s: float) -> list[Heard]:
        """What the backend gives, up to `limit` messages."""
        heard: list[Heard] = []
        receive = self._bus.recv
        for _ in range(limit):
            try:
                message = receive(wait_s)
            except Exception as failure:
                heard.append(self._meaning(failure, "the adapter gave something unreadable"))
                break
            if message is None:
                break
            frame = from_message(message)
            if frame is None:
                if self._kernel_errors:
                    heard.append(error_report(message.arbitration_id, bytes(message.data).ljust(8, b"\0")))
            else:
                heard.append(frame if message.is_rx else OwnFrame(frame))
            wait_s = 0
        return heard

    def set_filters(self, filters: Sequence[IdFilter] | None) -> None:
        """Nothing: no backend filters several identifiers faster than we dispatch."""

    def state(self) -> ErrorReport | None:
        """What the controller says, or None if it cannot be asked now."""
        from can import BusState

        try:
            state = self._bus.state
        except Exception:
            return None
        return ErrorReport(ErrorState.BUS_OFF if state is BusState.ERROR else ErrorState.ACTIVE)

    def restart(self) -> bool:
        """Reset the backend where that helps.  Others may restart by themselves: python-can does not tell."""
        if not self._resets:
            return True
        try:
            cast("_Resettable", self._bus).reset()
        except Exception:  # whatever the vendor's library raises: then it stays off
            return False
        return True

    def close(self) -> None:
        """Shut the bus down."""
        with suppress(Exception):  # slcan writes a command to close it: an adapter that is gone does not take it
            if self._outlet is not None and not self._outlet.has_room():
                self._outlet.discard()
        with suppress(Exception):
            self._bus.shutdown()

    def _meaning(self, failure: Exception, what: str) -> BusError:
        why = f"{type(failure).__name__}: {failure}"
        if isinstance(failure.__cause__, OSError):  # slcan hides what the system said
            failure, why = failure.__cause__, f"{why}: {failure.__cause__}"
        number = _error_number(failure)
        if number == errno.ENETDOWN:
            return InterfaceDown(f"the {self.name} interface is down", why=why)
        if _BUS_OFF.search(str(failure)):
            return BusOff("the controller went bus-off", why=why)
        # pyserial reports a pulled device as an OSError without a number
        if number in _GONE or (isinstance(failure, OSError) and failure.errno is None):
            return AdapterLost(f"the {self.name} adapter is gone", why=why)
        return BusError(what, why=why)


def filters_of(bus: can.BusABC) -> tuple[IdFilter, ...]:
    """The filters that a python-can bus was opened with."""
    filters = []
    for one in cast("Iterable[Mapping[str, Any]]", bus.filters or ()):
        can_id, mask = one["can_id"], one["can_mask"]
        if "extended" in one:
            mask |= EXTENDED_FLAG
            can_id = can_id & ~EXTENDED_FLAG | (EXTENDED_FLAG if one["extended"] else 0)
        keep = EXTENDED_FLAG | 0x1FFF_FFFF
        filters.append(IdFilter(can_id & keep, mask & keep, bool(can_id & _INV_FILTER)))
    return tuple(filters)


class _Resettable(Protocol):
    def reset(self) -> object: ...


class _WithSocket(Protocol):
    socket: Any
    channel: str


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
    """Open an interface.  What is None is left to python-can's own configuration (files, CAN_INTERFACE and the like).

    Bit rates in bit/s; `filters` are (identifier, mask) pairs; `bus_kwargs` go to python-can's backend as they are.
    Raises InterfaceDown if the interface exists but is down, InterfaceUnavailable however else the opening fails.
    Call `start` on the result while the loop runs.
    """
    options: dict[str, Any] = {
        "bitrate": bitrate,
        "fd": fd,
        "data_bitrate": data_bitrate,
        "timing": timing,
        "can_filters": None if filters is None else [{"can_id": i, "can_mask": mask} for i, mask in filters],
        **(bus_kwargs or {}),
    }
    options = {name: value for name, value in options.items() if value is not None}
    # Backends warn about optional packages and the like; what matters is raised, and an application may still listen.
    logging.getLogger("can").addHandler(logging.NullHandler())
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # some simply print
            bus = _open(interface, channel, options)
        return PythonCanBus(_driver(bus, _timing(interface, channel, options), carries_fd=bool(fd)))
    except BusError:
        raise
    except Exception as failure:  # backends raise whatever they like: OSError, NameError, ValueError, CanError...
        if interface is None and str(failure) == _NO_INTERFACE:
            raise InterfaceUnavailable(
                "no interface was named",
                why="there is no -i, and python-can's configuration names none",
                remedy=remedy_for(failure, None, channel),
            ) from failure
        where = f"interface {interface}" if interface else "the configured interface"
        raise InterfaceUnavailable(
            f"cannot open {where}" + ("" if channel is None else f", channel {channel}"),
            why=f"{type(failure).__name__}: {failure}",
            remedy=remedy_for(failure, interface, channel),
        ) from failure


def _open(interface: str | None, channel: str | int | None, options: dict[str, Any]) -> can.BusABC:
    import can

    if QUIRKS.get(interface or "", Quirks()).asks and "receive_own_messages" not in options:
        try:
            return can.Bus(channel, interface, **options, receive_own_messages=True)
        except Exception as failure:  # an old driver or device: then without
            del failure
    return can.Bus(channel, interface, **options)


def _timing(interface: str | None, channel: str | int | None, options: Mapping[str, Any]) -> BitTiming:
    """The bit rates given, or found in python-can's configuration; the usual one if there is none."""
    from can.util import load_config

    found: Mapping[str, Any] = options
    if not options.keys() & {"bitrate", "timing"}:
        with suppress(Exception):
            found = load_config(config={"interface": interface, "channel": channel, **options})
    given = found.get("timing")
    bitrate, data_bitrate = found.get("bitrate"), found.get("data_bitrate")
    if given is not None:
        bitrate = getattr(given, "nom_bitrate", None) or given.bitrate
        data_bitrate = getattr(given, "data_bitrate", None)
    try:
        bitrate = int(bitrate or _USUAL_BITRATE)
        return BitTiming(bitrate, int(data_bitrate or bitrate))
    except ValueError:
        return BitTiming(_USUAL_BITRATE, _USUAL_BITRATE)


def _driver(bus: can.BusABC, timing: BitTiming, *, carries_fd: bool) -> Driver:
    import can

    # Backends know themselves by module; the name given may come from python-can's configuration instead.
    name = type(bus).__module__.removeprefix("can.interfaces.").partition(".")[0]
    fd = carries_fd or bus.protocol is not can.CanProtocol.CAN_20
    if name != "socketcan":
        return MessageDriver(bus, name, fd=fd, timing=timing)
    opened = cast("_WithSocket", bus)
    try:
        check_link(opened.socket, opened.channel, fd=fd)
        user_filters = filters_of(bus)
        return SocketCanDriver(opened.socket, opened.channel, bus.shutdown, fd=fd, user_filters=user_filters)
    except BaseException:
        bus.shutdown()
        raise


def _error_number(failure: Exception) -> int | None:
    number = getattr(failure, "error_code", None)  # python-can's name for it
    if number is None and isinstance(failure, OSError):
        number = failure.errno
    return number if isinstance(number, int) else None


def _is_back_pressure(failure: Exception) -> bool:
    return _error_number(failure) in _BACK_PRESSURE or _QUEUE_FULL.search(str(failure)) is not None
