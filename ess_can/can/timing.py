"""The exact time of a frame on the wire (ISO 11898-1): every bit counted, stuff bits included.

From the start of frame to the end of the CRC sequence a classic frame is bit-stuffed: after five equal bits one
complement is sent, which counts into the next run.  How many there are depends on identifier, data and CRC, so all of
them are computed.  An FD frame (ISO format) is stuffed so up to the end of its data; its stuff count and CRC have stuff
bits at fixed places, so their values do not matter here.

Times include the three bits of intermission, so that consecutive frames follow each other without a gap.  The
bit-rate switch counts as: nominal rate up to and including BRS and after the CRC delimiter, data rate between.  An FD
frame is that of an error-active sender (ESI dominant).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import crcmod

from ess_can.can.frame import FD_LENGTHS, CanFrame

INTERMISSION_BITS = 3
_TAIL_BITS = 1 + 1 + 1 + 7 + INTERMISSION_BITS  # CRC delimiter, ACK, ACK delimiter, end of frame, intermission
_CRC15 = 0x4599


@dataclass(frozen=True, slots=True)
class BitTiming:
    """Bit rates in bit/s: the nominal one and, where the bus carries CAN FD, the one of the data phase."""

    bitrate: int
    data_bitrate: int | None = None

    def __post_init__(self) -> None:
        if self.bitrate <= 0 or (self.data_bitrate is not None and self.data_bitrate <= 0):
            raise ValueError("bit rates are positive")


def for_any_frame(timing: BitTiming) -> BitTiming:
    """`timing`, for CAN FD frames, too, where their data bit rate is not known: then it is the nominal one."""
    return BitTiming(timing.bitrate, timing.data_bitrate or timing.bitrate)


# --- stuffing, table-driven ---------------------------------------------------------------------
# A state says what the next bit meets: the last bit's value and how many equal ones end there, 1..5.  The stuff bit
# after five is counted when the next bit is sent, because an FD frame sends a fixed stuff bit instead after its data.


def _state(last: int, run: int) -> int:
    return last * 5 + run - 1


def _step(state: int, bit: int) -> tuple[int, int]:
    """Stuff bits sent before `bit` (0 or 1), and the state after it."""
    last, run = divmod(state, 5)
    if run == 4:
        last = 1 - last
        return 1, _state(bit, 2 if bit == last else 1)
    return 0, _state(bit, run + 2 if bit == last else 1)


def _walk(state: int, value: int, width: int) -> tuple[int, int]:
    """Stuff bits sent within the `width` bits of `value`, highest first, and the state after them."""
    stuffed = 0
    for shift in reversed(range(width)):
        more, state = _step(state, value >> shift & 1)
        stuffed += more
    return stuffed, state


_STATES = range(10)
_BUS_IDLE = _state(1, 1)  # recessive; the dominant start of frame begins the first run
_NIBBLE = [[_walk(state, nibble, 4) for nibble in range(16)] for state in _STATES]


_Row = list[tuple[int, "_Row"]]
"""A state, for a byte at a time: for each byte the stuff bits within it and the row of the state after it."""


def _rows() -> list[_Row]:
    rows: list[_Row] = [[] for _ in _STATES]
    for state, row in enumerate(rows):
        for byte in range(256):
            high, middle = _NIBBLE[state][byte >> 4]
            low, after = _NIBBLE[middle][byte & 0xF]
            row.append((high + low, rows[after]))
    return rows


_ROWS = _rows()


def _crc15(crc: int, value: int, width: int) -> int:
    """Continue a CRC-15 with the `width` bits of `value`."""
    for shift in reversed(range(width)):
        feedback = (crc >> 14 ^ value >> shift) & 1
        crc = crc << 1 & 0x7FFF ^ (_CRC15 if feedback else 0)
    return crc


# crcmod has no CRC-15; one bit further to the left it is a CRC-16.
_crc16 = crcmod.mkCrcFun(0x1_0000 | _CRC15 << 1, initCrc=0, rev=False, xorOut=0)


class _Head(NamedTuple):
    """All that precedes a frame's data: bits sent (stuff bits included) per phase, and the states after it."""

    nominal_bits: int
    data_phase_bits: int
    row: _Row
    crc: int


