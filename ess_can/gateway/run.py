"""The gateway's entry point: one upgrade of one station over one bus."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ess_can.bus.clock import now
from ess_can.bus.port import Bus
from ess_can.can.timing import BitTiming
from ess_can.errors import EssCanError
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.phases import Phase
from ess_can.gateway.plan import Plan, listen, make_plan, require_allowed
from ess_can.gateway.progress import OnProgress, PhaseEntered, ignore
from ess_can.gateway.report import NodeRecord, PhaseLog, Report
from ess_can.gateway.station_master import StationMaster
from ess_can.gateway.transfer_meter import ideal_wire_time_s
from ess_can.gateway.upgrade import Upgrade
from ess_can.isotp import IsoTpParams
from ess_can.signals.dbc import StationCodec
from ess_can.trust.verify import VerifiedUpgrade
from ess_can.uds.access import AccessAlgorithm


@dataclass(frozen=True, slots=True)
class GatewaySetup:
    """How the gateway reaches a station.

    `bit_timing` is for figures only (None: unknown).  `entropy` gives poll tokens and the session number: a
    random.SystemRandom in the field, a seeded one in simulation.
    """

    codec: StationCodec
    config: GatewayConfig
    access: AccessAlgorithm
    bit_timing: BitTiming | None = None
    isotp: IsoTpParams = field(default_factory=IsoTpParams)
    entropy: random.Random = field(default_factory=random.SystemRandom)

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

    def enter(phase: Phase, detail: str = "") -> None:
        log.enter(phase, now())
        on_progress(PhaseEntered(now(), phase, detail))

    async with setup.master(bus) as master:
        on_progress(PhaseEntered(now(), Phase.STATUS_CHECK))
        try:
            async with master.watch:
                await listen(master)
                require_allowed(master)
                plan = await make_plan(master, upgrade, on_progress)
                require_allowed(master)
        except EssCanError as error:
            report.error = error
            enter(Phase.REFUSED, str(error))
            return report
        if dry_run or not plan.nodes:
            report.nodes = _records(plan)
            report.expected_transfer_s = _expected_transfer_s(plan, setup, fd=bus.fd)
            enter(Phase.NOTHING_TO_DO if not plan.nodes else Phase.CHECKED)
            return report
        master.watch.arm()
        await Upgrade(master, plan, log, on_progress).run(report)
        report.nodes += _records(plan)[len(plan.nodes) :]
    return report


def _records(plan: Plan) -> list[NodeRecord]:
    return [
        NodeRecord(node.address, node.identity.boot_state.version, node.image.facts.version, len(node.image.data))
        for node in (*plan.nodes, *plan.up_to_date)
    ]


def _expected_transfer_s(plan: Plan, setup: GatewaySetup, *, fd: bool) -> float:
    """Wire time of all images, in seconds; 0 without a known bit timing."""
    if setup.bit_timing is None:
        return 0.0
    return sum(
        ideal_wire_time_s(node.image.data, setup.codec.diagnostic_ids(node.address)[0], setup.bit_timing, fd=fd)
        for node in plan.nodes
    )
