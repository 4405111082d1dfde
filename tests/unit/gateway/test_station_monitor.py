from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ess_can.bus.clock import now, pause
from ess_can.bus.station import StationLink
from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.errors import BusOff, BusSilent, ErrorPassive, NoValidTraffic
from ess_can.gateway.hv_gate import Source
from ess_can.gateway.station_monitor import StationMonitor
from ess_can.gateway.station_snapshot import Snapshot
from ess_can.identity import NodeAddress, NodeType
from ess_can.signals.e2e import Verdict, protect
from ess_can.signals.messages import (
    BmsHvNotice,
    BmsHvStatus,
    EmsHvStatusPoll,
    EmsPcsCommand,
    EmsUpgradeNotice,
    HvNoticeCondition,
    PcsCommandCode,
    PcsState,
    PcsStatus,
    UpgradePhase,
)
from ess_can.sim.loop import run_virtual
from tests.support.memory_bus import bus_pair
from tests.support.scripted_plant import BMU1, BMU2, CODEC, PCS_OFF, RACK_OFF, ScriptedPlant

TIMING = BitTiming(500_000)
BMU3 = NodeAddress(NodeType.BMU, 3)


class Bench:
    """A monitor that listens to a scripted plant."""

    def __init__(self, expected: tuple[NodeAddress, ...] = ()) -> None:
        self.bus, self.theirs = bus_pair()
        self.plant = ScriptedPlant(self.theirs)
        self.plant.link.close()  # it obeys nobody here: what is sent on its end is for the monitor
        self.monitor = StationMonitor(CODEC, TIMING, now(), expected=expected)
        self.detach = self.monitor.attach(StationLink(self.bus, CODEC), now)

    def hear(self, frame: CanFrame) -> None:
        self.bus.deliver(frame)

    def snapshot(self) -> Snapshot:
        return self.monitor.snapshot(now())


async def settled(prepare: Callable[[Bench], None] = lambda _: None, expected: tuple[NodeAddress, ...] = ()) -> Bench:
    bench = Bench(expected)
    prepare(bench)
    bench.plant.start()
    await pause(1.2)
    return bench


def pcs_frame(counter: int, data_id: int | None = None) -> CanFrame:
    route = CODEC.route(PcsStatus)
    data = protect(CODEC.encode(PCS_OFF), data_id or route.e2e_data_id or 0, counter)
    return CanFrame(route.can_id, data)


def test_the_plant() -> None:
    async def scenario() -> Snapshot:
        return (await settled()).snapshot()

    seen = run_virtual(scenario())
    assert seen.plant_heard
    assert seen.silence() is None
    assert seen.pcs is not None
    assert (seen.pcs.message.state, seen.pcs.stale) == (PcsState.RUNNING, False)
    assert [rack.rack for rack in seen.racks] == [1, 2]
    for rack in seen.racks:
        assert rack.hv is not None
        assert rack.state is not None
        assert rack.cells is not None
        assert rack.alarms is not None
        assert (rack.hv.message.link_voltage_v, rack.state.message.soc_percent) == (790.0, 55.0)
        assert 0 <= rack.hv.age_s < 0.06
    assert [node.address for node in seen.nodes] == [BMU1, BMU2]
    assert all(node.dbc_ok for node in seen.nodes)
    assert (seen.command, seen.notice, seen.warnings) == (None, None, ())


def test_it_sends_nothing_and_lets_go() -> None:
    async def scenario() -> None:
        bench = await settled()
        bench.detach()
        heard = bench.snapshot().traffic.frames
        await pause(0.5)
        assert bench.snapshot().traffic.frames == heard
        assert bench.bus.sent == []
        assert bench.bus.listeners == 0

    run_virtual(scenario())


def test_silence_and_frames_of_others() -> None:
    async def scenario() -> None:
        bench = Bench(expected=(BMU1,))
        seen = bench.snapshot()
        assert isinstance(seen.silence(), BusSilent)
        assert seen.traffic.frames_per_s == seen.traffic.load == 0.0
        assert [node.address for node in seen.nodes] == [BMU1]
        assert seen.nodes[0].info is None
        assert [rack.rack for rack in seen.racks] == [1]
        await pause(0.5)
        bench.hear(CanFrame(0x123, b"\x01"))
        bench.hear(CanFrame(0x123 | EXTENDED_FLAG, b"\x01"))
        bench.hear(CanFrame(0x123, b"\x02"))
        bench.hear(pcs_frame(0, data_id=1))  # somebody else's frame on our identifier is no sign of the plant
        seen = bench.snapshot()
        assert isinstance(seen.silence(), NoValidTraffic)
        assert (seen.traffic.unknown, seen.traffic.unknown_ids) == (3, (0x123, 0x123 | EXTENDED_FLAG))
        assert seen.traffic.unusable == 1
        assert seen.pcs is None

    run_virtual(scenario())


