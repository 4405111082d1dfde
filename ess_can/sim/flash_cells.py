"""The cells of a dual-bank flash: everything of it that outlives power, laid out in one memory.

That memory is RAM, or a file mapped into RAM: whatever is stored in it is there when the process has died.  A bank is
the record of the operation under way (four u32), erase cycles a sector (u32 each), unit states (a byte each) and
content.  Numbers are in the machine's byte order.

The record is written before an operation begins and cleared once it has taken effect: a bank that is found with one was
cut off in the middle, and what the operation touched is torn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

BANKS = 2
ERASED = 0xFF
_RECORD_SIZE = 16
_ALIGNMENT = 16


class UnitState(IntEnum):
    """What a program unit holds."""

    BLANK = 0
    PROGRAMMED = 1
    UNSTABLE = 2  # undecided: reads with an ECC error, or either way, anew each time
    UNREADABLE = 3  # always reads with an ECC error


class FlashAction(IntEnum):
    """The operations that take time."""

    ERASE = 1
    PROGRAM = 2


@dataclass(frozen=True, slots=True)
class FlashGeometry:
    """Sizes in bytes; defaults of the STM32H743xI (datasheet DS12110): 2 MiB in two banks of eight 128 KiB sectors.

    The first `protected_sectors` of each bank hold the bootloader and are write-protected; the others are the slot.
    """

    sectors_per_bank: int = 8
    sector_size: int = 128 * 1024
    unit_size: int = 32
    protected_sectors: int = 1
    endurance_cycles: int = 10_000

    @property
    def bank_size(self) -> int:
        """Bytes of one bank."""
        return self.sectors_per_bank * self.sector_size

    @property
    def slot_offset(self) -> int:
        """Where in its bank the image slot begins."""
        return self.protected_sectors * self.sector_size

    @property
    def slot_size(self) -> int:
        """Bytes of the image slot."""
        return self.bank_size - self.slot_offset


@dataclass(frozen=True, slots=True)
class CutOff:
    """An operation that had begun when the process died: byte offset in its bank, and length."""

    action: FlashAction
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class BankSnapshot:
    """The state of one bank: content, one `UnitState` byte a unit, and erase cycles a sector."""

    content: bytes
    unit_states: bytes
    erase_cycles: tuple[int, ...]


class BankCells:
    """One bank in `memory`, which has exactly `size` bytes.  `states` and `content` are views of bytes, in place.

    Whoever watches is in `on_change`, called when the content may have changed, with True if it was from outside
    (damage), and in `on_read`, called with offset and length.
    """

    def __init__(self, memory: memoryview, geometry: FlashGeometry) -> None:
        self._size = geometry.bank_size
        cycles_end = _RECORD_SIZE + 4 * geometry.sectors_per_bank
        states_at = cycles_end + -cycles_end % _ALIGNMENT
        units = geometry.bank_size // geometry.unit_size
        self._record = memory[:_RECORD_SIZE].cast("I")
        self.erase_cycles = memory[_RECORD_SIZE:cycles_end].cast("I")
        self.states = memory[states_at : states_at + units]
        self.content = memory[len(memory) - geometry.bank_size :]
        self.on_change: list[Callable[[bool], None]] = []
        self.on_read: list[Callable[[int, int], None]] = []

    @staticmethod
    def size(geometry: FlashGeometry) -> int:
        """Bytes that a bank of this geometry takes."""
        head = _RECORD_SIZE + 4 * geometry.sectors_per_bank
        size = head + -head % _ALIGNMENT + geometry.bank_size // geometry.unit_size + geometry.bank_size
        return size + -size % _ALIGNMENT

    def begin(self, action: FlashAction, offset: int, length: int) -> None:
        """Note what begins."""
        self._record[1] = offset
        self._record[2] = length
        self._record[0] = action  # last: only now the note counts

    def end(self) -> None:
        """It has taken effect, or never will."""
        self._record[0] = 0
        self.changed(from_outside=False)

    def changed(self, *, from_outside: bool) -> None:
        """Tell whoever watches."""
        for tell in self.on_change:
            tell(from_outside)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes as they are."""
        for tell in self.on_read:
            tell(offset, length)
        return bytes(self.content[offset : offset + length])

    @property
    def cut_off(self) -> CutOff | None:
        """What was noted and not ended.  Raises ValueError for a note that makes no sense."""
        action, offset, length, _ = self._record
        if not action:
            return None
        if offset + length > self._size:
            raise ValueError(f"bytes {offset}..{offset + length} are outside a bank of {self._size}")
        return CutOff(FlashAction(action), offset, length)


class FlashCells:
    """Both banks in `memory`, which has `FlashCells.size` bytes and is all zero when new: then call `make_blank`."""

    def __init__(self, memory: memoryview, geometry: FlashGeometry) -> None:
        self.geometry = geometry
        size = BankCells.size(geometry)
        self.banks = tuple(BankCells(memory[size * bank : size * (bank + 1)], geometry) for bank in range(BANKS))

    @staticmethod
    def size(geometry: FlashGeometry) -> int:
        """Bytes that a flash of this geometry takes."""
        return BANKS * BankCells.size(geometry)

    @classmethod
    def in_ram(cls, geometry: FlashGeometry) -> FlashCells:
        """A new flash, blank, that ends with the process."""
        cells = cls(memoryview(bytearray(cls.size(geometry))), geometry)
        cells.make_blank()
        return cells

    def make_blank(self) -> None:
        """As it leaves the factory."""
        for bank in self.banks:
            bank.content[:] = bytes([ERASED]) * self.geometry.bank_size
