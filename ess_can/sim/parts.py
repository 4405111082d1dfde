"""Microcontrollers that a node may be built on: their flash as the datasheets have it, and RAM for a download.

Each entry says where its figures are from and which of them were compared with a second, public source; the others are
the datasheet's as remembered, unchecked.  Erase and program times are the typical ones.  SHA-256 is taken as plain C at
about 42 cycles a byte, an assumption: simple implementations were measured at twice that, assembly at half of it.

Buffer and block are what a bootloader can have: the buffer is one piece of the part's RAM with room left for stack and
drivers, and a block is received into the room that the buffer has left.  A real part's block is no longer than
Wireshark can put together on classic CAN, 4080 frames (16 * 255: epan/dissectors/packet-iso15765.c): a trace is read
with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from ess_can.sim.flash import FlashTiming
from ess_can.sim.flash_cells import FlashGeometry

_KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class FlashPart:
    """A part's flash, and what its bootloader does with RAM and time.  Raises ValueError if a block finds no room.

    `buffer_bytes` of RAM hold what was received and is not programmed yet, `block_bytes` are the most data in one
    TransferData, `hash_bytes_per_s` is how fast flash is read and hashed.
    """

    name: str
    datasheet: str
    geometry: FlashGeometry
    timing: FlashTiming
    buffer_bytes: int
    block_bytes: int
    hash_bytes_per_s: float

    def __post_init__(self) -> None:
        # Less than a unit may have to wait in the buffer for the block that completes it.
        if self.buffer_bytes < self.block_bytes + self.geometry.unit_size:
            raise ValueError(f"a block of {self.block_bytes} bytes does not fit a buffer of {self.buffer_bytes}")

    def with_slots_of(self, slot_bytes: int) -> FlashPart:
        """This part, or a like one with as many sectors as it takes for image slots of `slot_bytes`."""
        geometry = self.geometry
        sectors = geometry.protected_sectors + -(-slot_bytes // geometry.sector_size)
        return replace(self, geometry=replace(geometry, sectors_per_bank=max(geometry.sectors_per_bank, sectors)))

    def divided_by(self, speed: float) -> FlashPart:
        """This part with flash that is `speed` times as fast to erase and to program."""
        return replace(self, timing=self.timing.divided_by(speed))


STM32H743 = FlashPart(
    name="STM32H743",
    datasheet="DS12110",
    geometry=FlashGeometry(),
    timing=FlashTiming(),
    buffer_bytes=128 * _KIB,
    block_bytes=24 * _KIB,
    hash_bytes_per_s=11e6,
)
"""Two banks of eight 128 KiB sectors, 256-bit flash words; 1 s and 100 us at x64 parallelism; 1 MiB of RAM, of which
the 512 KiB of AXI SRAM are one piece; 480 MHz; FDCAN.

Compared: banks, sectors and flash words; of the erase times that of x32 (1.1 s typical, 2.2 s at most) and the longest
of all (4 s).  Unchecked: 1 s and 100 us at x64.
"""

STM32G474 = FlashPart(
    name="STM32G474",
    datasheet="DS12288",
    geometry=FlashGeometry(sectors_per_bank=128, sector_size=2 * _KIB, unit_size=8, protected_sectors=16),
    timing=FlashTiming(sector_erase_s=22.02e-3, unit_program_s=81.69e-6),
    buffer_bytes=64 * _KIB,
    block_bytes=16 * _KIB,
    hash_bytes_per_s=4e6,
)
"""Small pages.  512 KiB as two banks of 128 pages of 2 KiB, 64-bit double words; 128 KiB of RAM, of which 96 KiB are
SRAM in one piece; 170 MHz; FDCAN.  The bootloader has 32 KiB.

Compared: banks and pages, double words, 22 ms (for the like flash of the STM32G0; at most 40 ms there).  Unchecked:
81.69 us, and the second decimal of 22.02 ms.
"""

STM32F429 = FlashPart(
    name="STM32F429",
    datasheet="DS9405",
    geometry=FlashGeometry(unit_size=2),
    timing=FlashTiming(sector_erase_s=1.3, unit_program_s=16e-6),
    buffer_bytes=128 * _KIB,
    block_bytes=16 * _KIB,
    hash_bytes_per_s=4e6,
)
"""Slow erase.  2 MiB in two banks; seven sectors of 128 KiB are the slot, and the five small ones before them, 128 KiB
together, are the bootloader's; half-words at x16 parallelism, which a supply below 2.7 V asks for; 256 KiB of RAM, of
which 192 KiB are in one piece; 180 MHz.  Its CAN controllers are classic: on CAN FD it has an external one.

Compared: banks and sectors, half-words at x16, the longest erase of all (4 s, x8).  Unchecked: 1.3 s and 16 us.
"""

STM32F103XG = FlashPart(
    name="STM32F103xG",
    datasheet="DocID16554",
    geometry=FlashGeometry(sectors_per_bank=256, sector_size=2 * _KIB, unit_size=2, protected_sectors=16),
    timing=FlashTiming(sector_erase_s=40e-3, unit_program_s=52.5e-6),
    buffer_bytes=64 * _KIB,
    block_bytes=16 * _KIB,
    hash_bytes_per_s=1.7e6,
)
"""Slow programming.  1 MiB in two banks of 256 pages of 2 KiB that can be read while the other is written, programmed
by half-words; 96 KiB of RAM; 72 MHz.  The bootloader has 32 KiB.  Its CAN controller is classic: on CAN FD it has an
external one.

Compared: banks, pages, RAM, 52.5 us (at most 70), 20 to 40 ms a page.  The datasheet has no typical erase time: this is
the longest.  Unchecked: the datasheet's number.
"""

FASTER_THAN_WIRE = FlashPart(
    name="faster than the wire",
    datasheet="none",
    geometry=FlashGeometry(),
    timing=FlashTiming(sector_erase_s=1e-6, unit_program_s=0.1e-6),
    buffer_bytes=256 * _KIB,
    block_bytes=64 * _KIB,
    hash_bytes_per_s=1e9,
)
"""NO REAL PART: flash that no bus can keep busy, for measuring the transfer alone."""

PARTS: Final[Mapping[str, FlashPart]] = MappingProxyType(
    {part.name: part for part in (STM32H743, STM32G474, STM32F429, STM32F103XG)}
)
"""The real parts by name."""
