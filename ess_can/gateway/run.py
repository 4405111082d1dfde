"""The gateway's entry point: one upgrade of one station over one bus."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack, closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType

from ess_can.bus.clock import now, suspended_s, uninterrupted
from ess_can.bus.guarded_bus import GuardedBus
from ess_can.bus.kernel_isotp import IsoTpTransport, KernelIsoTp
from ess_can.bus.limited_bus import LoadLimitedBus
from ess_can.bus.load_limit import LoadLimit
from ess_can.bus.port import Bus
from ess_can.bus.recovering_bus import RecoveringBus
from ess_can.can.timing import BitTiming
from ess_can.errors import EssCanError, HeldOpenByChoice, Interrupted, NothingToResume, UsageError
from ess_can.gateway.bus_load import BusLoad
from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.estimate import Estimate, StationState, Target, TargetGroup, estimate
from ess_can.gateway.losses import losses
from ess_can.gateway.phases import Phase
from ess_can.gateway.plan import NodePlan, Plan, hear, make_plan, require_allowed
from ess_can.gateway.plant_view import Connection
from ess_can.gateway.policy import FRESH_S, Start
from ess_can.gateway.progress import Decided, Estimated, OnProgress, PhaseEntered, ignore
from ess_can.gateway.record import UpgradeLog
from ess_can.gateway.report import Report
from ess_can.gateway.report_document import report_document
from ess_can.gateway.resume import (
    Earlier,
    decision,
    given_up,
    is_as_wanted,
    is_complete,
    leftovers_of,
    let_trials_end,
    plan_to_give_up,
)
from ess_can.gateway.station_master import USER_ISOTP, StationMaster
from ess_can.gateway.transfer_model import WireModel
from ess_can.gateway.upgrade import Replan, Upgrade
from ess_can.isotp import IsoTpParams
from ess_can.journal.journal import Journal
from ess_can.signals.dbc import StationCodec
from ess_can.trust.verify import VerifiedUpgrade
from ess_can.uds.access import AccessAlgorithm


@dataclass(frozen=True, slots=True)
class GatewaySetup:
    """How the gateway reaches a station.

    `bit_timing` is for figures, for how much a request carries, and for a cap on the bus load (None: unknown).
    `transport` carries the diagnostic messages, our own core unless given (`ess_can.bus.kernel_isotp.choose_isotp`).
    `entropy` gives poll tokens and the session number: a random.SystemRandom in the field, a seeded one in simulation.
    `slept_s` tells for how many seconds the machine has slept so far: after a sleep every permit is stale.
    Raises UsageError for a cap on the bus load that cannot be kept here.
    """

    codec: StationCodec
    config: GatewayConfig
    access: AccessAlgorithm
    bit_timing: BitTiming | None = None
    isotp: IsoTpParams = field(default_factory=IsoTpParams)
    entropy: random.Random = field(default_factory=random.SystemRandom)
    transport: IsoTpTransport = USER_ISOTP
    slept_s: Callable[[], float] = suspended_s

    def __post_init__(self) -> None:
        load = self.load
        if load is None:
            return
        if self.bit_timing is None:
            raise UsageError(
                "a cap on the bus load needs the bus's bit rate",
                why="nothing tells it, or not that of CAN FD's data phase",
                remedy="Say --bitrate, and with CAN FD --data-bitrate; or set them on the SocketCAN interface.",
            )
        if isinstance(self.transport, KernelIsoTp):
            raise UsageError(
                "the kernel's ISO-TP keeps to no bus load",
                why="the kernel sends its frames when it likes",
                remedy="Leave --isotp kernel out, or the cap on the bus load.",
            )
        load.require(self.bit_timing, self.isotp)

    @property
    def load(self) -> LoadLimit | None:
        """The cap on the bus load; None if there is none."""
        return self.config.bus.load

    def limited(self, bus: Bus) -> AbstractContextManager[Bus]:
        """`bus` under the cap on the bus load; `bus` itself if there is none."""
        if self.load is None or self.bit_timing is None:
            return nullcontext(bus)
        return closing(LoadLimitedBus(bus, self.load, self.bit_timing))

    def reach(self, bus: Bus) -> Reach:
        """A hold on the station behind `bus` for an upgrade: it survives bus-off, and streams keep to all limits."""
        return Reach(self, bus)

    def master(self, bus: Bus, guard: GuardedBus | None = None) -> StationMaster:
        """A hold on the station behind `bus`, which may stand on a `guard`."""
        return StationMaster(
            bus,
            self.codec,
            self.config,
            self.access,
            isotp=self.isotp,
            bit_timing=self.bit_timing,
            entropy=self.entropy,
            transport=self.transport,
            guard=guard,
            slept_s=self.slept_s,
        )


class Reach:
    """See `GatewaySetup.reach`.  A class: a generator that dies in the middle of an await complains when it goes."""

    def __init__(self, setup: GatewaySetup, bus: Bus) -> None:
        self._setup = setup
        self._bus = bus
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> StationMaster:
        async with AsyncExitStack() as opened:
            guard = GuardedBus(opened.enter_context(closing(RecoveringBus(self._bus))))
            limited = opened.enter_context(self._setup.limited(guard))
            master = await opened.enter_async_context(self._setup.master(limited, guard))
            self._opened = opened.pop_all()
        return master

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.__aexit__(kind, error, trace)


async def upgrade_station(
    bus: Bus,
    upgrade: VerifiedUpgrade,
    setup: GatewaySetup,
    *,
    journal: Journal,
    options: str = "",
    on_progress: OnProgress = ignore,
    dry_run: bool = False,
) -> Report:
    """Upgrade every node that the release is for, and put the plant back.

    Gives a report of success, refusal and failure alike; `Report.error` tells.  `on_progress` is called with each
    event.  `dry_run` ends after the check: nothing is sent that changes the plant.

    An upgrade that stands unfinished in the `journal` is gone on with if it is of the same file; one of another file
    is superseded: what it left is taken back first.  `options` is kept in the journal for whoever resumes.
    """
    return await _Attempt(bus, upgrade, setup, journal, on_progress, options=options, dry_run=dry_run).run()


async def roll_back_station(
    bus: Bus,
    upgrade: VerifiedUpgrade | None,
    setup: GatewaySetup,
    *,
    journal: Journal,
    on_progress: OnProgress = ignore,
) -> Report:
    """Give up the upgrade that stands unfinished in the journal: take back what it left, and put the plant back.

    `upgrade` is its release, None if that cannot be read any more.  The report is as that of `upgrade_station`.
    """
    return await _Attempt(bus, upgrade, setup, journal, on_progress, gives_up=True).run()


class _Attempt:
    """One attempt at one station: the check, what is decided by it, the work, and the last word in the journal."""

    def __init__(
        self,
        bus: Bus,
        upgrade: VerifiedUpgrade | None,
        setup: GatewaySetup,
        journal: Journal,
        on_progress: OnProgress,
        *,
        options: str = "",
        dry_run: bool = False,
        gives_up: bool = False,
    ) -> None:
        self._bus = bus
        self._upgrade = upgrade
        self._setup = setup
        self._options = options
        self._gives_up = gives_up
        self._report = Report(dry_run=dry_run)
        self._log = UpgradeLog(journal, self._report, on_progress)
        self._earlier = Earlier.of(journal)
        self._plan = Plan()
        self._found = Connection.UNKNOWN
        self._load = 0.0
        if gives_up:
            self._start = Start.GIVEN_UP
        else:
            self._start = Start.FRESH if self._earlier is None else self._earlier.start

    async def run(self) -> Report:
        """The whole of it.  The report is complete whatever happens."""
        report, log, setup = self._report, self._log, self._setup
        async with setup.reach(self._bus) as master:
            master.watch.on_warning = lambda warning: log.note(f"{warning.name}: {warning}")
            log.tell(PhaseEntered(now(), Phase.STATUS_CHECK))
            try:
                async with master.watch:
                    await self._check(master)
            except EssCanError as error:
                report.error = report.cause = error
            except asyncio.CancelledError:
                report.error = report.cause = Interrupted("the check was interrupted", why="nothing was changed")
            report.hv_before = report.hv_after = master.view.connection(setup.config.racks, now() - FRESH_S)
            if report.error is None:
                await self._work(master)
            else:
                log.enter(Phase.REFUSED, str(report.error))
        await uninterrupted(self._close())
        return report

    async def _check(self, master: StationMaster) -> None:
        """See whether it may start, and decide what is to be done.  Reads the plant and changes nothing."""
        if self._gives_up:
            self._unfinished()
        self._load = await hear(master, BusLoad(self._bus, self._setup.bit_timing), self._start)
        if self._earlier is not None and self._earlier.activated:
            await let_trials_end(master, self._log.tell, self._start)
        require_allowed(master, self._start)
        master.watch.arm()  # from here on we speak: nobody else may speak as we do
        self._plan = await self._make_plan(master)
        if self._earlier is not None and self._earlier.activated:
            master.armed.suspect(*(node.address for node in self._plan.nodes))
        view, config = master.view, master.config
        self._found = view.connection(config.racks, now() - FRESH_S)
        if self._earlier is not None:
            self._found = self._earlier.found(view, config, now())
        if not self._report.dry_run and (self._has_work(master) or self._earlier is not None):
            await self._log.begin(partial(self._open_record, has_work=self._has_work(master)))
            self._log.evidence(self._checked())
        if self._earlier is not None:  # told once the record of it is open
            release = "" if self._upgrade is None or self._gives_up else self._upgrade.manifest.release_name
            self._log.tell(Decided(now(), decision(self._earlier, self._plan, config, self._found, release)))
        require_allowed(master, self._start)

    async def _make_plan(self, master: StationMaster) -> Plan:
        earlier, upgrade = self._earlier, self._upgrade
        if upgrade is None or self._gives_up:
            return await self._plan_to_give_up(master)
        plan = await make_plan(master, upgrade, self._log.tell, self._start)
        return plan if earlier is None or earlier.left_nothing_to(upgrade) else leftovers_of(earlier, master, plan)

    async def _plan_to_give_up(self, master: StationMaster) -> Plan:
        earlier = self._unfinished()
        plan = await plan_to_give_up(earlier, master, self._upgrade, self._log.tell)
        if self._upgrade is None or not is_complete(plan, self._upgrade, master.config):
            return plan
        self._log.note("every node is confirmed already: there is nothing to give up")
        self._gives_up = False
        of_others = not earlier.left_nothing_to(self._upgrade)
        left = [each for each in plan.leftovers if of_others or each.address in master.armed.nodes]
        return Plan(up_to_date=plan.up_to_date, leftovers=tuple(left))

    def _unfinished(self) -> Earlier:
        if self._earlier is None:
            raise NothingToResume("no upgrade stands unfinished", why="every one in the journal ended")
        return self._earlier

    @property
    def _supersedes(self) -> bool:
        """Whether the journal's unfinished upgrade is one of another file."""
        return self._earlier is not None and self._upgrade is not None and not self._earlier.is_of(self._upgrade)

    def _has_work(self, master: StationMaster) -> bool:
        """Whether a node is to be changed, or the plant to be put back."""
        if self._plan.has_work:
            return True
        if self._earlier is not None and self._earlier.holds_plant:
            return not is_as_wanted(master.view, master.config, self._found, now())
        return master.config.afterwards is Afterwards.CONNECT and self._found is Connection.OPEN

    async def _work(self, master: StationMaster) -> None:
        report, plan = self._report, self._plan
        report.nodes = [node.record() for node in (*plan.nodes, *plan.up_to_date)]
        report.expected = _expected(plan, master, self._setup, self._load)
        report.losses = losses(plan, master.config, report.expected)
        for loss in report.losses:
            self._log.note(loss)
        if report.dry_run:
            self._log.enter(Phase.CHECKED if plan.has_work else Phase.NOTHING_TO_DO)
        elif not self._has_work(master):
            if self._gives_up:
                report.error = given_up()
            self._log.enter(self._phase_without_work())
        else:
            if report.expected is not None:
                self._log.tell(Estimated(now(), report.expected))
            replan = None if self._upgrade is None or self._gives_up else self._replan(master, self._upgrade)
            await Upgrade(master, plan, self._log, replan).run(report, self._found)

    def _phase_without_work(self) -> Phase:
        if self._gives_up:
            return Phase.ROLLED_BACK
        return Phase.NOTHING_TO_DO if self._earlier is None or self._supersedes else Phase.DONE

    def _replan(self, master: StationMaster, upgrade: VerifiedUpgrade) -> Replan:
        async def again() -> Plan:
            return await make_plan(master, upgrade, self._log.tell)

        return again

    # --- the journal --------------------------------------------------------------------------------

    def _open_record(self, journal: Journal, *, has_work: bool) -> bool:
        """Begin an upgrade in the journal, or go on with the one that is there; whether one is under way then."""
        earlier, upgrade = "" if self._earlier is None else self._earlier.record.id, self._upgrade
        if self._supersedes and not has_work:  # nothing of this one is to be on record but that it ended that one
            journal.supersede(earlier)
            return False
        if upgrade is not None and has_work and (not earlier or self._supersedes):
            name = f"{upgrade.manifest.release_name} {upgrade.manifest.release_version}"
            record = journal.begin(name, upgrade.file, upgrade.file_sha256, self._options, supersedes=earlier)
        else:
            record = journal.resume(earlier)
        self._report.upgrade_id = record.id
        journal.found(self._found.value)
        return True

    def _checked(self) -> str:
        plan = self._plan
        nodes = [f"{node.address} runs {node.identity.boot_state.version}" for node in (*plan.nodes, *plan.up_to_date)]
        return f"checked: {', '.join([*nodes, f'high voltage {self._found.value}'])}"

    async def _close(self) -> None:
        """The last word: the journal says how it ended, and keeps open what another attempt has to go on with."""
        report = self._report
        report.journal_error = self._log.error
        if report.result in (Phase.REFUSED, Phase.CHECKED):
            report.resumable = self._earlier is not None and not self._supersedes
        elif report.result is Phase.ROLLED_BACK:
            report.resumable = isinstance(report.cause, Interrupted)
        else:
            report.resumable = not (report.error is None or isinstance(report.error, HeldOpenByChoice))
        await self._log.end(self._close_record)
        report.journal_error = self._log.error
        report.resumable |= report.journal_error is not None and bool(report.upgrade_id)

    def _close_record(self, journal: Journal) -> None:
        report = self._report
        error = "" if report.error is None else report.error.name
        document = json.dumps(report_document(report))
        if report.resumable:
            journal.note(f"stopped: {report.result.value}{f', {error}: {report.error}' if error else ''}")
            journal.evidence(f"report: {document}")
        else:
            journal.end(report.result.name.lower(), error, document)


