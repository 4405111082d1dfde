"""Faults of nodes' memories: power lost in an operation, and flash that goes bad by itself.

``flash:bmu1:120:before``, ``flash:bmu1:120+4:bits`` (a second cut, 4 operations after power came back), and
``flash:bmu1:worn=3@PROGRAM+1``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from ess_can.bus.clock import now
from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.faults.named import look_up, name_of, named_text, parse_named
from ess_can.campaign.moments import Moment
from ess_can.campaign.station import Station
from ess_can.identity import NodeAddress
from ess_can.sim.flash import SectorDefect
from ess_can.sim.node import SimulatedNode
from ess_can.sim.power_cut import CutMode

CUTS: Mapping[str, FaultKind] = MappingProxyType(
    {
        CutMode.BEFORE.value: FaultKind.CUT_BEFORE,
        CutMode.PREFIX.value: FaultKind.CUT_PREFIX,
        CutMode.BITS.value: FaultKind.CUT_BITS,
        CutMode.UNSTABLE.value: FaultKind.CUT_UNSTABLE,
        CutMode.AFTER.value: FaultKind.CUT_AFTER,
    }
)

DAMAGE: Mapping[str, FaultKind] = MappingProxyType(
    {
        "unreadable": FaultKind.FLASH_UNREADABLE,
        "worn": FaultKind.FLASH_WORN,
        "defect": FaultKind.FLASH_DEFECT,
        "rot": FaultKind.FLASH_ROT,
        "rot-running": FaultKind.FLASH_ROT_RUNNING,
    }
)

OFF_S = 2.0
"""For how long power is away."""

_FORM = re.compile(r"(\d+(?:\+\d+)*):([a-z]+)")


@dataclass(frozen=True, slots=True)
class PowerCutFault:
    """Power is lost at a node's flash or FRAM operation, and comes back after `OFF_S`.

    `operations` has the index of that operation since the upgrade began and, for cuts that follow, indices counted from
    when power came back.
    """

    node: NodeAddress
    kind: FaultKind
    operations: tuple[int, ...]

    @property
    def text(self) -> str:
        """See `Fault`."""
        return f"flash:{self.node}:{'+'.join(map(str, self.operations))}:{name_of(self.kind, CUTS)}"

    @classmethod
    def parse(cls, node: NodeAddress, text: str) -> Self:
        """Read what follows the node.  Raises ValueError."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not OPERATION:MODE")
        return cls(node, look_up(match[2], CUTS), tuple(map(int, match[1].split("+"))))

    def arm(self, station: Station) -> None:
        """See `Fault`.  One cut at a time: of several such faults of one node the last one counts."""
        node = station.plant.nodes[self.node]
        left = list(self.operations)
        power = node.flash.power

        def arm_next() -> None:
            if left:
                power.arm(left.pop(0), CutMode(name_of(self.kind, CUTS)))

        def restore() -> None:
            if not power.powered:
                node.power_off(now())
                power.restore()
                node.power_on()

        def on_cut() -> None:
            station.took(self)

            def back() -> None:
                restore()
                arm_next()

            station.later(OFF_S, back)

        def heal() -> None:
            power.on_cut.remove(on_cut)
            power.disarm()
            restore()

        power.on_cut.append(on_cut)
        station.at(Moment(0.0), arm_next)
        station.to_heal(heal)


@dataclass(frozen=True, slots=True)
class FlashDamage:
    """Flash goes bad at a moment.

    `where` is a sector of the slot, from 0, or the offset of a byte in the slot; what is beyond the slot counts on from
    its beginning.  Rot and what cannot be read are in one place, sectors go bad in both banks.
    """

    node: NodeAddress
    kind: FaultKind
    at: Moment
    where: int = 0

    @property
    def text(self) -> str:
        """See `Fault`."""
        return f"flash:{self.node}:{named_text(self.kind, DAMAGE, float(self.where), self.at)}"

    @classmethod
    def parse(cls, node: NodeAddress, text: str) -> Self:
        """Read what follows the node.  Raises ValueError."""
        kind, where, at = parse_named(text, DAMAGE)
        if where is not None and not where.is_integer():
            raise ValueError(f"{text!r} names no place")
        return cls(node, kind, at, int(where or 0))

    def arm(self, station: Station) -> None:
        """See `Fault`."""
        node = station.plant.nodes[self.node]
        station.at(self.at, lambda: _ACTS[self.kind](self, station, node))


def parse(text: str) -> PowerCutFault | FlashDamage:
    """Read what follows ``flash:``.  Raises ValueError."""
    node, _, rest = text.partition(":")
    address = NodeAddress.parse(node)
    return PowerCutFault.parse(address, rest) if rest[:1].isdigit() else FlashDamage.parse(address, rest)


def _bad_sector(fault: FlashDamage, station: Station, node: SimulatedNode) -> None:
    geometry = node.flash.geometry
    sector = geometry.protected_sectors + fault.where % (geometry.sectors_per_bank - geometry.protected_sectors)
    defect = SectorDefect.REPORTED if fault.kind is FaultKind.FLASH_WORN else SectorDefect.SILENT
    station.took(fault)
    for bank in (0, 1):
        node.flash.inject_defect(bank, sector, defect)

    def heal() -> None:
        for bank in (0, 1):
            node.flash.inject_defect(bank, sector, None)

    station.to_heal(heal)


def _slot_offset(fault: FlashDamage, node: SimulatedNode) -> int:
    geometry = node.flash.geometry
    return geometry.slot_offset + fault.where % (geometry.bank_size - geometry.slot_offset)


def _unreadable(fault: FlashDamage, station: Station, node: SimulatedNode) -> None:
    running = node.flash.running_bank
    if running is not None:
        station.took(fault)
        node.flash.inject_ecc_error(1 - running, _slot_offset(fault, node))


def _rot(fault: FlashDamage, station: Station, node: SimulatedNode) -> None:
    """Some bits of one byte flip.  A slot that rotted is repaired unless it was erased meanwhile."""
    flash, running = node.flash, node.flash.running_bank
    if running is None:
        return
    bank = running if fault.kind is FaultKind.FLASH_ROT_RUNNING else 1 - running
    offset = _slot_offset(fault, node)
    sector = offset // flash.geometry.sector_size
    mask = station.chance(fault).randrange(1, 256)
    cycles = flash.erase_cycles(bank, sector)
    station.took(fault)
    flash.inject_bit_rot(bank, offset, mask)

    def heal() -> None:
        if flash.erase_cycles(bank, sector) == cycles:
            flash.inject_bit_rot(bank, offset, mask)

    if fault.kind is FaultKind.FLASH_ROT_RUNNING:
        station.to_heal(heal)


_ACTS: Mapping[FaultKind, Callable[[FlashDamage, Station, SimulatedNode], None]] = MappingProxyType(
    {
        FaultKind.FLASH_UNREADABLE: _unreadable,
        FaultKind.FLASH_WORN: _bad_sector,
        FaultKind.FLASH_DEFECT: _bad_sector,
        FaultKind.FLASH_ROT: _rot,
        FaultKind.FLASH_ROT_RUNNING: _rot,
    }
)
