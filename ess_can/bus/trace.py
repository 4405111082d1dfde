"""A trace of what is on the bus, in a file that other tools open: python-can's writers behind a `Bus`.

A trace is for people who look at it later.  No upgrade may fail because of it: a file that cannot be written is an
error before the start, and a warning once the trace has begun.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import can

from ess_can.bus.around import BusAround
from ess_can.bus.clock import now
from ess_can.bus.message import to_message
from ess_can.bus.port import Bus, Sent
from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.errors import TraceUnwritable, UsageError

if TYPE_CHECKING:
    from can.io.generic import FileIOMessageWriter

OnFailure = Callable[[TraceUnwritable], None]

SUFFIXES = (".blf", ".asc", ".log", ".csv")
"""Vector's binary and text logs, candump's log, comma-separated values."""

_QUICK = 1  # zlib's level: holds up the loop half as long as the usual one, for a file that is 4 % larger


class TraceWriter:
    """Frames into a file.  Made by `open_trace`; `close` it after use.

    Holds at most one container of the format (128 KiB) in memory.  `frames` counts what was recorded.  The first
    failure to write ends the trace: it is kept in `failure` and given to `on_failure`; what follows is not recorded.
    """

    def __init__(self, path: Path, writer: FileIOMessageWriter[Any], *, ahead_s: float, on_failure: OnFailure) -> None:
        self.path = path
        self.frames = 0
        self.failure: TraceUnwritable | None = None
        self._writer: FileIOMessageWriter[Any] | None = writer
        self._ahead_s = ahead_s  # of the wall clock before the loop's time
        self._on_failure = on_failure

    def record(self, frame: CanFrame, at: float, *, received: bool) -> None:
        """Add a frame that was on the bus at loop time `at`, in seconds: `received` from others, else sent by us."""
        if self._writer is None:
            return
        message = to_message(frame)
        message.timestamp = at + self._ahead_s
        message.is_rx = received
        try:
            self._writer.on_message_received(message)
        except Exception as error:  # whatever the format's writer raises: the upgrade goes on
            self._fail(self._writer, error)
        else:
            self.frames += 1

    def close(self) -> None:
        """Write what is left and close the file.  Closing again does nothing.  Raises nothing: see `failure`."""
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            writer.stop()
        except Exception as error:
            self._fail(writer, error)

    def _fail(self, writer: FileIOMessageWriter[Any], error: Exception) -> None:
        self._writer = None
        with suppress(OSError, ValueError):  # what could not be written still cannot, but the descriptor is released
            writer.file.close()
        self.failure = TraceUnwritable(f"the trace {self.path} is incomplete", why=_reason(error))
        self._on_failure(self.failure)


def open_trace(path: Path, started_at_wall_s: float, on_failure: OnFailure) -> TraceWriter:
    """Begin a trace on the running loop, whose time now is `started_at_wall_s` seconds after 1970-01-01 UTC.

    A file that exists is overwritten.  Raises UsageError for a suffix that is none of `SUFFIXES`, TraceUnwritable if
    the file cannot be created or the disk is full.
    """
    writer: FileIOMessageWriter[Any] | None = None
    try:
        writer = _open_writer(path)
        writer.file.flush()  # a full disk shows itself here
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if writer is not None:
            with suppress(OSError):
                writer.file.close()
        raise TraceUnwritable(f"the trace {path} cannot be written", why=_reason(error)) from error
    return TraceWriter(path, writer, ahead_s=started_at_wall_s - now(), on_failure=on_failure)


def _open_writer(path: Path) -> FileIOMessageWriter[Any]:
    match path.suffix.lower():
        case ".blf":
            return can.BLFWriter(path, compression_level=_QUICK)
        case ".asc":
            return can.ASCWriter(path)
        case ".log":
            return can.CanutilsLogWriter(path)
        case ".csv":
            return can.CSVWriter(path)
        case other:
            raise UsageError(f"no trace format has the suffix {other!r}", remedy=f"Use one of {', '.join(SUFFIXES)}.")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"


class TracedBus(BusAround):
    """A `Bus` around a bus: what others send is recorded as received, what we send once it is confirmed as sent.

    What other sockets of this host send for us (`adopt`) is recorded as sent, too.
    Everything on the bus is received for it, so that no hardware filter applies.  `close` ends the trace, not the bus.
    """

    def __init__(self, bus: Bus, writer: TraceWriter) -> None:
        super().__init__(bus)
        self._writer = writer
        self._unsubscribe = bus.subscribe(None, self._received)
        self._adopted: dict[int, Callable[[], None]] = {}  # how to unsubscribe from each
        self._from_others: CanFrame | None = None  # the latest with an adopted identifier

    def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        """Queue a frame, as `Bus.send` says."""

        def sent(at: float) -> None:
            self._writer.record(frame, at, received=False)
            if on_sent is not None:
                on_sent(at)

        super().send(frame, sent, bulk=bulk)

    def adopt(self, can_id: int) -> None:
        """Take this host's frames with this identifier for ours, as `Bus.adopt` says, and record them as sent."""
        super().adopt(can_id)
        if can_id in self._adopted:
            return
        # Who subscribes to the identifier gets no adopted frame: told first, it tells which are from others.
        self._adopted[can_id] = self._bus.subscribe((can_id,), self._received_from_others)
        self._unsubscribe()
        self._unsubscribe = self._bus.subscribe(None, self._received)

    def close(self) -> None:
        """Stop recording and close the file."""
        self._unsubscribe()
        for unsubscribe in self._adopted.values():
            unsubscribe()
        self._adopted.clear()
        self._writer.close()

    def _received_from_others(self, frame: CanFrame, _at: float) -> None:
        self._from_others = frame

    def _received(self, frame: CanFrame, at: float) -> None:
        ours = frame.can_id in self._adopted and frame is not self._from_others
        self._from_others = None
        self._writer.record(frame, at, received=not ours)


def tshark_command(path: Path, channels: Iterable[tuple[int, int]]) -> str:
    """What to type to see the diagnostic requests and responses in a BLF trace; nothing for other formats.

    `channels` are the `can_id` of requests and of responses, a pair a node.  Wireshark is told that these identifiers,
    and no others, carry ISO-TP: told so of the whole bus (``-d can.subdissector,iso15765``), it takes the station's
    broadcasts for fragments, and loses every request of more than one frame.
    """
    if path.suffix.lower() != ".blf":
        return ""
    ids = sorted({can_id for pair in channels for can_id in pair})
    standard = ",".join(str(can_id) for can_id in ids if can_id < EXTENDED_FLAG)
    extended = ",".join(str(can_id & ~EXTENDED_FLAG) for can_id in ids if can_id >= EXTENDED_FLAG)
    options = [f"-o iso15765.can.ids:{standard}"] if standard else []
    options += [f"-o iso15765.can.extended_ids:{extended}"] if extended else []
    return f"tshark -r {shlex.quote(str(path))} {' '.join(options)} -d iso15765.subdissector,uds -Y uds"