def test_the_load_is_exact() -> None:
    frames = [CanFrame(0x123, bytes(8)), CanFrame(0x456, b"\xaa\x55"), CanFrame(0x1FFFFFF | EXTENDED_FLAG, b"")]

    async def scenario() -> None:
        bench = Bench()
        await pause(2.0)
        bench.hear(CanFrame(0x7, bytes(8)))
        await pause(1.5)  # beyond the window
        for frame in frames:
            bench.hear(frame)
        traffic = bench.snapshot().traffic
        expected = sum(frame_duration_s(frame, TIMING) for frame in frames)
        assert traffic.load == pytest.approx(expected)
        assert (traffic.frames, traffic.frames_per_s, traffic.bitrate) == (4, 3.0, 500_000)
        await pause(1.5)
        assert bench.snapshot().traffic.load == 0.0

    run_virtual(scenario())


def test_a_young_listener_reckons_with_what_it_had() -> None:
    async def scenario() -> None:
        bench = Bench()
        await pause(0.25)
        bench.hear(CanFrame(0x123, b""))
        assert bench.snapshot().traffic.frames_per_s == 4.0

    run_virtual(scenario())


def test_frames_that_no_wire_has_and_fd_on_a_classic_bus() -> None:
    async def scenario() -> None:
        bench = Bench()
        await pause(1.0)
        bench.hear(CanFrame(0x900, b""))  # more than 11 bits, not extended
        assert bench.snapshot().traffic.load == 0.0
        frame = CanFrame(0x123, bytes(64), fd=True, brs=True)
        bench.hear(frame)
        traffic = bench.snapshot().traffic
        assert traffic.load == pytest.approx(frame_duration_s(frame, BitTiming(500_000, 500_000)))

    run_virtual(scenario())


def test_diagnostic_frames_are_told_by_node() -> None:
    async def scenario() -> None:
        bench = Bench()
        await pause(1.0)
        request, response = CODEC.diagnostic_ids(BMU2)
        for can_id in (request, request, response):
            bench.hear(CanFrame(can_id, bytes(8)))
        traffic = bench.snapshot().traffic
        assert traffic.diagnostic == ((BMU2, 3.0),)
        assert (traffic.unknown, traffic.unusable) == (0, 0)

    run_virtual(scenario())


def test_every_verdict_is_counted_and_joining_is_none() -> None:
    async def scenario() -> Snapshot:
        bench = Bench()
        for counter in (100, 101, 104, 104, 50):  # joins, ok, two lost, repeated, out of sequence
            bench.hear(pcs_frame(counter))
        bench.hear(pcs_frame(51, data_id=1))
        bench.hear(CanFrame(CODEC.route(PcsStatus).can_id, b"\x00"))
        return bench.snapshot()

    (seen,) = run_virtual(scenario()).e2e
    assert seen.name == "PCS_Status"
    assert (seen.ok, seen.lost, seen.repeated, seen.wrong_sequence, seen.crc_errors) == (1, 1, 1, 1, 1)
    assert (seen.unusable, seen.last, seen.stale) == (1, None, False)


@pytest.mark.parametrize(("counter", "ok", "last"), [(0, 1, Verdict.OK), (2, 0, None), (200, 0, None)])
def test_joining_a_sender_is_no_fault_of_it(counter: int, ok: int, last: Verdict | None) -> None:
    async def scenario() -> Snapshot:
        bench = Bench()
        bench.hear(pcs_frame(counter))
        return bench.snapshot()

    (seen,) = run_virtual(scenario()).e2e
    assert (seen.ok, seen.lost, seen.wrong_sequence, seen.last) == (ok, 0, 0, last)


def test_stale_values_are_marked() -> None:
    async def scenario() -> None:
        bench = await settled()
        bench.plant.silent |= {1, BMU1}
        await pause(0.5)
        seen = bench.snapshot()
        first, second = seen.racks
        assert first.hv is not None
        assert second.hv is not None
        assert (first.hv.stale, second.hv.stale) == (True, False)
        assert first.hv.age_s == pytest.approx(0.5, abs=0.06)
        assert [one.stale for one in seen.e2e] == [False, True, False]
        await pause(2.0)
        nodes = bench.snapshot().nodes
        assert [node.info.stale for node in nodes if node.info] == [True, False]

    run_virtual(scenario())


def test_another_dbc_and_nodes_that_are_missing() -> None:
    def other_dbc(bench: Bench) -> None:
        bench.plant.nodes[BMU2] = replace(bench.plant.nodes[BMU2], dbc_fingerprint=CODEC.fingerprint ^ 1)

    async def scenario() -> Snapshot:
        return (await settled(other_dbc, expected=(BMU1, BMU3))).snapshot()

    seen = run_virtual(scenario())
    assert [(str(node.address), node.info is not None, node.dbc_ok) for node in seen.nodes] == [
        ("bmu1", True, True),
        ("bmu2", True, False),
        ("bmu3", False, False),
    ]
    assert [rack.rack for rack in seen.racks] == [1, 2, 3]
    assert {one.missing for one in seen.evidence if one.rack == 3} == {"nothing was heard"}


