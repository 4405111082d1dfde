from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from ess_can.bus.driver import Driver, Echo, ErrorReport, Heard, IdFilter
from ess_can.bus.port import BULK_IN_FLIGHT
from ess_can.bus.transmit_queue import TransmitQueue
from ess_can.bus.wire_pace import AHEAD_S
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.errors import BusError, TransmitQueueFull, TransmitStalled
from tests.unit.bus.bench import on_device_loop, run_until

URGENT = 0x100  # identifiers from here on are not bulk
WIRE = BitTiming(500_000)
FRAME_S = frame_duration_s(CanFrame(1, b""), WIRE)


class Scripted:
    """A driver that takes what it has `room` for, and only notes it."""

    name = "scripted"
    fd = False
    timing: BitTiming | None = None
    filters_ids = False
    polls_state = False
    user_filters: Sequence[IdFilter] = ()

    def __init__(self, echo: Echo, *, reorders: bool = False) -> None:
        self.echo = echo
        self.marks_echo = True
        self.reorders = reorders
        self.room = 1_000_000
        self.failure: BusError | None = None
        self.taken: list[int] = []

    def fileno(self) -> int:
        return -1

    def write(self, frame: CanFrame, *, bulk: bool) -> bool:
        assert bulk == (frame.can_id < URGENT)
        if self.failure is not None:
            raise self.failure
        if self.room == 0:
            return False
        self.room -= 1
        self.taken.append(frame.can_id)
        return True

    def read(self, limit: int, wait_s: float) -> list[Heard]:
        return []

    def set_filters(self, filters: Sequence[IdFilter] | None) -> None:
        pass

    def state(self) -> ErrorReport | None:
        return None

    def restart(self) -> bool:
        return False

    def close(self) -> None:
        pass


class Rig:
    def __init__(
        self,
        echo: Echo = Echo.CERTAIN,
        *,
        reorders: bool = False,
        depth: int = 16,
        timing: BitTiming | None = None,
    ) -> None:
        self.driver = Scripted(echo, reorders=reorders)
        self.driver.timing = timing
        self.errors: list[BusError] = []
        self.sent: list[int] = []
        driver: Driver = self.driver
        self.queue = TransmitQueue(
            driver, asyncio.get_running_loop(), depth=depth, patience_s=1.0, report=self.errors.append
        )

    def send(self, *can_ids: int) -> None:
        for can_id in can_ids:
            self.queue.send(CanFrame(can_id, b""), partial(self._note, can_id), bulk=can_id < URGENT)

    def _note(self, can_id: int, _: float) -> None:
        self.sent.append(can_id)

    def back(self, *can_ids: int) -> list[bool]:
        return [self.queue.confirm(CanFrame(can_id, b"")) for can_id in can_ids]

    @property
    def taken(self) -> list[int]:
        return self.driver.taken


@on_device_loop
async def test_no_more_than_two_bulk_frames_are_in_the_driver_and_others_pass_those_that_wait() -> None:
    rig = Rig(reorders=True)
    rig.send(1, 2, 3, 4)
    assert rig.taken == [1, 2]
    assert BULK_IN_FLIGHT == 2
    rig.send(URGENT)
    assert rig.taken == [1, 2, URGENT]
    assert rig.sent == []
    assert rig.back(1) == [True]
    assert rig.taken == [1, 2, URGENT, 3]
    assert rig.back(2, 3, URGENT, 4) == [True] * 4
    assert rig.sent == [1, 2, 3, URGENT, 4]
    assert rig.taken == [1, 2, URGENT, 3, 4]


AHEAD = int(AHEAD_S / FRAME_S)


@pytest.mark.parametrize("echo", [Echo.NONE, Echo.LEARNED])
def test_without_echo_bulk_frames_keep_the_pace_of_the_wire_and_others_do_not_wait(echo: Echo) -> None:
    @on_device_loop
    async def test() -> None:
        rig = Rig(echo, depth=500, timing=WIRE)
        rig.send(*([1] * 400))
        rig.send(URGENT, URGENT)
        assert rig.taken == [1, 1, URGENT, URGENT]
        assert rig.sent == []  # not from inside send
        for step in range(1, 10):
            await run_until(step * 10 * FRAME_S)
            on_the_wire = 10 * step
            assert 0 < len(rig.taken) - on_the_wire <= AHEAD + BULK_IN_FLIGHT + 1
            assert abs(len(rig.sent) - on_the_wire - AHEAD) <= 1
        await run_until(1.0)
        assert len(rig.taken) == len(rig.sent) == 402
        assert rig.errors == []

    test()


