"""What the gateway holds while it works, and that it lets go of all of it."""

from __future__ import annotations

import asyncio
import random

import pytest

from ess_can.bus.clock import now, pause
from ess_can.bus.isotp_channel import IsoTpChannel
from ess_can.bus.kernel_isotp import Channel, IsoTpTransport, KernelIsoTp, OnError, OnMessage
from ess_can.bus.port import Bus
from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.errors import HvPermitRevoked, IdConflict
from ess_can.gateway.config import BusLimits, GatewayConfig
from ess_can.gateway.plan import require_askable
from ess_can.gateway.policy import refusals
from ess_can.gateway.station_master import USER_ISOTP, StationMaster
from ess_can.identity import NodeAddress, NodeType
from ess_can.isotp import IsoTpAddress, IsoTpParams
from ess_can.signals.dbc import StationCodec
from ess_can.signals.messages import EmsHvStatusPoll, PcsCommandCode, UpgradePhase
from ess_can.sim.loop import run_virtual
from ess_can.uds.access import CmacAccess
from ess_can.uds.exchange import MAX_BLOCK_DATA
from tests.support.memory_bus import MemoryBus, bus_pair
from tests.support.scripted_plant import BMU1, BMU2, CODEC, PCS_OFF, RACK_OFF, ScriptedPlant

NO_LIMITS = BusLimits()
CLASSIC = IsoTpParams()
FD = IsoTpParams(tx_dl=64, fd=True, brs=True)


def station(
    bus: MemoryBus,
    transport: IsoTpTransport = USER_ISOTP,
    bit_timing: BitTiming | None = None,
    limits: BusLimits = NO_LIMITS,
    nodes: tuple[NodeAddress, ...] = (BMU1, BMU2),
    isotp: IsoTpParams = CLASSIC,
) -> StationMaster:
    return StationMaster(
        bus,
        CODEC,
        GatewayConfig(nodes, bus=limits),
        CmacAccess(bytes(16)),
        isotp=isotp,
        bit_timing=bit_timing,
        entropy=random.Random(1),
        transport=transport,
    )


def test_opening_and_leaving_it_sends_nothing_and_leaves_no_listener() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with station(bus) as master:
            assert bus.listeners > 0
            assert master.client(BMU1) is master.client(BMU1)
            assert master.client(BMU1) is not master.client(BMU2)
            await pause(2.0)
        assert bus.sent == []
        assert bus.listeners == 0

    run_virtual(scenario())


def test_a_client_that_was_hung_up_is_made_anew() -> None:
    async def scenario() -> None:
        async with station(MemoryBus()) as master:
            first = master.client(BMU1)
            await master.hang_up(BMU1)
            await master.hang_up(BMU1)
            assert master.client(BMU1) is not first

    run_virtual(scenario())


def test_leaving_it_ends_orders_polls_and_permits() -> None:
    async def scenario() -> None:
        bus, peer = bus_pair()
        plant = ScriptedPlant(peer, pcs=PCS_OFF, racks={1: RACK_OFF, 2: RACK_OFF})
        plant.start()
        async with station(bus) as master:
            master.orders.start(PcsCommandCode.LOCK)
            master.interlock.start_polling()
            permit = await master.interlock.prove_off(5.0)
        assert isinstance(permit.error, HvPermitRevoked)
        sent = len(bus.sent)
        await pause(1.0)
        assert len(bus.sent) == sent
        assert plant.notices[-1] is UpgradePhase.NONE
        assert bus.listeners == 0

    run_virtual(scenario())


def test_orders_end_even_if_leaving_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        bus = MemoryBus()

        async def work() -> None:
            async with station(bus) as master:
                master.orders.start(PcsCommandCode.CLOSE)
                master.client(BMU1)

                async def slow(_address: object) -> None:
                    await pause(2.0)

                monkeypatch.setattr(master, "hang_up", slow)

        task = asyncio.create_task(work())
        await pause(0.1)
        sent = len(bus.sent)
        task.cancel()
        await task  # a cancellation in the last instant costs nothing that was achieved
        assert len(bus.sent) == sent

    run_virtual(scenario())


class _Slow(IsoTpChannel):
    """As the kernel's: what it was sending when it was closed takes two more seconds."""

    gone_at = 0.0

    async def wait_closed(self) -> None:
        await pause(2.0)
        self.gone_at = now()


class _SlowToClose:
    stops_at_once = False

    def __init__(self) -> None:
        self.channels: list[_Slow] = []

    def open(
        self, bus: Bus, address: IsoTpAddress, params: IsoTpParams, *, on_message: OnMessage, on_error: OnError
    ) -> Channel:
        self.channels.append(_Slow(bus, address, params, on_message=on_message, on_error=on_error))
        return self.channels[-1]


def test_no_second_channel_beside_one_that_still_ends_even_if_cancelled() -> None:
    async def scenario() -> None:
        transport = _SlowToClose()
        async with station(MemoryBus(), transport) as master:
            master.client(BMU1)
            await master.hang_up(BMU1)
            assert transport.channels[0].gone_at == now() == 2.0
            master.client(BMU1)
            hanging_up = asyncio.create_task(master.hang_up(BMU1))
            await pause(0.1)
            hanging_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hanging_up
            assert transport.channels[1].gone_at == now() == 4.0

    run_virtual(scenario())


