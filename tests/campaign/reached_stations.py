"""What a station does with other commands than one upgrade, and with releases that it must refuse."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from ess_can.bus.clock import now
from ess_can.bus.port import Sent
from ess_can.campaign.monitors import Invariant, Monitors
from ess_can.campaign.plants import NEW, SMALLEST, Site
from ess_can.campaign.releases import release
from ess_can.campaign.station import Station
from ess_can.campaign.watching import Edges
from ess_can.can.frame import CanFrame
from ess_can.errors import (
    DependencyUnmet,
    EssCanError,
    HeldOpen,
    HvClosed,
    NodeUnhealthy,
    NothingToResume,
    SecurityCounterJump,
    SecurityDowngrade,
    VersionDowngrade,
    WrongHardware,
    WrongNodeType,
)
from ess_can.gateway.config import Afterwards
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.gateway.progress import Event, NodeStepEntered, PhaseEntered
from ess_can.gateway.report import Report
from ess_can.identity import NodeType, Version
from ess_can.image.manifest import Dependency
from ess_can.journal.entries import Deed, Entry, Kind
from ess_can.journal.journal import Journal
from ess_can.sim.loop import run_virtual
from ess_can.sim.plant import BMU_HARDWARE_ID
from ess_can.trust.compatibility import MAX_COUNTER_STEP
from ess_can.trust.verify import VerifiedUpgrade, open_upgrade_file
from tests.campaign.directed import BMU1, FOUND_OPEN
from tests.campaign.reached import Reached
from tests.firmware_images import RING, small_image, small_upgrade

_FACTORY_COUNTER = 1


@dataclass
class Visit:
    """A station, watched, and whoever types commands there.  `edges` are the changes of state that were seen."""

    site: Site
    station: Station
    monitors: Monitors
    watched: Edges
    edges: set[str] = field(default_factory=set)

    async def typed(self, start: Callable[[], None]) -> Report | None:
        """What a command that `start` begins comes to; None if its process is killed."""
        station, before = self.station, len(self.station.events)
        self.monitors.attach_journal(station.journal, another=True)
        start()
        ended = await station.ended()
        self.watched.of_upgrade(station.events[before:])
        if ended and station.report is not None:
            self.monitors.ended(station.report, station.afterwards)
        return station.report

    async def upgraded(self, upgrade: VerifiedUpgrade | None = None, *, dry_run: bool = False) -> Phase:
        """How an upgrade ends.  Raises what the report says that it ended with."""
        report = await self.typed(lambda: self.station.start_upgrade(upgrade, dry_run=dry_run))
        return _result(report)


def _result(report: Report | None) -> Phase:
    if report is None:
        raise AssertionError("the gateway died")
    if report.error is not None:
        raise report.error
    return report.result


def visit(
    script: Callable[[Visit], Awaitable[object]], site: Site = SMALLEST, breaks: frozenset[Invariant] = frozenset()
) -> frozenset[str]:
    """The changes of state that are seen while `script` works at a station of this kind.

    Raises what it raises, and AssertionError unless the monitors saw exactly these rules broken.
    """

    async def main() -> frozenset[str]:
        station = Station(site.plant, release(site.release, NEW, site.payload_bytes), 1, site.config())
        visited = Visit(site, station, Monitors(station.plant), Edges(station.plant))
        await station.settle()
        try:
            await script(visited)
        finally:
            visited.monitors.finish()
            station.switch_off()
            if visited.monitors.broken != breaks:
                raise AssertionError("; ".join(map(str, visited.monitors.violations)) or "no rule was broken")
        return frozenset(visited.watched.seen)

    return run_virtual(main())


# --- changes of state -------------------------------------------------------------------------------


async def _looked_first_and_typed_twice(at: Visit) -> None:
    """A dry run, the upgrade, and the same command again."""
    ended = [await at.upgraded(dry_run=True), await at.upgraded(), await at.upgraded()]
    assert ended == [Phase.CHECKED, Phase.DONE, Phase.NOTHING_TO_DO]


async def _given_up(at: Visit) -> None:
    """The gateway dies before it changed anything, and the upgrade is given up."""
    station = at.station

    def kill(entry: Entry) -> None:
        if entry.kind is Kind.EVIDENCE:
            station.kill_gateway()

    station.journal.on_entry.append(kill)
    assert await at.typed(station.start_upgrade) is None
    assert station.unfinished
    report = await at.typed(lambda: station.start_resume(roll_back=True))
    assert report is not None
    assert report.result is Phase.ROLLED_BACK


async def _unplugged_while_it_only_closes(at: Visit) -> None:
    """All is upgraded and high voltage is to be closed; the adapter is pulled as the gateway takes hold."""
    station = at.station
    await at.upgraded()

    def pull(entry: Entry) -> None:
        if entry.deed is Deed.LOCK:
            station.plugged = False
            station.controller.unplug()

    station.journal.on_entry.append(pull)
    report = await at.typed(lambda: station.start_upgrade(config=at.site.config(Afterwards.CONNECT)))
    assert report is not None
    assert (report.result, len(report.nodes)) == (Phase.HELD_OPEN, 1)


EDGES: tuple[tuple[Site, Callable[[Visit], Awaitable[None]]], ...] = (
    (SMALLEST, _looked_first_and_typed_twice),
    (SMALLEST, _given_up),
    (FOUND_OPEN, _unplugged_while_it_only_closes),
)
"""Commands other than one upgrade, for the changes of state that they have to themselves."""


# --- errors -----------------------------------------------------------------------------------------


def _bringing(
    *,
    version: Version = NEW,
    security_counter: int = _FACTORY_COUNTER + 1,
    hardware_id: int = BMU_HARDWARE_ID,
    node_type: NodeType = NodeType.BMU,
    depends: tuple[Dependency, ...] = (),
) -> Callable[[Path], object]:
    """Somebody brings a release of one image like this to the station."""
    image = small_image(
        version=version, security_counter=security_counter, hardware_ids=(hardware_id,), node_type=node_type
    )
    upgrade = open_upgrade_file(small_upgrade(image, depends=depends), RING)

    async def script(at: Visit) -> None:
        try:
            await at.upgraded(upgrade)
        finally:
            assert at.station.plant.nodes[BMU1].flash.counters.sectors_erased == 0

    return lambda _directory: visit(script)


async def _resume_nothing(at: Visit) -> None:
    await at.upgraded()
    _result(await at.typed(lambda: at.station.start_resume(roll_back=True)))


async def _another_journal(at: Visit) -> None:
    """The gateway dies with a node on trial; somebody goes on with another computer, which knows nothing of it."""
    station = at.station

    def kill(event: Event) -> None:
        if isinstance(event, NodeStepEntered) and event.step is NodeStep.CONFIRM:
            station.kill_gateway()

    station.on_event.append(kill)
    assert await at.typed(station.start_upgrade) is None
    station.on_event.remove(kill)
    station.journal = Journal.in_memory(station.clock)
    _result(await at.typed(lambda: station.start_upgrade(config=at.site.config(Afterwards.CONNECT))))


async def _driver_breaks(at: Visit) -> None:
    """A defect: the adapter's driver fails in a way that no driver may, with the first frame of a request."""
    controller, (request_id, _) = at.station.controller, at.station.plant.codec.diagnostic_ids(BMU1)
    whole = controller.send

    def send(frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        if frame.can_id == request_id:
            controller.send = whole  # type: ignore[method-assign]
            raise RuntimeError("the driver broke")
        whole(frame, on_sent, bulk=bulk)

    def breaks(event: Event) -> None:
        if isinstance(event, PhaseEntered) and event.phase is Phase.PROGRAM:
            controller.send = send  # type: ignore[method-assign]

    at.station.on_event.append(breaks)
    await at.upgraded()


async def _closed_by_hand(at: Visit) -> None:
    """Somebody closes a rack by hand, through its precharge resistor, while its node is programmed."""
    plant = at.station.plant
    rack = plant.circuit.racks[0]

    def close() -> None:
        plant.circuit.step(now())
        rack.main_minus.drive(True, now())
        rack.precharge.drive(True, now())

    def on_event(event: Event) -> None:
        if isinstance(event, NodeStepEntered) and event.step is NodeStep.TRANSFER:
            at.station.later(0.02, close)

    at.station.on_event.append(on_event)
    report = await at.typed(at.station.start_upgrade)
    assert report is not None
    assert (report.result, type(report.error)) == (Phase.HELD_OPEN, HeldOpen)
    if report.cause is not None:
        raise report.cause


_BY_HAND = frozenset({Invariant.HEARTBEAT, Invariant.LOCK})
"""What somebody breaks who closes a rack by hand."""
_UNTYPED = frozenset({Invariant.TYPED_FAILURE})
"""A defect of ours is told, but every failure should have a type of its own."""

REACHED = (
    Reached(VersionDowngrade, _bringing(version=Version(0, 9, 0))),
    Reached(SecurityDowngrade, _bringing(security_counter=_FACTORY_COUNTER - 1)),
    Reached(SecurityCounterJump, _bringing(security_counter=_FACTORY_COUNTER + MAX_COUNTER_STEP + 1)),
    Reached(WrongHardware, _bringing(hardware_id=0x7E)),
    Reached(WrongNodeType, _bringing(node_type=NodeType.CMU)),
    Reached(DependencyUnmet, _bringing(depends=(Dependency(NodeType.COMM_GATEWAY, Version(9, 0, 0)),))),
    Reached(NothingToResume, lambda _directory: visit(_resume_nothing)),
    Reached(NodeUnhealthy, lambda _directory: visit(_another_journal)),
    Reached(HvClosed, lambda _directory: visit(_closed_by_hand, breaks=_BY_HAND)),
    Reached(EssCanError, lambda _directory: visit(_driver_breaks, breaks=_UNTYPED)),
)
