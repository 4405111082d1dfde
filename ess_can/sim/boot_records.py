"""What a node remembers across power loss, each piece as one atomic record in FRAM.

A record has two slots that are written in turn.  A slot is sequence number (u32 big-endian), payload, CRC-32 over kind,
sequence and payload.  The newest valid slot is the record, so that a write cut off after any byte leaves the old value
or the new one, never a third.

A byte that power was lost in may read one way now and another way later.  So what is found at power-up is read once and
written back (`recover`): only a slot that is known to stay is relied upon when the other one is overwritten.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, Self, TypeVar

from ess_can.sim.flash_cells import BANKS
from ess_can.sim.fram import Fram
from ess_can.sim.latches import Latch
from ess_can.uds.access import AccessState

_U32 = struct.Struct(">I")


class RecordPayload(Protocol):
    """A value that fits a record: `SIZE` bytes when packed; `unpack` raises ValueError for bytes it does not know."""

    SIZE: ClassVar[int]

    def pack(self) -> bytes:
        """Encode into `SIZE` bytes."""

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Decode `SIZE` bytes."""


T = TypeVar("T", bound=RecordPayload)


@dataclass(frozen=True, slots=True)
class _Slot(Generic[T]):
    """A valid slot."""

    slot: int
    sequence: int
    value: T


class TwoSlotRecord(Generic[T]):
    """One record of `payload_type` at `address`; `kind` (0..255) tells it from a neighbour's bytes."""

    def __init__(self, fram: Fram, address: int, kind: int, payload_type: type[T]) -> None:
        self._fram = fram
        self._kind = bytes([kind])
        self._type = payload_type
        self._slot_size = payload_type.SIZE + 2 * _U32.size
        self._slots = (address, address + self._slot_size)
        self.end = address + 2 * self._slot_size
        """The first byte behind the record."""

    def recover(self) -> T | None:
        """The newest valid value, or None, at the first look after power-up; it stays what it is from now on.

        Written back are the bytes that were read, so that being cut off in it changes nothing.  A slot that is not
        valid now might be at the next look: it becomes a copy.
        """
        images = [self._fram.read(at, self._slot_size) for at in self._slots]
        found = [self._parse(slot, image) for slot, image in enumerate(images)]
        newest = _newest(found)
        if newest is None:
            for at, image in zip(self._slots, images, strict=True):
                if any(image):  # not a slot that was never written
                    self._fram.write(at, image)
            return None
        slot, other = newest.slot, 1 - newest.slot
        self._fram.write(self._slots[slot], images[slot])
        if found[other] is None:
            self._fram.write(self._slots[other], images[slot])
        return newest.value

    def load(self) -> T | None:
        """The newest valid value, or None if neither slot is valid."""
        newest = self._read()
        return newest.value if newest else None

    def store(self, value: T) -> None:
        """Replace the value, over the slot that does not hold it; an equal value is not written again."""
        newest = self._read()
        if newest and newest.value == value:
            return
        slot, sequence = (1 - newest.slot, newest.sequence + 1) if newest else (0, 0)
        body = _U32.pack(sequence & 0xFFFF_FFFF) + value.pack()
        self._fram.write(self._slots[slot], body + self._crc(body))

    def _read(self) -> _Slot[T] | None:
        """The newest valid slot."""
        return _newest([self._parse(slot, self._fram.read(at, self._slot_size)) for slot, at in enumerate(self._slots)])

    def _parse(self, slot: int, image: bytes) -> _Slot[T] | None:
        body, crc = image[: -_U32.size], image[-_U32.size :]
        if self._crc(body) != crc:
            return None
        try:
            value = self._type.unpack(body[_U32.size :])
        except ValueError:
            return None
        return _Slot(slot, _U32.unpack_from(body)[0], value)

    def _crc(self, body: bytes) -> bytes:
        return _U32.pack(zlib.crc32(self._kind + body))


def _newest(found: list[_Slot[T] | None]) -> _Slot[T] | None:
    valid = [slot for slot in found if slot]
    if len(valid) == 2:
        # the number wraps: ahead means by less than half of the circle (RFC 1982)
        ahead = (valid[1].sequence - valid[0].sequence) & 0xFFFF_FFFF
        return valid[1] if ahead < 0x8000_0000 else valid[0]
    return valid[0] if valid else None


# --- payloads ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImageId:
    """Exactly which bytes of a slot are an image: the first `size` of them, with this SHA-256."""

    size: int
    sha256: bytes

    @classmethod
    def of(cls, image: bytes) -> Self:
        """What names these very bytes."""
        return cls(len(image), hashlib.sha256(image).digest())

    @property
    def packed(self) -> bytes:
        """36 bytes: size u32 big-endian, hash."""
        return _U32.pack(self.size) + self.sha256

    @classmethod
    def parse(cls, data: bytes) -> ImageId | None:
        """Decode 36 bytes; size 0 stands for no image."""
        size = _U32.unpack_from(data)[0]
        return cls(size, data[_U32.size :]) if size else None


_IMAGE_ID_SIZE = 36
_NO_IMAGE = bytes(_IMAGE_ID_SIZE)


