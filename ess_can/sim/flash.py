"""A strict model of dual-bank flash with read-while-write.

It refuses what the silicon would spoil or forbid: programming what is not erased (each unit carries an error-correcting
code, so it is programmed at most once per erase), touching the bank that runs code, touching write-protected sectors.
Operations take time, and power loss tears them.  Every refusal is a `FlashError`, counted, never an exception.

A unit is blank only by a completed erase of its sector, which is stricter than reading 0xFF: a part that was cut off
in mid-erase may well read as erased and not be.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ess_can.sim.flash_cells import (
    BANKS,
    ERASED,
    BankCells,
    BankSnapshot,
    FlashAction,
    FlashCells,
    FlashGeometry,
    UnitState,
)
from ess_can.sim.power_cut import CutMode, PowerCut
from ess_can.sim.tearing import any_tearing, read_cells, tear_sector, tear_unit


@dataclass(frozen=True, slots=True)
class FlashTiming:
    """Durations in seconds; defaults are the typical ones of the STM32H743xI at x64 parallelism (DS12110)."""

    sector_erase_s: float = 1.0
    unit_program_s: float = 100e-6

    def divided_by(self, speed: float) -> FlashTiming:
        """The durations of a part that is `speed` times as fast."""
        return FlashTiming(self.sector_erase_s / speed, self.unit_program_s / speed)


MAXIMUM_TIMING = FlashTiming(sector_erase_s=2.0, unit_program_s=200e-6)
"""The longest durations that the datasheet allows."""


class FlashError(Enum):
    """Why the flash did not do it."""

    NO_POWER = "no power"
    OUT_OF_RANGE = "outside the bank"
    MISALIGNED = "not whole program units"
    RUNNING_BANK = "the bank runs code"
    WRITE_PROTECTED = "the sector is write-protected"
    BUSY = "an operation is under way in the bank"
    IDLE = "no operation is under way in the bank"
    NOT_ERASED = "a unit is not erased"
    ERASE_FAILED = "the sector did not erase"
    PROGRAM_FAILED = "a unit did not program"
    ECC = "a unit read with an uncorrectable ECC error"


class SectorDefect(Enum):
    """How a bad sector behaves."""

    REPORTED = "operations in it end with an error"
    SILENT = "programming in it loses bits and reports success"


@dataclass(frozen=True, slots=True)
class FlashOperation:
    """One operation: bank, byte offset in it and length; start and end are seconds of the loop."""

    action: FlashAction
    bank: int
    offset: int
    length: int
    started: float
    done_at: float


@dataclass(slots=True)
class FlashCounters:
    """What a flash did so far."""

    sectors_erased: int = 0
    units_programmed: int = 0
    torn: int = 0
    failed: int = 0
    refused: int = 0
    ecc_errors: int = 0


class _Bank:
    """A bank's cells, and what of it does not outlive power."""

    def __init__(self, cells: BankCells, geometry: FlashGeometry) -> None:
        self.cells = cells
        self.content = cells.content
        self.states = cells.states
        self.erase_cycles = cells.erase_cycles
        self.defects: list[SectorDefect | None] = [None] * geometry.sectors_per_bank
        self.pending: tuple[FlashOperation, bytes] | None = None


