"""The wire on a loop that is late, as ordinary ones are, and the bridge to a bus that is faster than any wire."""

from __future__ import annotations

import asyncio

from ess_can.bus.clock import now, pause
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.sim.bridge import Bridge
from ess_can.sim.loop import run_virtual
from ess_can.sim.wire import Wire
from tests.support.late_loops import CoarseLoop, StoppedLoop

TIMING = BitTiming(500_000)


def test_urgent_frames_from_outside_do_not_wait_behind_a_transfer() -> None:
    async def run() -> None:
        wire, order = Wire(TIMING), []
        wire.controller("node").subscribe(None, lambda frame, _at: order.append(frame.can_id))
        far = Wire(BitTiming(500_000_000))
        bridge = Bridge(wire, far.controller("bridge"))
        sender = far.controller("EMS", depth=100)
        for _ in range(50):
            sender.send(CanFrame(0x700, bytes(8)))
        await pause(0.003)
        sender.send(CanFrame(0x080, bytes(8)))
        await pause(0.1)
        assert len(order) == 51
        assert 5 < order.index(0x080) < 20
        assert bridge.lost == 0

    run_virtual(run())


def test_a_wire_keeps_its_bit_rate_on_a_loop_that_is_late() -> None:
    """Each frame takes 0.2 ms, and the loop's timers fire at whole milliseconds."""

    async def run() -> float:
        wire = Wire(TIMING)
        sender = wire.controller("sender", depth=200)
        wire.controller("receiver")
        frame = CanFrame(0x2AA, b"\x55" * 8)
        began_at, done = now(), asyncio.get_running_loop().create_future()
        for number in range(200):
            sender.send(frame, done.set_result if number == 199 else None)
        await done
        return (now() - began_at) / (200 * frame_duration_s(frame, TIMING))

    with asyncio.Runner(loop_factory=CoarseLoop) as runner:
        assert runner.run(run()) < 1.05


def test_time_that_a_loop_lost_altogether_is_not_made_up_for() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StoppedLoop)
        wire = Wire(TIMING)
        sender = wire.controller("sender", depth=9000)
        wire.controller("receiver")
        for _ in range(9000):
            sender.send(CanFrame(0x2AA, b"\x55" * 8))
        await pause(0.001)
        loop.stand_still(1.0)
        await pause(0.001)
        assert 100 < wire.transmissions < 600  # a tenth of a second's worth, not a whole one's

    with asyncio.Runner(loop_factory=StoppedLoop) as runner:
        runner.run(run())
