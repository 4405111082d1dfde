"""One run: an upgrade under faults, then everything healed and brought to an end, then a good upgrade.

While the faults last, a gateway that dies is started again and resumes, a few times.  Then nothing is wrong any more:
what is unfinished is resumed, given up, or taken over by the upgrade of another file, and must come to an end in
bounded time.  Whatever the end was, the release after it must then go in.  The monitors watch all of it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

from ess_can.bus.clock import now, pause
from ess_can.campaign.faults import Fault, parse_fault
from ess_can.campaign.mixture import Comeback, Mixture, mixture_of
from ess_can.campaign.monitors import Monitors, Violation
from ess_can.campaign.monitors.runs import accepted, came_to_an_end, repeated
from ess_can.campaign.operator import disconnect, partly_connected
from ess_can.campaign.plants import NEW, NEXT, OTHER
from ess_can.campaign.releases import make_plant, release
from ess_can.campaign.result import RunResult
from ess_can.campaign.station import Station
from ess_can.campaign.timeline import Timeline
from ess_can.campaign.watching import Edges, PlantLines, entry_text
from ess_can.errors import EssCanError, SimulationDeadlock
from ess_can.gateway.config import Afterwards
from ess_can.gateway.phases import FINAL, Phase
from ess_can.gateway.progress import Event, Noted, PhaseEntered
from ess_can.gateway.report import Report
from ess_can.sim.loop import run_virtual

LONGEST_S = 1800.0
"""In how much time every attempt has to come to its end, faults or not."""
HEALED_S = (5.0, 75.0)
"""After how long an upgrade is resumed when the faults are gone, and if it is refused once more.

