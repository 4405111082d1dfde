"""Faults of the gateway's process and computer: ``gateway:kill@3.5``, ``gateway:kill#120``, ``gateway:kill#2:40``,
``gateway:disk%7:full``."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Self

from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.faults.named import look_up, name_of, named_text, parse_named
from ess_can.campaign.moments import Moment, attempt_text, split_attempt
from ess_can.campaign.station import Station
from ess_can.sim.process import SimulatedProcess

NAMES: Mapping[str, FaultKind] = MappingProxyType(
    {
        "kill": FaultKind.KILL_AT_TIME,
        "power": FaultKind.GATEWAY_POWER_LOST,
        "starved": FaultKind.GATEWAY_STARVED,
        "suspended": FaultKind.GATEWAY_SUSPENDED,
        "clock-forward": FaultKind.CLOCK_JUMPS,
        "clock-back": FaultKind.CLOCK_JUMPS,
        "unplugged": FaultKind.ADAPTER_UNPLUGGED,
        "interrupted": FaultKind.INTERRUPTED,
    }
)

_BACK = "clock-back"
_AMOUNTS = {
    FaultKind.GATEWAY_STARVED: 2.0,
    FaultKind.GATEWAY_SUSPENDED: 10.0,
    FaultKind.CLOCK_JUMPS: 10 * 365.25 * 86400,
}

AT_ENTRY: Mapping[str, FaultKind] = MappingProxyType(
    {
        "before": FaultKind.KILL_BEFORE_COMMIT,
        "after": FaultKind.KILL_AFTER_COMMIT,
        "full": FaultKind.DISK_FULL,
        "error": FaultKind.DISK_ERROR,
    }
)

_STEP = re.compile(r"kill#((?:\d+:)?)(\d+)")
_ENTRY = re.compile(r"(kill|disk)%(\d+):([a-z]+)")


@dataclass(frozen=True, slots=True)
class GatewayFault:
    """Something happens to the gateway at a moment; `amount` is in seconds, and `back` for a clock that is put back."""

    kind: FaultKind
    at: Moment
    amount: float | None = None
    back: bool = False

    @property
    def text(self) -> str:
        """See `Fault`."""
        text = named_text(self.kind, NAMES, self.amount, self.at)
        return "gateway:" + (text.replace("clock-forward", _BACK, 1) if self.back else text)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what follows ``gateway:``.  Raises ValueError."""
        kind, amount, at = parse_named(text, NAMES)
        if amount is not None and kind not in _AMOUNTS:
            raise ValueError(f"{text!r} has an amount that means nothing")
        return cls(kind, at, amount, text.startswith(_BACK))

    def arm(self, station: Station) -> None:
        """See `Fault`."""
        station.at(self.at, lambda: _ACTS[self.kind](self, station))

    @property
    def how_much(self) -> float:
        """The amount, or the usual one."""
        return _AMOUNTS[self.kind] if self.amount is None else self.amount


@dataclass(frozen=True, slots=True)
class KillAtStep:
    """The gateway process of this attempt is killed in place of its task step number `step`, from 0."""

    step: int
    attempt: int = 1

    @property
    def kind(self) -> FaultKind:
        """See `Fault`."""
        return FaultKind.KILL_AT_STEP

    @property
    def text(self) -> str:
        """See `Fault`."""
        return f"gateway:kill#{'' if self.attempt == 1 else attempt_text(self.attempt)}{self.step}"

    def arm(self, station: Station) -> None:
        """See `Fault`."""

        def on_start(process: SimulatedProcess) -> None:
            if station.attempts == self.attempt:
                process.kill_at(self.step, kill)

        def kill() -> None:
            station.took(self)
            station.kill_gateway()

        station.on_start.append(on_start)
        station.to_heal(lambda: station.on_start.remove(on_start))


