"""What an operation leaves in memory when power is lost in it, and how undecided cells read.

Flash is programmed from ones to zeros and erased back to ones; a cell that was only half changed may read either way,
and a unit's error correction may notice it or not.  `CutMode` names the cases; which bits, is drawn from the generator.
"""

from __future__ import annotations

import random

from ess_can.sim.flash_cells import ERASED, BankCells, FlashGeometry, UnitState
from ess_can.sim.power_cut import TEARING, CutMode


def any_tearing(rng: random.Random) -> CutMode:
    """How an operation is torn if nobody says how."""
    return rng.choice(TEARING)


def tear_unit(cells: BankCells, offset: int, wanted: bytes, mode: CutMode, rng: random.Random) -> None:
    """Leave the blank unit at bank offset `offset` half programmed with `wanted`."""
    unit = len(wanted)
    content, state = wanted, UnitState.PROGRAMMED
    if mode is CutMode.PREFIX:
        done = rng.randrange(1, unit)
        content = wanted[:done] + bytes([ERASED]) * (unit - done)
    elif mode is CutMode.BITS:
        content = _some_ones(wanted, rng)
    else:
        state = UnitState.UNSTABLE
    cells.content[offset : offset + unit] = content
    cells.states[offset // unit] = state


def tear_sector(cells: BankCells, sector: int, geometry: FlashGeometry, mode: CutMode, rng: random.Random) -> None:
    """Leave a sector half erased: never blank, whatever it was before."""
    unit, size = geometry.unit_size, geometry.sector_size
    units = range(sector * size // unit, (sector + 1) * size // unit)
    cells.erase_cycles[sector] += 1
    if mode is CutMode.PREFIX:
        first = rng.choice(units)  # the first unit that is not erased again
        cells.content[units.start * unit : first * unit] = bytes([ERASED]) * (first - units.start) * unit
        cells.states[units.start : first] = bytes([UnitState.BLANK]) * (first - units.start)
        if cells.states[first] == UnitState.BLANK:
            cells.states[first] = UnitState.PROGRAMMED
        return
    if mode is CutMode.BITS:
        held = units.start * unit, units.stop * unit
        cells.content[held[0] : held[1]] = _some_ones(bytes(cells.content[held[0] : held[1]]), rng)
    state = UnitState.PROGRAMMED if mode is CutMode.BITS else UnitState.UNSTABLE
    cells.states[units.start : units.stop] = bytes([state]) * len(units)


def read_cells(cells: BankCells, offset: int, length: int, unit: int, rng: random.Random) -> bytes | None:
    """What a range of a bank reads as this time, or None for an uncorrectable ECC error.

    Half of all reads of an undecided unit end with an error; the others give its zeros, ones instead, or a mixture.
    """
    content = bytearray(cells.content[offset : offset + length])
    first = offset // unit
    for index, state in enumerate(bytes(cells.states[first : -(-(offset + length) // unit)]), first):
        if state == UnitState.UNREADABLE:
            return None
        if state == UnitState.UNSTABLE:
            fate = rng.randrange(6)
            if fate < 3:
                return None
            start, end = max(index * unit - offset, 0), min((index + 1) * unit - offset, length)
            if fate == 3:
                content[start:end] = bytes([ERASED]) * (end - start)
            elif fate == 4:
                content[start:end] = _some_ones(bytes(content[start:end]), rng)
    return bytes(content)


def _some_ones(content: bytes, rng: random.Random) -> bytes:
    """The bytes with a random subset of their zeros as ones."""
    size = len(content)
    return (int.from_bytes(content, "big") | rng.getrandbits(8 * size)).to_bytes(size, "big")
