"""Upgrades, resumes and rollbacks that something strikes at a moment, and what the gateway still sends after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial

from ess_can.bus.clock import now, pause, until
from ess_can.campaign.monitors import Monitors
from ess_can.campaign.station import Station
from ess_can.can.frame import CanFrame
from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.gateway.progress import Event, NodeStepEntered, PhaseEntered
from ess_can.gateway.report import Report
from ess_can.identity import NodeAddress, Version
from ess_can.journal.entries import Deed, Entry, Kind
from ess_can.signals.messages import EmsPcsCommand, PcsCommandCode
from ess_can.sim.loop import run_virtual
from ess_can.sim.node import Behaviour
from ess_can.sim.plant import Plant
from tests.scenario.support import BMU1, NEW, QUICK, Sent, fill_inactive_banks, release, small_plant

TELLING_S = 0.12
"""A rack tells of an emergency with its next BMS_HvStatus, or of a fire with its next BMS_Alarms."""
OPENING = (PcsCommandCode.ZERO_POWER, PcsCommandCode.OPEN, PcsCommandCode.LOCK)
"""Orders on the way to open and locked, and there."""

Act = Callable[[Plant], None]
"""Something that is done to a plant."""


class Course(Enum):
    """What is under way when it strikes."""

    UPGRADE = "an upgrade"
    BAD_FIRMWARE = "an upgrade to firmware that measures nonsense: it is rolled back"
    NODE_DIES = "the same, and a node loses its supply as it is rolled back"
    HELD_OPEN = "an upgrade after which the plant is to be held open"
    RESUME = "the second attempt, with nodes left on trial"
    ROLL_BACK = "the giving up of an attempt that left nodes on trial"

    @property
    def is_second(self) -> bool:
        return self in (Course.RESUME, Course.ROLL_BACK)


@dataclass(frozen=True, slots=True)
class Strike:
    """So many seconds after a phase, or a step of rack 1's node, was entered in this course."""

    after: Phase | NodeStep
    seconds: float
    course: Course = Course.UPGRADE


