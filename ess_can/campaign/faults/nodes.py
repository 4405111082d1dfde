"""Faults of nodes and of their firmware: ``node:bmu1:reset@PROGRAM+1``, ``firmware:bmu1:hangs``."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self

from ess_can.bus.clock import now
from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.faults.named import look_up, name_of, named_text, parse_named
from ess_can.campaign.moments import Moment
from ess_can.campaign.station import Station
from ess_can.identity import NodeAddress
from ess_can.sim.bootloader import BootDecision
from ess_can.sim.node import Behaviour, SimulatedNode
from ess_can.uds.rules import NEGATIVE_RESPONSE, RESPONSE_FLAG, Sid
from ess_can.uds.target import Nrc

NAMES: Mapping[str, FaultKind] = MappingProxyType(
    {
        "reset": FaultKind.NODE_RESET,
        "power": FaultKind.NODE_POWER_LOST,
        "hang": FaultKind.NODE_HANGS,
        "slow": FaultKind.NODE_SLOW,
        "refuses": FaultKind.NODE_REFUSES,
        "garbage": FaultKind.NODE_GARBAGE,
        "wrong-counter": FaultKind.NODE_WRONG_COUNTER,
        "impostor": FaultKind.NODE_IMPOSTOR,
    }
)

FIRMWARE: Mapping[str, FaultKind] = MappingProxyType(
    {
        "hangs": FaultKind.FIRMWARE_HANGS,
        "mute": FaultKind.FIRMWARE_MUTE,
        "wrong-scale": FaultKind.FIRMWARE_WRONG_SCALE,
        "boot-loops": FaultKind.FIRMWARE_BOOT_LOOPS,
    }
)

_BEHAVIOURS = {
    FaultKind.FIRMWARE_HANGS: Behaviour.HANGS,
    FaultKind.FIRMWARE_MUTE: Behaviour.NO_HV_STATUS,
    FaultKind.FIRMWARE_WRONG_SCALE: Behaviour.WRONG_SCALE,
    FaultKind.FIRMWARE_BOOT_LOOPS: Behaviour.BOOT_LOOPS,
}

_AMOUNTS = {FaultKind.NODE_SLOW: 0.5, FaultKind.NODE_REFUSES: float(Nrc.CONDITIONS_NOT_CORRECT)}
_OFF_S = 2.0
_WRONG_SERIAL = b"BMU-999999"

Alter = Callable[[bytes], bytes | None]
"""An answer in place of another; None for one that is left alone."""


@dataclass(frozen=True, slots=True)
class NodeFault:
    """`amount` is in seconds for a slow node and the negative response code for one that refuses.

    A wrong answer is one only, unless the moment says how long it lasts.  Power comes back after `_OFF_S` unless it
    says so.
    """

    node: NodeAddress
    kind: FaultKind
    at: Moment
    amount: float | None = None

    @property
    def text(self) -> str:
        """See `Fault`."""
        return f"node:{self.node}:{named_text(self.kind, NAMES, self.amount, self.at)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what follows ``node:``.  Raises ValueError."""
        node, _, rest = text.partition(":")
        kind, amount, at = parse_named(rest, NAMES)
        if amount is not None and kind not in _AMOUNTS:
            raise ValueError(f"{text!r} has an amount that means nothing")
        if kind is FaultKind.NODE_REFUSES and amount is not None and not (amount.is_integer() and 0x10 <= amount < 256):
            raise ValueError(f"{amount} is no negative response code")
        return cls(NodeAddress.parse(node), kind, at, amount)

    def arm(self, station: Station) -> None:
        """See `Fault`."""
        node = station.plant.nodes[self.node]
        station.at(self.at, lambda: _ACTS[self.kind](self, station, node))

    @property
    def how_much(self) -> float:
        """The amount, or the usual one."""
        return _AMOUNTS[self.kind] if self.amount is None else self.amount