@dataclass(frozen=True, slots=True)
class BootRecord:
    """Which bank boots.

    `active_bank` holds the confirmed image; `confirmed` names, for each bank, the image in it that was confirmed once.
    `trial`, if any, is an image in the other bank that may still boot `tries_left` times unconfirmed.
    `security_counter` is that of the newest image ever confirmed and never decreases.
    """

    active_bank: int = 0
    confirmed: tuple[ImageId | None, ImageId | None] = (None, None)
    trial: ImageId | None = None
    tries_left: int = 0
    security_counter: int = 0
    boot_counter: int = 0

    _HEAD: ClassVar[struct.Struct] = struct.Struct(">BBII")
    SIZE: ClassVar[int] = _HEAD.size + 3 * _IMAGE_ID_SIZE

    @property
    def trial_bank(self) -> int:
        """The bank that an image on trial is in."""
        return 1 - self.active_bank

    def pack(self) -> bytes:
        """Encode into `SIZE` bytes."""
        head = self._HEAD.pack(
            self.active_bank, self.tries_left, self.security_counter, self.boot_counter & 0xFFFF_FFFF
        )
        return head + b"".join(image.packed if image else _NO_IMAGE for image in (*self.confirmed, self.trial))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Decode `SIZE` bytes.  Raises ValueError if there is no such bank."""
        active_bank, tries_left, security_counter, boot_counter = cls._HEAD.unpack_from(data)
        if active_bank >= BANKS:
            raise ValueError(f"there is no bank {active_bank}")
        start = cls._HEAD.size
        first, second, trial = (
            ImageId.parse(data[at : at + _IMAGE_ID_SIZE]) for at in range(start, cls.SIZE, _IMAGE_ID_SIZE)
        )
        return cls(active_bank, (first, second), trial, tries_left, security_counter, boot_counter)


@dataclass(frozen=True, slots=True)
class ResumeRecord:
    """How far the image announced last has come in `bank`.

    The first `verified_offset` bytes are programmed and read back; what is behind them may be anything.  What is not
    `resumable` has to be announced anew.
    """

    bank: int
    image: ImageId
    resumable: bool = True
    verified_offset: int = 0

    _STRUCT: ClassVar[struct.Struct] = struct.Struct(">BBI")
    SIZE: ClassVar[int] = _STRUCT.size + _IMAGE_ID_SIZE

    def pack(self) -> bytes:
        """Encode into `SIZE` bytes."""
        return self._STRUCT.pack(self.bank, self.resumable, self.verified_offset) + self.image.packed

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Decode `SIZE` bytes.  Raises ValueError if they name no image or no bank."""
        bank, resumable, verified_offset = cls._STRUCT.unpack_from(data)
        image = ImageId.parse(data[cls._STRUCT.size :])
        if image is None or bank >= BANKS or verified_offset > image.size:
            raise ValueError("not a resume record")
        return cls(bank, image, bool(resumable), verified_offset)


@dataclass(frozen=True, slots=True)
class AccessDelayRecord:
    """Failed unlock attempts, so that a reset does not give new ones; whether the delay must run before the next."""

    failed_attempts: int = 0
    delay_armed: bool = False

    SIZE: ClassVar[int] = 2

    def pack(self) -> bytes:
        """Encode into `SIZE` bytes; the count saturates at 255."""
        return bytes([min(self.failed_attempts, 0xFF), self.delay_armed])

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Decode `SIZE` bytes."""
        return cls(data[0], bool(data[1]))


_LATCH_BITS = (
    Latch.WELD_PLUS,
    Latch.WELD_MINUS,
    Latch.EMERGENCY_STOP,
    Latch.FIRE,
    Latch.INSULATION,
    Latch.HVIL_OPEN,
    Latch.PRECHARGE_FAILED,
)
"""Bit 0 first.  New latches go to the end: what is stored must keep its meaning."""


@dataclass(frozen=True, slots=True)
class LatchRecord:
    """Latches that only a named human clears, one bit each."""

    latches: frozenset[Latch] = frozenset()

    SIZE: ClassVar[int] = 2

    def pack(self) -> bytes:
        """Encode into `SIZE` bytes."""
        mask = sum(1 << bit for bit, latch in enumerate(_LATCH_BITS) if latch in self.latches)
        return mask.to_bytes(self.SIZE, "little")

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Decode `SIZE` bytes.  Unknown bits are newer firmware's and must not cost the known ones."""
        mask = int.from_bytes(data, "little")
        return cls(frozenset(latch for bit, latch in enumerate(_LATCH_BITS) if mask >> bit & 1))


class NodeRecords:
    """All records of a node, laid out one behind the other.  Raises ValueError if the FRAM is too small for them."""

    def __init__(self, fram: Fram) -> None:
        self.fram = fram
        self.boot = TwoSlotRecord(fram, 0, 1, BootRecord)
        self.resume = TwoSlotRecord(fram, self.boot.end, 2, ResumeRecord)
        self.access_delay = TwoSlotRecord(fram, self.resume.end, 3, AccessDelayRecord)
        self.latches = TwoSlotRecord(fram, self.access_delay.end, 4, LatchRecord)
        if self.latches.end > fram.size:
            raise ValueError(f"the records need {self.latches.end} bytes, the FRAM has {fram.size}")


class RecordLatchStore:
    """Keeps a rack's latches in a node's records: implements `ess_can.sim.latches.LatchStore`."""

    def __init__(self, records: NodeRecords) -> None:
        self._record = records.latches

    def load(self) -> frozenset[Latch]:
        """What was saved last; empty if nothing ever was.  To be called first after a restart."""
        record = self._record.recover()
        return record.latches if record else frozenset()

    def save(self, latches: frozenset[Latch]) -> None:
        """Replace what is stored, as one record."""
        self._record.store(LatchRecord(latches))


class RecordAccessStore:
    """Keeps a node's access state in its records: implements `ess_can.uds.access.AccessStore`."""

    def __init__(self, records: NodeRecords) -> None:
        self._record = records.access_delay

    def load(self) -> AccessState:
        """What was saved last.  To be called first after a restart."""
        kept = self._record.recover() or AccessDelayRecord()
        return AccessState(kept.failed_attempts, kept.delay_armed)

    def save(self, state: AccessState) -> None:
        """Replace what is stored, as one record."""
        self._record.store(AccessDelayRecord(state.failed_attempts, state.delay_armed))
