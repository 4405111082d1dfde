"""A safety guard, how it is switched off, and the directed run that finds out.

A run gives in words what is wrong with it, nothing if all is well: rules that were broken, and an end that is not the
one to be expected.  With the guard in its place a run is good; with the guard off it says what `Guard.seen` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache

import pytest

from ess_can.campaign.fault_kinds import FaultKind
from ess_can.campaign.faults import parse_fault
from ess_can.campaign.mixture import Mixture
from ess_can.campaign.moments import Moment
from ess_can.campaign.monitors import Invariant, Monitors
from ess_can.campaign.plants import NEW, SMALLEST, Site
from ess_can.campaign.releases import make_plant, release
from ess_can.campaign.run import LONGEST_S, run_mixture
from ess_can.campaign.station import Fault, Station, Verdict
from ess_can.can.frame import CanFrame
from ess_can.errors import EssCanError
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.progress import Noted
from ess_can.identity import NodeAddress, Version
from ess_can.signals.dbc import Route, StationCodec
from ess_can.signals.e2e import protect
from ess_can.signals.messages import Message, NodeInfo
from ess_can.sim.loop import run_virtual
from ess_can.sim.plant import Plant, PlantSpec
from ess_can.trust.verify import VerifiedUpgrade

Value = float | bool | Enum | None
"""Of a message's field."""
Off = Callable[[pytest.MonkeyPatch], None]
"""Switches a guard off until the patch is undone."""


@dataclass(frozen=True, slots=True)
class Run:
    """A directed run: in words, and as a function that gives what is wrong with it."""

    text: str
    wrong: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Guard:
    """One safety guard.

    `where` is ``module:function`` below `ess_can`; `seen` is what finds it missing: the invariant that the monitors see
    broken, or what the run's own check says.  `behind` names guards that catch the same: they are switched off, too.
    """

    name: str
    where: str
    prevents: str
    off: Off
    run: Run
    seen: Invariant | str
    behind: str = ""

    @property
    def caught_by(self) -> str:
        """For people."""
        return f"{self.run.text}: {self._sees}" + (f" (with {self.behind} off, too)" if self.behind else "")

    @property
    def _sees(self) -> str:
        seen = self.seen
        if isinstance(seen, Invariant):
            return f"invariant {seen.number}"
        if seen.startswith("not "):
            return f"it does not end {seen.removeprefix('not ').replace(' & ', ', ')}"
        return f"it {seen}" if seen.startswith(("ends ", "tells ", "is ")) else seen

    @property
    def mark(self) -> str:
        """What is in the words of a run without this guard."""
        return f"(invariant {self.seen.number}:" if isinstance(self.seen, Invariant) else self.seen


def by(owner: object, name: str, value: object) -> Off:
    """An attribute is replaced."""
    return lambda patch: patch.setattr(owner, name, value)


def around(owner: object, name: str, make: Callable[[Callable[..., object]], object]) -> Off:
    """A function is replaced by what `make` makes of it, when it is switched off."""
    return lambda patch: patch.setattr(owner, name, make(getattr(owner, name)))


def first(owner: object, name: str, do: Callable[..., None]) -> Off:
    """Before a method does its work, this is done with its arguments."""

    def make(original: Callable[..., object]) -> object:
        def call(*args: object) -> object:
            do(*args)
            return original(*args)

        return call

    return around(owner, name, make)


def both(*offs: Off) -> Off:
    """Several are switched off."""

    def off(patch: pytest.MonkeyPatch) -> None:
        for each in offs:
            each(patch)

    return off


# --- what is wrong with a run, in words -------------------------------------------------------------------


def require(condition: bool, what: str) -> None:
    """As an assertion that is never left out."""
    if not condition:
        raise AssertionError(what)


def words_of(error: AssertionError) -> str:
    """What an assertion that does not hold says."""
    return str(error).splitlines()[0] if str(error) else "an assertion does not hold"