@dataclass
class Aftermath:
    """What was seen.  `told_at` is from when the gateway could know."""

    station: Station
    monitors: Monitors
    struck_at: float = -1.0
    told_at: float = -1.0
    sent: list[Sent] = field(default_factory=list)
    orders: list[tuple[float, PcsCommandCode]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    dropped_by_itself: bool = True

    @property
    def report(self) -> Report:
        assert self.station.report is not None
        return self.station.report

    @property
    def plant(self) -> Plant:
        return self.station.plant

    def entered_at(self, phase: Phase) -> float:
        """When it was entered in the attempt that was struck."""
        return next(e.at for e in self.events if isinstance(e, PhaseEntered) and e.phase is phase)

    def requests_since(self, at: float) -> list[str]:
        """Diagnostic requests of ours that began after this instant, in hex, but for those that only read."""
        ids = {self.plant.codec.diagnostic_ids(address)[0] for address in self.plant.nodes}
        found = []
        for each in self.sent:
            kind, data = each.frame.data[0] >> 4, each.frame.data
            if each.at <= at or each.frame.can_id not in ids or kind == 3:
                continue
            if kind == 0 and data[1] == 0x22:
                continue
            found.append(f"{each.at - self.told_at:+.3f} s {data.hex()}")
        return found

    def orders_since(self, at: float) -> set[PcsCommandCode]:
        return {order for when, order in self.orders if when > at}


def _look_at(seen: Aftermath, frame: CanFrame, at: float, sender: str) -> None:
    if sender != "EMS":
        return
    seen.sent.append(Sent(frame, at, sender))
    decoded = seen.plant.codec.decode(frame.can_id, frame.data)
    if decoded is not None and isinstance(decoded.message, EmsPcsCommand):
        seen.orders.append((at, decoded.message.command))


def struck(
    strike: Strike,
    act: Act,
    tells: NodeAddress | None = None,
    *,
    racks: int = 2,
    over: tuple[float, Act] | None = None,
    ahead: tuple[float, Act] | None = None,
) -> Aftermath:
    """Let it strike; `tells` is whose word it is that the gateway has to hear, None for the PCS's.

    `over` says how many seconds later what ends it, `ahead` how many seconds before it what else happens.
    """
    return run_virtual(_struck(strike, act, tells, racks, over, ahead))


async def _struck(
    strike: Strike,
    act: Act,
    tells: NodeAddress | None,
    racks: int,
    over: tuple[float, Act] | None,
    ahead: tuple[float, Act] | None,
) -> Aftermath:
    bad = strike.course in (Course.BAD_FIRMWARE, Course.NODE_DIES)
    behaviours: Mapping[Version, Behaviour] = {NEW: Behaviour.WRONG_SCALE} if bad else {}
    spec = replace(QUICK, racks=racks, behaviours=behaviours)
    afterwards = Afterwards.HOLD_OPEN if strike.course is Course.HELD_OPEN else Afterwards.AS_FOUND
    station = Station(spec, release(), 1, None, small_plant)
    station.config = GatewayConfig(station.plant.addresses, afterwards=afterwards)
    fill_inactive_banks(station.plant)
    seen = Aftermath(station, Monitors(station.plant))
    station.plant.wire.on_frame.append(partial(_look_at, seen))
    await station.settle()
    seen.monitors.attach_journal(station.journal)
    if strike.course.is_second:
        await _leave_on_trial(station)
        seen.monitors.attach_journal(station.journal)
    station.on_event.append(seen.events.append)
    loop = asyncio.get_running_loop()
    armed = [True]

    def happen() -> None:
        seen.struck_at = seen.told_at = now()
        act(station.plant)
        if over is not None:
            loop.call_later(over[0], over[1], station.plant)

    def look(event: Event) -> None:
        if strike.course is Course.NODE_DIES and isinstance(event, PhaseEntered) and event.phase is Phase.ROLL_BACK:
            loop.call_later(0.02, station.plant.nodes[BMU1].power_off, now() + 0.02)
        if armed[0] and _is(event, strike.after):
            armed[0] = False
            loop.call_later(strike.seconds, happen)
            if ahead is not None:
                loop.call_later(strike.seconds - ahead[0], ahead[1], station.plant)

    station.on_event.append(look)
    if strike.course.is_second:
        station.start_resume(roll_back=strike.course is Course.ROLL_BACK)
    else:
        station.start_upgrade()
    assert await until(lambda: seen.struck_at >= 0 or not station.running, 300.0)
    assert seen.struck_at >= 0, f"it was over before: {station.report and station.report.error}"
    if tells is not None:
        await _until_told(station.plant, tells, seen)
    assert await station.ended()
    seen.monitors.ended(seen.report)
    await pause(30.0)
    seen.monitors.finish()
    station.switch_off()
    return seen


def _is(event: Event, what: Phase | NodeStep) -> bool:
    if isinstance(event, PhaseEntered):
        return event.phase is what
    return isinstance(event, NodeStepEntered) and (event.step, event.node) == (what, BMU1)


async def _leave_on_trial(station: Station) -> None:
    """The gateway's computer dies when every node has been restarted with its new image; it comes back."""
    restarts: list[Entry] = []

    def look(entry: Entry) -> None:
        if entry.kind is Kind.RESULT and entry.deed is Deed.RESTART:
            restarts.append(entry)
            if len(restarts) == len(station.plant.racks):
                station.kill_gateway(power=True)
                station.process.require_alive()

    station.journal.on_entry.append(look)
    station.start_upgrade()
    assert not await station.ended()
    await pause(3.0)


async def _until_told(plant: Plant, address: NodeAddress, seen: Aftermath) -> None:
    """Until the node had the time to tell: one that restarts cannot before it is up again."""
    node = plant.nodes[address]
    while now() - seen.told_at < TELLING_S:
        await pause(0.001)
        if not node.running:
            seen.told_at = now()


def require_aborted(seen: Aftermath, told: str = "EMERGENCY_STOP") -> None:
    """Within 200 ms nothing is asked of a node any more but what it is, and only opening is ordered; and it is told."""
    assert seen.report.error is not None
    assert (seen.report.result, seen.report.error.name) == (Phase.HELD_OPEN, "HELD_OPEN"), seen.report.error
    assert told in seen.report.error.why, seen.report.error
    late = seen.told_at + 0.200
    assert not seen.requests_since(late), seen.requests_since(late)
    assert seen.orders_since(late) <= set(OPENING), seen.orders_since(late)
    assert [at for at, order in seen.orders if seen.told_at < at <= late and order in OPENING], "nothing was ordered"
    assert seen.entered_at(Phase.HOLD_OPEN) <= late
    assert not seen.monitors.violations, "\n".join(map(str, seen.monitors.violations))
    assert not any(contactor.closed for contactor in seen.plant.circuit.contactors)
