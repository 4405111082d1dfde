"""A bus that is restarted after bus-off: how often, when, and what its users see of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from ess_can.bus.clock import now, pause
from ess_can.bus.recovering_bus import RecoveringBus
from ess_can.can.frame import CanFrame
from ess_can.errors import (
    AdapterLost,
    BusError,
    BusOff,
    BusUnusable,
    ErrorPassive,
    TransmitQueueFull,
)
from ess_can.sim.loop import run_virtual
from tests.support.memory_bus import MemoryBus

FRAME = CanFrame(0x100, b"\1")


class Restartable(MemoryBus):
    """Notes when it was restarted; comes back if `obeys`, and says whether it `can`."""

    def __init__(self) -> None:
        super().__init__()
        self.obeys, self.can = True, True
        self.restarted_at: list[float] = []

    def restart(self) -> bool:
        self.restarted_at.append(round(now(), 6))
        if self.obeys:
            self.failure, self.cut = None, False
        return self.can


class Bench:
    def __init__(self) -> None:
        self.inner = Restartable()
        self.bus = RecoveringBus(self.inner)
        self.told: list[BusError] = []
        self.bus.watch(self.told.append)

    def go_off(self) -> None:
        self.inner.die(BusOff("off", why="TEC 256"))

    @property
    def names(self) -> list[str]:
        return [error.name for error in self.told]

    def refused(self) -> type[BusError] | None:
        try:
            self.bus.send(FRAME)
        except BusError as error:
            return type(error)
        return None


def play(scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        await scenario(Bench())

    run_virtual(run())


def test_bus_off_is_a_warning_and_the_controller_is_restarted_later_each_time() -> None:
    async def scenario(bench: Bench) -> None:
        for _ in range(3):
            bench.go_off()
            assert bench.refused() is TransmitQueueFull
            await pause(3.0)
            assert bench.refused() is None
        assert bench.inner.restarted_at == [0.1, 3.5, 8.0]
        assert bench.names == ["BUS_INTERRUPTED"] * 3
        assert not any(error.ends_use for error in bench.told)
        assert "TEC 256; restart 1 of 3 in 0.1 s" in bench.told[0].why

    play(scenario)


def test_the_fourth_time_ends_it() -> None:
    async def scenario(bench: Bench) -> None:
        for _ in range(4):
            bench.go_off()
            await pause(3.0)
            bench.refused()
        assert bench.names == ["BUS_INTERRUPTED"] * 3 + ["BUS_UNUSABLE"]
        assert bench.told[-1].ends_use
        assert bench.refused() is BusUnusable
        assert len(bench.inner.restarted_at) == 3

    play(scenario)


def test_a_controller_that_stays_off_after_its_restarts_is_given_up() -> None:
    async def scenario(bench: Bench) -> None:
        bench.inner.obeys = False
        bench.go_off()
        while bench.refused() is TransmitQueueFull:
            await pause(0.05)
        assert bench.refused() is BusUnusable
        assert bench.inner.restarted_at == pytest.approx([0.1, 1.6, 4.6], abs=0.11)
        assert now() == pytest.approx(5.6, abs=0.2)
        assert bench.names == ["BUS_INTERRUPTED"] * 3 + ["BUS_UNUSABLE"]

    play(scenario)


def test_what_cannot_be_restarted_ends_with_its_own_error() -> None:
    async def scenario(bench: Bench) -> None:
        bench.inner.obeys = bench.inner.can = False
        bench.go_off()
        await pause(0.2)
        assert bench.names == ["BUS_INTERRUPTED", "BUS_OFF"]
        assert bench.refused() is BusOff

    play(scenario)


def test_bus_off_that_shows_only_when_something_is_sent_is_the_same() -> None:
    async def scenario(bench: Bench) -> None:
        bench.inner.failure = BusOff("off")
        assert bench.refused() is TransmitQueueFull
        assert bench.names == ["BUS_INTERRUPTED"]
        await pause(0.05)
        bench.go_off()  # the same once more
        assert bench.names == ["BUS_INTERRUPTED"]
        await pause(0.1)
        assert bench.refused() is None

    play(scenario)


def test_off_again_before_it_took_a_frame_counts() -> None:
    async def scenario(bench: Bench) -> None:
        bench.go_off()
        await pause(0.2)
        bench.go_off()
        assert bench.names == ["BUS_INTERRUPTED"] * 2
        assert bench.bus.restarts == 1

    play(scenario)


def test_other_failures_and_warnings_pass_and_an_adapter_that_is_gone_is_not_restarted() -> None:
    async def scenario(bench: Bench) -> None:
        bench.inner.warn(ErrorPassive("passive"))
        bench.go_off()
        bench.inner.die(AdapterLost("gone"))
        assert bench.names == ["ERROR_PASSIVE", "BUS_INTERRUPTED", "ADAPTER_LOST"]
        await pause(1.0)
        assert bench.inner.restarted_at == []

    play(scenario)


@pytest.mark.parametrize("off", [False, True])
def test_closing_leaves_the_bus_alone(off: bool) -> None:
    async def scenario(bench: Bench) -> None:
        if off:
            bench.go_off()
        bench.bus.close()
        await pause(1.0)
        assert bench.inner.restarted_at == []
        assert bench.inner.listeners == 0

    play(scenario)


def test_the_rest_of_the_port_is_the_buss() -> None:
    async def scenario(bench: Bench) -> None:
        heard: list[CanFrame] = []
        cancel = bench.bus.subscribe((0x100,), lambda frame, _at: heard.append(frame))
        bench.inner.deliver(FRAME)
        cancel()
        bench.inner.deliver(FRAME)
        bench.bus.adopt(0x7)
        assert heard == [FRAME]
        assert bench.inner.adopted == [0x7]
        assert bench.bus.withdraw(0x100) == []
        assert bench.bus.fd is False
        assert bench.bus.restart()
        stop = bench.bus.watch(bench.told.append)
        stop()
        stop()

    play(scenario)
