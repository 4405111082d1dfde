"""The gateway's entry point: one upgrade of one station over one bus."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from ess_can.bus.clock import now
from ess_can.bus.kernel_isotp import IsoTpTransport, KernelIsoTp
from ess_can.bus.load_limit import LoadLimit, load_limited
from ess_can.bus.port import Bus
from ess_can.can.timing import BitTiming
from ess_can.errors import EssCanError, Interrupted, UsageError
from ess_can.gateway.config import Afterwards, GatewayConfig
from ess_can.gateway.phases import Phase
from ess_can.gateway.plan import Plan, listen, make_plan, require_allowed
from ess_can.gateway.plant_view import Connection
from ess_can.gateway.policy import FRESH_S
from ess_can.gateway.progress import Noted, OnProgress, PhaseEntered, ignore, never_failing
from ess_can.gateway.report import NodeRecord, PhaseLog, Report
from ess_can.gateway.station_master import USER_ISOTP, StationMaster
from ess_can.gateway.transfer_meter import ideal_wire_time_s
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
    Raises UsageError for a cap on the bus load that cannot be kept here.
    """

    codec: StationCodec
    config: GatewayConfig
    access: AccessAlgorithm
    bit_timing: BitTiming | None = None
    isotp: IsoTpParams = field(default_factory=IsoTpParams)
    entropy: random.Random = field(default_factory=random.SystemRandom)
    transport: IsoTpTransport = USER_ISOTP

    def __post_init__(self) -> None:
        load = self.load
        if load is None:
            return
        if self.bit_timing is None:
            raise UsageError("a cap on the bus load needs the bus's bit rate", remedy="Give the bit timing.")
        if isinstance(self.transport, KernelIsoTp):
            raise UsageError(
                "the kernel's ISO-TP keeps to no bus load", remedy="Use our own ISO-TP (`UserIsoTp`), or no cap."
            )
        load.require(self.bit_timing, self.isotp)

    @property
    def load(self) -> LoadLimit | None:
        """The cap on the bus load; None if there is none."""
        return self.config.bus.load

    def master(self, bus: Bus) -> StationMaster:
        """A hold on the station behind `bus`."""
        return StationMaster(
            bus,
            self.codec,
            self.config,
            self.access,
            isotp=self.isotp,
            bit_timing=self.bit_timing,
            entropy=self.entropy,
            transport=self.transport,
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

    async with load_limited(bus, setup.load, setup.bit_timing) as paced, setup.master(paced) as master:
        master.watch.on_warning = lambda warning: tell(Noted(now(), f"{warning.name}: {warning}"))
        tell(PhaseEntered(now(), Phase.STATUS_CHECK))
        try:
            async with master.watch:
                await listen(master)
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
        put_back = setup.config.afterwards is Afterwards.CONNECT and report.hv_before is Connection.OPEN
        if dry_run or not (plan.nodes or put_back):
            report.expected_transfer_s = _expected_transfer_s(plan, setup)
            report.expected_hv_off_s = _expected_hv_off_s(plan, report.expected_transfer_s)
            enter(Phase.CHECKED if plan.nodes else Phase.NOTHING_TO_DO)
            return report
        up_to_date = report.nodes[len(plan.nodes) :]
        await Upgrade(master, plan, log, tell).run(report)
        report.nodes += up_to_date
    return report


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


def _expected_transfer_s(plan: Plan, setup: GatewaySetup) -> float:
    """Wire time of all images, in seconds; 0 without a known bit timing."""
    if setup.bit_timing is None:
        return 0.0
    return sum(
        ideal_wire_time_s(node.image.content, setup.codec.diagnostic_ids(node.address)[0], setup.bit_timing)
        for node in plan.nodes
    )


_OVERHEAD_S = 15.0
_ERASE_S_PER_BYTE = 1.0 / (128 * 1024)


def _expected_hv_off_s(plan: Plan, transfer_s: float) -> float:
    """A rough figure: the transfers, a second of erasing per 128 KiB, and the rest (discharge, proofs, restart)."""
    if not plan.nodes or not transfer_s:
        return 0.0
    return _OVERHEAD_S + transfer_s + sum(node.image.size for node in plan.nodes) * _ERASE_S_PER_BYTE