@on_device_loop
async def test_timers_that_are_late_cost_no_time_on_the_wire() -> None:
    rig = Rig(Echo.NONE, depth=500, timing=WIRE)
    loop = asyncio.get_running_loop()
    on_time = loop.call_at

    def late(when: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        return on_time(math.ceil(when * 1000 + 0.5) / 1000, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_at", late)
        rig.send(*([1] * 400))
        await run_until(300 * FRAME_S)
    assert len(rig.taken) >= 300


@on_device_loop
async def test_what_others_send_takes_its_time_on_the_wire_too() -> None:
    rig = Rig(Echo.NONE, depth=500, timing=WIRE)
    rig.queue.heard(CanFrame(1, b""))  # before anything of ours
    rig.send(*([1] * 400))
    for step in range(1, 200):
        await run_until(step * FRAME_S)
        if step % 2:
            rig.queue.heard(CanFrame(1, b""))
    assert 100 < len(rig.taken) <= 100 + AHEAD + BULK_IN_FLIGHT + 1


@on_device_loop
async def test_a_dropped_stream_does_not_go_out_and_nothing_of_it_is_told() -> None:
    rig = Rig(Echo.NONE, timing=WIRE)
    rig.send(*range(16))
    rig.queue.drop()
    await run_until(1.0)
    assert (rig.taken, rig.sent) == ([0, 1], [])
    rig.send(1, 2, 3)
    await run_until(2.0)
    assert rig.sent == [1, 2, 3]


@on_device_loop
async def test_once_an_echo_was_seen_it_sets_the_pace() -> None:
    rig = Rig(Echo.LEARNED, timing=WIRE)
    rig.send(URGENT)
    rig.back(URGENT)
    rig.send(1, 2, 3)
    await run_until(0.5)
    assert rig.taken == [URGENT, 1, 2]
    rig.back(1, 2, 3)
    assert rig.sent == [URGENT, 1, 2, 3]


@on_device_loop
async def test_a_frame_that_cannot_be_stops_nothing() -> None:
    rig = Rig(Echo.NONE, timing=WIRE)
    rig.queue.send(CanFrame(1, bytes(9)), None, bulk=True)
    rig.send(2, 3)
    await run_until(0.5)
    assert rig.sent == [2, 3]


@on_device_loop
async def test_without_echo_and_wire_a_stream_is_sent_when_taken_as_many_at_once_as_a_turn_allows() -> None:
    rig = Rig(Echo.NONE, depth=64)
    stream = [number % 100 for number in range(300)]
    rig.send(*stream)
    assert rig.taken == rig.sent == stream[:256]
    rig.send(URGENT)
    assert rig.taken[256:] == [URGENT]  # the stream's others wait: it goes first
    assert len(rig.sent) == 256  # and is not told from inside send
    await run_until(0.1)
    assert rig.taken[257:] == stream[256:]
    assert sorted(rig.sent) == sorted([*stream, URGENT])
    assert rig.back(1) == [False]
    await run_until(5)
    assert rig.errors == []


@on_device_loop
async def test_a_stream_that_goes_on_from_its_confirmations_lets_the_loop_come_round() -> None:
    rig = Rig(Echo.NONE)
    turns: list[int] = []

    def go_on(_at: float) -> None:
        rig.queue.send(CanFrame(1, b""), go_on if len(rig.taken) < 3000 else None, bulk=True)

    def count() -> None:
        turns.append(len(rig.taken))
        if len(rig.taken) < 3000:
            asyncio.get_running_loop().call_soon(count)

    go_on(0.0)
    count()
    await run_until(1.0)
    assert len(rig.taken) >= 3000
    assert all(after - before <= 256 for before, after in pairwise(turns))


@pytest.mark.parametrize("idle_s", [0.0, 5.0])
def test_the_patience_with_a_full_driver_begins_when_it_first_has_no_room(idle_s: float) -> None:
    @on_device_loop
    async def test() -> None:
        rig = Rig(reorders=True)
        await run_until(10.0)
        rig.send(1, 2, 3)
        rig.driver.room = 0
        await run_until(10.0 + idle_s / 10)
        rig.back(1)
        begun = 10.0 + idle_s / 10
        assert rig.errors == []
        await run_until(begun + 0.4)
        rig.back(2)  # shows that the bus is alive, not that there is room
        await run_until(begun + 0.95)
        assert rig.errors == []
        assert rig.taken == [1, 2]
        await run_until(begun + 1.05)
        assert [type(error) for error in rig.errors] == [TransmitQueueFull]

    test()


@pytest.mark.parametrize("reorders", [False, True])
def test_a_later_frame_confirms_those_whose_echo_was_lost(reorders: bool) -> None:
    @on_device_loop
    async def test() -> None:
        rig = Rig(reorders=reorders)
        rig.send(1, URGENT, 2, URGENT + 1, 3)
        assert rig.back(URGENT + 1) == [True]
        # where urgent frames may overtake, this says nothing about the others
        assert rig.sent == ([URGENT, URGENT + 1] if reorders else [1, URGENT, 2, URGENT + 1])
        assert rig.back(7, URGENT) == [False, False]
        assert rig.taken == [1, URGENT, 2, URGENT + 1] if reorders else [1, URGENT, 2, URGENT + 1, 3]

    test()


@on_device_loop
async def test_equal_frames_are_confirmed_one_at_a_time() -> None:
    rig = Rig()
    rig.send(1, 1)
    rig.back(1)
    assert rig.sent == [1]
    rig.back(1)
    assert rig.sent == [1, 1]
    assert rig.back(1) == [False]


@on_device_loop
async def test_an_echo_that_was_not_promised_is_believed_once_it_is_seen() -> None:
    rig = Rig(Echo.LEARNED)
    rig.send(1, 2, 3)
    await run_until(2)
    assert rig.sent == [1, 2, 3]
    assert rig.errors == []
    assert rig.back(2) == [True]
    assert rig.sent == [1, 2, 3]  # they were told already
    rig.send(4, 5, 6)
    assert rig.taken == [1, 2, 3, 4, 5]
    assert rig.back(3, 4, 5, 6) == [True] * 4
    assert rig.sent == [1, 2, 3, 4, 5, 6]
    rig.send(7)
    await run_until(4)
    assert [type(error) for error in rig.errors] == [TransmitStalled]


@on_device_loop
async def test_an_echo_that_never_comes_fills_no_memory() -> None:
    rig = Rig(Echo.LEARNED)
    for _ in range(40):
        rig.send(*range(50))
    assert len(rig.queue._in_flight[0]) < 50
    assert rig.back(6, 49) == [False, True]
    rig.send(51, 52, 53)
    assert rig.taken[-2:] == [51, 52]


@on_device_loop
async def test_a_lossy_echo_holds_nothing_up_and_is_known_when_it_comes_late() -> None:
    rig = Rig(Echo.LOSSY)
    rig.driver.marks_echo = False
    rig.send(1, 2, 3)
    await run_until(0.04)
    assert rig.sent == []
    await run_until(0.06)
    assert rig.sent == [1, 2]
    assert rig.taken == [1, 2, 3]
    await run_until(3)
    assert rig.errors == []
    assert rig.back(2, 3, 4) == [True, True, False]
    assert rig.sent == [1, 2, 3]


@pytest.mark.parametrize("marks", [False, True])
def test_own_frames_are_known_even_after_they_were_given_up_where_they_look_like_others(marks: bool) -> None:
    @on_device_loop
    async def test() -> None:
        rig = Rig()
        rig.driver.marks_echo = marks
        rig.send(1, 2)
        await run_until(1.5)
        assert [type(error) for error in rig.errors] == [TransmitStalled]
        assert rig.back(1, 2) == [not marks] * 2
        assert rig.sent == []

    test()


@on_device_loop
async def test_a_driver_that_confirms_nothing_is_stalled_after_the_patience() -> None:
    rig = Rig()
    rig.send(URGENT)
    await run_until(0.9)
    rig.back(URGENT)
    rig.send(1, 2, 3)
    await run_until(1.85)
    assert rig.errors == []
    rig.send(URGENT)
    await run_until(2.0)
    assert [type(error) for error in rig.errors] == [TransmitStalled]
    assert rig.queue.hint == ""
    await run_until(9)
    assert rig.taken == [URGENT, 1, 2, URGENT]  # 3 was dropped
    rig.queue.hint = "no node acknowledges our frames"
    rig.send(4)
    await run_until(11)
    assert len(rig.errors) == 2
    assert rig.errors[1].why == "no node acknowledges our frames"
    assert rig.sent == [URGENT]


@on_device_loop
async def test_confirmations_hold_a_stall_off() -> None:
    rig = Rig()
    rig.send(1)
    for step in range(1, 8):
        await run_until(step * 0.7)
        rig.send(step + 1)
        rig.back(step)
    assert rig.errors == []


@on_device_loop
async def test_what_waits_for_room_goes_urgent_first_and_bulk_in_order() -> None:
    rig = Rig(Echo.NONE)
    rig.driver.room = 0
    rig.send(1, 2)
    rig.send(URGENT)
    rig.driver.room = 1
    await run_until(0.1)
    assert rig.taken == [URGENT]
    rig.driver.room = 9
    await run_until(0.2)
    assert rig.taken == [URGENT, 1, 2]
    assert rig.errors == []


@on_device_loop
async def test_each_kind_has_its_own_room_to_wait() -> None:
    rig = Rig(Echo.NONE, depth=2)
    rig.driver.room = 0
    rig.send(1, 2)
    with pytest.raises(TransmitQueueFull):
        rig.send(3)
    rig.send(URGENT, URGENT)
    with pytest.raises(TransmitQueueFull):
        rig.send(URGENT)


@on_device_loop
async def test_a_queue_that_stays_full_is_given_up() -> None:
    rig = Rig(Echo.NONE)
    rig.driver.room = 0
    rig.send(1, URGENT)
    await run_until(0.9)
    assert rig.errors == []
    await run_until(1.1)
    assert [type(error) for error in rig.errors] == [TransmitQueueFull]
    rig.driver.room = 9
    await run_until(3)
    assert rig.taken == []


@on_device_loop
async def test_room_is_used_as_soon_as_a_confirmation_shows_it() -> None:
    rig = Rig()
    rig.driver.room = 1
    rig.send(URGENT, URGENT + 1)
    rig.driver.room = 1
    rig.back(URGENT)
    assert rig.taken == [URGENT, URGENT + 1]
    await run_until(0.5)
    assert rig.errors == []


@on_device_loop
async def test_a_frame_that_fails_while_it_waits_is_reported_and_the_next_one_goes() -> None:
    rig = Rig(Echo.NONE)
    rig.driver.room = 0
    rig.send(1, 2)
    failures = [BusError("rejected")]

    def report(error: BusError) -> None:
        rig.errors.append(error)
        rig.driver.failure = None

    rig.queue._report = report
    rig.driver.failure = failures[0]
    rig.driver.room = 5
    await run_until(0.1)
    assert rig.errors == failures
    assert rig.taken == [2]


@on_device_loop
async def test_dropping_forgets_everything_even_from_inside_a_confirmation() -> None:
    rig = Rig()
    rig.queue.send(CanFrame(1, b""), lambda _: rig.queue.drop(), bulk=True)
    rig.send(2, 3)
    assert rig.back(2) == [True]
    assert rig.sent == []
    rig.send(4, 5)
    assert rig.taken == [1, 2, 4, 5]
    await run_until(0.5)
    rig.queue.drop()
    await run_until(5)
    assert rig.errors == []


@on_device_loop
async def test_all_at_once_when_echoes_were_lost_unread() -> None:
    rig = Rig(reorders=True)
    rig.send(1, 2, 3, URGENT)
    rig.queue.settle()
    assert sorted(rig.sent) == [1, 2, URGENT]
    assert rig.taken == [1, 2, URGENT, 3]


@on_device_loop
async def test_frames_of_a_stream_that_wait_can_be_withdrawn() -> None:
    rig = Rig()
    rig.send(1, 2, 1, 3, 1)
    assert rig.taken == [1, 2]
    assert [frame.can_id for frame in rig.queue.withdraw(1)] == [1, 1]
    rig.back(1, 2)
    assert rig.taken == [1, 2, 3]
    rig.back(3)
    await run_until(2.0)
    assert (rig.sent, rig.errors) == ([1, 2, 3], [])
