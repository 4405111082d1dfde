"""AUTOSAR E2E Profile 5: protects a frame against corruption, loss, repetition and confusion, not against an attacker.

Bytes 0 and 1 are a CRC-16 (CCITT-FALSE: polynomial 0x1021, start 0xFFFF), low byte first, over bytes 2 to the end and
then the message's 16-bit data ID, low byte first; byte 2 is a counter modulo 256.  In a 64-bit frame the CRC finds
every error of up to three bits.
"""

from __future__ import annotations

from binascii import crc_hqx
from enum import Enum

HEADER_BYTES = 3
_COUNTER = 2
_COUNTERS = 256
_DATA_IDS = 0x1_0000
_CRC_START = 0xFFFF


class Verdict(Enum):
    """What a monitor makes of a frame."""

    OK = "ok"
    OK_SOME_LOST = "ok, some lost"
    REPEATED = "repeated"
    WRONG_SEQUENCE = "wrong sequence"
    ERROR = "error"
    NO_NEW_DATA = "no new data"


def protect(data: bytes | bytearray, data_id: int, counter: int) -> bytes:
    """The frame with its header filled in; what the first three bytes of `data` are does not matter.

    Raises ValueError if there is no room for the header, or `data_id` exceeds 16 or `counter` 8 bits.
    """
    if len(data) < HEADER_BYTES:
        raise ValueError(f"{len(data)} bytes have no room for the E2E header of {HEADER_BYTES}")
    if not 0 <= counter < _COUNTERS or not 0 <= data_id < _DATA_IDS:
        raise ValueError(f"counter {counter} or data ID {data_id} is out of range")
    body = bytes((counter,)) + data[HEADER_BYTES:]
    return crc_hqx(body + data_id.to_bytes(2, "little"), _CRC_START).to_bytes(2, "little") + body


def check(data: bytes | bytearray, data_id: int) -> bool:
    """Whether the CRC fits the bytes and the data ID.  A frame too short for a header does not; never raises."""
    return _fits(data, data_id.to_bytes(2, "little"))


def _fits(data: bytes | bytearray, data_id: bytes) -> bool:
    """`data_id` as it goes into the CRC."""
    return len(data) >= HEADER_BYTES and data[0] | data[1] << 8 == crc_hqx(data[_COUNTER:] + data_id, _CRC_START)


class E2eSender:
    """Protects one message's frames, one after the other; the first has counter 0, 255 is followed by 0."""

    def __init__(self, data_id: int) -> None:
        self.data_id = data_id
        self._counter = 0

    def protect(self, data: bytes | bytearray) -> bytes:
        """The next frame.  Raises ValueError as `protect` of this module does."""
        protected = protect(data, self.data_id, self._counter)
        self._counter = (self._counter + 1) % _COUNTERS
        return protected

    def take_back(self) -> None:
        """The last frame never left: the next one gets its counter, so that receivers see no gap."""
        self._counter = (self._counter - 1) % _COUNTERS


class E2eMonitor:
    """Judges one message's frames as they arrive.

    `max_delta` is the largest counter step that still counts as OK_SOME_LOST.  A receiver that joins a running sender
    judges its first frame WRONG_SEQUENCE, unless that has counter 0: nothing shows yet that it is in sequence.

    `consecutive_ok` counts the frames since the last verdict that was not OK (a lost frame starts the count anew; no
    new data leaves it to the age).  `last_good_at` is the loop time, in seconds, of the last frame with OK or
    OK_SOME_LOST, None before the first.
    """

    def __init__(self, data_id: int, max_delta: int = 1) -> None:
        self.data_id = data_id
        self.max_delta = max_delta
        self.consecutive_ok = 0
        self.last_good_at: float | None = None
        self._id_bytes = data_id.to_bytes(2, "little")
        self._last_counter = _COUNTERS - 1

    def receive(self, data: bytes | bytearray | None, now: float) -> Verdict:
        """Judge a frame's bytes, or None when a cycle passed without one.  Never raises."""
        if data is None:
            return Verdict.NO_NEW_DATA
        if not _fits(data, self._id_bytes):
            self.consecutive_ok = 0
            return Verdict.ERROR
        counter = data[_COUNTER]
        delta = (counter - self._last_counter) % _COUNTERS
        self._last_counter = counter
        if delta == 1:
            self.consecutive_ok += 1
            self.last_good_at = now
            return Verdict.OK
        self.consecutive_ok = 0
        if delta == 0:
            return Verdict.REPEATED
        if delta > self.max_delta:
            return Verdict.WRONG_SEQUENCE
        self.last_good_at = now
        return Verdict.OK_SOME_LOST

    def age(self, now: float) -> float:
        """Seconds since the last good frame; infinite before the first."""
        return float("inf") if self.last_good_at is None else now - self.last_good_at
