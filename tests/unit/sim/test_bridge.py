"""The bridge between the simulated wire and a bus outside."""

from __future__ import annotations

from ess_can.bus.clock import Cycle, pause
from ess_can.bus.port import Sent
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.errors import AdapterLost, ErrorPassive, TransmitQueueFull, TransmitStalled
from ess_can.sim.bridge import Bridge
from ess_can.sim.loop import run_virtual
from ess_can.sim.wire import Wire
from tests.support.memory_bus import MemoryBus

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


class NarrowBus(MemoryBus):
    """A bus that holds `room` frames, confirms one every `period_s`, and then has sent it."""

    def __init__(self, room: int, period_s: float) -> None:
        super().__init__()
        self.room = room
        self.held: list[tuple[CanFrame, Sent | None]] = []
        self.cycle = Cycle(period_s, self._send_one)

    def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        if self.failure is not None:
            raise self.failure
        if len(self.held) >= self.room:
            raise TransmitQueueFull("no room")
        self.held.append((frame, on_sent))

    def _send_one(self, at: float) -> None:
        if self.held:
            frame, on_sent = self.held.pop(0)
            self.sent.append(frame)
            if on_sent is not None:
                on_sent(at)


def frame(can_id: int, number: int) -> CanFrame:
    return CanFrame(can_id, bytes([number]))


def test_a_bus_outside_without_room_for_a_while_costs_nothing() -> None:
    async def run() -> None:
        inside = Wire(TIMING)
        near, outside = inside.controller("near", depth=100), NarrowBus(room=0, period_s=0.001)
        outside.cycle.start()
        bridge = Bridge(inside, outside)
        frames = [frame(0x300, number) for number in range(60)]
        for each in frames:
            near.send(each)
        await pause(0.1)
        assert outside.sent == []
        outside.room = 2
        await pause(0.2)
        assert outside.sent == frames
        assert bridge.lost == 0

    run_virtual(run())


def test_urgent_frames_overtake_those_that_wait_and_each_identifier_keeps_its_order() -> None:
    async def run() -> None:
        inside = Wire(TIMING)
        node, bmu = inside.controller("node", depth=100), inside.controller("bmu")
        outside = NarrowBus(room=16, period_s=0.002)
        outside.cycle.start()
        bridge = Bridge(inside, outside)
        for number in range(30):
            node.send(frame(0x515, number))
        await pause(0.02)
        bmu.send(frame(0x0B1, 0))
        await pause(0.001)
        waited = len(outside.sent)
        await pause(0.2)
        assert outside.sent.index(frame(0x0B1, 0)) <= waited + 4
        assert [each for each in outside.sent if each.can_id == 0x515] == [frame(0x515, n) for n in range(30)]
        assert bridge.lost == 0

    run_virtual(run())


def test_what_has_waited_too_long_is_dropped_rather_than_told_late() -> None:
    async def run() -> None:
        inside = Wire(TIMING)
        near, outside = inside.controller("near"), NarrowBus(room=0, period_s=0.001)
        outside.cycle.start()
        bridge = Bridge(inside, outside)
        near.send(FRAME)
        await pause(0.5)
        near.send(ANSWER)
        outside.room = 2
        await pause(0.1)
        assert (outside.sent, bridge.lost) == ([ANSWER], 1)

    run_virtual(run())


def test_what_waits_is_bounded() -> None:
    async def run() -> None:
        inside = Wire(TIMING)
        near, outside = inside.controller("near", depth=400), NarrowBus(room=0, period_s=0.001)
        bridge = Bridge(inside, outside)
        for number in range(300):
            near.send(frame(0x300, number % 256))
        await pause(0.15)
        assert bridge.lost == 300 - 256

    run_virtual(run())


def test_after_a_failure_the_bus_outside_is_used_again_and_what_it_held_is_lost() -> None:
    async def run() -> None:
        inside = Wire(TIMING)
        near, outside = inside.controller("near"), NarrowBus(room=16, period_s=0.001)
        bridge = Bridge(inside, outside)
        for _ in range(6):
            near.send(FRAME)
        await pause(0.01)
        assert len(outside.held) == 4
        outside.warn(ErrorPassive("a warning changes nothing"))
        assert bridge.lost == 0
        late = outside.held[0][1]
        outside.held.clear()
        outside.warn(TransmitStalled("nobody acknowledges"))
        assert bridge.lost == 4
        outside.cycle.start()
        near.send(ANSWER)
        await pause(0.05)
        assert outside.sent == [FRAME, FRAME, ANSWER]
        assert late is not None
        late(0.0)  # a confirmation from before the failure
        near.send(ANSWER)
        await pause(0.05)
        assert outside.sent[3:] == [ANSWER]
        assert bridge.lost == 4

    run_virtual(run())


def test_a_bus_that_fails_while_it_takes_a_frame_costs_that_frame_once() -> None:
    class FailingBus(MemoryBus):
        def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
            error = AdapterLost("pulled")
            self.warn(error)
            raise error

    async def run() -> None:
        inside = Wire(TIMING)
        near = inside.controller("near")
        bridge = Bridge(inside, FailingBus())
        near.send(FRAME)
        near.send(FRAME)
        await pause(0.01)
        assert bridge.lost == 2

    run_virtual(run())


def test_a_closed_bridge_carries_nothing() -> None:
    async def run() -> None:
        inside, outside = Wire(TIMING), MemoryBus()
        near = inside.controller("near")
        inside.controller("another node, which acknowledges")
        Bridge(inside, outside).close()
        near.send(FRAME)
        await pause(0.01)
        assert not outside.sent
        assert outside.listeners == 0

    run_virtual(run())
