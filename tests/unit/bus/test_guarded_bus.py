"""Streams ask before each frame; everything else passes."""

from __future__ import annotations

import pytest

from ess_can.bus.guarded_bus import GuardedBus
from ess_can.can.frame import CanFrame
from ess_can.errors import BusError, ErrorPassive, TransmitQueueFull
from ess_can.sim.loop import run_virtual
from tests.support.memory_bus import MemoryBus

FRAME = CanFrame(0x100, b"\1")


def test_only_bulk_frames_ask_and_none_leaves_when_the_answer_is_no() -> None:
    async def scenario() -> None:
        inner, asked = MemoryBus(), []
        bus = GuardedBus(inner)
        bus.send(FRAME, bulk=True)

        def may_go_on() -> bool:
            asked.append(len(inner.sent))
            return len(asked) < 2

        bus.may_go_on = may_go_on
        bus.send(FRAME)
        bus.send(FRAME, bulk=True)
        with pytest.raises(TransmitQueueFull, match="has ended"):
            bus.send(FRAME, bulk=True)
        bus.send(FRAME)
        assert asked == [2, 3]
        assert len(inner.sent) == 4

    run_virtual(scenario())


def test_the_rest_of_the_port_is_the_buss() -> None:
    async def scenario() -> None:
        inner = MemoryBus()
        bus = GuardedBus(inner)
        heard: list[CanFrame] = []
        told: list[BusError] = []
        bus.subscribe((0x100,), lambda frame, _at: heard.append(frame))
        bus.watch(told.append)
        bus.adopt(7)
        inner.deliver(FRAME)
        inner.warn(ErrorPassive("passive"))
        assert (heard, inner.adopted, len(told)) == ([FRAME], [7], 1)
        assert (bus.fd, bus.withdraw(0x100), bus.restart()) == (False, [], False)

    run_virtual(scenario())
