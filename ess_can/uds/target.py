"""What a UDS server asks of the node that it serves, and the numbers both sides share.

The numbers from the vehicle-manufacturer and supplier ranges are ours (docs/protocol.md); 0xFF00 (eraseMemory) and the
F1xx identifiers are ISO 14229-1's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, Self

from ess_can.identity import Version


class Did(IntEnum):
    """Data identifiers that every node answers (service 22), unless it says otherwise."""

    SOFTWARE_VERSION = 0xF189  # ASCII, such as 1.2.0
    SERIAL_NUMBER = 0xF18C  # ASCII
    HARDWARE_NUMBER = 0xF191  # one byte: the hardware id
    NODE_TYPE = 0xFD00  # one byte: NodeType
    BOOT_STATE = 0xFD01  # see BootState.pack
    RESUME_STATE = 0xFD02  # see ResumeState.pack
    DBC_FINGERPRINT = 0xFD03  # 32 bytes: SHA-256 of the DBC
    SECURITY_COUNTER = 0xFD04  # u32, big-endian
    FLASH_PROFILE = 0xFD05  # see FlashProfile.pack; a node need not have it


class Rid(IntEnum):
    """Routine identifiers (service 31, startRoutine only)."""

    CHECK_PROGRAMMING_PRECONDITIONS = 0x0203
    ERASE_MEMORY = 0xFF00  # announces an image: its size u32 BE, SHA-256 of the image file (32 bytes)
    VERIFY_MEMORY = 0xFD10  # option record: CRC-32 of the image u32 BE; result: CRC-32 read back u32 BE
    ACTIVATE_ON_TRIAL = 0xFD11
    CONFIRM_IMAGE = 0xFD12
    REVERT_IMAGE = 0xFD13  # give up a trial: the next boot runs the old image


class Nrc(IntEnum):
    """The negative response codes that our nodes use (ISO 14229-1)."""

    SERVICE_NOT_SUPPORTED = 0x11
    SUB_FUNCTION_NOT_SUPPORTED = 0x12
    INCORRECT_MESSAGE_LENGTH = 0x13
    BUSY_REPEAT_REQUEST = 0x21
    CONDITIONS_NOT_CORRECT = 0x22
    REQUEST_SEQUENCE_ERROR = 0x24
    REQUEST_OUT_OF_RANGE = 0x31
    SECURITY_ACCESS_DENIED = 0x33
    INVALID_KEY = 0x35
    EXCEEDED_NUMBER_OF_ATTEMPTS = 0x36
    REQUIRED_TIME_DELAY_NOT_EXPIRED = 0x37
    TRANSFER_DATA_SUSPENDED = 0x71
    GENERAL_PROGRAMMING_FAILURE = 0x72
    WRONG_BLOCK_SEQUENCE_COUNTER = 0x73
    RESPONSE_PENDING = 0x78
    SUB_FUNCTION_NOT_SUPPORTED_IN_ACTIVE_SESSION = 0x7E
    SERVICE_NOT_SUPPORTED_IN_ACTIVE_SESSION = 0x7F


_BOOT_STATE = struct.Struct(">BBIBBHI")
_ARMED = 0x80
_RESUME_STATE = struct.Struct(">I32s")
_FLASH_PROFILE = struct.Struct(">7I")
_NOT_SAID = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class BootState:
    """Which bank runs, how its image stands, how often the node booted, and the running version.

    `armed` says that the next boot runs the other bank's image, on trial.  On the wire 14 bytes, big-endian: bank u8,
    standing u8 (0 confirmed, 1 trial, 2 recovery; plus 0x80 if armed), boot counter u32, version u8 u8 u16 u32.
    """

    bank: int
    standing: int
    boot_counter: int
    version: Version
    armed: bool = False

    def pack(self) -> bytes:
        """Encode for `Did.BOOT_STATE`."""
        v, standing = self.version, self.standing | (_ARMED if self.armed else 0)
        return _BOOT_STATE.pack(
            self.bank, standing, self.boot_counter & 0xFFFF_FFFF, v.major, v.minor, v.revision, v.build
        )

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Decode `Did.BOOT_STATE`.  Raises ValueError if the length is wrong."""
        if len(data) != _BOOT_STATE.size:
            raise ValueError(f"boot state has {len(data)} bytes, not {_BOOT_STATE.size}")
        bank, standing, counter, major, minor, revision, build = _BOOT_STATE.unpack(data)
        version = Version(major, minor, revision, build)
        return cls(bank, standing & ~_ARMED, counter, version, armed=bool(standing & _ARMED))


