"""Faults of single frames: ``frame:120:lost``, ``frame:hv-status#3:corrupted``, ``frame:request#7x2:delayed=0.3``."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.faults.named import look_up, name_of
from ess_can.campaign.moments import number_text, positive
from ess_can.campaign.station import Station, Verdict
from ess_can.can.frame import CanFrame
from ess_can.signals.dbc import StationCodec
from ess_can.signals.messages import (
    BmsAlarms,
    BmsCellSummary,
    BmsHvNotice,
    BmsHvStatus,
    BmsState,
    EmsHvStatusPoll,
    EmsPcsCommand,
    EmsUpgradeNotice,
    Message,
    NodeInfo,
    PcsStatus,
)
from ess_can.sim.wire import Delayed, WireFault

WAYS: Mapping[str, FaultKind] = MappingProxyType(
    {
        "lost": FaultKind.FRAME_LOST,
        "duplicated": FaultKind.FRAME_DUPLICATED,
        "swapped": FaultKind.FRAME_SWAPPED,
        "corrupted": FaultKind.FRAME_CORRUPTED,
        "delayed": FaultKind.FRAME_DELAYED,
    }
)

_ON_THE_WIRE = {
    FaultKind.FRAME_LOST: WireFault.LOSE,
    FaultKind.FRAME_DUPLICATED: WireFault.DUPLICATE,
    FaultKind.FRAME_SWAPPED: WireFault.SWAP,
}

_MESSAGES: Mapping[str, type[Message]] = MappingProxyType(
    {
        "command": EmsPcsCommand,
        "poll": EmsHvStatusPoll,
        "notice": EmsUpgradeNotice,
        "pcs-status": PcsStatus,
        "hv-status": BmsHvStatus,
        "hv-notice": BmsHvNotice,
        "state": BmsState,
        "cells": BmsCellSummary,
        "alarms": BmsAlarms,
        "node-info": NodeInfo,
    }
)

CLASSES = (*_MESSAGES, "request", "answer")
"""What frames can be named by, beside their index."""

DELAY_S = 0.05
"""How late a delayed frame is unless said otherwise."""

_FORM = re.compile(r"(?:([a-z-]+)#)?(\d+)(?:x(\d+))?:([a-z]+)(?:=(.+))?")


def identifiers(codec: StationCodec, name: str) -> frozenset[int]:
    """The identifiers of a class of frames.  Raises ValueError if there is none of this name."""
    if name in ("request", "answer"):
        return frozenset(codec.diagnostic_ids(node)[name == "answer"] for node in codec.nodes())
    return frozenset(route.can_id for route in codec.routes(look_up(name, _MESSAGES)))


@dataclass(frozen=True, slots=True)
class FrameFault:
    """Frame number `index` on the wire since the upgrade began, or of the class `of`, and `count` in a row.

    Retransmissions count.  `delay_s` is for one that is delayed.
    """

    kind: FaultKind
    index: int
    of: str | None = None
    count: int = 1
    delay_s: float = DELAY_S

    @property
    def text(self) -> str:
        """See `Fault`."""
        which = f"{self.index}" if self.of is None else f"{self.of}#{self.index}"
        times = "" if self.count == 1 else f"x{self.count}"
        delay = f"={number_text(self.delay_s)}" if self.kind is FaultKind.FRAME_DELAYED else ""
        return f"frame:{which}{times}:{name_of(self.kind, WAYS)}{delay}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what follows ``frame:``.  Raises ValueError."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not INDEX:WAY or CLASS#INDEX:WAY")
        of, index, count, way, delay = match.groups()
        if of is not None and of not in CLASSES:
            raise ValueError(f"{of!r} is none of {', '.join(CLASSES)}")
        kind = look_up(way, WAYS)
        if delay is not None and kind is not FaultKind.FRAME_DELAYED:
            raise ValueError(f"{way} has no amount")
        return cls(kind, int(index), of, int(count or 1), DELAY_S if delay is None else positive(delay))

    def arm(self, station: Station) -> None:
        """See `Fault`."""
        chance = station.chance(self)
        wanted = None if self.of is None else identifiers(station.plant.codec, self.of)
        seen = 0

        def rule(index: int, frame: CanFrame) -> Verdict:
            nonlocal seen
            if wanted is not None:
                if frame.can_id not in wanted:
                    return None
                index = seen
                seen += 1
            if not self.index <= index < self.index + self.count:
                return None
            station.took(self)
            return self._verdict(frame, chance)

        station.on_transmission(rule)

    def _verdict(self, frame: CanFrame, chance: random.Random) -> Verdict:
        if self.kind is FaultKind.FRAME_DELAYED:
            return Delayed(self.delay_s)
        if self.kind is FaultKind.FRAME_CORRUPTED:
            return corrupted(frame, chance)
        return _ON_THE_WIRE[self.kind]


def corrupted(frame: CanFrame, chance: random.Random) -> Verdict:
    """The frame with one to three of its bits flipped; a frame without data is lost."""
    if not frame.data:
        return WireFault.LOSE
    bits = int.from_bytes(frame.data, "big")
    for bit in chance.sample(range(8 * len(frame.data)), chance.randrange(1, 4)):
        bits ^= 1 << bit
    return frame._replace(data=bits.to_bytes(len(frame.data), "big"))


def losing(station: Station, which: Callable[[CanFrame], bool]) -> Callable[[], None]:
    """Nobody receives such frames until the function returned is called."""
    return station.on_transmission(lambda _index, frame: WireFault.LOSE if which(frame) else None)
