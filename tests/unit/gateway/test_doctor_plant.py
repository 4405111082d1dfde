from __future__ import annotations

from dataclasses import replace

import pytest

from ess_can.bus.clock import now, pause
from ess_can.bus.link_facts import ErrorCounts, LinkFacts, parse_ip_links
from ess_can.bus.station import StationLink
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.errors import (
    AdapterLost,
    BusSilent,
    DbcMismatch,
    ErrorPassive,
    EssCanError,
    IdConflict,
    NodeMissing,
    NoValidTraffic,
    NTimeoutA,
    OtherGateway,
    TransmitStalled,
    UdsTimeout,
)
from ess_can.gateway.doctor import Finding, Outcome
from ess_can.gateway.doctor_plant import Probe, judge_bus, judge_plant, judge_probe
from ess_can.gateway.station_monitor import StationMonitor
from ess_can.gateway.station_snapshot import (
    BusWarning,
    E2eVerdicts,
    Heard,
    NodeSnapshot,
    Snapshot,
    Traffic,
)
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.e2e import E2eSender, Verdict
from ess_can.signals.messages import (
    EmsPcsCommand,
    EmsUpgradeNotice,
    ImageState,
    NodeInfo,
    PcsCommandCode,
    PcsStatus,
    UpgradePhase,
)
from ess_can.sim.loop import run_virtual
from tests.support.memory_bus import bus_pair
from tests.support.scripted_plant import BMU1, BMU2, CODEC, CYCLE_S, NEW, PCS_RUNNING, node_info
from tests.unit.bus.link_outputs import CAN0_250

OURS = 0x241D
GATEWAY = NodeAddress(NodeType.COMM_GATEWAY)


def node(address: NodeAddress, info: NodeInfo | None = None, *, dbc_ok: bool = True) -> NodeSnapshot:
    return NodeSnapshot(address, Heard(info or node_info(), 0.1, False), dbc_ok)


E2E = E2eVerdicts("PCS_Status", 60, 0, 0, 0, 0, 0, Verdict.OK, 0.01, False)
GOOD = Snapshot(
    listened_s=1.5,
    traffic=Traffic(frames=180, frames_per_s=120.0, load=0.025, bitrate=500_000),
    plant_heard=True,
    pcs=Heard(PCS_RUNNING, 0.01, False),
    racks=(),
    nodes=(node(BMU1), node(BMU2)),
    evidence=(),
    polled=False,
    e2e=(E2E,),
    command=None,
    notice=None,
    warnings=(),
)
SILENT = replace(GOOD, traffic=Traffic(), plant_heard=False, pcs=None, nodes=(), e2e=())
CAN0: LinkFacts = parse_ip_links(CAN0_250)[0]


def bus(snapshot: Snapshot, before: LinkFacts | None = None, after: LinkFacts | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in judge_bus(snapshot, before, after)}


def plant(snapshot: Snapshot, *expected: NodeAddress) -> dict[str, Finding]:
    return {finding.name: finding for finding in judge_plant(snapshot, expected, OURS)}


def test_all_is_well() -> None:
    found = {**bus(GOOD, CAN0, CAN0), **plant(GOOD, BMU1, BMU2)}
    assert {finding.outcome for finding in found.values()} == {Outcome.OK}
    assert found["load"].seen == "2.5 % of 500 kbit/s"
    assert found["nodes"].seen == "bmu1, bmu2 and the PCS"


def test_a_bus_without_the_plant() -> None:
    assert isinstance(bus(SILENT)["traffic"].error, BusSilent)
    strangers = replace(SILENT, traffic=Traffic(frames=5, unknown=5, unknown_ids=(1, 2)))
    assert isinstance(bus(strangers)["traffic"].error, NoValidTraffic)
    (finding,) = plant(SILENT, BMU1).values()
    assert finding.outcome is Outcome.NOT_APPLICABLE


def test_strangers_beside_the_plant_are_told() -> None:
    seen = replace(GOOD, traffic=replace(GOOD.traffic, unknown=5, unknown_ids=(1, 2)))
    assert "2 identifiers that the DBC does not have" in bus(seen)["traffic"].seen


