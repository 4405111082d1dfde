"""Protocol control information (N_PCI) of ISO 15765-2: the bytes in front of the payload, and their lengths.

Normal addressing: the N_PCI starts at byte 0 of the frame.  Encoders give the complete, padded data field of a frame;
decoders take one off the wire and give None for what the standard says to ignore.
"""

from __future__ import annotations

from enum import IntEnum

from ess_can.can.frame import FD_LENGTHS

SINGLE_FRAME = 0x0
FIRST_FRAME = 0x1
CONSECUTIVE_FRAME = 0x2
FLOW_CONTROL = 0x3
"""The N_PCI types: the upper four bits of byte 0."""

CONSECUTIVE_PCI = tuple(bytes((CONSECUTIVE_FRAME << 4 | sequence_number,)) for sequence_number in range(16))
"""Byte 0 of a consecutive frame, by sequence number."""

TX_DLS = tuple(length for length in FD_LENGTHS if length >= 8)
"""The frame lengths a segmented message may use (TX_DL, RX_DL)."""

CLASSIC_DL = 8
MAX_FF_DL_12_BIT = 0xFFF
MAX_FF_DL = 0xFFFF_FFFF
FLOW_CONTROL_SIZE = 3

_DEFAULT_FILL = 0xCC  # for bytes that the length code of CAN FD forces us to send even with padding off
_WIRE_LENGTH = tuple(next(length for length in FD_LENGTHS if length >= size) for size in range(65))


class FlowStatus(IntEnum):
    """The flow status (FS) of a flow control frame."""

    CTS = 0  # continue to send
    WAIT = 1
    OVFLW = 2


def st_min_seconds(raw: int) -> float:
    """The separation time in seconds that an STmin byte asks for; reserved values count as 127 ms, the longest."""
    if raw <= 0x7F:
        return raw / 1_000
    if 0xF1 <= raw <= 0xF9:
        return (raw - 0xF0) / 10_000
    return 0.127


def pad(data: bytes, padding: int | None) -> bytes:
    """Fill `data` (up to 64 bytes) to a length that a frame can have: at least 8 bytes unless `padding` is None."""
    length = _WIRE_LENGTH[len(data)]
    if padding is None:
        return data.ljust(length, bytes((_DEFAULT_FILL,)))
    return data.ljust(max(length, CLASSIC_DL), bytes((padding,)))


def fits_single_frame(length: int, tx_dl: int) -> bool:
    """Whether a payload of `length` bytes goes into one frame of at most `tx_dl` bytes."""
    return length <= CLASSIC_DL - 1 or (tx_dl > CLASSIC_DL and length <= tx_dl - 2)


def encode_single_frame(payload: bytes, padding: int | None) -> bytes:
    """A single frame; beyond 7 bytes of payload with the escape of CAN FD (SF_DL in byte 1)."""
    size = len(payload)
    header = bytes((size,)) if size <= CLASSIC_DL - 1 else bytes((0, size))
    return pad(header + payload, padding)


def encode_first_frame(payload: bytes, tx_dl: int) -> tuple[bytes, int]:
    """A first frame and the number of payload bytes in it; beyond 4095 bytes with the 32-bit FF_DL escape."""
    size = len(payload)
    if size <= MAX_FF_DL_12_BIT:
        header = (FIRST_FRAME << 12 | size).to_bytes(2, "big")
    else:
        header = b"\x10\x00" + size.to_bytes(4, "big")
    carried = tx_dl - len(header)
    return header + payload[:carried], carried


def encode_flow_control(status: FlowStatus, block_size: int, st_min: int, padding: int | None) -> bytes:
    """A flow control frame; `st_min` is the raw byte."""
    return pad(bytes((FLOW_CONTROL << 4 | status, block_size, st_min)), padding)


def decode_single_frame(data: bytes) -> bytes | None:
    """The payload of a single frame, whatever its padding; None if SF_DL is 0 or does not fit the frame."""
    if len(data) <= CLASSIC_DL:
        start, size = 1, data[0] & 0xF
    elif data[0] & 0xF:
        return None  # frames beyond 8 bytes must use the escape
    else:
        start, size = 2, data[1]
    if size == 0 or size > len(data) - start:
        return None
    return data[start : start + size]


def decode_first_frame(data: bytes) -> tuple[int, bytes] | None:
    """FF_DL and the first bytes of the payload; None for a frame length or FF_DL that the standard has us ignore.

    Those are: a frame that is no full one, a message that would have fitted a single frame of that length, and the
    32-bit escape for a length that 12 bits can say.
    """
    rx_dl = len(data)
    if rx_dl not in TX_DLS:
        return None
    size, start = (data[0] & 0xF) << 8 | data[1], 2
    if size == 0:
        size, start = int.from_bytes(data[2:6], "big"), 6
        if size <= MAX_FF_DL_12_BIT:
            return None
    if fits_single_frame(size, rx_dl):
        return None
    return size, data[start:]