@dataclass(frozen=True, slots=True)
class FirmwareFault:
    """The firmware that the upgrade brings to this node is bad."""

    node: NodeAddress
    kind: FaultKind

    @property
    def text(self) -> str:
        """See `Fault`."""
        return f"firmware:{self.node}:{name_of(self.kind, FIRMWARE)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what follows ``firmware:``.  Raises ValueError."""
        node, _, name = text.partition(":")
        return cls(NodeAddress.parse(node), look_up(name, FIRMWARE))

    def arm(self, station: Station) -> None:
        """See `Fault`.  Nothing if the upgrade has no firmware for the node."""
        node = station.plant.nodes[self.node]
        versions = {i.facts.version for i in station.upgrade.images if i.facts.node_type is self.node.node_type}
        good = node.behaviours
        node.behaviours = {**good, **dict.fromkeys(versions, _BEHAVIOURS[self.kind])}

        def on_boot(decision: BootDecision) -> None:
            if decision.facts is not None and node.behaviours.get(decision.facts.version) is _BEHAVIOURS[self.kind]:
                station.took(self)

        def heal() -> None:
            node.behaviours = good  # from its next boot on

        node.bootloader.on_boot.append(on_boot)
        station.to_heal(heal)


def _reset(fault: NodeFault, station: Station, node: SimulatedNode) -> None:
    if node.powered:
        station.took(fault)
        node.reset(now())


def _hang(fault: NodeFault, station: Station, node: SimulatedNode) -> None:
    if node.running:
        station.took(fault)
        node.hang(now())


def _power_lost(fault: NodeFault, station: Station, node: SimulatedNode) -> None:
    station.took(fault)
    lose_power(station, node, _OFF_S if fault.at.lasts_s is None else fault.at.lasts_s)


def lose_power(station: Station, node: SimulatedNode, off_s: float) -> None:
    """A node is without power for `off_s` seconds, or until all is healed."""
    node.power_off(now())

    def restore() -> None:
        if not node.powered:
            node.flash.power.restore()
            node.power_on()

    station.to_heal(restore)
    station.later(off_s, restore)


def _slow(fault: NodeFault, station: Station, node: SimulatedNode) -> None:
    station.took(fault)
    usual_s = node.board.answer_s
    node.board = replace(node.board, answer_s=fault.how_much)

    def heal() -> None:
        node.board = replace(node.board, answer_s=usual_s)

    station.to_heal(heal)
    if fault.at.lasts_s is not None:
        station.later(fault.at.lasts_s, heal)


def _wrong_answers(fault: NodeFault, station: Station, node: SimulatedNode) -> None:
    """The next answer that the fault is about, or all of them for as long as the fault lasts."""
    chance = station.chance(fault)
    before = node.alter_answer

    def heal() -> None:
        if node.alter_answer is alter:
            node.alter_answer = before

    def alter(answer: bytes) -> bytes:
        altered = _altered(fault, answer, node.board.serial.encode("ascii"), chance)
        if altered is None:
            return answer if before is None else before(answer)
        station.took(fault)
        if fault.at.lasts_s is None:
            heal()
        return altered

    node.alter_answer = alter
    station.to_heal(heal)
    if fault.at.lasts_s is not None:
        station.later(fault.at.lasts_s, heal)


def _altered(fault: NodeFault, answer: bytes, serial: bytes, chance: random.Random) -> bytes | None:
    match fault.kind:
        case FaultKind.NODE_REFUSES:
            service = answer[1] if answer[0] == NEGATIVE_RESPONSE else answer[0] - RESPONSE_FLAG
            return bytes((NEGATIVE_RESPONSE, service, int(fault.how_much)))
        case FaultKind.NODE_GARBAGE:
            return chance.randbytes(len(answer))
        case FaultKind.NODE_WRONG_COUNTER if answer[0] == Sid.TRANSFER_DATA + RESPONSE_FLAG:
            return bytes((answer[0], (answer[1] + chance.randrange(1, 256)) % 256)) + answer[2:]
        case FaultKind.NODE_IMPOSTOR if serial in answer:
            return answer.replace(serial, _WRONG_SERIAL)
        case _:
            return None


_ACTS: Mapping[FaultKind, Callable[[NodeFault, Station, SimulatedNode], None]] = MappingProxyType(
    {
        FaultKind.NODE_RESET: _reset,
        FaultKind.NODE_POWER_LOST: _power_lost,
        FaultKind.NODE_HANGS: _hang,
        FaultKind.NODE_SLOW: _slow,
        FaultKind.NODE_REFUSES: _wrong_answers,
        FaultKind.NODE_GARBAGE: _wrong_answers,
        FaultKind.NODE_WRONG_COUNTER: _wrong_answers,
        FaultKind.NODE_IMPOSTOR: _wrong_answers,
    }
)
