"""A serial CAN adapter with the LAWICEL protocol (CANUSB, CAN232 and their many kin), emulated on a pseudo terminal.

As strict as the manual: a command that makes no sense, or not now, is answered with BELL and counted.  What the USB
side does not take is held back until the controller has room, as adapters with USB flow control do.
"""

from __future__ import annotations

import asyncio
import os
import pty
import re
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ess_can.bus.port import Bus
from ess_can.can.frame import EXTENDED_FLAG, CanFrame

BITRATES = dict(enumerate((10_000, 20_000, 50_000, 100_000, 125_000, 250_000, 500_000, 800_000, 1_000_000)))
"""By the digit behind S."""

_OK, _BELL = b"\r", b"\a"
_FRAME = re.compile(r"(?:t(?P<id>[0-7][0-9A-F]{2})|T(?P<xid>[01][0-9A-F]{7}))(?P<n>[0-8])(?P<data>(?:[0-9A-F]{2})*)")
_REMOTE = re.compile(r"(?:r(?P<id>[0-7][0-9A-F]{2})|R(?P<xid>[01][0-9A-F]{7}))(?P<n>[0-8])")
_LONGEST = 32  # bytes of a command
_TX_FIFO = 16  # frames that the controller holds
_TO_HOST = 1 << 16  # bytes that wait for a host that does not read
_OVERRUN = 0x08  # status flag: data overrun


class Attached(Bus, Protocol):
    """A controller on the bus."""

    def detach(self) -> None:
        """Leave the bus."""


@dataclass
class Lawicel:
    """One adapter, plugged in; `path` is what to open.  `connect` puts its controller on the bus at a bit rate.

    `nonsense` has the commands that were answered with BELL; `received` and `sent` count frames as the host sees them,
    `lost` those that the host did not take in time.
    """

    connect: Callable[[int], Attached]
    version: str = "V1013"
    serial_number: str = "NE55A"
    nonsense: list[str] = field(default_factory=list)
    bitrates: list[int] = field(default_factory=list)
    received: int = 0
    sent: int = 0
    lost: int = 0

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        self._bitrate: int | None = None
        self._controller: Attached | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._time_stamps = False
        self._listen_only = False
        self._status = 0
        self._in_fifo = 0
        self._line = bytearray()
        self._commands: list[str] = []
        self._to_host = bytearray()
        self._reading = self._plugged = True
        self._loop.add_reader(self._master, self._readable)

    def pull(self) -> None:
        """Take it out of its socket: the terminal is gone, and so is the controller."""
        if self._plugged:
            self._plugged = False
            self._loop.remove_reader(self._master)
            self._loop.remove_writer(self._master)
            self._close_channel()
            os.close(self._slave)
            os.close(self._master)

    # --- from the host ------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            content = os.read(self._master, 4096)
        except OSError:  # nobody has it open now
            return
        for byte in content:
            if byte != 0x0D:
                self._line.append(byte)
                continue
            self._commands.append(self._line.decode("ascii", "replace"))
            self._line.clear()
        if len(self._line) > _LONGEST:
            self._refuse(self._line.decode("ascii", "replace"))
            self._line.clear()
        self._work_off()

    def _work_off(self) -> None:
        """Do what was commanded, as long as there is room for frames; then hold the host back."""
        while self._commands and self._in_fifo < _TX_FIFO and self._plugged:
            command = self._commands.pop(0)
            answer = self._do(command)
            if answer is None:
                self._refuse(command)
            else:
                self._answer(answer)
        wanted = self._plugged and not self._commands
        if wanted and not self._reading:
            self._loop.add_reader(self._master, self._readable)
        elif self._reading and not wanted and self._plugged:
            self._loop.remove_reader(self._master)
        self._reading = wanted

    def _refuse(self, command: str) -> None:
        self.nonsense.append(command)
        self._answer(_BELL)

    def _do(self, command: str) -> bytes | None:
        """The answer to a command, None for one that makes no sense."""
        if command == "":  # hosts send it to flush what was there before
            return _OK
        if command[0] in "tTrR":
            return self._transmit(command)
        match command:
            case "V":
                return self.version.encode() + _OK
            case "N":
                return self.serial_number.encode() + _OK
            case "F" if self._controller is not None:
                status, self._status = self._status, 0
                return b"F%02X\r" % status
            case "C" if self._controller is not None:
                self._close_channel()
                return _OK
            case "O" | "L" if self._controller is None and self._bitrate is not None:
                self._open_channel(self._bitrate, listen_only=command == "L")
                return _OK
            case "Z0" | "Z1" if self._controller is None:
                self._time_stamps = command == "Z1"
                return _OK
            case _ if re.fullmatch("S[0-8]", command) and self._controller is None:
                self._bitrate = BITRATES[int(command[1])]
                self.bitrates.append(self._bitrate)
                return _OK
        return None

    def _transmit(self, command: str) -> bytes | None:
        remote = command[0] in "rR"
        parts = (_REMOTE if remote else _FRAME).fullmatch(command)
        if parts is None or self._controller is None or self._listen_only:
            return None
        length = int(parts["n"])
        data = bytes(length) if remote else bytes.fromhex(parts["data"])
        if len(data) != length:
            return None
        can_id = int(parts["id"], 16) if parts["id"] else int(parts["xid"], 16) | EXTENDED_FLAG
        self._in_fifo += 1
        self._controller.send(CanFrame(can_id, data, remote=remote), self._sent)
        return b"Z\r" if parts["xid"] else b"z\r"

    def _sent(self, _at: float) -> None:
        self._in_fifo -= 1
        self.sent += 1
        self._work_off()

    # --- to the host --------------------------------------------------------------------------------

    def _received(self, frame: CanFrame, at: float) -> None:
        letter = ("tr", "TR")[frame.extended][frame.remote]
        digits = f"{frame.can_id & 0x1FFF_FFFF:08X}" if frame.extended else f"{frame.can_id:03X}"
        data = "" if frame.remote else frame.data.hex().upper()
        stamp = f"{int(at * 1000) % 60_000:04X}" if self._time_stamps else ""
        if self._answer(f"{letter}{digits}{len(frame.data)}{data}{stamp}\r".encode()):
            self.received += 1
        else:
            self.lost += 1
            self._status |= _OVERRUN

    def _answer(self, content: bytes) -> bool:
        """Send to the host; false if it does not read and the buffer is full."""
        if len(self._to_host) + len(content) > _TO_HOST:
            return False
        if not self._to_host:
            self._loop.add_writer(self._master, self._writable)
        self._to_host += content
        return True

    def _writable(self) -> None:
        try:
            del self._to_host[: os.write(self._master, self._to_host)]
        except BlockingIOError:
            return
        if not self._to_host:
            self._loop.remove_writer(self._master)

    # --- the channel --------------------------------------------------------------------------------

    def _open_channel(self, bitrate: int, *, listen_only: bool) -> None:
        self._listen_only = listen_only
        self._controller = self.connect(bitrate)
        self._unsubscribe = self._controller.subscribe(None, self._received)

    def _close_channel(self) -> None:
        if self._controller is not None and self._unsubscribe is not None:
            self._unsubscribe()
            self._controller.detach()
        self._controller = self._unsubscribe = None
        self._in_fifo = 0
