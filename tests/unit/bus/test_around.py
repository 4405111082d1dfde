"""A bus around a bus passes everything on, both ways; so do those that start from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ess_can.bus.around import BusAround
from ess_can.bus.guarded_bus import GuardedBus
from ess_can.bus.limited_bus import LoadLimitedBus
from ess_can.bus.load_limit import LoadLimit
from ess_can.bus.port import Bus
from ess_can.bus.recovering_bus import RecoveringBus
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.errors import BusError, ErrorPassive
from ess_can.sim.loop import run_virtual
from tests.support.memory_bus import MemoryBus

FRAME = CanFrame(0x100, b"\1")


def limited(bus: Bus) -> Bus:
    return LoadLimitedBus(bus, LoadLimit(0.5), BitTiming(500_000))


@pytest.mark.parametrize("around", [BusAround, GuardedBus, RecoveringBus, limited])
def test_everything_is_passed_on(around: Callable[[Bus], Bus]) -> None:
    async def scenario() -> None:
        inner = MemoryBus()
        bus = around(inner)
        heard: list[CanFrame] = []
        told: list[BusError] = []
        unsubscribe = bus.subscribe((0x100,), lambda frame, _at: heard.append(frame))
        unwatch = bus.watch(told.append)
        inner.deliver(FRAME)
        inner.warn(ErrorPassive("passive"))
        unsubscribe()
        unwatch()
        inner.deliver(FRAME)
        inner.warn(ErrorPassive("passive"))
        assert (heard, len(told)) == ([FRAME], 1)
        bus.adopt(7)
        bus.send(FRAME)
        bus.send(FRAME, bulk=True)
        assert (inner.adopted, len(inner.sent)) == ([7], 2)
        assert (bus.fd, bus.withdraw(0x200), bus.restart()) == (False, [], False)

    run_virtual(scenario())