def script(text: str, act: Callable[[], None]) -> Run:
    """A run without a loop, which asserts what must hold."""

    def wrong() -> str:
        try:
            act()
        except AssertionError as error:
            return words_of(error)
        return ""

    return Run(text, wrong)


def refuses(what: str, act: Callable[[], object], error: str) -> None:
    """It must raise this error."""
    try:
        act()
    except EssCanError as refusal:
        require(refusal.name == error, f"{what} is refused with {refusal.name}, not {error}")
        return
    raise AssertionError(f"{what} is not refused")


# --- faults that only directed runs need ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Says:
    """A message says something else than its sender has said, with a valid check; `alter` gives None to lose it."""

    text: str
    message_type: type[Message]
    alter: Callable[[Message], Message | None]
    at: Moment
    address: NodeAddress | int = 1
    kind: FaultKind = FaultKind.NODE_GARBAGE

    def arm(self, station: Station) -> None:
        """See `Fault`."""
        codec = station.plant.codec

        def rule(_index: int, frame: CanFrame) -> Verdict:
            return self.altered(codec, frame)

        def begin() -> None:
            station.took(self)
            remove = station.on_transmission(rule)
            if self.at.lasts_s is not None:
                station.later(self.at.lasts_s, remove)

        station.at(self.at, begin)

    def _route(self, codec: StationCodec) -> Route:
        address = self.address
        return (
            codec.node_route(address) if isinstance(address, NodeAddress) else codec.route(self.message_type, address)
        )

    def altered(self, codec: StationCodec, frame: CanFrame) -> CanFrame | None:
        """What becomes of a frame; None if it is another message's, or lost."""
        route = self._route(codec)
        if frame.can_id != route.can_id:
            return None
        decoded = codec.decode(frame.can_id, frame.data)
        if decoded is None or not isinstance(decoded.message, self.message_type):
            return None
        message = self.alter(decoded.message)
        if message is None:
            return None
        data = codec.encode(message, self.address if isinstance(message, NodeInfo) else route.index)
        if route.e2e_data_id is not None:
            data = protect(data, route.e2e_data_id, frame.data[2])
        return frame._replace(data=bytes(data))


def saying(
    what: str, message_type: type[Message], moment: str, fields: Mapping[str, Value], address: NodeAddress | int = 1
) -> Says:
    """A message with these values in these fields."""

    def alter(message: Message) -> Message:
        return replace(message, **fields)

    return Says(f"{what} @{moment}", message_type, alter, Moment.parse(moment), address)


def says(what: str, message_type: type[Message], moment: str, address: NodeAddress | int = 1, **fields: Value) -> Says:
    """The same, as names and values."""
    return saying(what, message_type, moment, fields, address)


@dataclass(frozen=True, slots=True)
class Act:
    """Something is done to the station at a moment."""

    what: str
    moment: str
    do: Callable[[Station], None]
    kind: FaultKind = FaultKind.NODE_GARBAGE

    @property
    def text(self) -> str:
        """See `Fault`."""
        return f"{self.what} @{self.moment}"

    def arm(self, station: Station) -> None:
        """See `Fault`."""

        def act() -> None:
            station.took(self)
            self.do(station)

        station.at(Moment.parse(self.moment), act)


# --- upgrades under faults --------------------------------------------------------------------------------


Start = Callable[[Station], None]
"""Starts the gateway."""
Then = Callable[[Station, Callable[[Start], Awaitable[None]]], Awaitable[str]]
"""What is done at a station after the first attempt, which may be further attempts; gives what is wrong then."""


def small_release(site: Site, version: Version) -> VerifiedUpgrade:
    """The site's small images of this version."""
    return release(site.release, version, site.payload_bytes)