class TestHvOff:
    def test_a_plant_in_operation_is_not_off(self) -> None:
        async def scenario() -> Snapshot:
            return (await settled()).snapshot()

        seen = run_virtual(scenario())
        assert (seen.hv_off_proved, seen.polled) == (False, False)
        missing = {(one.source, one.rack): one.missing for one in seen.evidence}
        assert missing[Source.PCS_STATUS, 0] == "PCS contactors CLOSED"
        assert missing[Source.RACK_STATUS, 2] == "main+ is CLOSED"

    @pytest.mark.parametrize("polled", [True, False])
    def test_it_is_proved_only_while_somebody_polls(self, polled: bool) -> None:
        def off(bench: Bench) -> None:
            bench.plant.pcs = PCS_OFF
            bench.plant.set_racks(RACK_OFF)

        async def scenario() -> None:
            bench = await settled(off)
            if polled:
                for token in (1, 2):
                    poll(bench, token)
                    await pause(0.1)
            seen = bench.snapshot()
            assert (seen.hv_off_proved, seen.polled) == (polled, polled)
            status = next(one for one in seen.evidence if one.source is Source.RACK_STATUS)
            assert status.missing == ""
            assert status.age_s is not None
            assert status.age_s < 0.06
            await pause(2.0)
            seen = bench.snapshot()
            assert (seen.hv_off_proved, seen.polled) == (False, False)

        run_virtual(scenario())

    def test_without_any_rack_nothing_is_proved(self) -> None:
        async def scenario() -> Snapshot:
            return Bench().snapshot()

        assert not run_virtual(scenario()).hv_off_proved

    def test_a_bad_frame_is_no_evidence(self) -> None:
        def off(bench: Bench) -> None:
            bench.plant.pcs = PCS_OFF

        async def scenario() -> None:
            bench = await settled(off)
            assert bench.snapshot().evidence[0].missing == ""
            bench.hear(pcs_frame(0, data_id=1))
            seen = bench.snapshot().evidence[0]
            assert (seen.missing, seen.age_s) == ("bad frame (ERROR)", None)

        run_virtual(scenario())


def poll(bench: Bench, token: int) -> None:
    """Somebody polls, and the racks answer."""
    bench.hear(CanFrame(CODEC.route(EmsHvStatusPoll).can_id, CODEC.encode(EmsHvStatusPoll(token))))
    for rack in (1, 2):
        bench.plant.link.send(BmsHvNotice(token, HvNoticeCondition.DISCONNECTED, 1.0), rack)


def test_who_commands() -> None:
    async def scenario() -> None:
        bench = Bench()
        ems = StationLink(bench.theirs, CODEC)
        for _ in range(3):
            ems.send(EmsPcsCommand(PcsCommandCode.RUN, 50.0, upgrade_active=True))
            ems.send(EmsUpgradeNotice(UpgradePhase.PROGRAMMING, NodeType.BMU, 2, 15.0, 0xBEEF))
            await pause(0.1)
        seen = bench.snapshot()
        assert seen.command is not None
        assert seen.notice is not None
        assert (seen.command.message.power_setpoint_kw, seen.command.stale) == (50.0, False)
        assert (seen.notice.message.session, seen.notice.message.target_index) == (0xBEEF, 2)
        assert [one.name for one in seen.e2e] == ["EMS_PcsCommand"]
        assert isinstance(seen.silence(), NoValidTraffic), "a master alone is no plant"
        await pause(5.0)
        seen = bench.snapshot()
        assert seen.command is not None
        assert seen.command.stale

    run_virtual(scenario())


def test_what_the_adapter_reports() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.monitor.on_bus_error(ErrorPassive("once", why="TEC 130"), now())
        await pause(1.0)
        bench.monitor.on_bus_error(ErrorPassive("again"), now())
        bench.bus.die(BusOff("gone"))
        await pause(0.5)
        passive, off = bench.snapshot().warnings
        assert (passive.error.what, passive.times, passive.age_s) == ("again", 2, 0.5)
        assert (off.error.name, off.times) == ("BUS_OFF", 1)

    run_virtual(scenario())


def test_a_frame_of_the_wrong_kind_is_counted_once() -> None:
    async def scenario() -> None:
        bench = Bench()
        route = CODEC.route(BmsHvStatus, 1)
        bench.hear(CanFrame(route.can_id, bytes(8), remote=True))
        bench.hear(CanFrame(CODEC.node_route(BMU1).can_id, b""))
        assert bench.snapshot().traffic.unusable == 2

    run_virtual(scenario())