@dataclass(frozen=True, slots=True)
class EntryFault:
    """Something happens as journal entry number `entry` is written, from 0 over all of the station's processes."""

    kind: FaultKind
    entry: int

    @property
    def text(self) -> str:
        """See `Fault`."""
        what = "disk" if self.kind in (FaultKind.DISK_FULL, FaultKind.DISK_ERROR) else "kill"
        return f"gateway:{what}%{self.entry}:{name_of(self.kind, AT_ENTRY)}"

    @classmethod
    def parse(cls, what: str, entry: str, how: str) -> Self:
        """Put one together from what `_ENTRY` found.  Raises ValueError."""
        fault = cls(look_up(how, AT_ENTRY), int(entry))
        if not fault.text.startswith(f"gateway:{what}%"):
            raise ValueError(f"{what} does not go with {how}")
        return fault

    def arm(self, station: Station) -> None:
        """See `Fault`."""
        acts = station.disk.after if self.kind is FaultKind.KILL_AFTER_COMMIT else station.disk.before

        def act(number: int) -> None:
            if number < self.entry or (number > self.entry and self.kind is not FaultKind.DISK_FULL):
                return
            station.took(self)
            if self.kind is FaultKind.DISK_FULL:
                raise sqlite3.OperationalError("database or disk is full")
            if self.kind is FaultKind.DISK_ERROR:
                raise sqlite3.OperationalError("disk I/O error")
            station.kill_gateway()
            station.process.require_alive()

        acts.append(act)
        station.to_heal(lambda: acts.remove(act))


def parse(text: str) -> GatewayFault | KillAtStep | EntryFault:
    """Read what follows ``gateway:``.  Raises ValueError."""
    if (match := _STEP.fullmatch(text)) is not None:
        return KillAtStep(int(match[2]), split_attempt(match[1])[0] or 1)
    if (match := _ENTRY.fullmatch(text)) is not None:
        return EntryFault.parse(match[1], match[2], match[3])
    return GatewayFault.parse(text)


def _kill(fault: GatewayFault, station: Station) -> None:
    if station.running:
        station.took(fault)
        station.kill_gateway()


def _power(fault: GatewayFault, station: Station) -> None:
    if station.running:
        station.took(fault)
        station.kill_gateway(power=True)


def _starved(fault: GatewayFault, station: Station) -> None:
    if station.running:
        station.took(fault)
        station.process.stall(fault.how_much)


def _suspended(fault: GatewayFault, station: Station) -> None:
    """The whole computer sleeps: what is on the bus meanwhile is not even received."""
    if not station.running or not station.controller.online:
        return
    station.took(fault)
    station.slept_s += fault.how_much
    station.process.stall(fault.how_much)
    station.controller.detach()
    station.later(fault.how_much, lambda: _plug(station))


def _plug(station: Station) -> None:
    if station.plugged:
        station.controller.attach()


def _clock(fault: GatewayFault, station: Station) -> None:
    station.took(fault)
    jump = timedelta(seconds=-fault.how_much if fault.back else fault.how_much)
    station.clock_error += jump


def _unplugged(fault: GatewayFault, station: Station) -> None:
    station.took(fault)
    station.plugged = False
    station.controller.unplug()

    def plug() -> None:
        station.plugged = True
        station.controller.attach()

    if fault.at.lasts_s is not None:
        station.later(fault.at.lasts_s, plug)


def _interrupted(fault: GatewayFault, station: Station) -> None:
    if station.running and station.process.task is not None:
        station.took(fault)
        station.process.task.cancel()


_ACTS: Mapping[FaultKind, Callable[[GatewayFault, Station], None]] = MappingProxyType(
    {
        FaultKind.KILL_AT_TIME: _kill,
        FaultKind.GATEWAY_POWER_LOST: _power,
        FaultKind.GATEWAY_STARVED: _starved,
        FaultKind.GATEWAY_SUSPENDED: _suspended,
        FaultKind.CLOCK_JUMPS: _clock,
        FaultKind.ADAPTER_UNPLUGGED: _unplugged,
        FaultKind.INTERRUPTED: _interrupted,
    }
)