@dataclass(frozen=True, slots=True)
class ResumeState:
    """How much of which image is programmed and read back in the inactive bank.

    On the wire 36 bytes: verified offset u32 big-endian, SHA-256 of the image announced (zeros if none).
    """

    verified_offset: int
    image_sha256: bytes

    def pack(self) -> bytes:
        """Encode for `Did.RESUME_STATE`."""
        return _RESUME_STATE.pack(self.verified_offset, self.image_sha256)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Decode `Did.RESUME_STATE`.  Raises ValueError if the length is wrong."""
        if len(data) != _RESUME_STATE.size:
            raise ValueError(f"resume state has {len(data)} bytes, not {_RESUME_STATE.size}")
        return cls(*_RESUME_STATE.unpack(data))


@dataclass(frozen=True, slots=True)
class FlashProfile:
    """How fast a node's flash is, typically, and how much of what it received its RAM can hold meanwhile.

    Erasing takes `sector_erase_s` for each `sector_bytes`; `read_bytes_per_s` is the pace of the final check;
    `block_bytes` is the most data that a TransferData may carry, as the answer to RequestDownload will say;
    `dirty_bytes` is the size of the inactive slot's sectors that are not blank, None if the node does not say.

    On the wire 28 bytes, seven u32 big-endian: sector in bytes, its erase in us, programming in ns for 1024 bytes,
    buffer in bytes, reading in bytes/s, block in bytes, dirty sectors in bytes (FFFFFFFF: not said).
    """

    sector_bytes: int
    sector_erase_s: float
    program_s_per_byte: float
    buffer_bytes: int
    read_bytes_per_s: float
    block_bytes: int
    dirty_bytes: int | None = None

    def pack(self) -> bytes:
        """Encode for `Did.FLASH_PROFILE`; what is too large for its field becomes the largest value."""
        fields = (
            self.sector_bytes,
            round(self.sector_erase_s * 1e6),
            round(self.program_s_per_byte * 1024e9),
            self.buffer_bytes,
            round(self.read_bytes_per_s),
            self.block_bytes,
            _NOT_SAID if self.dirty_bytes is None else self.dirty_bytes,
        )
        return _FLASH_PROFILE.pack(*(min(field, 0xFFFF_FFFF) for field in fields))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Decode `Did.FLASH_PROFILE`.  Raises ValueError if it has another length, or a size or pace of zero."""
        if len(data) != _FLASH_PROFILE.size:
            raise ValueError(f"flash profile has {len(data)} bytes, not {_FLASH_PROFILE.size}")
        sector_bytes, erase_us, program_ns, buffer_bytes, read_bytes_per_s, block_bytes, dirty = _FLASH_PROFILE.unpack(
            data
        )
        if not (sector_bytes and buffer_bytes and read_bytes_per_s and block_bytes):
            raise ValueError(f"flash profile {data.hex()} has a size or pace of zero")
        program_s, read = program_ns / 1024e9, float(read_bytes_per_s)
        dirty_bytes = None if dirty == _NOT_SAID else dirty
        return cls(sector_bytes, erase_us / 1e6, program_s, buffer_bytes, read, block_bytes, dirty_bytes)


@dataclass(slots=True)
class Operation:
    """Work that the node's hardware is doing.

    `done_at` is the time, in seconds of the loop, at which it will be done.  The server calls `finish` then, exactly
    once, and answers with its result: None for success or a negative response code.  Until then it answers 78.
    """

    done_at: float
    finish: Callable[[float], Nrc | None]


class ProgrammingTarget(Protocol):
    """The node under a UDS server.  Every method takes the loop time in seconds and never blocks or raises."""

    def read_identifier(self, did: int, now: float) -> bytes | None:
        """The identifier's value, or None if the node does not have it."""

    def programming_allowed(self, now: float) -> bool:
        """The node's own check that high voltage is off; asked again before every erase, write and activation."""

    def reset_allowed(self, now: float) -> bool:
        """Whether a restart is harmless now (no contactor closed)."""

    def erase(self, size: int, image_sha256: bytes, now: float) -> Operation | Nrc:
        """Announce an image of `size` bytes: what the inactive bank holds is given up.

        Erasing may be done by then, or go on while the download comes.
        """

    def begin_download(self, address: int, size: int, now: float) -> int | Nrc:
        """Accept `size` bytes from byte `address` of the inactive bank on; gives the largest TransferData payload."""

    def write(self, data: bytes, now: float) -> Operation | Nrc:
        """Take the next bytes of the download; done when there is room for more.

        The server never repeats a block that was accepted.
        """

    def end_download(self, now: float) -> Operation | Nrc:
        """All bytes were given; done when they are programmed and read back, and the bank is otherwise blank."""

    def verify(self, crc32: int, now: float) -> Operation | Nrc:
        """Read the image back; check CRC-32, hash, signature, compatibility and counter."""

    def read_back_crc32(self) -> int:
        """CRC-32 of the last successful `verify`."""

    def activate_on_trial(self, now: float) -> Nrc | None:
        """Have the next boot run the verified image on trial."""

    def confirm(self, now: float) -> Nrc | None:
        """Make the image on trial permanent."""

    def revert(self, now: float) -> Nrc | None:
        """Give up an image on trial, or an activation that did not boot yet."""

    def abort_download(self, now: float) -> None:
        """The session ended; what was verified so far may be resumed."""

    def reset(self, now: float) -> None:
        """Restart the node, after the answer has left."""
