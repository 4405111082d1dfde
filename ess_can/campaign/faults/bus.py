"""Faults of the bus and of who is on it: ``bus:off=3@PROGRAM+1``, ``bus:babbler=40@5~2``."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from ess_can.bus.clock import Cycle
from ess_can.bus.station import StationLink
from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.faults.frames import identifiers
from ess_can.campaign.faults.named import named_text, parse_named
from ess_can.campaign.moments import Moment
from ess_can.campaign.station import Station, Verdict
from ess_can.can.frame import CanFrame
from ess_can.can.timing import frame_duration_s
from ess_can.errors import BusError
from ess_can.identity import NodeType
from ess_can.signals.messages import EmsUpgradeNotice, UpgradePhase
from ess_can.sim.controller import Controller, ControllerState
from ess_can.sim.wire import WireFault

NAMES: Mapping[str, FaultKind] = MappingProxyType(
    {
        "passive": FaultKind.BUS_PASSIVE,
        "off": FaultKind.BUS_OFF,
        "silent": FaultKind.BUS_SILENT,
        "babbler": FaultKind.BUS_BABBLER,
        "foreign": FaultKind.BUS_FOREIGN,
        "second-gateway": FaultKind.BUS_SECOND_GATEWAY,
        "errors": FaultKind.BUS_ERRORS,
    }
)

_BABBLE = CanFrame(0x000, bytes(8))
_FOREIGN_S = 0.02
_NOTICE_S = 0.1
_PASSIVE_ERRORS, _OFF_ERRORS = 16, 32
_AGAIN_S = 0.05
"""How soon after it came back a controller goes bus-off again."""
_AMOUNTS = {FaultKind.BUS_OFF: 1.0, FaultKind.BUS_BABBLER: 40.0, FaultKind.BUS_ERRORS: 5.0}


@dataclass(frozen=True, slots=True)
class BusFault:
    """`amount` is how often a controller goes bus-off, a babbler's share of the bus in percent, or how many errors."""

    kind: FaultKind
    at: Moment
    amount: float | None = None

    @property
    def text(self) -> str:
        """See `Fault`."""
        return f"bus:{named_text(self.kind, NAMES, self.amount, self.at)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what follows ``bus:``.  Raises ValueError."""
        kind, amount, at = parse_named(text, NAMES)
        if amount is not None and (kind not in _AMOUNTS or not amount):
            raise ValueError(f"{text!r} has an amount that means nothing")
        return cls(kind, at, amount)

    def arm(self, station: Station) -> None:
        """See `Fault`."""
        station.at(self.at, lambda: _ACTS[self.kind](self, station))

    @property
    def how_much(self) -> float:
        """The amount, or the usual one."""
        return _AMOUNTS[self.kind] if self.amount is None else self.amount


def _passive(fault: BusFault, station: Station) -> None:
    controller = station.controller
    if controller.state is ControllerState.ERROR_ACTIVE and controller.online:
        station.took(fault)
        controller.disturb(_PASSIVE_ERRORS - controller.tec // 8)


def _off(fault: BusFault, station: Station) -> None:
    _bus_off(fault, station, int(fault.how_much))


def _bus_off(fault: BusFault, station: Station, times: int) -> None:
    """Off; and, if it is to be more than once, again as soon as somebody has it come back."""
    if times and station.controller.online:
        station.took(fault)
        station.controller.disturb(_OFF_ERRORS)
        times -= 1
    if times:
        station.later(_AGAIN_S, lambda: _bus_off(fault, station, times))


def _silent(fault: BusFault, station: Station) -> None:
    station.took(fault)
    _while(fault, station, station.on_transmission(lambda _index, _frame: WireFault.LOSE))


def _errors(fault: BusFault, station: Station) -> None:
    left = int(fault.how_much)

    def rule(_index: int, _frame: CanFrame) -> Verdict:
        nonlocal left
        if not left:
            return None
        left -= 1
        station.took(fault)
        return WireFault.CORRUPT

    station.on_transmission(rule)


def _babbler(fault: BusFault, station: Station) -> None:
    wire = station.plant.wire
    period_s = frame_duration_s(_BABBLE, wire.timing) / min(fault.how_much / 100, 1.0)
    _intruder(fault, station, "babbler", period_s, lambda controller: controller.send(_BABBLE))


def _foreign(fault: BusFault, station: Station) -> None:
    can_id = min(identifiers(station.plant.codec, "command"))
    chance = station.chance(fault)
    _intruder(fault, station, "stranger", _FOREIGN_S, lambda one: one.send(CanFrame(can_id, chance.randbytes(8))))


def _second_gateway(fault: BusFault, station: Station) -> None:
    session = random.Random(f"{station.seed} another").randrange(1, 0xFFFF)  # noqa: S311 - to be repeatable
    notice = EmsUpgradeNotice(UpgradePhase.PREPARING, NodeType.BMU, 1, 0.0, session)
    links: dict[str, StationLink] = {}

    def send(controller: Controller) -> None:
        links.setdefault("", StationLink(controller, station.plant.codec)).send(notice)

    _intruder(fault, station, "EMS-2", _NOTICE_S, send)


def _intruder(
    fault: BusFault, station: Station, name: str, period_s: float, send: Callable[[Controller], None]
) -> None:
    """Somebody who does not belong here sends in a cycle."""
    controller = station.plant.wire.controller(name)
    station.took(fault)

    def act(_now: float) -> None:
        with suppress(BusError):
            send(controller)

    cycle = Cycle(period_s, act)
    cycle.start()

    def leave() -> None:
        cycle.stop()
        controller.detach()

    station.to_heal(leave)
    _while(fault, station, leave)


def _while(fault: BusFault, station: Station, end: Callable[[], None]) -> None:
    if fault.at.lasts_s is not None:
        station.later(fault.at.lasts_s, end)


_ACTS: Mapping[FaultKind, Callable[[BusFault, Station], None]] = MappingProxyType(
    {
        FaultKind.BUS_PASSIVE: _passive,
        FaultKind.BUS_OFF: _off,
        FaultKind.BUS_SILENT: _silent,
        FaultKind.BUS_BABBLER: _babbler,
        FaultKind.BUS_FOREIGN: _foreign,
        FaultKind.BUS_SECOND_GATEWAY: _second_gateway,
        FaultKind.BUS_ERRORS: _errors,
    }
)