class Flash:
    """Two banks; one operation at a time in each.  Offsets are bytes from the start of a bank.

    Start an operation with `start_erase` or `start_program`, which give the time at which it is done, and end it with
    `complete` at that time or later; only then does it take effect.  Whoever
    watches is in `on_start`, told of each operation that starts, and `on_refuse`, told why one does not.
    `rng` decides which bits tear.  `cells` are where its content lives, a blank part's in RAM unless given; they bring
    their geometry along.  What was under way when the process before died is found torn, as by a loss of power.
    """

    def __init__(
        self,
        rng: random.Random,
        power: PowerCut | None = None,
        geometry: FlashGeometry | None = None,
        timing: FlashTiming | None = None,
        *,
        cells: FlashCells | None = None,
    ) -> None:
        cells = cells or FlashCells.in_ram(geometry or FlashGeometry())
        self.geometry = cells.geometry
        self.timing = timing or FlashTiming()
        self.power = power or PowerCut()
        self.cells = cells
        self.on_start: list[Callable[[FlashOperation], None]] = []
        self.on_refuse: list[Callable[[FlashError], None]] = []
        self.counters = FlashCounters()
        self.running_bank: int | None = None
        """The bank that code runs from, set by the bootloader; the flash refuses to change it."""
        self._rng = rng
        self._banks = tuple(_Bank(bank, self.geometry) for bank in cells.banks)
        for number in range(BANKS):
            self._tear_what_was_cut_off(number)

    # --- operations ---------------------------------------------------------------------------

    def program_duration(self, length: int) -> float:
        """How long `length` bytes of whole units take to program, in seconds."""
        return self.timing.unit_program_s * (length // self.geometry.unit_size)

    def start_erase(self, bank: int, sector: int, now: float) -> float | FlashError:
        """Begin to erase a sector; gives the time at which it will be done."""
        size = self.geometry.sector_size
        if error := self._refusal(bank, sector * size, size):
            return self._refuse(error)
        done_at = now + self.timing.sector_erase_s
        return self._start(FlashOperation(FlashAction.ERASE, bank, sector * size, size, now, done_at), b"")

    def start_program(self, bank: int, offset: int, data: bytes, now: float) -> float | FlashError:
        """Begin to program whole erased units; gives the time at which they will be done."""
        unit = self.geometry.unit_size
        if error := self._refusal(bank, offset, len(data)):
            return self._refuse(error)
        if offset % unit or len(data) % unit or not data:
            return self._refuse(FlashError.MISALIGNED)
        if not self.is_blank(bank, offset, len(data)):
            return self._refuse(FlashError.NOT_ERASED)
        done_at = now + self.program_duration(len(data))
        return self._start(FlashOperation(FlashAction.PROGRAM, bank, offset, len(data), now, done_at), data)

    def complete(self, bank: int, now: float) -> FlashError | None:
        """End the bank's operation once its time has come: None if it succeeded."""
        if not self.power.powered:
            return self._refuse(FlashError.NO_POWER)
        pending = self._banks[bank].pending if self._inside(bank, 0, 0) else None
        if pending is None:
            return self._refuse(FlashError.IDLE)
        operation, data = pending
        if now < operation.done_at:
            return self._refuse(FlashError.BUSY)
        self._banks[bank].pending = None
        error = (
            self._erase(operation)
            if operation.action is FlashAction.ERASE
            else self._program(operation, data, len(data) // self.geometry.unit_size)
        )
        if error in (FlashError.ERASE_FAILED, FlashError.PROGRAM_FAILED):
            self.counters.failed += 1
        self._banks[bank].cells.end()
        return error

    def power_loss(self, now: float) -> None:
        """Power fails, or the node resets: operations under way are torn as far as they have come."""
        for bank in self._banks:
            pending, bank.pending = bank.pending, None
            if pending is not None and self.power.powered and now > pending[0].started:
                self._tear(*pending, now)
            bank.cells.end()

    def _tear(self, operation: FlashOperation, data: bytes, now: float) -> None:
        """Leave an operation as it stands at `now`."""
        if operation.action is FlashAction.ERASE:
            self._tear_sector(operation.bank, operation.offset)
            return
        units = len(data) // self.geometry.unit_size
        whole = min(int((now - operation.started) / self.timing.unit_program_s), units)
        if self._program(operation, data, whole) is None and whole < units:
            self._tear_unit(operation.bank, operation.offset, whole, data)

    def _tear_what_was_cut_off(self, bank: int) -> None:
        """The process before died in an operation: leave it as far as it had come, and what it was at torn."""
        cells, unit = self._banks[bank].cells, self.geometry.unit_size
        cut_off = cells.cut_off
        if cut_off is None:
            return
        if cut_off.action is FlashAction.ERASE:
            self._tear_sector(bank, cut_off.offset)
        else:
            first = True
            for offset in range(cut_off.offset, cut_off.offset + cut_off.length, unit):
                if cells.states[offset // unit] == UnitState.BLANK:
                    if first or bytes(cells.content[offset : offset + unit]) != bytes([ERASED]) * unit:
                        self._tear_unit(bank, offset, 0, self._rng.randbytes(unit))
                    first = False
        cells.end()

    # --- reading ------------------------------------------------------------------------------

    def read(self, bank: int, offset: int, length: int) -> bytes | FlashError:
        """The bytes, or why they cannot be read: ECC error, or an operation is under way in that bank."""
        if not self.power.powered:
            return self._refuse(FlashError.NO_POWER)
        if not self._inside(bank, offset, length):
            return self._refuse(FlashError.OUT_OF_RANGE)
        if self._banks[bank].pending is not None:
            return self._refuse(FlashError.BUSY)
        if max(self._states(bank, offset, length), default=0) < UnitState.UNSTABLE:
            return self._banks[bank].cells.read(offset, length)
        content = read_cells(self._banks[bank].cells, offset, length, self.geometry.unit_size, self._rng)
        if content is None:
            self.counters.ecc_errors += 1
            return FlashError.ECC
        return content

    def is_blank(self, bank: int, offset: int, length: int) -> bool:
        """Whether every unit that the range touches was erased completely and not programmed since."""
        # All BLANK, which is zero: comparing is many times faster than looking at each.
        return self._inside(bank, offset, length) and (found := self._states(bank, offset, length)) == bytes(len(found))

    def erase_cycles(self, bank: int, sector: int) -> int:
        """How often a sector was erased, torn and failed erases included."""
        return self._banks[bank].erase_cycles[sector]

    # --- what happens to flash outside its interface ------------------------------------------

    def factory_program(self, bank: int, offset: int, data: bytes) -> None:
        """Fill blank units on the production line: no time, no protection.  Raises ValueError if it does not fit."""
        unit = self.geometry.unit_size
        if offset % unit or not self.is_blank(bank, offset, len(data)):
            raise ValueError(f"{len(data)} bytes at {offset} of bank {bank} do not fit into blank units")
        padded = data + bytes([ERASED]) * (-len(data) % unit)
        self._set(bank, offset, padded, UnitState.PROGRAMMED)

    def inject_defect(self, bank: int, sector: int, defect: SectorDefect | None) -> None:
        """Make a sector bad from now on, or good again."""
        self._banks[bank].defects[sector] = defect

    def inject_bit_rot(self, bank: int, offset: int, mask: int) -> None:
        """Flip the bits of `mask` (1..255) in one byte, unnoticed by ECC."""
        self._banks[bank].content[offset] ^= mask
        self._banks[bank].cells.changed(from_outside=True)

    def inject_ecc_error(self, bank: int, offset: int) -> None:
        """Make the unit around `offset` unreadable."""
        self._banks[bank].states[offset // self.geometry.unit_size] = UnitState.UNREADABLE
        self._banks[bank].cells.changed(from_outside=True)

    def export_bank(self, bank: int) -> BankSnapshot:
        """The bank's state, to keep or to restore; an operation under way is not in it."""
        source = self._banks[bank]
        return BankSnapshot(bytes(source.content), bytes(source.states), tuple(source.erase_cycles))

    def restore_bank(self, bank: int, snapshot: BankSnapshot) -> None:
        """Take over an exported state.  Raises ValueError if it is of another geometry."""
        target = self._banks[bank]
        sizes = (len(snapshot.content), len(snapshot.unit_states), len(snapshot.erase_cycles))
        if sizes != (len(target.content), len(target.states), len(target.erase_cycles)):
            raise ValueError(f"a snapshot of sizes {sizes} is not of this geometry")
        target.content[:] = snapshot.content
        target.states[:] = snapshot.unit_states
        target.erase_cycles[:] = memoryview(array("I", snapshot.erase_cycles))

    # --- inside -------------------------------------------------------------------------------

    def _inside(self, bank: int, offset: int, length: int) -> bool:
        return 0 <= bank < BANKS and min(offset, length) >= 0 and offset + length <= self.geometry.bank_size

    def _states(self, bank: int, offset: int, length: int) -> bytes:
        unit = self.geometry.unit_size
        return bytes(self._banks[bank].states[offset // unit : -(-(offset + length) // unit)])

    def _refusal(self, bank: int, offset: int, length: int) -> FlashError | None:
        """The first reason, if any, why this range must not be changed now."""
        if not self.power.powered:
            return FlashError.NO_POWER
        if not self._inside(bank, offset, length):
            return FlashError.OUT_OF_RANGE
        if bank == self.running_bank:
            return FlashError.RUNNING_BANK
        if offset < self.geometry.slot_offset:
            return FlashError.WRITE_PROTECTED
        if self._banks[bank].pending is not None:
            return FlashError.BUSY
        return None

    def _refuse(self, error: FlashError) -> FlashError:
        self.counters.refused += 1
        for tell in self.on_refuse:
            tell(error)
        return error

    def _start(self, operation: FlashOperation, data: bytes) -> float:
        bank = self._banks[operation.bank]
        bank.cells.begin(operation.action, operation.offset, operation.length)
        bank.pending = (operation, data)
        for tell in self.on_start:
            tell(operation)
        return operation.done_at

    def _erase(self, operation: FlashOperation) -> FlashError | None:
        bank, sector = self._banks[operation.bank], operation.offset // self.geometry.sector_size
        admitted = self.power.admit(1)
        if admitted.torn:
            self._tear_sector(operation.bank, operation.offset, admitted.torn)
        if not admitted.whole:
            return FlashError.NO_POWER
        worn = bank.erase_cycles[sector] >= self.geometry.endurance_cycles
        if worn or bank.defects[sector] is SectorDefect.REPORTED:
            self._tear_sector(operation.bank, operation.offset)
            return FlashError.ERASE_FAILED
        bank.erase_cycles[sector] += 1
        self._set(operation.bank, operation.offset, bytes([ERASED]) * operation.length, UnitState.BLANK)
        self.counters.sectors_erased += 1
        return None

    def _program(self, operation: FlashOperation, data: bytes, units: int) -> FlashError | None:
        """Program the first `units` of `data`, sector by sector, as far as power and the sectors allow."""
        unit, sector_units = self.geometry.unit_size, self.geometry.sector_size // self.geometry.unit_size
        done = 0
        while done < units:
            position = operation.offset // unit + done
            count = min(units - done, sector_units - position % sector_units)
            defect = self._banks[operation.bank].defects[position // sector_units]
            if defect is SectorDefect.REPORTED:
                if not self.power.admit(1).whole:
                    return FlashError.NO_POWER
                self._tear_unit(operation.bank, operation.offset, done, data)
                return FlashError.PROGRAM_FAILED
            admitted = self.power.admit(count)
            chunk = data[done * unit : (done + admitted.whole) * unit]
            if defect is SectorDefect.SILENT:
                chunk = bytes(byte | 1 for byte in chunk)
            self._set(operation.bank, operation.offset + done * unit, chunk, UnitState.PROGRAMMED)
            self.counters.units_programmed += admitted.whole
            done += admitted.whole
            if admitted.torn:
                self._tear_unit(operation.bank, operation.offset, done, data, admitted.torn)
            if admitted.whole < count:
                return FlashError.NO_POWER
        return None

    def _set(self, bank: int, offset: int, data: bytes, state: UnitState) -> None:
        unit = self.geometry.unit_size
        self._banks[bank].content[offset : offset + len(data)] = data
        self._banks[bank].states[offset // unit : (offset + len(data)) // unit] = bytes([state]) * (len(data) // unit)

    def _tear_unit(self, bank: int, offset: int, index: int, data: bytes, mode: CutMode | None = None) -> None:
        """Leave unit `index` of `data` half programmed."""
        unit = self.geometry.unit_size
        wanted = data[index * unit : (index + 1) * unit]
        tear_unit(self._banks[bank].cells, offset + index * unit, wanted, mode or any_tearing(self._rng), self._rng)
        self.counters.torn += 1

    def _tear_sector(self, bank: int, offset: int, mode: CutMode | None = None) -> None:
        """Leave the sector at `offset` half erased."""
        sector = offset // self.geometry.sector_size
        tear_sector(self._banks[bank].cells, sector, self.geometry, mode or any_tearing(self._rng), self._rng)
        self.counters.torn += 1