A node that was left on trial with firmware that cannot be heard goes back by itself, after up to 60 s.
"""
HEALED_WITHIN_S = sum(HEALED_S) + 2 * LONGEST_S
"""In how much time what is unfinished has to come to its end once the faults are gone, these attempts together."""
AGAIN_S = (0.0, 75.0)
"""After how long the good upgrade is started, and started again if a node was just restarting."""

TWICE = 50
"""A campaign runs one seed of so many twice, and compares."""

_NAME = re.compile(r"\b[A-Z][A-Z_]+\b")


@cache
def error_names() -> frozenset[str]:
    """The names of all errors that there are."""

    def below(error: type[EssCanError]) -> Iterator[str]:
        yield error("").name
        for kind in error.__subclasses__():
            yield from below(kind)

    return frozenset(below(EssCanError))


def behind(*errors: BaseException | None) -> list[BaseException]:
    """These errors and what they came of, each once: their causes, and what was being handled when they were raised."""
    found: list[BaseException] = []
    to_see = [error for error in errors if error is not None]
    while to_see:
        error = to_see.pop(0)
        if all(error is not one for one in found):
            found.append(error)
            to_see += [one for one in (error.__cause__, error.__context__) if one is not None]
    return found


def run_seed(seed: int, faults: Sequence[str] | None = None) -> RunResult:
    """Run a seed with its own faults, or with `faults` in their place.  Raises UsageError for what is no fault."""
    return run_mixture(_planned(seed, faults))


def checked_seed(seed: int) -> RunResult:
    """Run a seed as campaigns do: some of them twice, and both runs have to be the same."""
    result = run_seed(seed)
    differs = repeated(result, run_seed(seed)) if seed % TWICE == 0 else None
    return result if differs is None else replace(result, violations=(*result.violations, str(differs)))


def replay_seed(seed: int, faults: Sequence[str] | None = None) -> tuple[RunResult, Timeline]:
    """The same run, and the timeline of it."""
    timeline = Timeline()
    return run_mixture(_planned(seed, faults), timeline), timeline


def _planned(seed: int, faults: Sequence[str] | None) -> Mixture:
    mixture = mixture_of(seed)
    return mixture if faults is None else replace(mixture, faults=tuple(faults))


def run_mixture(
    mixture: Mixture, timeline: Timeline | None = None, *, faults: Sequence[Fault] | None = None
) -> RunResult:
    """Run what was planned, and write into `timeline` if there is one.  Raises UsageError for what is no fault.

    `faults`, for tests, are in the place of the mixture's own.
    """
    armed = [parse_fault(text) for text in mixture.faults] if faults is None else faults
    run = Run(mixture, armed, timeline)
    try:
        run_virtual(run.whole())
    except SimulationDeadlock as error:
        run.stuck = str(error)
    except Exception as bug:  # a defect of plant or gateway that nobody caught is a finding like others
        run.stuck = f"the simulation broke: {type(bug).__name__}: {bug}"
    return run.result()


def _told(violation: Violation | None) -> str:
    return "" if violation is None else str(violation)


class Run:
    """A run under way.  `whole` is awaited once, on a virtual loop; `result` tells of as much as there was."""

    def __init__(self, mixture: Mixture, faults: Sequence[Fault], timeline: Timeline | None) -> None:
        self.stuck = ""
        self._unhealed = ""
        self._mixture = mixture
        self._faults = faults
        self._timeline = timeline
        self._ended = ""
        self._errors: list[str] = []
        self._frames = self._steps = self._entries = 0
        self._trace_hash = ""
        self._virtual_s = 0.0
        self._station: Station | None = None
        self._edges: Edges | None = None
        self._monitors: Monitors | None = None

    async def whole(self) -> None:
        """All of it."""
        site = self._mixture.site
        station = self._station = Station(
            site.plant,
            release(site.release, NEW, site.payload_bytes),
            self._mixture.seed,
            site.config(),
            partial(make_plant, bank=site.bank),
        )
        self._edges = Edges(station.plant)
        self._monitors = Monitors(station.plant, times=site.config().times)
        lines = None if self._timeline is None else PlantLines(station.plant, self._timeline)
        for fault in self._faults:
            station.arm(fault)
        try:
            await station.settle()
            await self._under_faults(station)
            await self._healed(station)
        finally:
            self._monitors.finish()
            self._virtual_s = now()
            self._trace_hash = station.plant.trace.hexdigest()
            if lines is not None:
                lines.finish()
            for at, effective in station.effects:
                self._say("fault", effective.text, at)
            for violation in self._monitors.violations:
                self._say("RULE", str(violation), violation.at_s)
            station.plant.stop()

    async def _under_faults(self, station: Station) -> None:
        """The upgrade, resumed as often as the gateway died and somebody was there to start it again."""
        wire = station.plant.wire
        frames = wire.transmissions
        finished = await self._attempt(station, station.start_upgrade)
        self._frames = wire.transmissions - frames
        self._steps = station.process.steps
        self._entries = station.disk.writes
        for after_s in self._mixture.restarts:
            if finished or self.stuck:
                return
            await pause(after_s)
            finished = await self._attempt(station, partial(self._come_back, station, self._mixture.restarted_by))

    def _come_back(self, station: Station, comeback: Comeback) -> None:
        """Start the gateway for whoever finds an upgrade unfinished."""
        self._say("somebody", comeback.value)
        if comeback is Comeback.TAKE_OVER:
            site = self._mixture.site
            station.start_upgrade(release(site.release, OTHER, site.payload_bytes))
        else:
            station.start_resume(roll_back=comeback is Comeback.ROLL_BACK)

    async def _healed(self, station: Station) -> None:
        """Nothing is wrong any more: what is unfinished ends, and the next release goes in."""
        if self.stuck:
            return
        station.heal()
        self._say("somebody", "removes every fault")
        if not await self._finished_healed(station):
            return
        station.heal()  # of what came of the faults only now: a node that hung restarts, its contactors drop under load
        if partly_connected(station.plant):  # which no upgrade touches, and rightly so
            self._say("somebody", "disconnects the plant by its own controls")
            await disconnect(station.plant)
        site = self._mixture.site
        following = release(site.release, NEXT, site.payload_bytes)
        config = site.config(Afterwards.CONNECT)
        for after_s in AGAIN_S:
            await pause(after_s)
            self._say("somebody", f"starts the upgrade to {NEXT}")
            finished = await self._attempt(station, lambda: station.start_upgrade(following, config), last=True)
            if self.stuck or station.report is None or station.report.result is not Phase.REFUSED:
                break
        self._unhealed = _told(accepted(station.report if finished else None, now()))

    async def _finished_healed(self, station: Station) -> bool:
        """Whether what is unfinished came to an end: at once or, after a trial's own time-out, at the second try."""
        began_at, ended = now(), False
        for after_s in HEALED_S:
            await pause(after_s)
            if not station.unfinished:
                return True
            ended = await self._attempt(station, partial(self._come_back, station, self._mixture.healed_by))
            if self.stuck:
                return False
            if ended and station.report is not None and station.report.result is not Phase.REFUSED:
                break
        report, took_s = station.report if ended else None, now() - began_at
        self.stuck = _told(came_to_an_end(report, now(), took_s, HEALED_WITHIN_S, FINAL - {Phase.REFUSED}))
        return not self.stuck

    async def _attempt(self, station: Station, start: Callable[[], object], *, last: bool = False) -> bool:
        """Have the gateway work until it ends or dies; whether it came to its end."""
        events_before, began_at = len(station.events), now()
        self._watch_journal(station)
        start()
        try:
            async with asyncio.timeout(LONGEST_S):
                finished = await station.ended()
        except TimeoutError:
            self.stuck = _told(came_to_an_end(None, now(), now() - began_at, LONGEST_S))
            finished = False
        events = station.events[events_before:]
        if self._edges is not None:
            self._edges.of_upgrade(events)
        if self._timeline is not None:
            for event in events:
                self._timeline.on_event(event)
        report = station.report
        if not finished or report is None:
            self._say("gateway", "died")
            return False
        self.stuck = _told(came_to_an_end(report, now(), now() - began_at, LONGEST_S))
        if self._monitors is not None:
            self._monitors.ended(report, station.afterwards)
        if not last:
            self._ended = report.result.name
            self._note_errors(report, events)
        self._say("gateway", f"ended: {report.result.value}" + (f" ({report.error})" if report.error else ""))
        return True

    def _note_errors(self, report: Report, events: Sequence[Event]) -> None:
        """The error that it ended with, and those that it met on the way: each once, in the order of their telling."""
        told = [
            event.text if isinstance(event, Noted) else event.detail
            for event in events
            if isinstance(event, Noted | PhaseEntered)
        ]
        if report.error is not None:
            self._errors.append(report.error.name)
            told.append(report.error.why)
        told += [error.name for error in behind(report.error, report.cause) if isinstance(error, EssCanError)]
        met = (name for text in told for name in _NAME.findall(text) if name in error_names())
        self._errors += [name for name in dict.fromkeys(met) if name not in self._errors]

    def _watch_journal(self, station: Station) -> None:
        if self._monitors is not None:
            self._monitors.attach_journal(station.journal, works=lambda: station.works)
        if self._timeline is not None:
            station.journal.on_entry.append(lambda entry: self._say("journal", entry_text(entry)))

    def _say(self, who: str, what: str, at: float | None = None) -> None:
        if self._timeline is not None:
            self._timeline.add(now() if at is None else at, who, what)

    def result(self) -> RunResult:
        """What came of it."""
        station, monitors = self._station, self._monitors
        return RunResult(
            seed=self._mixture.seed,
            plant=self._mixture.site.text,
            faults=tuple(fault.text for fault in self._faults),
            ended=self._ended,
            errors=tuple(self._errors),
            kills=0 if station is None else station.kills,
            took_effect=()
            if station is None
            else tuple(sorted({fault.kind.name for fault in self._faults if station.took_effect(fault)})),
            edges=() if self._edges is None else tuple(sorted(self._edges.seen)),
            violations=() if monitors is None else tuple(map(str, monitors.violations)),
            stuck=self.stuck,
            unhealed=self._unhealed,
            trace_hash=self._trace_hash,
            virtual_s=self._virtual_s,
            frames=self._frames,
            steps=self._steps,
            entries=self._entries,
        )
