from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import pairwise

import pytest

from ess_can.bus.clock import pause
from ess_can.bus.isotp_channel import MAX_WAITING, IsoTpChannel
from ess_can.bus.port import Receive, Sent
from ess_can.can.frame import CanFrame
from ess_can.errors import (
    AdapterLost,
    BusError,
    BusOff,
    ErrorPassive,
    IsoTpError,
    NTimeoutA,
    NTimeoutBs,
    NTimeoutCr,
    TransmitQueueFull,
    UsageError,
)
from ess_can.isotp import IsoTpAddress, IsoTpParams
from ess_can.sim.loop import run_virtual
from tests.unit.isotp.line import payload_of

TESTER = IsoTpAddress(0x6B5, 0x5AD)
NODE = IsoTpAddress(0x5AD, 0x6B5)
FRAME_S = 0.00025


class FakeBus:
    """One node's bus: frames leave in order, each taking `FRAME_S`, to every other `FakeBus` of the same `peers`.

    `room` bounds the queue, `broken` is raised by every send, `stuck` never sends; `instant` confirms within `send`.
    """

    def __init__(self, peers: list[FakeBus]) -> None:
        self.peers = peers
        peers.append(self)
        self.room = 100
        self.broken: BusError | None = None
        self.stuck = False
        self.instant = False
        self.queue: list[tuple[CanFrame, Sent | None]] = []
        self.sent: list[tuple[float, CanFrame]] = []
        self.bulk: list[bool] = []
        self.most_queued = 0
        self.refusals = 0
        self.receivers: list[tuple[set[int] | None, Receive]] = []
        self.watchers: list[Callable[[BusError], None]] = []

    @property
    def fd(self) -> bool:
        return False

    def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        if self.broken is not None:
            raise self.broken
        if len(self.queue) >= self.room:
            self.refusals += 1
            raise TransmitQueueFull("no room")
        self.bulk.append(bulk)
        self.queue.append((frame, on_sent))
        self.most_queued = max(self.most_queued, len(self.queue))
        if self.instant:
            self._leave()
        elif len(self.queue) == 1 and not self.stuck:
            asyncio.get_running_loop().call_later(FRAME_S, self._leave)

    def _leave(self) -> None:
        if not self.queue or self.stuck:
            return
        loop = asyncio.get_running_loop()
        frame, on_sent = self.queue.pop(0)
        self.sent.append((loop.time(), frame))
        if self.queue:
            loop.call_later(FRAME_S, self._leave)
        if on_sent is not None:
            on_sent(loop.time())
        for peer in self.peers:
            if peer is not self:
                peer.deliver(frame)

    def deliver(self, frame: CanFrame) -> None:
        for can_ids, receive in tuple(self.receivers):
            if can_ids is None or frame.can_id in can_ids:
                receive(frame, asyncio.get_running_loop().time())

    def fail(self, error: BusError) -> None:
        self.queue.clear()
        for watcher in tuple(self.watchers):
            watcher(error)

    def subscribe(self, can_ids: Iterable[int] | None, receive: Receive) -> Callable[[], None]:
        entry = (None if can_ids is None else set(can_ids), receive)
        self.receivers.append(entry)
        return lambda: self.receivers.remove(entry)

    def withdraw(self, can_id: int) -> list[CanFrame]:
        return []

    def adopt(self, can_id: int) -> None:
        pass

    def watch(self, on_error: Callable[[BusError], None]) -> Callable[[], None]:
        self.watchers.append(on_error)
        return lambda: self.watchers.remove(on_error)

    def restart(self) -> bool:
        return False


class Side:
    """A channel with what it heard."""

    def __init__(self, bus: FakeBus, address: IsoTpAddress, params: IsoTpParams) -> None:
        self.bus = bus
        self.messages: list[bytes] = []
        self.times: list[float] = []
        self.errors: list[IsoTpError] = []
        self.answer: Callable[[bytes], None] = lambda payload: None
        self.channel = IsoTpChannel(
            bus, address, params, on_message=self._message, on_error=self.errors.append, max_in_flight=2
        )

    def _message(self, payload: bytes, now: float) -> None:
        self.messages.append(payload)
        self.times.append(now)
        self.answer(payload)


class World:
    def __init__(self, tester: IsoTpParams | None = None, node: IsoTpParams | None = None) -> None:
        peers: list[FakeBus] = []
        self.tester = Side(FakeBus(peers), TESTER, tester if tester is not None else IsoTpParams())
        self.node = Side(FakeBus(peers), NODE, node if node is not None else IsoTpParams())


class TimerCount:
    """Counts the timers that channels set on the running loop from now on."""

    def __init__(self) -> None:
        self.of_channels = 0
        loop = asyncio.get_running_loop()
        set_timer = loop.call_at

        def call_at(when: float, callback: Callable[..., object], *args: object, **_: object) -> asyncio.TimerHandle:
            self.of_channels += isinstance(getattr(callback, "__self__", None), IsoTpChannel)
            return set_timer(when, callback, *args)

        loop.call_at = call_at  # type: ignore[method-assign]


