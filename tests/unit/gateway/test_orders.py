"""The heartbeat, and what it says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from ess_can.bus.clock import pause
from ess_can.bus.station import Received, StationLink
from ess_can.errors import BusError, BusOff, TransmitQueueFull
from ess_can.gateway.orders import Orders
from ess_can.signals.e2e import Verdict
from ess_can.signals.messages import EmsPcsCommand, EmsUpgradeNotice, PcsCommandCode, UpgradePhase
from ess_can.sim.loop import run_virtual
from tests.support.memory_bus import bus_pair
from tests.support.scripted_plant import BMU1, BMU2, CODEC


class Bench:
    def __init__(self) -> None:
        self.bus, peer = bus_pair()
        self.errors: list[BusError] = []
        self.slept_s = 0.0
        self.orders = Orders(StationLink(self.bus, CODEC), 0xBEEF, self.errors.append, slept_s=lambda: self.slept_s)
        self.commands: list[Received[EmsPcsCommand]] = []
        self.notices: list[EmsUpgradeNotice] = []
        listener = StationLink(peer, CODEC)
        listener.subscribe(EmsPcsCommand, self.commands.append)
        listener.subscribe(EmsUpgradeNotice, lambda received: self.notices.append(received.message))


def play(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def start() -> None:
        await scenario(Bench())

    run_virtual(start())


def test_nothing_is_said_before_start() -> None:
    async def scenario(bench: Bench) -> None:
        bench.orders.give(PcsCommandCode.CLOSE)
        bench.orders.announce(UpgradePhase.PROGRAMMING)
        bench.orders.stop()
        await pause(1.0)
        assert bench.bus.sent == []

    play(scenario)


@pytest.mark.parametrize("command", [PcsCommandCode.UNLOCK, PcsCommandCode.CLOSE])
@pytest.mark.parametrize(("silent_s", "slept_s", "lapses"), [(0.4, 0.0, False), (0.6, 0.0, True), (0.0, 0.6, True)])
def test_an_order_to_close_that_lapsed_in_our_silence_is_not_repeated(
    command: PcsCommandCode, silent_s: float, slept_s: float, lapses: bool
) -> None:
    async def scenario(bench: Bench) -> None:
        bench.orders.start(PcsCommandCode.LOCK)
        await pause(0.2)
        bench.orders.give(command)
        await pause(0.21)
        bench.bus.failure = TransmitQueueFull("full")
        await pause(silent_s)
        bench.bus.failure = None
        bench.slept_s += slept_s
        before = len(bench.commands)
        await pause(0.2)
        said = {received.message.command for received in bench.commands[before:]}
        assert said == {PcsCommandCode.ZERO_POWER if lapses else command}
        assert (bench.orders.withdrawn is not None) is lapses
        bench.orders.give(PcsCommandCode.LOCK)
        assert bench.orders.withdrawn is None

    play(scenario)


@pytest.mark.parametrize("command", [PcsCommandCode.ZERO_POWER, PcsCommandCode.OPEN, PcsCommandCode.LOCK])
def test_what_closes_nothing_goes_on_after_a_silence(command: PcsCommandCode) -> None:
    async def scenario(bench: Bench) -> None:
        bench.orders.start(command)
        await pause(0.2)
        bench.slept_s += 100.0
        await pause(0.2)
        assert {received.message.command for received in bench.commands} == {command}

    play(scenario)


def test_the_standing_order_is_repeated_every_50_ms_with_protection() -> None:
    async def scenario(bench: Bench) -> None:
        bench.orders.start(PcsCommandCode.ZERO_POWER)
        assert bench.orders.standing is PcsCommandCode.ZERO_POWER
        await pause(0.99)
        assert [received.message.command for received in bench.commands] == [PcsCommandCode.ZERO_POWER] * 20
        assert {received.verdict for received in bench.commands} == {Verdict.OK}
        assert all(received.message.upgrade_active for received in bench.commands)
        assert [notice.phase for notice in bench.notices] == [UpgradePhase.PREPARING] * 2
        assert {notice.session for notice in bench.notices} == {0xBEEF}

    play(scenario)


def test_a_new_order_goes_out_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        bench.orders.start(PcsCommandCode.ZERO_POWER)
        await pause(0.01)
        bench.orders.give(PcsCommandCode.OPEN)
        await pause(0.01)
        assert [received.message.command for received in bench.commands] == [
            PcsCommandCode.ZERO_POWER,
            PcsCommandCode.OPEN,
        ]
        assert bench.orders.standing is PcsCommandCode.OPEN

    play(scenario)


def test_the_notice_names_the_node_and_how_long_it_may_be_silent() -> None:
    async def scenario(bench: Bench) -> None:
        bench.orders.start(PcsCommandCode.LOCK)
        await pause(0.01)
        bench.orders.announce(UpgradePhase.ACTIVATING, BMU2, silent_up_to_s=15.0)
        await pause(0.01)
        notice = bench.notices[-1]
        assert (notice.phase, notice.target_type, notice.target_index) == (
            UpgradePhase.ACTIVATING,
            BMU2.node_type,
            BMU2.index,
        )
        assert notice.silent_up_to_s == pytest.approx(15.0)

    play(scenario)


def test_of_several_nodes_each_is_named_in_turn_the_first_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        bench.orders.start(PcsCommandCode.LOCK)
        await pause(0.01)
        bench.notices.clear()
        bench.orders.announce(UpgradePhase.PROGRAMMING, BMU2, BMU1, silent_up_to_s=3.0)
        await pause(0.01)
        assert [notice.target_index for notice in bench.notices] == [BMU2.index]
        await pause(1.6)  # then every half second, aside from the orders
        assert [notice.target_index for notice in bench.notices] == [2, 1, 2, 1]
        assert {notice.silent_up_to_s for notice in bench.notices} == {3.0}
        bench.orders.announce(UpgradePhase.RECONNECTING)
        await pause(0.6)
        assert [(notice.phase, notice.target_index) for notice in bench.notices[4:]] == [
            (UpgradePhase.RECONNECTING, 0),
            (UpgradePhase.RECONNECTING, 0),
        ]

    play(scenario)


def test_stop_says_that_it_is_over_and_falls_silent() -> None:
    async def scenario(bench: Bench) -> None:
        bench.orders.start(PcsCommandCode.LOCK)
        await pause(0.01)
        bench.orders.stop()
        bench.orders.stop()
        await pause(2.0)
        assert [notice.phase for notice in bench.notices] == [UpgradePhase.PREPARING, UpgradePhase.NONE]
        assert len(bench.commands) == 1
        assert not bench.orders.running

    play(scenario)


def test_a_full_queue_is_tried_again_a_cycle_later() -> None:
    async def scenario(bench: Bench) -> None:
        bench.orders.start(PcsCommandCode.LOCK)
        bench.bus.failure = TransmitQueueFull("full")
        await pause(0.04)
        bench.bus.failure = None
        await pause(0.05)
        assert len(bench.commands) == 1
        assert bench.errors == []

    play(scenario)


def test_a_dead_bus_is_told_and_ends_both_cycles() -> None:
    async def scenario(bench: Bench) -> None:
        bench.orders.start(PcsCommandCode.LOCK)
        await pause(0.01)
        bench.bus.failure = BusOff("off")
        await pause(1.0)
        bench.bus.failure = None
        await pause(1.0)
        assert len(bench.errors) == 1
        assert len(bench.commands) == 1

    play(scenario)