def test_a_busy_bus() -> None:
    assert bus(replace(GOOD, traffic=replace(GOOD.traffic, load=0.71)))["load"].outcome is Outcome.WARNING


@pytest.mark.parametrize("fault", ["repeated", "wrong_sequence", "crc_errors", "unusable"])
def test_frames_that_fail_their_check(fault: str) -> None:
    values = {name: getattr(E2E, name) for name in E2E.__dataclass_fields__} | {fault: 3}
    finding = bus(replace(GOOD, e2e=(E2eVerdicts(**values),)))["E2E"]
    assert (finding.outcome, "PCS_Status: " in finding.seen) == (Outcome.WARNING, True)


@pytest.mark.parametrize(
    ("ok", "repeated", "wrong"),
    [(30, 30, 0), (0, 0, 60), (0, 30, 30), (12, 0, 4)],
)
def test_two_senders_of_one_message_are_a_problem(ok: int, repeated: int, wrong: int) -> None:
    contested = replace(E2E, ok=ok, repeated=repeated, wrong_sequence=wrong)
    finding = bus(replace(GOOD, e2e=(E2E, contested)))["E2E"]
    assert isinstance(finding.error, IdConflict)
    assert finding.error.exit_code == 17
    assert "PCS_Status" in finding.error.what
    assert finding.remedy


@pytest.mark.parametrize(("ok", "repeated", "wrong"), [(60, 0, 1), (0, 1, 0), (60, 3, 3), (2, 1, 2)])
def test_a_few_frames_out_of_step_are_a_warning(ok: int, repeated: int, wrong: int) -> None:
    finding = bus(replace(GOOD, e2e=(replace(E2E, ok=ok, repeated=repeated, wrong_sequence=wrong),)))["E2E"]
    assert finding.outcome is Outcome.WARNING


def heard_from(senders: int, counters: tuple[int, int]) -> Finding:
    """What is found of PCS_Status from one sender, or from two whose counters began elsewhere."""
    frames = [E2eSender(CODEC.route(PcsStatus).e2e_data_id or 0) for _ in range(senders)]
    for sender, begun in zip(frames, counters, strict=False):
        for _ in range(begun):
            sender.protect(bytes(8))
    monitor = StationMonitor(CODEC, BitTiming(500_000), 0.0)
    route = CODEC.route(PcsStatus)

    async def run() -> Finding:
        here, there = bus_pair()
        detach = monitor.attach(StationLink(here, CODEC), now)
        for _ in range(30):
            for sender in frames:
                there.send(CanFrame(route.can_id, sender.protect(CODEC.encode(PCS_RUNNING))))
                await pause(CYCLE_S / senders)
        found = bus(monitor.snapshot(now()))
        detach()
        assert next(iter(found)) == "E2E" or senders == 1  # the first problem is the verdict
        return found["E2E"]

    return run_virtual(run())


@pytest.mark.parametrize("counters", [(0, 0), (0, 1), (0, 2), (0, 3), (0, 100), (200, 7)])
def test_two_real_senders_are_found(counters: tuple[int, int]) -> None:
    assert heard_from(1, counters).outcome is Outcome.OK
    assert isinstance(heard_from(2, counters).error, IdConflict)


def test_gaps_alone_are_no_fault() -> None:
    finding = bus(replace(GOOD, e2e=(replace(E2E, lost=2),)))["E2E"]
    assert (finding.outcome, finding.seen) == (Outcome.OK, "60 protected frames good, 2 gaps")


def test_counters_that_grow() -> None:
    after = replace(CAN0, counts=ErrorCounts(bus_errors=7, rx_dropped=1))
    finding = bus(GOOD, CAN0, after)["counters"]
    assert finding.outcome is Outcome.WARNING
    assert finding.seen == "while listening: 7 bus errors, 1 received frames dropped"
    assert "counters" not in bus(GOOD)


def test_what_the_adapter_reported() -> None:
    warnings = (BusWarning(ErrorPassive("passive"), 1, 0.1), BusWarning(AdapterLost("gone"), 1, 0.1))
    found = bus(replace(GOOD, warnings=warnings))
    assert found["error_passive"].outcome is Outcome.WARNING
    assert isinstance(found["adapter_lost"].error, AdapterLost)


