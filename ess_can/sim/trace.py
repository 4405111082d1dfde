"""What was on the wire, reduced to one hash: two runs are the same run if their hashes are."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

from ess_can.can.frame import CanFrame

OnFrame = Callable[[CanFrame, float, str], None]
"""Called with each frame that the wire carried to its end, the time of that end in seconds, and its sender's name."""

_RECORD = struct.Struct("<QIBB")
_TOGETHER = 1 << 16


class TraceHash:
    """SHA-256 over all frames of a run: time (ns, u64), identifier (u32), flags (u8), length (u8), data; little-endian.

    Flags: bit 0 FD, bit 1 bit-rate switch, bit 2 remote.  Give `record` to `Wire` as its `on_frame`.
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._records = bytearray()  # not yet in the hash, which takes them quicker together
        self.frames = 0

    def record(self, frame: CanFrame, time_s: float, sender: str) -> None:
        """Add a frame."""
        can_id, data, fd, brs, remote = frame
        flags = fd | brs << 1 | remote << 2
        self._records += _RECORD.pack(round(time_s * 1e9), can_id, flags, len(data)) + data
        self.frames += 1
        if len(self._records) >= _TOGETHER:
            self._take_records()

    def _take_records(self) -> None:
        self._hash.update(self._records)
        self._records.clear()

    def hexdigest(self) -> str:
        """The hash so far, as 64 hexadecimal digits."""
        self._take_records()
        return self._hash.hexdigest()
