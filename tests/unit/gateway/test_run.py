"""The entry point: every way out of it gives a whole report."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from ess_can.bus.clock import Cycle, pause
from ess_can.bus.guarded_bus import GuardedBus
from ess_can.bus.kernel_isotp import IsoTpTransport, KernelIsoTp
from ess_can.bus.limited_bus import LoadLimitedBus
from ess_can.bus.load_limit import LoadLimit
from ess_can.bus.port import Bus
from ess_can.can.timing import BitTiming
from ess_can.errors import BusSilent, NodeMissing, OtherGateway, UsageError
from ess_can.gateway import run as module
from ess_can.gateway.bus_load import BusLoad
from ess_can.gateway.config import BusLimits, GatewayConfig
from ess_can.gateway.estimate import TargetGroup
from ess_can.gateway.phases import Phase
from ess_can.gateway.plan import NodePlan, Plan
from ess_can.gateway.policy import Start
from ess_can.gateway.progress import Event, OnProgress, PhaseEntered
from ess_can.gateway.report import Report
from ess_can.gateway.run import GatewaySetup, upgrade_station
from ess_can.gateway.station_master import USER_ISOTP, StationMaster
from ess_can.gateway.transfer_meter import ideal_wire_time_s
from ess_can.identity import NodeAddress, NodeType
from ess_can.journal.journal import Journal
from ess_can.signals.messages import EmsUpgradeNotice, UpgradePhase
from ess_can.sim.loop import run_virtual
from ess_can.trust.verify import VerifiedUpgrade, open_upgrade_file
from ess_can.uds.access import CmacAccess
from tests.firmware_images import RING, small_upgrade
from tests.support.memory_bus import MemoryBus, bus_pair
from tests.support.scripted_plant import BMU1, BMU2, CODEC, ScriptedPlant
from tests.unit.gateway.test_plan import identity

RELEASE = open_upgrade_file(small_upgrade(), RING)
TIMING = BitTiming(500_000)


def setup(timing: BitTiming | None = TIMING, transport: IsoTpTransport = USER_ISOTP) -> GatewaySetup:
    config = GatewayConfig((BMU1, BMU2))
    return GatewaySetup(CODEC, config, CmacAccess(bytes(16)), timing, entropy=random.Random(1), transport=transport)


def plan_of(monkeypatch: pytest.MonkeyPatch, *, to_do: bool) -> None:
    """Every node was identified already."""
    nodes = tuple(NodePlan(address, identity(address), RELEASE.images[0]) for address in (BMU1, BMU2))

    async def make_plan(_master: StationMaster, _upgrade: VerifiedUpgrade, _tell: OnProgress, _start: Start) -> Plan:
        return Plan(nodes[:1], nodes[1:]) if to_do else Plan((), nodes)

    monkeypatch.setattr(module, "make_plan", make_plan)


class Run:
    """One run against a scripted plant that does what it is told; nodes do not answer diagnosis."""

    def __init__(
        self,
        *,
        dry_run: bool = False,
        timing: BitTiming | None = TIMING,
        spoil: str = "",
        transport: IsoTpTransport = USER_ISOTP,
    ) -> None:
        self.events: list[Event] = []
        self.journal = Journal.in_memory()
        self.bus, self.peer = bus_pair()
        self.report = run_virtual(self._run(dry_run, setup(timing, transport), spoil))

    async def _run(self, dry_run: bool, setup: GatewaySetup, spoil: str) -> Report:
        plant = ScriptedPlant(self.peer)
        if spoil != "silent":
            plant.start()
        if spoil == "half":
            plant.silent.add(BMU2)
        await pause(0.2)
        if spoil == "master":
            notice = EmsUpgradeNotice(UpgradePhase.PROGRAMMING, NodeType.BMU, 1, 0.0, 9)

            Cycle(0.3, lambda _: plant.link.send(notice)).start()
        report = await upgrade_station(
            self.bus, RELEASE, setup, journal=self.journal, on_progress=self.events.append, dry_run=dry_run
        )
        await pause(1.0)
        assert self.bus.listeners == 0
        return report

    @property
    def phases(self) -> list[Phase]:
        return [event.phase for event in self.events if isinstance(event, PhaseEntered)]


@pytest.mark.parametrize(("spoil", "kind"), [("silent", BusSilent), ("half", NodeMissing), ("master", OtherGateway)])
def test_a_refusal_sends_nothing_and_is_a_report(spoil: str, kind: type[Exception]) -> None:
    run = Run(spoil=spoil)
    assert type(run.report.error) is kind
    assert run.report.result is Phase.REFUSED
    assert run.phases == [Phase.STATUS_CHECK, Phase.REFUSED]
    assert run.bus.sent == []
    assert run.report.nodes == []


def test_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    plan_of(monkeypatch, to_do=False)
    run = Run()
    assert run.report.result is Phase.NOTHING_TO_DO
    assert run.report.exit_code == 0
    assert run.bus.sent == []
    assert [record.address for record in run.report.nodes] == [BMU1, BMU2]


def test_a_dry_run_says_what_it_would_do_and_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    plan_of(monkeypatch, to_do=True)
    run = Run(dry_run=True)
    assert run.report.result is Phase.CHECKED
    assert run.report.dry_run
    assert run.bus.sent == []
    expected = run.report.expected
    assert expected is not None
    request_id, _ = CODEC.diagnostic_ids(BMU1)
    assert expected.transfer_s > ideal_wire_time_s(RELEASE.images[0].content, request_id, TIMING)
    assert expected.assumed == (BMU1,)  # it does not say what its flash is like
    assert run.report.expected_duration_s == run.report.bus_time_s + expected.duration_s
    assert Run(dry_run=True, timing=None).report.expected is None


def test_of_two_types_each_is_reckoned_with_as_it_will_be_programmed(monkeypatch: pytest.MonkeyPatch) -> None:
    comm = NodeAddress(NodeType.COMM_GATEWAY)
    nodes = tuple(NodePlan(address, identity(address), RELEASE.images[0]) for address in (comm, BMU1, BMU2))
    seen: list[tuple[tuple[NodeAddress, ...], int, int]] = []

    async def make_plan(_master: StationMaster, _upgrade: VerifiedUpgrade, _tell: OnProgress, _start: Start) -> Plan:
        return Plan(nodes, ())

    def estimate(groups: Sequence[TargetGroup], *_others: object) -> None:
        seen.extend((tuple(t.address for t in group.targets), group.at_once, group.longest_block) for group in groups)

    monkeypatch.setattr(module, "make_plan", make_plan)
    monkeypatch.setattr(module, "estimate", estimate)
    assert Run(dry_run=True, transport=KernelIsoTp("can0")).report.result is Phase.CHECKED
    (first, alone, long), (second, two, short) = seen
    assert (first, alone) == ((comm,), 1)
    assert (second, two) == ((BMU1, BMU2), 2)
    assert short == pytest.approx(long / 2, abs=7)


def test_a_failing_upgrade_reports_the_nodes_that_were_up_to_date_too(monkeypatch: pytest.MonkeyPatch) -> None:
    plan_of(monkeypatch, to_do=True)
    run = Run()
    assert run.report.error is not None
    assert run.report.result is Phase.FAILED
    assert [record.address for record in run.report.nodes] == [BMU1, BMU2]
    assert run.phases[-2:] == [Phase.RECONNECT, Phase.FAILED]


def test_the_master_is_the_setups() -> None:
    async def scenario() -> None:
        made = setup()
        master = made.master(MemoryBus())
        assert (master.config, master.access, master.bit_timing) == (made.config, made.access, TIMING)

    run_virtual(scenario())


def capped(timing: BitTiming | None = TIMING, percent: float = 40.0, transport: IsoTpTransport = USER_ISOTP) -> None:
    config = GatewayConfig((BMU1, BMU2), bus=BusLimits(percent))
    made = GatewaySetup(CODEC, config, CmacAccess(bytes(16)), timing, transport=transport)
    assert made.load == LoadLimit(percent / 100)


def test_a_cap_on_the_bus_load_that_cannot_be_kept() -> None:
    capped()
    with pytest.raises(UsageError, match="bit rate") as caught:
        capped(timing=None)
    assert "--bitrate" in caught.value.remedy
    with pytest.raises(UsageError, match="kernel") as caught:
        capped(transport=KernelIsoTp("can0"))
    assert "--isotp kernel" in caught.value.remedy
    with pytest.raises(UsageError, match="too little"):
        capped(percent=0.1)


@pytest.mark.parametrize("percent", [None, 40.0])
def test_only_under_a_cap_streams_are_paced_and_whatever_stands_before_the_bus_leaves_it(
    monkeypatch: pytest.MonkeyPatch, percent: float | None
) -> None:
    seen: list[Bus] = []

    async def hear(master: StationMaster, _others: BusLoad, _start: Start) -> float:
        seen.append(master.link.bus)
        raise BusSilent("as asked")

    async def scenario() -> None:
        bus = MemoryBus()
        config = GatewayConfig((BMU1, BMU2), bus=BusLimits(percent))
        report = await upgrade_station(
            bus, RELEASE, GatewaySetup(CODEC, config, CmacAccess(bytes(16)), TIMING), journal=Journal.in_memory()
        )
        assert isinstance(report.error, BusSilent)
        assert isinstance(seen[0], LoadLimitedBus) is (percent is not None)
        assert isinstance(seen[0], GuardedBus) is (percent is None)
        assert bus.listeners == 0

    monkeypatch.setattr(module, "hear", hear)
    run_virtual(scenario())