def virtual(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run the test in virtual time."""

    async def main() -> None:
        await test()

    def run() -> None:
        run_virtual(main())

    run.__name__ = test.__name__
    return run


def time() -> float:
    return asyncio.get_running_loop().time()


@virtual
async def test_messages_arrive_and_send_returns_with_the_last_confirmation() -> None:
    world = World()
    await world.tester.channel.send(b"\x22\xf1\x89")
    assert time() == FRAME_S
    await world.tester.channel.send(payload_of(4095))
    assert world.node.messages == [b"\x22\xf1\x89", payload_of(4095)]
    assert world.node.times[-1] == time() == pytest.approx(FRAME_S * (1 + 1 + 1 + 585))
    assert world.tester.bus.most_queued == 2


@virtual
async def test_all_frames_but_flow_controls_are_bulk() -> None:
    world = World()
    await world.tester.channel.send(b"\x22\xf1\x89")
    await world.tester.channel.send(payload_of(20))
    assert world.tester.bus.bulk == [True] * 4
    assert world.node.bus.bulk == [False]


def test_the_ordinary_loop_will_do() -> None:
    async def main() -> None:
        world = World()
        await world.tester.channel.send(payload_of(40))
        assert world.node.messages == [payload_of(40)]
        world.tester.channel.close()
        world.node.channel.close()

    asyncio.run(main())


@virtual
async def test_a_bus_that_confirms_within_send() -> None:
    world = World()
    world.tester.bus.instant = world.node.bus.instant = True
    world.tester.channel.send_nowait(b"\x01")
    await world.tester.channel.send(payload_of(4095))
    assert world.node.messages == [b"\x01", payload_of(4095)]


@virtual
async def test_messages_wait_for_each_other() -> None:
    world = World()
    await asyncio.gather(*(world.tester.channel.send(payload_of(30, seed)) for seed in range(5)))
    assert world.node.messages == [payload_of(30, seed) for seed in range(5)]


@virtual
async def test_a_server_answers_from_the_callback() -> None:
    world = World()

    def answer(request: bytes) -> None:
        world.node.channel.send_nowait(b"\x7f\x36\x78")
        world.node.channel.send_nowait(b"\x76" + request[1:50])

    world.node.answer = answer
    await world.tester.channel.send(payload_of(100))
    await pause(0.1)
    assert world.tester.messages == [b"\x7f\x36\x78", b"\x76" + payload_of(100)[1:50]]


@virtual
async def test_st_min_paces_us() -> None:
    world = World(node=IsoTpParams(st_min=0xF9))
    await world.tester.channel.send(payload_of(6 + 7 * 10))
    ends = [at for at, frame in world.tester.bus.sent if frame.data[0] >> 4 == 2]
    gaps = [after - before for before, after in pairwise(ends)]
    assert gaps == pytest.approx([0.0009 + FRAME_S] * 9)


@virtual
async def test_n_timeout_bs_is_raised() -> None:
    world = World()
    world.node.channel.close()
    with pytest.raises(NTimeoutBs):
        await world.tester.channel.send(payload_of(100))
    assert time() == pytest.approx(FRAME_S + 1.0)
    assert world.tester.errors == []


@virtual
async def test_n_timeout_bs_goes_to_on_error_when_nobody_waits() -> None:
    world = World()
    world.node.channel.close()
    world.tester.channel.send_nowait(payload_of(100))
    await pause(2.0)
    assert [type(error) for error in world.tester.errors] == [NTimeoutBs]


@virtual
async def test_n_timeout_cr_goes_to_on_error() -> None:
    world = World()
    sending = asyncio.ensure_future(world.tester.channel.send(payload_of(1000)))
    await pause(0.01)
    sending.cancel()
    await pause(2.0)
    assert [type(error) for error in world.node.errors] == [NTimeoutCr]
    assert world.node.messages == []


@virtual
async def test_n_timeout_a_when_nothing_is_confirmed() -> None:
    world = World()
    world.tester.bus.stuck = True
    with pytest.raises(NTimeoutA):
        await world.tester.channel.send(b"\x01")
    assert time() == 1.0


@virtual
async def test_a_full_queue_is_back_pressure() -> None:
    world = World()
    bus = world.tester.bus
    bus.room = 1
    await world.tester.channel.send(payload_of(500))
    assert world.node.messages == [payload_of(500)]
    assert bus.refusals > 10


@virtual
async def test_a_refused_frame_goes_out_shortly_after_there_is_room() -> None:
    world = World()
    world.tester.bus.room = 0
    sending = asyncio.ensure_future(world.tester.channel.send(b"\x01"))
    await pause(0.1)
    world.tester.bus.room = 2
    await sending
    assert time() <= 0.1 + 0.001 + FRAME_S


@virtual
async def test_a_queue_full_for_ever_is_n_timeout_a() -> None:
    world = World()
    world.tester.bus.room = 0
    with pytest.raises(NTimeoutA):
        await world.tester.channel.send(b"\x01")
    assert time() == pytest.approx(1.0)
    world.tester.bus.room = 1
    await world.tester.channel.send(b"\x02")
    assert world.node.messages == [b"\x02"]


@virtual
async def test_cancelling_stops_the_frames_at_once() -> None:
    world = World()
    sending = asyncio.ensure_future(world.tester.channel.send(payload_of(4000)))
    await pause(0.05)
    handed_over = len(world.tester.bus.sent) + len(world.tester.bus.queue)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await pause(0.5)
    assert len(world.tester.bus.sent) == handed_over
    await world.tester.channel.send(payload_of(50))
    assert world.node.messages == [payload_of(50)]


@virtual
async def test_no_frame_leaves_between_the_cancellation_and_its_task() -> None:
    world = World()
    bus = world.tester.bus
    sending = asyncio.ensure_future(world.tester.channel.send(payload_of(4000)))
    await pause(0.05)
    handed_over = len(bus.sent) + len(bus.queue)
    sending.cancel()
    bus._leave()  # a confirmation before the task has run
    assert len(bus.sent) + len(bus.queue) == handed_over
    with pytest.raises(asyncio.CancelledError):
        await sending


@virtual
async def test_a_message_cancelled_in_the_moment_it_completes() -> None:
    world = World()
    sending = asyncio.ensure_future(world.tester.channel.send(b"\x01"))
    await pause(0.0)
    sending.cancel()
    world.tester.bus._leave()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert world.node.messages == [b"\x01"]


@virtual
async def test_a_waiting_message_can_be_cancelled() -> None:
    world = World()
    first = asyncio.ensure_future(world.tester.channel.send(payload_of(100)))
    second = asyncio.ensure_future(world.tester.channel.send(b"\x02"))
    third = asyncio.ensure_future(world.tester.channel.send(b"\x03"))
    await pause(0.001)
    second.cancel()
    await asyncio.gather(first, third)
    assert world.node.messages == [payload_of(100), b"\x03"]


@virtual
async def test_a_message_cancelled_in_the_moment_it_becomes_next() -> None:
    world = World()
    first = asyncio.ensure_future(world.tester.channel.send(b"\x01"))
    second = asyncio.ensure_future(world.tester.channel.send(b"\x02"))
    await pause(0.0)
    second.cancel()
    world.tester.bus._leave()
    await first
    await pause(0.1)
    assert world.node.messages == [b"\x01"]


@virtual
async def test_a_message_cancelled_in_the_moment_it_fails() -> None:
    world = World()
    sending = asyncio.ensure_future(world.tester.channel.send(payload_of(100)))
    await pause(0.0)
    world.tester.bus.fail(BusOff("bus-off"))
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await world.tester.channel.send(b"\x02")
    assert world.node.messages == [b"\x02"]


@virtual
async def test_the_next_message_waits_for_the_flow_control_owed_to_a_cancelled_one() -> None:
    world = World()
    sending = asyncio.ensure_future(world.tester.channel.send(payload_of(100)))
    await pause(0.0)
    sending.cancel()
    await world.tester.channel.send(payload_of(50))
    assert world.node.messages == [payload_of(50)]
    assert time() < 0.1
    assert world.tester.channel.counters.flow_control_late == 1
    kinds = [frame.data[0] >> 4 for _, frame in world.tester.bus.sent]
    assert kinds == [1, 1, *[2] * 7]


@virtual
async def test_a_lost_adapter_fails_everything_that_waits() -> None:
    world = World()
    sending = [asyncio.ensure_future(world.tester.channel.send(payload_of(100))) for _ in range(2)]
    await pause(0.0)
    world.tester.channel.send_nowait(b"\x03")
    world.tester.bus.fail(AdapterLost("unplugged"))
    results = await asyncio.gather(*sending, return_exceptions=True)
    assert [type(result) for result in results] == [AdapterLost, AdapterLost]
    assert [type(error) for error in world.tester.errors] == [NTimeoutA]
    assert world.tester.errors[0].why == "unplugged"


@virtual
async def test_a_warning_of_the_bus_changes_nothing() -> None:
    world = World()
    sending = asyncio.ensure_future(world.tester.channel.send(payload_of(40)))
    await pause(FRAME_S * 1.5)
    for watcher in world.tester.bus.watchers:
        watcher(ErrorPassive("passive"))
    await sending
    assert world.node.messages == [payload_of(40)]


@virtual
async def test_a_bus_that_refuses_to_send_fails_the_message_at_once() -> None:
    world = World()
    world.tester.bus.broken = BusOff("bus-off")
    with pytest.raises(BusOff):
        await world.tester.channel.send(b"\x01")
    assert time() == 0.0
    world.tester.bus.broken = None
    await world.tester.channel.send(b"\x02")
    assert world.node.messages == [b"\x02"]


@virtual
async def test_a_message_given_as_answer_to_a_failure_is_tried_later() -> None:
    world = World()
    side = world.tester
    side.bus.broken = BusOff("bus-off")
    errors: list[IsoTpError] = []

    def again(error: IsoTpError) -> None:
        errors.append(error)
        if len(errors) == 3:
            side.bus.broken = None
        channel.send_nowait(b"\x02")

    side.channel.close()
    channel = IsoTpChannel(side.bus, TESTER, IsoTpParams(), on_message=lambda *_: None, on_error=again)
    channel.send_nowait(b"\x01")
    await pause(0.1)
    assert len(errors) == 3
    assert world.node.messages == [b"\x02"]


@virtual
async def test_a_failing_bus_ends_the_reception_that_waits_for_our_flow_control() -> None:
    world = World()
    world.node.bus.stuck = True
    sending = asyncio.ensure_future(world.tester.channel.send(payload_of(100)))
    await pause(0.01)
    world.node.bus.fail(BusOff("bus-off"))
    assert [type(error) for error in world.node.errors] == [NTimeoutA]
    with pytest.raises(NTimeoutBs):
        await sending


@virtual
async def test_hold_and_release() -> None:
    world = World()
    world.node.channel.hold()
    sending = asyncio.ensure_future(world.tester.channel.send(payload_of(100)))
    await pause(2.2)
    assert world.node.messages == []
    assert [frame.data[0] for _, frame in world.node.bus.sent] == [0x31] * 5
    world.node.channel.release()
    await sending
    assert world.node.messages == [payload_of(100)]


@virtual
async def test_an_exception_in_on_message_does_not_stop_the_channel() -> None:
    world = World()

    def answer_and_fail(payload: bytes) -> None:
        world.node.channel.send_nowait(b"\x55" + payload)
        raise ZeroDivisionError

    world.node.answer = answer_and_fail
    with pytest.raises(ZeroDivisionError):
        world.node.bus.deliver(CanFrame(NODE.rx_id, b"\x01\x11"))
    await pause(0.01)
    assert world.tester.messages == [b"\x55\x11"]


@virtual
async def test_timers_are_not_set_per_frame() -> None:
    world = World()
    timers = TimerCount()
    await world.tester.channel.send(payload_of(4095))
    assert len(world.tester.bus.sent) + len(world.node.bus.sent) == 587
    assert 0 < timers.of_channels < 12


@virtual
async def test_too_many_waiting_messages_are_refused() -> None:
    world = World()
    for _ in range(1 + MAX_WAITING):
        world.tester.channel.send_nowait(b"\x01")
    with pytest.raises(TransmitQueueFull):
        world.tester.channel.send_nowait(b"\x01")
    await pause(0.1)
    assert len(world.node.messages) == 1 + MAX_WAITING


@virtual
async def test_impossible_messages_are_refused_at_once() -> None:
    world = World()
    with pytest.raises(UsageError):
        world.tester.channel.send_nowait(b"")


@virtual
async def test_close() -> None:
    world = World()
    sending = asyncio.ensure_future(world.tester.channel.send(payload_of(1000)))
    await pause(0.01)
    world.tester.channel.close()
    world.tester.channel.close()
    with pytest.raises(IsoTpError):
        await sending
    frames = len(world.tester.bus.sent) + len(world.tester.bus.queue)
    with pytest.raises(UsageError):
        await world.tester.channel.send(b"\x01")
    await pause(3.0)
    assert len(world.tester.bus.sent) == frames
    assert world.tester.bus.receivers == []
    assert world.tester.bus.watchers == []


@virtual
async def test_closing_from_the_callback() -> None:
    world = World()
    world.node.answer = lambda payload: world.node.channel.close()
    await world.tester.channel.send(b"\x01")
    await pause(0.1)
    assert world.node.messages == [b"\x01"]
    assert world.node.channel.address == NODE


@virtual
async def test_nothing_is_delivered_after_closing() -> None:
    bus = FakeBus([])
    messages: list[bytes] = []
    channel = IsoTpChannel(
        bus,
        NODE,
        IsoTpParams(),
        on_message=lambda payload, _: messages.append(payload),
        on_error=lambda _: channel.close(),
    )
    bus.deliver(CanFrame(NODE.rx_id, b"\x10\x20" + bytes(6)))
    bus.deliver(CanFrame(NODE.rx_id, b"\x01\x11"))  # ends the message begun, which closes the channel
    assert messages == []