def test_who_is_there() -> None:
    unsaid = plant(GOOD)["nodes"]
    assert (unsaid.outcome, "--racks N" in unsaid.seen) == (Outcome.NOT_APPLICABLE, True)
    missing = plant(GOOD, BMU1, BMU2, GATEWAY)["nodes"]
    assert isinstance(missing.error, NodeMissing)
    assert missing.error.what == "comm_gateway not heard"
    no_pcs = plant(replace(GOOD, pcs=None), BMU1, BMU2)["nodes"]
    assert no_pcs.error is not None
    assert no_pcs.error.what == "the PCS not heard"
    surplus = plant(GOOD, BMU1)["nodes"]
    assert isinstance(surplus.error, NodeMissing)
    assert surplus.error.what == "bmu2 heard but not expected"


def test_a_node_with_another_dbc() -> None:
    other = replace(node_info(), dbc_fingerprint=0x0001)
    finding = plant(replace(GOOD, nodes=(node(BMU1), node(BMU2, other, dbc_ok=False))), BMU1, BMU2)["DBC"]
    assert isinstance(finding.error, DbcMismatch)
    assert "bmu2" in finding.seen
    assert "0x0001, ours is 0x241d" in finding.seen


@pytest.mark.parametrize(
    ("info", "hint"),
    [(node_info(ImageState.TRIAL), "bmu2: TRIAL"), (node_info(version=NEW), "different versions: 1.0.0, 1.1.0")],
)
def test_images(info: NodeInfo, hint: str) -> None:
    finding = plant(replace(GOOD, nodes=(node(BMU1), node(BMU2, info))))["images"]
    assert (finding.outcome, hint in finding.seen) == (Outcome.WARNING, True)


def test_who_else_is_at_work() -> None:
    notice = EmsUpgradeNotice(UpgradePhase.PROGRAMMING, NodeType.BMU, 1, 15.0, 0xBEEF)
    other = plant(replace(GOOD, notice=Heard(notice, 0.1, False)))["masters"]
    assert isinstance(other.error, OtherGateway)
    assert "0xbeef in phase PROGRAMMING" in other.seen
    over = replace(notice, phase=UpgradePhase.NONE)
    for ended in (Heard(notice, 9.0, True), Heard(over, 0.1, False)):
        assert plant(replace(GOOD, notice=ended))["masters"].outcome is Outcome.OK
    command = EmsPcsCommand(PcsCommandCode.RUN, 50.0)
    ems = plant(replace(GOOD, command=Heard(command, 0.1, False)))["masters"]
    assert (ems.outcome, "RUN" in ems.seen) == (Outcome.WARNING, True)
    assert plant(replace(GOOD, command=Heard(command, 9.0, True)))["masters"].outcome is Outcome.OK


def test_a_probe_that_was_answered_and_one_that_was_not_made() -> None:
    answered = judge_probe(Probe(BMU1, "1.0.0", 0.008, left=True), "")
    assert (answered.outcome, "bmu1 answers: it runs 1.0.0" in answered.seen) == (Outcome.OK, True)
    unasked = judge_probe(None, "nothing was sent")
    assert (unasked.outcome, unasked.seen) == (Outcome.NOT_APPLICABLE, "nothing was sent")


@pytest.mark.parametrize(
    ("error", "left", "expected"),
    [
        (NTimeoutA("not confirmed"), None, TransmitStalled),
        (TransmitStalled("stalled"), True, TransmitStalled),
        (UdsTimeout("no answer"), False, TransmitStalled),
        (UdsTimeout("no answer"), True, UdsTimeout),
        (UdsTimeout("no answer"), None, UdsTimeout),
    ],
)
def test_a_probe_that_came_to_nothing(error: EssCanError, left: bool | None, expected: type[EssCanError]) -> None:
    finding = judge_probe(Probe(BMU1, error=error, left=left), "")
    assert type(finding.error) is expected
    assert str(error.what) in finding.seen
