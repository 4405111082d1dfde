"""The bridge between the simulated wire and a bus outside."""

from __future__ import annotations

from ess_can.bus.clock import pause
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.sim.bridge import Bridge
from ess_can.sim.loop import run_virtual
from ess_can.sim.wire import Wire

TIMING = BitTiming(500_000)
FRAME = CanFrame(0x123, b"abc")
ANSWER = CanFrame(0x321, b"xyz")


def test_frames_pass_both_ways_once() -> None:
    async def run() -> None:
        inside, outside = Wire(TIMING), Wire(TIMING)
        near, far = inside.controller("near"), outside.controller("far")
        heard_near: list[CanFrame] = []
        heard_far: list[CanFrame] = []
        near.subscribe(None, lambda frame, _: heard_near.append(frame))
        far.subscribe(None, lambda frame, _: heard_far.append(frame))
        bridge = Bridge(inside, outside.controller("bridge"))
        near.send(FRAME)
        await pause(0.01)
        far.send(ANSWER)
        await pause(0.01)
        assert (heard_far, heard_near) == ([FRAME], [ANSWER])
        assert bridge.lost == 0

    run_virtual(run())


def test_a_bus_outside_that_is_gone_costs_frames_and_nothing_else() -> None:
    async def run() -> None:
        inside, outside = Wire(TIMING), Wire(TIMING)
        near, edge = inside.controller("near"), outside.controller("bridge")
        bridge = Bridge(inside, edge)
        edge.unplug()
        for _ in range(3):
            near.send(FRAME)
        await pause(0.01)
        assert bridge.lost == 3
        assert near.pending == 0

    run_virtual(run())


def test_a_full_queue_outside_is_counted() -> None:
    async def run() -> None:
        inside, outside = Wire(TIMING), Wire(TIMING)
        near = inside.controller("near", depth=10)
        bridge = Bridge(inside, outside.controller("bridge", depth=2))  # nobody acknowledges there
        for _ in range(5):
            near.send(FRAME)
        await pause(0.01)
        assert bridge.lost == 3

    run_virtual(run())


def test_a_closed_bridge_carries_nothing() -> None:
    async def run() -> None:
        inside, outside = Wire(TIMING), Wire(TIMING)
        near, far = inside.controller("near"), outside.controller("far")
        inside.controller("another node, which acknowledges")
        heard: list[CanFrame] = []
        far.subscribe(None, lambda frame, _: heard.append(frame))
        edge = outside.controller("bridge")
        Bridge(inside, edge).close()
        near.send(FRAME)
        await pause(0.01)
        assert not heard

    run_virtual(run())