def _expected(plan: Plan, master: StationMaster, setup: GatewaySetup, load: float) -> Estimate | None:
    """What to expect of the upgrade; None without a known bit timing, or with nothing to upgrade."""
    if setup.bit_timing is None or not plan.nodes:
        return None
    view, racks = master.view, master.config.racks
    voltages = [hv.value.link_voltage_v or 0.0 for rack in racks if (hv := view.rack(rack).hv) is not None]
    station = StationState(
        connected=view.connection(racks, now() - FRESH_S) is Connection.CONNECTED,
        current_a=0.0 if view.pcs is None else view.pcs.value.dc_current_a or 0.0,
        link_voltage_v=max(voltages, default=0.0),
    )
    wire = WireModel(setup.bit_timing, setup.isotp, load, setup.load)
    groups = [_targets(group, master) for group in plan.groups()]
    return estimate(groups, station, wire, setup.codec, setup.config)


def _targets(nodes: tuple[NodePlan, ...], master: StationMaster) -> TargetGroup:
    at_once = master.at_once(len(nodes))
    return TargetGroup(tuple(map(_target, nodes)), at_once, master.longest_block(at_once))


def _target(node: NodePlan) -> Target:
    resume, image = node.identity.resume_state, node.image
    offset = resume.verified_offset if resume.image_sha256 == image.sha256 else 0
    return Target(node.address, image.content, offset, node.identity.flash)