@dataclass(frozen=True, slots=True)
class Course:
    """An upgrade under faults, watched by the monitors.  `ends` is in how it ends (parts of it with ` & ` between).

    `make` makes the plant, `brings` the release of `version` that is brought in, `config` is what the gateway is told,
    `go` what is done, and `then` what follows; `tells` is in what the gateway has to tell on its way.
    """

    faults: tuple[str | Fault, ...]
    ends: str = ""
    site: Site = SMALLEST
    make: Callable[[PlantSpec], Plant] = make_plant
    version: Version = NEW
    config: Callable[[Site], GatewayConfig] = field(default=Site.config)
    go: Callable[[Station], None] = field(default=Station.start_upgrade)
    tells: str = ""
    brings: Callable[[Site, Version], VerifiedUpgrade] = small_release
    then: Then | None = None

    @property
    def text(self) -> str:
        """In words."""
        told = [fault if isinstance(fault, str) else fault.text for fault in self.faults]
        return f"an upgrade under {', '.join(f'`{text}`' for text in told)}" if told else "an undisturbed upgrade"

    def wrong(self) -> str:
        """What is wrong with it."""
        return run_virtual(self._run())

    async def _run(self) -> str:
        site = self.site
        station = Station(site.plant, self.brings(site, self.version), 1, self.config(site), self.make)
        monitors = Monitors(station.plant)
        for fault in self.faults:
            station.arm(parse_fault(fault) if isinstance(fault, str) else fault)
        await station.settle()
        found = []

        async def attempt(start: Start) -> None:
            monitors.attach_journal(station.journal, works=lambda: station.works)
            start(station)
            try:
                async with asyncio.timeout(LONGEST_S):
                    await station.ended()
            except TimeoutError:
                pass
            if station.report is not None:
                monitors.ended(station.report, station.afterwards)

        await attempt(self.go)
        if self.then is not None and (finding := await self.then(station, attempt)):
            found.append(finding)
        ended, report = "no end", station.report
        if report is not None:
            error = report.error
            ended = report.result.name if error is None else f"{report.result.name} {error.name}: {error}"
        monitors.finish()
        idle = [fault.text for fault in station.faults if not station.took_effect(fault)]
        station.switch_off()
        found += [*map(str, monitors.violations), *(f"without effect: {text}" for text in idle)]
        if not all(part in ended for part in self.ends.split(" & ")):
            found.append(f"ends {ended}, not {self.ends}")
        told = "\n".join(event.text for event in station.events if isinstance(event, Noted))
        if self.tells not in told:
            found.append(f"tells nothing of {self.tells}")
        return "; ".join(found)


def upgrade(*faults: str | Fault, ends: str = "", tells: str = "", site: Site = SMALLEST) -> Run:
    """An upgrade under faults."""
    course = Course(faults, ends, site, tells=tells)
    return Run(course.text, course.wrong)


def course(course: Course, text: str = "") -> Run:
    """An upgrade that differs in more than its faults."""
    return Run(text or course.text, course.wrong)


def campaign(*faults: str | Fault, ends: str = "", site: Site = SMALLEST, restarts: tuple[float, ...] = (2.0,)) -> Run:
    """A whole run of the campaign: an upgrade under faults, everything healed, resumed, and the next upgrade."""
    armed = [parse_fault(fault) if isinstance(fault, str) else fault for fault in faults]

    def wrong() -> str:
        result = run_mixture(Mixture(1, site, (), restarts), faults=armed)
        found = [result.wrong] if result.wrong else []
        if ends and result.ended != ends:
            found.append(f"ends {result.ended}, not {ends}")
        return "; ".join(found)

    return Run(f"a campaign run under {', '.join(f'`{fault.text}`' for fault in armed)}", wrong)


@cache
def with_all_guards(run: Run) -> str:
    """What is wrong with a run while every guard is in its place: each run once, whoever asks."""
    return run.wrong()


def table(guards: Sequence[Guard]) -> str:
    """Every guard as a row: what it is, where it is, what it prevents, and what finds it missing."""
    rows = [f"| {each.name} | `{each.where}` | {each.prevents} | {each.caught_by} |" for each in guards]
    return "\n".join(
        ["| guard | where | prevents | switched off, it is caught by |", "| --- | --- | --- | --- |", *rows]
    )