def test_leaving_waits_for_all_channels_at_once_and_a_cancellation_costs_nothing() -> None:
    async def scenario() -> None:
        transport = _SlowToClose()

        async def work() -> str:
            async with station(MemoryBus(), transport) as master:
                master.client(BMU1)
                master.client(BMU2)
            return "the report"

        task = asyncio.create_task(work())
        await pause(0.5)
        task.cancel()
        assert await task == "the report"
        assert [channel.gone_at for channel in transport.channels] == [2.0, 2.0]

    run_virtual(scenario())


@pytest.mark.parametrize("transport", [USER_ISOTP, KernelIsoTp("can0")], ids=["user", "kernel"])
@pytest.mark.parametrize("node", [BMU1, BMU2])
def test_a_second_tester_is_refused_whoever_speaks_isotp(transport: IsoTpTransport, node: NodeAddress) -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with station(bus, transport=transport) as master:
            require_askable(master)
            bus.deliver(CanFrame(CODEC.diagnostic_ids(node)[0], b"\x02\x3e\x00"))
            with pytest.raises(IdConflict, match="UDS_Request"):
                require_askable(master)
            found = refusals(master.view, master.config, CODEC.fingerprint, now())
            assert any(isinstance(each, IdConflict) for each in found)

    run_virtual(scenario())


async def at_work(master: StationMaster) -> None:
    async with master.watch:
        await pause(1.0)


@pytest.mark.parametrize("transport", [USER_ISOTP, KernelIsoTp("can0")], ids=["user", "kernel"])
@pytest.mark.parametrize("can_id", [CODEC.diagnostic_ids(BMU1)[0], CODEC.route(EmsHvStatusPoll).can_id])
def test_who_speaks_as_we_do_ends_the_work_whoever_speaks_isotp(transport: IsoTpTransport, can_id: int) -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with station(bus, transport=transport) as master:
            master.watch.arm()
            work = asyncio.create_task(at_work(master))
            await pause(0.1)
            bus.deliver(CanFrame(can_id, b"\x02\x3e\x00"))
            with pytest.raises(IdConflict):
                await work

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("timing", "least", "most"),
    [
        (None, 300, 400),
        (BitTiming(125_000), 300, 400),
        (BitTiming(500_000), 1300, 1500),
    ],
)
def test_a_transport_that_cannot_stop_gets_blocks_that_are_over_in_50_ms(
    timing: BitTiming | None, least: int, most: int
) -> None:
    async def scenario() -> None:
        async with station(MemoryBus(), KernelIsoTp("can0"), timing) as master:
            assert least <= master.longest_block(1) <= most
        async with station(MemoryBus(), bit_timing=timing) as master:
            assert master.longest_block(1) == MAX_BLOCK_DATA
            assert master.longest_block(8) == MAX_BLOCK_DATA

    run_virtual(scenario())


@pytest.mark.parametrize("nodes", [1, 2, 8])
@pytest.mark.parametrize(
    ("timing", "isotp", "together"),
    [
        (None, CLASSIC, 5),
        (BitTiming(125_000), CLASSIC, 5),
        (BitTiming(250_000), CLASSIC, 8),
        (BitTiming(500_000, 2_000_000), FD, 8),
        (BitTiming(20_000), CLASSIC, 1),
    ],
)
def test_what_cannot_be_stopped_is_over_in_50_ms_for_all_nodes_together(
    timing: BitTiming | None, isotp: IsoTpParams, together: int, nodes: int
) -> None:
    async def scenario() -> None:
        expected = tuple(NodeAddress(NodeType.BMU, number + 1) for number in range(nodes))
        transport = KernelIsoTp("can0")
        async with station(MemoryBus(), transport, timing, nodes=expected, isotp=isotp) as master:
            at_once = master.at_once(nodes)
            assert at_once == min(nodes, together)
            payload = master.longest_block(at_once) + 2
            assert payload <= 4095
            frames = 1 + -(-(payload - (isotp.tx_dl - 2)) // (isotp.tx_dl - 1))
            full = CanFrame(CODEC.diagnostic_ids(BMU1)[0], bytes(isotp.tx_dl), fd=isotp.fd, brs=isotp.brs)
            assert at_once * frames * frame_duration_s(full, timing or BitTiming(125_000)) <= 0.050

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("percent", "streams", "least", "most"),
    [(None, 2, MAX_BLOCK_DATA, MAX_BLOCK_DATA), (10.0, 2, 8000, 9500), (1.0, 1, 1500, 2000)],
)
def test_under_a_cap_on_the_bus_load_a_block_leaves_in_time(
    percent: float | None, streams: int, least: int, most: int
) -> None:
    async def scenario() -> None:
        async with station(MemoryBus(), bit_timing=BitTiming(125_000), limits=BusLimits(percent)) as master:
            assert master.streams == streams
            assert least <= master.longest_block(1) <= most
        async with station(MemoryBus(), limits=BusLimits(percent)) as master:  # for looking only: nothing is sent
            assert master.longest_block(1) == MAX_BLOCK_DATA

    run_virtual(scenario())


def test_nodes_whose_answers_would_lose_against_the_stream_to_another_are_sent_to_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def normal_fixed(_codec: StationCodec, address: NodeAddress) -> tuple[int, int]:
        node = 0x10 + address.index
        return EXTENDED_FLAG | 0x18DA00F1 | node << 8, EXTENDED_FLAG | 0x18DAF100 | node

    async def scenario() -> None:
        async with station(MemoryBus(), bit_timing=BitTiming(125_000)) as master:
            assert master.streams == 2
            monkeypatch.setattr(StationCodec, "diagnostic_ids", normal_fixed)
            assert master.streams == 1

    run_virtual(scenario())