@lru_cache(maxsize=8192)
def _head(can_id: int, length: int, remote: bool, fd: bool, brs: bool) -> _Head:
    extended, identifier = can_id >> 31, can_id & 0x1FFF_FFFF
    if not extended and identifier > 0x7FF:
        raise ValueError(f"identifier {identifier:#x} has more than 11 bits but is not marked as extended")
    if (fd and (remote or length not in FD_LENGTHS)) or (not fd and (brs or length > 8)):
        raise ValueError(f"no such frame: {length} bytes, fd={fd}, brs={brs}, remote={remote}")
    if extended:  # start of frame 0, 11 bits, SRR 1, IDE 1, 18 bits, RTR (FD: RRS 0)
        value, width = ((identifier >> 18 << 2 | 0b11) << 18 | identifier & 0x3FFFF) << 1 | remote, 33
    else:  # start of frame 0, 11 bits, RTR (FD: RRS 0), IDE 0
        value, width = (identifier << 1 | remote) << 1, 14
    if fd:
        value, width = value << 3 | 0b100 | brs, width + 3  # FDF 1, res 0, BRS
        stuffed, state = _walk(_BUS_IDLE, value, width)
        more, state = _walk(state, FD_LENGTHS.index(length), 5)  # ESI 0, DLC
        return _Head(width + stuffed, 5 + more, _ROWS[state], 0)
    reserved = 2 if extended else 1  # r1 and r0, or r0
    value, width = value << reserved + 4 | length, width + reserved + 4
    stuffed, state = _walk(_BUS_IDLE, value, width)
    return _Head(width + stuffed, 0, _ROWS[state], _crc15(0, value, width))


def _classic_bits(frame: CanFrame) -> int:
    data = frame.data
    bits, _, row, crc = _head(frame.can_id, len(data), frame.remote, False, frame.brs)
    sent = b"" if frame.remote else data
    # The CRC's 15 bits and its delimiter, before which a last stuff bit may be due, make two bytes more.
    for byte in sent + (_crc16(sent, crc << 1) | 1).to_bytes(2, "big"):
        stuffed, row = row[byte]
        bits += stuffed
    return bits + 8 * len(sent) + 15 + _TAIL_BITS


def _fd_bits(frame: CanFrame) -> tuple[int, int]:
    """Bits at the nominal rate and bits that BRS moves to the data rate."""
    data = frame.data
    nominal, fast, row, _ = _head(frame.can_id, len(data), frame.remote, True, frame.brs)
    fast += 8 * len(data)
    for byte in data:
        stuffed, row = row[byte]
        fast += stuffed
    # A fixed stuff bit before the stuff count (4 bits) and after every four bits of it and the CRC.
    fast += 4 + 17 + 6 if len(data) <= 16 else 4 + 21 + 7
    return nominal + _TAIL_BITS - 1, fast + 1  # the CRC delimiter ends the data phase


def frame_bits(frame: CanFrame) -> int:
    """Bits that the frame takes on the wire, stuff bits and intermission included.

    A remote frame announces len(data) bytes and sends none.  Raises ValueError for a frame that cannot exist.
    """
    return sum(_fd_bits(frame)) if frame.fd else _classic_bits(frame)


def frame_duration_s(frame: CanFrame, timing: BitTiming) -> float:
    """Seconds from the frame's start to the end of its intermission.

    Raises ValueError for a frame that cannot exist, and for an FD frame if `timing` has no data bit rate.
    """
    if not frame.fd:
        return _classic_bits(frame) / timing.bitrate
    if timing.data_bitrate is None:
        raise ValueError("a CAN FD frame needs a data bit rate")
    nominal, fast = _fd_bits(frame)
    return nominal / timing.bitrate + fast / (timing.data_bitrate if frame.brs else timing.bitrate)


def known_duration_s(frame: CanFrame, timing: BitTiming) -> float | None:
    """`frame_duration_s` of a frame that was heard; None where it cannot be known.

    So it is of somebody else's CAN FD frame if `timing` has no data bit rate, and of one that cannot exist.
    """
    try:
        return frame_duration_s(frame, timing)
    except ValueError:
        return None
