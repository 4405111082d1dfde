"""What the gateway holds while it works, and that it lets go of all of it."""

from __future__ import annotations

import asyncio
import random

import pytest

from ess_can.bus.clock import pause
from ess_can.bus.kernel_isotp import IsoTpTransport, KernelIsoTp, UserIsoTp
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.errors import HvPermitRevoked, IdConflict
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.station_master import USER_ISOTP, StationMaster
from ess_can.isotp import IsoTpParams
from ess_can.signals.messages import EmsHvStatusPoll, PcsCommandCode, UpgradePhase
from ess_can.sim.loop import run_virtual
from ess_can.uds.access import CmacAccess
from ess_can.uds.exchange import MAX_BLOCK_DATA
from tests.support.memory_bus import MemoryBus, bus_pair
from tests.support.scripted_plant import BMU1, BMU2, CODEC, PCS_OFF, RACK_OFF, ScriptedPlant


def station(
    bus: MemoryBus, transport: IsoTpTransport = USER_ISOTP, bit_timing: BitTiming | None = None
) -> StationMaster:
    return StationMaster(
        bus,
        CODEC,
        GatewayConfig((BMU1, BMU2)),
        CmacAccess(bytes(16)),
        isotp=IsoTpParams(),
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


@pytest.mark.parametrize("visible", [True, False])
def test_requests_are_guarded_unless_our_own_come_in_as_frames_from_others(visible: bool) -> None:
    """So it is with the kernel's ISO-TP, whose frames the raw socket beside it receives."""

    class Transport(UserIsoTp):
        own_requests_visible = visible

    async def scenario() -> None:
        bus = MemoryBus()
        async with station(bus, transport=Transport()) as master:
            master.watch.arm()
            bus.deliver(CanFrame(CODEC.diagnostic_ids(BMU1)[0], b"\x02\x3e\x00"))
            assert (master.watch.holds, bool(master.view.foreign)) == (visible, not visible)
            bus.deliver(CanFrame(CODEC.route(EmsHvStatusPoll).can_id, bytes(3)))
            assert isinstance(master.watch.error, IdConflict)
            assert master.view.foreign

    run_virtual(scenario())


@pytest.mark.parametrize(
    ("timing", "least", "most"),
    [
        (None, 300, 400),
        (BitTiming(125_000), 300, 400),
        (BitTiming(500_000), 1300, 1500),
        (BitTiming(500_000, 2_000_000), MAX_BLOCK_DATA, MAX_BLOCK_DATA),
    ],
)
def test_a_transport_that_cannot_stop_gets_blocks_that_are_over_in_50_ms(
    timing: BitTiming | None, least: int, most: int
) -> None:
    async def scenario() -> None:
        async with station(MemoryBus(), KernelIsoTp("can0"), timing) as master:
            assert least <= master.longest_block(BMU1) <= most
        async with station(MemoryBus(), bit_timing=timing) as master:
            assert master.longest_block(BMU1) == MAX_BLOCK_DATA

    run_virtual(scenario())
