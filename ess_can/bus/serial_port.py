"""Writing to a serial adapter without ever waiting for it.

python-can's serial backends write with pyserial, which waits until the port takes everything, and slcan and robotell
then wait (tcdrain) until the adapter took it, too: for ever when the adapter hangs, and the event loop with them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

_PORTS: Mapping[str, str] = {
    "slcan": "serialPortOrig",
    "serial": "_ser",
    "robotell": "serialPortOrig",
    "seeedstudio": "ser",
}
"""Where python-can 4.6's backends keep their port."""

_OF_THIS_MACHINE = frozenset({"serial.serialposix", "serial.serialwin32"})
_FRAMES_WAITING = 4  # in the port: 1 ms at 500 kbit/s, which is how late a timer may look for room
_SHORTEST = 16  # bytes that a frame is taken to have at least
_NO_ROOM = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})


class SerialOutlet:
    """Takes over what a backend writes to an open pyserial port; what does not fit waits here, in whole frames.

    Reading is left as it is.
    """

    def __init__(self, port: Any) -> None:
        self._port = port
        self._write_some = port.write
        self._left = b""
        self._longest = _SHORTEST
        port.write_timeout = 0  # on Windows `write` then returns at once; elsewhere the descriptor is written to
        port.write = self.write
        port.flush = self._push

    def write(self, data: bytes | bytearray) -> int:
        """Write, or keep, `data`.  Raises OSError if the port is gone."""
        self._longest = max(self._longest, len(data))
        self._left += data
        self._push()
        return len(data)

    def has_room(self) -> bool:
        """Whether a frame written now would go out soon.  Raises OSError if the port is gone."""
        self._push()
        return not self._left and self._port.out_waiting <= _FRAMES_WAITING * self._longest

    def discard(self) -> None:
        """Forget what waits in an adapter's port that takes nothing: closing the port would wait for it."""
        self._left = b""
        self._port.reset_output_buffer()

    def _push(self) -> None:
        if not self._left:
            return
        if os.name == "nt":
            written = self._write_some(self._left)
        else:
            try:
                written = os.write(self._port.fileno(), self._left)
            except OSError as failure:
                if failure.errno not in _NO_ROOM:
                    raise
                return
        self._left = self._left[written:]


def outlet_of(bus: object, backend: str) -> SerialOutlet | None:
    """The outlet of a python-can bus if it has a serial port of this machine, else None."""
    port: Any = getattr(bus, _PORTS[backend], None) if backend in _PORTS else None
    # not those by URL (socket://, rfc2217://, loop://): they do not tell how much waits
    if type(port).__module__ not in _OF_THIS_MACHINE:
        return None
    if backend == "slcan" and os.name != "nt":
        port.timeout = 0  # it keeps half a line, and is only read when there is something: no need to wait for more
    return SerialOutlet(port)
