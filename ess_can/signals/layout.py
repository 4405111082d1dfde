"""Where a message's signals lie, as shifts and masks into one number.

The number is the message's bytes, little-endian: each little-endian signal is a shift and a mask away.  A big-endian
signal is in one piece in the other byte order only.  So for a message that has such signals the number is twice as
long, with the bytes in reverse order above the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cantools.database.can.message import Message as DbcMessage
    from cantools.database.can.signal import Signal


@dataclass(frozen=True, slots=True)
class Layout:
    """One message's bytes as one number.  `length` is in bytes; `mirrored` says whether it is in there twice."""

    length: int
    mirrored: bool

    @classmethod
    def of(cls, message: DbcMessage) -> Layout:
        """The layout of a message of the DBC."""
        return cls(message.length, any(signal.byte_order == "big_endian" for signal in message.signals))

    def shift(self, signal: Signal) -> int:
        """How far the signal's lowest bit is from the number's."""
        if signal.byte_order == "little_endian":
            return signal.start
        # A big-endian signal starts at its highest bit: `start % 8` counts from its byte's lowest bit.
        bits_before = signal.start // 8 * 8 + 7 - signal.start % 8
        return 16 * self.length - bits_before - signal.length

    def number(self, data: bytes) -> int:
        """The number for `length` bytes."""
        return int.from_bytes(data + data[::-1] if self.mirrored else data, "little")

    def data(self, number: int) -> bytes:
        """The bytes for a number in which every signal is in its own place, and nothing else."""
        if not self.mirrored:
            return number.to_bytes(self.length, "little")
        both = number.to_bytes(2 * self.length, "little")
        return bytes(low | high for low, high in zip(both[: self.length], both[: self.length - 1 : -1], strict=True))
