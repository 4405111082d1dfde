from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from ess_can.bus.port import Bus
from ess_can.can.frame import EXTENDED_FLAG, CanFrame, arbitration_field
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.errors import AdapterLost, BusError, BusOff, ErrorPassive, TransmitQueueFull, UsageError
from ess_can.sim.controller import Controller, ControllerState, QueueOrder
from ess_can.sim.loop import run_virtual
from ess_can.sim.wire import Delayed, FaultHook, Wire, WireFault

TIMING = BitTiming(500_000)
BIT = 1 / 500_000
FD_TIMING = BitTiming(500_000, 2_000_000)
A_FRAME = CanFrame(0x100, b"\x01\x02\x03")
DURATION = frame_duration_s(A_FRAME, TIMING)


@dataclass
class Station:
    """A wire, three controllers on it, and all that controller c receives."""

    wire: Wire = field(default_factory=lambda: Wire(TIMING))
    received: list[tuple[CanFrame, float]] = field(default_factory=list)
    on_wire: list[tuple[CanFrame, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.a, self.b, self.c = (self.wire.controller(name) for name in "abc")
        self.c.subscribe(None, lambda frame, now: self.received.append((frame, now)))
        self.wire.on_frame.append(lambda frame, _, sender: self.on_wire.append((frame, sender)))

    @property
    def frames(self) -> list[CanFrame]:
        return [frame for frame, _ in self.received]


async def run_until(when: float) -> None:
    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    loop.call_at(when, woken.set_result, None)
    await woken


def scenario(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        run_virtual(test())

    run.__name__ = test.__name__
    return run


def number(n: int, can_id: int = 0x100) -> CanFrame:
    return CanFrame(can_id, bytes([n]))


# --- time and order ---------------------------------------------------------------------------------------------


@scenario
async def test_a_frame_arrives_and_is_confirmed_at_the_end_of_its_eof() -> None:
    station = Station()
    confirmed: list[float] = []
    await run_until(0.25)
    station.a.send(A_FRAME, confirmed.append)
    await run_until(1)
    expected = 0.25 + DURATION - 3 * BIT
    assert station.received == [(A_FRAME, expected)]
    assert confirmed == [expected]
    assert station.on_wire == [(A_FRAME, "a")]


@scenario
async def test_the_sender_does_not_receive_its_own_frame() -> None:
    station = Station()
    station.a.subscribe(None, lambda *_: pytest.fail("own frame"))
    station.a.send(A_FRAME)
    await run_until(1)


@scenario
async def test_a_stream_fed_by_confirmations_fills_the_wire_without_gaps() -> None:
    station = Station()
    left = 50

    def more(_: float) -> None:
        nonlocal left
        left -= 1
        if left:
            station.a.send(A_FRAME, more)

    station.a.send(A_FRAME, more)
    await run_until(1)
    assert len(station.received) == 50
    assert station.received[-1][1] == pytest.approx(50 * DURATION - 3 * BIT, abs=1e-12)
    assert station.wire.busy_s() == pytest.approx(50 * DURATION, abs=1e-12)


@scenario
async def test_an_answer_given_at_reception_takes_part_in_the_next_arbitration() -> None:
    station = Station()
    station.b.subscribe([0x200], lambda *_: station.b.send(number(9, 0x050)))
    station.a.send(number(1, 0x200))
    station.a.send(number(2, 0x200))
    await run_until(1)
    assert [frame.can_id for frame in station.frames] == [0x200, 0x050, 0x200, 0x050]


@scenario
async def test_the_lowest_identifier_wins_among_those_sent_in_one_instant() -> None:
    station = Station()
    station.a.send(number(1, 0x300))
    station.b.send(number(2, 0x200))
    await run_until(1)
    assert [frame.can_id for frame in station.frames] == [0x200, 0x300]


@scenario
async def test_a_frame_on_the_wire_is_not_interrupted() -> None:
    station = Station()
    station.a.send(number(1, 0x300))
    await run_until(DURATION / 2)
    station.b.send(number(2, 0x001))
    await run_until(1)
    assert [frame.can_id for frame in station.frames] == [0x300, 0x001]


def test_arbitration_is_decided_bit_by_bit_as_on_the_wire() -> None:
    base = 0x123
    extended = EXTENDED_FLAG | base << 18
    in_order_of_winning = [
        CanFrame(base - 1, b"", remote=True),
        CanFrame(base, b""),
        CanFrame(base, b"", remote=True),
        CanFrame(extended, b""),
        CanFrame(extended, b"", remote=True),
        CanFrame(extended | 1, b""),
        CanFrame(base + 1, b""),
    ]
    fields = [arbitration_field(frame) for frame in in_order_of_winning]
    assert fields == sorted(fields)
    assert len(set(fields)) == len(fields)
    assert max(fields) < 1 << 32


@scenario
async def test_a_fifo_queue_blocks_an_urgent_frame_behind_an_older_one() -> None:
    station = Station()
    for frame in (number(1, 0x700), number(2, 0x100)):
        station.a.send(frame)
    station.b.send(number(3, 0x400))
    await run_until(1)
    assert [frame.can_id for frame in station.frames] == [0x400, 0x700, 0x100]


@scenario
async def test_priority_mailboxes_offer_the_most_urgent_frame_and_keep_order_within_an_identifier() -> None:
    station = Station()
    mcu = station.wire.controller("mcu", order=QueueOrder.PRIORITY)
    for frame in (number(1, 0x700), number(2, 0x100), number(3, 0x700), number(4, 0x100)):
        mcu.send(frame)
    await run_until(1)
    assert [(frame.can_id, frame.data[0]) for frame in station.frames] == [
        (0x100, 2),
        (0x100, 4),
        (0x700, 1),
        (0x700, 3),
    ]


@scenario
async def test_a_saturating_stream_delays_a_safety_frame_by_no_more_than_the_frame_on_the_wire() -> None:
    station = Station()
    source = random.Random(3)

    def stream(_: float = 0.0) -> None:
        station.a.send(CanFrame(0x7E0, source.randbytes(8)), stream)

    stream()
    stream()
    loop = asyncio.get_running_loop()
    sent_at: list[float] = []

    def safety() -> None:
        sent_at.append(loop.time())
        station.b.send(number(len(sent_at) % 256, 0x010))

    for n in range(100):
        loop.call_at(0.0013 * n + source.random() * 0.001, safety)
    await run_until(0.2)
    arrived = [now for frame, now in station.received if frame.can_id == 0x010]
    assert len(arrived) == 100
    delays = [end - start for start, end in zip(sent_at, arrived, strict=True)]
    assert max(delays) <= (135 + 80) * BIT
    assert max(delays) > 135 * BIT  # the stream was really in the way


# --- the port ---------------------------------------------------------------------------------------------------


@scenario
async def test_a_controller_is_a_bus() -> None:
    bus: Bus = Station().a
    assert not bus.fd


@scenario
async def test_a_full_queue_refuses_the_frame_and_takes_one_again_after_a_confirmation() -> None:
    station = Station()
    small = station.wire.controller("small", depth=2)
    small.send(number(1))
    small.send(number(2))
    with pytest.raises(TransmitQueueFull):
        small.send(number(3))
    await run_until(frame_duration_s(number(1), TIMING) * 0.5)
    with pytest.raises(TransmitQueueFull):  # the one on the wire still counts
        small.send(number(3))
    await run_until(frame_duration_s(number(1), TIMING))
    assert small.pending == 1
    small.send(number(3))
    await run_until(1)
    assert [frame.data[0] for frame in station.frames] == [1, 2, 3]


@scenario
async def test_subscriptions_select_by_identifier_until_they_are_cancelled() -> None:
    station = Station()
    seen: list[int] = []
    cancel = station.b.subscribe([0x100, 0x101], lambda frame, _: seen.append(frame.data[0]))
    station.a.send(number(1, 0x100))
    station.a.send(number(2, 0x102))
    station.a.send(number(3, EXTENDED_FLAG | 0x100))
    await run_until(0.1)
    cancel()
    cancel()
    station.a.send(number(4, 0x100))
    await run_until(0.2)
    assert seen == [1]
    assert len(station.received) == 4


@scenario
async def test_a_subscription_cancelled_while_a_frame_is_delivered_does_not_get_it() -> None:
    station = Station()
    cancels: list[Callable[[], None]] = []
    station.a.subscribe([0x100], lambda *_: cancels[0]())
    cancels.append(station.b.subscribe([0x100], lambda *_: pytest.fail("cancelled")))
    station.c.send(A_FRAME)
    await run_until(1)


@scenario
async def test_delivery_follows_the_order_of_connection_and_subscription() -> None:
    station = Station()
    seen: list[str] = []
    station.b.subscribe([0x100], lambda *_: seen.append("b1"))
    station.a.subscribe(None, lambda *_: seen.append("a1"))
    station.b.subscribe([0x100], lambda *_: seen.append("b2"))
    station.a.subscribe([0x100], lambda *_: seen.append("a2"))
    station.c.send(A_FRAME)
    await run_until(1)
    assert seen == ["a1", "a2", "b1", "b2"]


@scenario
async def test_an_fd_frame_is_refused_on_a_classic_wire() -> None:
    station = Station()
    with pytest.raises(UsageError, match="classic"):
        station.a.send(CanFrame(1, bytes(12), fd=True))
    assert station.a.pending == 0


@scenario
async def test_an_fd_wire_carries_fd_frames_in_their_time() -> None:
    station = Station(Wire(FD_TIMING))
    assert station.a.fd
    frame = CanFrame(1, bytes(64), fd=True, brs=True)
    station.a.send(frame)
    await run_until(1)
    assert station.frames == [frame]
    assert station.wire.busy_s() == frame_duration_s(frame, FD_TIMING)


@scenario
async def test_a_frame_that_cannot_exist_is_refused_at_once() -> None:
    station = Station()
    with pytest.raises(ValueError, match="no such frame"):
        station.a.send(CanFrame(1, bytes(9)))
    station.a.send(A_FRAME)
    await run_until(1)
    assert station.frames == [A_FRAME]


@scenario
async def test_busy_time_is_kept_per_identifier() -> None:
    station = Station()
    for can_id in (0x10, 0x20, 0x20):
        station.a.send(number(0, can_id))
    await run_until(1)
    each = {can_id: frame_duration_s(number(0, can_id), TIMING) for can_id in (0x10, 0x20)}
    assert station.wire.busy_s([0x10]) == each[0x10]
    assert station.wire.busy_s([0x20, 0x20, 0x30]) == 2 * each[0x20]
    assert station.wire.busy_s() == pytest.approx(each[0x10] + 2 * each[0x20])


@scenario
async def test_many_identifiers_do_not_fill_memory_with_routes() -> None:
    station = Station()
    for can_id in range(5000):
        station.a.send(CanFrame(EXTENDED_FLAG | can_id, b""))
        await run_until(asyncio.get_running_loop().time() + 0.0003)
    assert len(station.received) == 5000
    assert len(station.wire._routes) <= 4096


# --- faults -----------------------------------------------------------------------------------------------------


def at(index: int, fault: WireFault | CanFrame) -> FaultHook:
    return lambda n, _: fault if n == index else None


@scenario
async def test_a_lost_frame_is_confirmed_and_reaches_nobody() -> None:
    station = Station()
    station.wire.fault = at(1, WireFault.LOSE)
    confirmed: list[float] = []
    for n in range(3):
        station.a.send(number(n), confirmed.append)
    await run_until(1)
    assert [frame.data[0] for frame in station.frames] == [0, 2]
    assert len(confirmed) == 3
    assert station.wire.error_frames == 0


@scenario
async def test_a_corrupted_frame_is_retransmitted_and_costs_an_error_frame() -> None:
    station = Station()
    station.wire.fault = at(0, WireFault.CORRUPT)
    confirmed: list[float] = []
    station.a.send(A_FRAME, confirmed.append)
    await run_until(1)
    assert station.frames == [A_FRAME]
    assert station.received[0][1] == pytest.approx(2 * DURATION + 8 * BIT - 3 * BIT)
    assert len(confirmed) == 1
    assert (station.wire.transmissions, station.wire.error_frames) == (2, 1)
    assert station.wire.busy_s() == pytest.approx(2 * DURATION + 8 * BIT)
    assert (station.a.tec, station.b.rec, station.c.rec) == (7, 0, 0)  # +8 -1, and +1 -1


@scenario
async def test_a_retransmission_keeps_the_order_of_its_queue_and_can_lose_arbitration() -> None:
    station = Station()
    station.wire.fault = at(0, WireFault.CORRUPT)
    station.a.send(number(1, 0x300))
    station.a.send(number(2, 0x300))
    await run_until(DURATION / 2)
    station.b.send(number(3, 0x200))
    await run_until(1)
    assert [frame.data[0] for frame in station.frames] == [3, 1, 2]


@scenario
async def test_an_error_in_the_last_bit_of_eof_duplicates_the_frame_and_confirms_it_once() -> None:
    station = Station()
    station.wire.fault = at(0, WireFault.DUPLICATE)
    confirmed: list[float] = []
    station.a.send(A_FRAME, confirmed.append)
    await run_until(1)
    assert station.frames == [A_FRAME, A_FRAME]
    ends = [DURATION - 3 * BIT, 2 * DURATION + 14 * BIT - 3 * BIT]
    assert [now for _, now in station.received] == pytest.approx(ends)
    assert len(confirmed) == 1
    assert [frame for frame, _ in station.on_wire] == [A_FRAME, A_FRAME]


@scenario
async def test_corruption_past_the_crc_is_received_by_all_and_confirmed() -> None:
    station = Station()
    wrong = CanFrame(0x100, b"\xff\xff\xff")
    station.wire.fault = at(0, wrong)
    confirmed: list[float] = []
    station.a.send(A_FRAME, confirmed.append)
    await run_until(1)
    assert station.frames == [wrong]
    assert station.on_wire == [(wrong, "a")]
    assert len(confirmed) == 1


@scenario
async def test_swapped_frames_arrive_in_the_other_order() -> None:
    station = Station()
    station.wire.fault = lambda n, _: WireFault.SWAP if n in (1, 2) else None
    for n in range(5):
        station.a.send(number(n))
    await run_until(1)
    assert [frame.data[0] for frame in station.frames] == [0, 2, 1, 3, 4]


@scenario
async def test_a_delayed_frame_is_confirmed_at_once_and_overtaken() -> None:
    station = Station()
    station.wire.fault = lambda n, _: Delayed(0.25) if n == 1 else None
    confirmed: list[float] = []
    for n in range(4):
        station.a.send(number(n), confirmed.append)
    await run_until(0.2)
    assert ([frame.data[0] for frame in station.frames], len(confirmed)) == ([0, 2, 3], 4)
    await run_until(1)
    assert [frame.data[0] for frame in station.frames] == [0, 2, 3, 1]


# --- error confinement ------------------------------------------------------------------------------------------


def always(fault: WireFault) -> FaultHook:
    return lambda *_: fault


@scenario
async def test_a_sender_whose_every_frame_fails_goes_passive_then_bus_off_and_tells_its_watchers() -> None:
    station = Station()
    errors: list[BusError] = []
    states: list[ControllerState] = []

    def corrupt(*_: object) -> WireFault:
        states.append(station.a.state)
        return WireFault.CORRUPT

    station.wire.fault = corrupt
    station.a.watch(errors.append)
    unwatched: list[BusError] = []
    cancel = station.a.watch(unwatched.append)
    cancel()
    cancel()
    station.a.send(A_FRAME, lambda _: pytest.fail("confirmed"))
    station.a.send(A_FRAME, lambda _: pytest.fail("confirmed"))
    await run_until(1)
    assert states.count(ControllerState.ERROR_ACTIVE) == 16
    assert states.count(ControllerState.ERROR_PASSIVE) == 16
    assert station.a.state is ControllerState.BUS_OFF
    assert [type(error) for error in errors] == [ErrorPassive, BusOff]
    assert errors[0].why == "TEC 128, REC 0"
    assert unwatched == []
    assert station.a.pending == 0
    assert station.b.rec == 32
    with pytest.raises(BusOff):
        station.a.send(A_FRAME)


@pytest.mark.parametrize(
    ("errors", "state", "told"),
    [
        (15, ControllerState.ERROR_ACTIVE, []),
        (16, ControllerState.ERROR_PASSIVE, [ErrorPassive]),
        (32, ControllerState.BUS_OFF, [ErrorPassive, BusOff]),
    ],
)
def test_a_line_may_be_bad_for_some_transmissions(
    errors: int, state: ControllerState, told: list[type[BusError]]
) -> None:
    async def scene() -> None:
        station = Station()
        heard: list[BusError] = []
        station.a.watch(heard.append)
        for n in range(3):
            station.a.send(number(n))
        await run_until(1e-4)  # in the middle of the first frame
        station.a.disturb(errors)
        assert station.a.state is state
        station.b.send(number(9, 0x7FF))
        await run_until(1)
        assert [type(error) for error in heard] == told
        received = [frame.data[0] for frame in station.frames]
        assert received == ([9] if state is ControllerState.BUS_OFF else [0, 1, 2, 9])

    run_virtual(scene())


@scenario
async def test_a_restart_takes_128_times_11_bits_and_clears_the_counters() -> None:
    station = Station()
    station.wire.fault = always(WireFault.CORRUPT)
    station.a.send(A_FRAME)
    await run_until(0.5)
    station.wire.fault = None
    station.a.restart()
    station.a.restart()
    await run_until(0.5 + 128 * 11 * BIT - 1e-9)
    assert not station.a.online
    await run_until(0.5 + 128 * 11 * BIT)
    assert station.a.state is ControllerState.ERROR_ACTIVE
    station.a.send(A_FRAME)
    await run_until(1)
    assert station.frames == [A_FRAME]
    station.a.restart()  # nothing to restart
    assert station.a.online


@scenario
async def test_power_lost_during_a_restart_ends_it() -> None:
    station = Station()
    station.wire.fault = always(WireFault.CORRUPT)
    station.a.send(A_FRAME)
    await run_until(0.5)
    station.a.restart()
    station.a.detach()
    await run_until(1)
    assert not station.a.online


@scenario
async def test_a_bus_off_controller_hears_nothing() -> None:
    station = Station()
    station.wire.fault = always(WireFault.CORRUPT)
    station.c.send(A_FRAME)
    await run_until(0.5)
    station.wire.fault = None
    station.a.send(A_FRAME)
    await run_until(1)
    assert station.received == []


@scenario
async def test_receivers_recover_from_error_passive_as_the_standard_says() -> None:
    station = Station()
    warnings: list[BusError] = []
    station.b.watch(warnings.append)
    for _ in range(5):  # 5 x 32 errors, more than the limit
        station.wire.fault = always(WireFault.CORRUPT)
        station.a.send(A_FRAME)
        await run_until(asyncio.get_running_loop().time() + 0.1)
        station.a.detach()
        station.a.attach()
    assert station.b.rec == 128
    assert station.b.state is ControllerState.ERROR_PASSIVE
    station.wire.fault = None
    station.a.send(A_FRAME)
    await run_until(1)
    assert station.b.rec == 119
    station.a.send(A_FRAME)
    await run_until(1.1)
    assert station.b.rec == 118
    assert station.b.state.name == "ERROR_ACTIVE"
    assert [(type(error), error.why) for error in warnings] == [(ErrorPassive, "TEC 0, REC 128")]
    station.b.receive_error(8)
    station.b.receive_error(8)
    assert len(warnings) == 2


@scenario
async def test_alone_on_the_bus_a_sender_repeats_forever_passive_but_never_bus_off() -> None:
    wire = Wire(TIMING)
    alone = wire.controller("alone")
    confirmed: list[float] = []
    alone.send(A_FRAME, confirmed.append)
    await run_until(0.1)
    assert alone.tec == 128
    assert alone.state is ControllerState.ERROR_PASSIVE
    assert confirmed == []
    assert alone.pending == 1
    assert wire.transmissions == pytest.approx(0.1 / (DURATION + 6 * BIT), abs=1)
    wire.controller("company")
    await run_until(0.2)
    assert len(confirmed) == 1
    assert alone.tec == 127


@scenario
async def test_different_frames_under_one_identifier_destroy_each_other() -> None:
    station = Station()
    errors: list[BusError] = []
    station.a.watch(errors.append)
    station.b.watch(errors.append)
    station.a.send(number(1))
    station.b.send(number(2))
    await run_until(1)
    assert station.received == []
    assert [type(error) for error in errors] == [ErrorPassive, ErrorPassive, BusOff, BusOff]
    assert station.c.rec == 32


@scenario
async def test_equal_frames_under_one_identifier_do_no_harm() -> None:
    station = Station()
    station.a.send(number(1))
    station.b.send(number(1))
    await run_until(1)
    assert len(station.received) == 2
    assert station.wire.error_frames == 0


@scenario
async def test_a_controller_at_another_bit_rate_disturbs_until_it_is_passive_and_hears_nothing() -> None:
    station = Station()
    stranger = station.wire.controller("stranger", bitrate=250_000)
    stranger.subscribe(None, lambda *_: pytest.fail("heard"))
    station.a.send(A_FRAME)
    await run_until(1)
    assert station.frames == [A_FRAME]
    assert station.wire.error_frames == 16
    assert stranger.state is ControllerState.ERROR_PASSIVE
    assert station.a.state is ControllerState.ERROR_ACTIVE


@scenario
async def test_a_controller_at_another_bit_rate_that_sends_goes_bus_off() -> None:
    station = Station()
    stranger = station.wire.controller("stranger", bitrate=250_000)
    stranger.send(A_FRAME, lambda _: pytest.fail("confirmed"))
    await run_until(1)
    assert station.received == []
    assert stranger.state is ControllerState.BUS_OFF


# --- power ------------------------------------------------------------------------------------------------------


@scenario
async def test_a_node_without_power_loses_its_queue_and_hears_nothing() -> None:
    station = Station()
    station.b.send(number(0, 0x001))
    station.a.send(number(1), lambda _: pytest.fail("confirmed"))
    station.a.subscribe(None, lambda *_: pytest.fail("heard"))
    station.a.detach()
    station.a.detach()
    with pytest.raises(AdapterLost):
        station.a.send(number(2))
    await run_until(1)
    assert [frame.data[0] for frame in station.frames] == [0]


@scenario
async def test_a_node_that_comes_back_starts_empty_with_its_subscriptions() -> None:
    station = Station()
    heard: list[CanFrame] = []
    station.a.subscribe([0x200], lambda frame, _: heard.append(frame))
    station.a.send(number(1))
    station.a.detach()
    await run_until(0.1)
    station.a.attach()
    station.a.attach()
    station.a.send(number(2))
    station.b.send(number(3, 0x200))
    await run_until(0.2)
    assert [frame.data[0] for frame in station.frames] == [2, 3]
    assert heard == [number(3, 0x200)]


@scenario
async def test_a_frame_breaks_off_when_its_sender_loses_power() -> None:
    station = Station()
    station.a.send(number(1), lambda _: pytest.fail("confirmed"))
    await run_until(DURATION / 2)
    station.b.send(number(2))
    station.a.detach()
    await run_until(1)
    assert station.frames == [number(2)]
    broken = DURATION / 2 + 29 * BIT
    assert station.received[0][1] == pytest.approx(broken + frame_duration_s(number(2), TIMING) - 3 * BIT)
    assert station.wire.error_frames == 1
    assert station.c.rec == 0  # +1 for the break, -1 for the frame after it


@scenario
async def test_a_node_that_loses_power_while_a_frame_is_delivered_does_not_get_it() -> None:
    station = Station()
    station.a.subscribe(None, lambda *_: station.b.detach())
    station.b.subscribe(None, lambda *_: pytest.fail("without power"))
    station.c.send(A_FRAME)
    await run_until(1)


@scenario
async def test_an_unplugged_adapter_is_reported_and_refuses_frames() -> None:
    station = Station()
    errors: list[BusError] = []
    station.a.watch(errors.append)
    station.a.unplug()
    station.a.unplug()
    assert [type(error) for error in errors] == [AdapterLost]
    with pytest.raises(AdapterLost):
        station.a.send(A_FRAME)
    station.a.attach()
    station.a.send(A_FRAME)
    await run_until(1)
    assert station.frames == [A_FRAME]


def test_controllers_are_the_port_for_type_checkers_too() -> None:
    bus: type[Bus] = Controller
    assert bus is Controller
