"""The gateway's entry point: one upgrade of one station over one bus."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field

from ess_can.bus.clock import now, suspended_s
from ess_can.bus.guarded_bus import GuardedBus
from ess_can.bus.kernel_isotp import IsoTpTransport, KernelIsoTp
from ess_can.bus.limited_bus import LoadLimitedBus
from ess_can.bus.load_limit import LoadLimit
from ess_can.bus.port import Bus
from ess_can.bus.recovering_bus import RecoveringBus
from ess_can.can.timing import BitTiming
from ess_can.errors import EssCanError, Interrupted, NoValidTraffic, UsageError
from ess_can.gateway.bus_load import BusLoad
from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.estimate import Estimate, StationState, Target, TargetGroup, estimate
from ess_can.gateway.phases import Phase
from ess_can.gateway.plan import NodePlan, Plan, listen, make_plan, require_allowed
from ess_can.gateway.plant_view import Connection
from ess_can.gateway.policy import FRESH_S, bus_refusal
from ess_can.gateway.progress import Estimated, Noted, OnProgress, PhaseEntered, ignore, never_failing
from ess_can.gateway.report import NodeRecord, PhaseLog, Report
from ess_can.gateway.station_master import USER_ISOTP, StationMaster
from ess_can.gateway.transfer_model import WireModel
from ess_can.gateway.upgrade import Upgrade
from ess_can.isotp import IsoTpParams
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

    @asynccontextmanager
    async def limited(self, bus: Bus) -> AsyncIterator[Bus]:
        """`bus` under the cap on the bus load; `bus` itself if there is none."""
        if self.load is None or self.bit_timing is None:
            yield bus
            return
        with closing(LoadLimitedBus(bus, self.load, self.bit_timing)) as limited:
            yield limited

    @asynccontextmanager
    async def reach(self, bus: Bus) -> AsyncIterator[StationMaster]:
        """A hold on the station behind `bus` for an upgrade: it survives bus-off, and streams keep to all limits."""
        with closing(RecoveringBus(bus)) as recovering:
            guard = GuardedBus(recovering)
            async with self.limited(guard) as limited, self.master(limited, guard) as master:
                yield master

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


async def upgrade_station(
    bus: Bus,
    upgrade: VerifiedUpgrade,
    setup: GatewaySetup,
    *,
    on_progress: OnProgress = ignore,
    dry_run: bool = False,
) -> Report:
    """Upgrade every node that the release is for, and put the plant back.

    Gives a report of success, refusal and failure alike; `Report.error` tells.  `on_progress` is called with each
    event.  `dry_run` ends after the check: nothing is sent that changes the plant.
    """
    report = Report(dry_run=dry_run)
    log = PhaseLog(report, now())
    tell = never_failing(on_progress)

    def enter(phase: Phase, detail: str = "") -> None:
        log.enter(phase, now())
        tell(PhaseEntered(now(), phase, detail))

    async with setup.reach(bus) as master:
        master.watch.on_warning = lambda warning: tell(Noted(now(), f"{warning.name}: {warning}"))
        tell(PhaseEntered(now(), Phase.STATUS_CHECK))
        try:
            async with master.watch:
                load = await _listen(master, BusLoad(bus, setup.bit_timing))
                require_allowed(master)
                master.watch.arm()  # from here on we speak: nobody else may speak as we do
                plan = await make_plan(master, upgrade, tell)
                require_allowed(master)
        except EssCanError as error:
            report.error = error
        except asyncio.CancelledError:
            report.error = Interrupted("the check was interrupted", why="nothing was changed")
        report.hv_before = report.hv_after = master.view.connection(setup.config.racks, now() - FRESH_S)
        if report.error is not None:
            enter(Phase.REFUSED, str(report.error))
            return report
        report.nodes = _records(plan)
        report.expected = _expected(plan, master, setup, load)
        put_back = setup.config.afterwards is Afterwards.CONNECT and report.hv_before is Connection.OPEN
        if dry_run or not (plan.nodes or put_back):
            enter(Phase.CHECKED if plan.nodes else Phase.NOTHING_TO_DO)
            return report
        up_to_date = report.nodes[len(plan.nodes) :]
        if report.expected is not None:
            tell(Estimated(now(), report.expected))
        await Upgrade(master, plan, log, tell).run(report)
        report.nodes += up_to_date
    return report


async def _listen(master: StationMaster, others: BusLoad) -> float:
    """Hear the plant; gives the share of the bus that others take.  Raises BusOverloaded, or what `listen` raises."""
    unheard: NoValidTraffic | None = None
    with others:
        try:
            await listen(master)
        except NoValidTraffic as error:  # perhaps because there is no room for it
            unheard = error
    refusal = bus_refusal(others.load, master.config.policy) or unheard
    if refusal is not None:
        raise refusal
    return others.load


def _records(plan: Plan) -> list[NodeRecord]:
    return [
        NodeRecord(
            node.address,
            node.identity.boot_state.version,
            node.image.facts.version,
            node.image.size,
            runs=node.identity.boot_state.version,
        )
        for node in (*plan.nodes, *plan.up_to_date)
    ]


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
