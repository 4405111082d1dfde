"""Streams keep to their share, in order and by turns; nothing else is held back; what goes wrong is told once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import groupby, pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ess_can.bus.clock import Cycle, now, pause
from ess_can.bus.limited_bus import LoadLimitedBus
from ess_can.bus.load_limit import YIELD_FLOOR, LoadLimit
from ess_can.bus.port import Receive, Sent
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.errors import AdapterLost, BusError, BusOff, ErrorPassive, TransmitQueueFull, UsageError
from ess_can.isotp import IsoTpParams
from ess_can.sim.loop import run_virtual
from ess_can.sim.wire import Wire
from tests.support.late_loops import CoarseLoop, StoppedLoop
from tests.support.memory_bus import MemoryBus

TIMING = BitTiming(500_000)
FD_TIMING = BitTiming(500_000, 2_000_000)
CLASSIC, FD = IsoTpParams(), IsoTpParams(tx_dl=64, fd=True, brs=True)
FRAME = CanFrame(0x615, bytes(range(8)))
FRAME_S = frame_duration_s(FRAME, TIMING)
LAG_S = 0.020
COMMAND = CanFrame(0x080, bytes(8))


class ExactBus:
    """Sends one frame after the other, each as long as it takes; confirms each at its end unless `mute`."""

    def __init__(self, timing: BitTiming = TIMING, *, fd: bool = False) -> None:
        self.fd = fd
        self.timing = timing
        self.mute = False
        self.failure: BusError | None = None
        self.handed_on: list[tuple[float, CanFrame, bool]] = []
        self.unconfirmed = 0
        self.most_unconfirmed = 0
        self.adopted: list[int] = []
        self.restarts = 0
        self._free_at = 0.0
        self._receivers: list[tuple[frozenset[int] | None, Receive]] = []
        self._watchers: list[Callable[[BusError], None]] = []

    def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        if self.failure is not None:
            raise self.failure
        self.handed_on.append((now(), frame, bulk))
        self._free_at = max(self._free_at, now()) + frame_duration_s(frame, self.timing)
        if bulk:
            self.unconfirmed += 1
            self.most_unconfirmed = max(self.most_unconfirmed, self.unconfirmed)
        if not self.mute:
            asyncio.get_running_loop().call_at(self._free_at, self._confirm, on_sent, bulk)

    def _confirm(self, on_sent: Sent | None, bulk: bool) -> None:
        self.unconfirmed -= bulk
        if on_sent is not None:
            on_sent(now())

    def subscribe(self, can_ids: Iterable[int] | None, receive: Receive) -> Callable[[], None]:
        entry = None if can_ids is None else frozenset(can_ids), receive
        self._receivers.append(entry)
        return lambda: self._receivers.remove(entry)

    def withdraw(self, can_id: int) -> list[CanFrame]:
        return []

    def adopt(self, can_id: int) -> None:
        self.adopted.append(can_id)

    def watch(self, on_error: Callable[[BusError], None]) -> Callable[[], None]:
        self._watchers.append(on_error)
        return lambda: self._watchers.remove(on_error)

    def restart(self) -> bool:
        self.restarts += 1
        return True

    def arrive(self, frame: CanFrame) -> None:
        for _, receive in tuple(self._receivers):
            receive(frame, now())

    def tell(self, error: BusError) -> None:
        for on_error in tuple(self._watchers):
            on_error(error)

    @property
    def listeners(self) -> int:
        return len(self._receivers) + len(self._watchers)

    @property
    def bulk(self) -> list[tuple[float, CanFrame]]:
        return [(at, frame) for at, frame, bulk in self.handed_on if bulk]


class Stream:
    """Always has two frames on their way, as an ISO-TP channel does."""

    def __init__(self, bus: LoadLimitedBus, can_id: int = 0x615) -> None:
        self._bus = bus
        self._frame = CanFrame(can_id, bytes(range(8)))
        self.confirmed: list[float] = []

    def start(self) -> None:
        for _ in range(2):
            self._bus.send(self._frame, self._next, bulk=True)

    def _next(self, at: float) -> None:
        self.confirmed.append(at)
        self._bus.send(self._frame, self._next, bulk=True)


def wire_time(frames: Iterable[CanFrame], timing: BitTiming = TIMING) -> float:
    return sum(frame_duration_s(frame, timing) for frame in frames)


def test_it_listens_to_everything_only_to_yield_and_lets_go_of_the_bus() -> None:
    async def scenario() -> None:
        for limit, listeners in ((LoadLimit(0.4), 1), (LoadLimit(0.4, yields=True), 2)):
            bus = ExactBus()
            limited = LoadLimitedBus(bus, limit, TIMING)
            assert bus.listeners == listeners
            limited.close()
            assert bus.listeners == 0

    run_virtual(scenario())


# --- one stream ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.1, 0.4, 0.8])
def test_a_frame_leaves_when_the_wire_time_of_those_before_is_their_share(share: float) -> None:
    async def scenario() -> None:
        inner = ExactBus()
        stream = Stream(LoadLimitedBus(inner, LoadLimit(share), TIMING))
        stream.start()
        await pause(200 * FRAME_S / share)
        due = [n * FRAME_S / share for n in range(200)]
        assert [at for at, _ in inner.bulk][:200] == pytest.approx(due, abs=1e-9)
        assert stream.confirmed[:199] == pytest.approx([at + FRAME_S for at in due[:199]], abs=1e-9)
        assert inner.most_unconfirmed == 1

    run_virtual(scenario())


def test_the_whole_bus_is_a_share_too() -> None:
    async def scenario() -> None:
        inner = ExactBus()
        stream = Stream(LoadLimitedBus(inner, LoadLimit(1.0), TIMING))
        stream.start()
        await pause(1.0)
        assert len(stream.confirmed) * FRAME_S > 0.999

    run_virtual(scenario())


def test_what_is_no_stream_is_not_held_back() -> None:
    async def scenario() -> None:
        inner, sent = ExactBus(), list[float]()
        bus = LoadLimitedBus(inner, LoadLimit(0.01), TIMING)
        Stream(bus).start()
        due: list[float] = []

        def command_pcs(at: float) -> None:
            due.append(at)
            bus.send(COMMAND, sent.append)

        command = Cycle(0.003, command_pcs)
        command.start()
        await pause(1.0)
        command.stop()
        assert len(due) > 300
        assert [at for at, frame, _ in inner.handed_on if frame == COMMAND] == due
        assert len(sent) >= 300

    run_virtual(scenario())


def test_a_pause_of_the_stream_earns_it_next_to_nothing() -> None:
    async def scenario() -> None:
        inner = ExactBus()
        bus = LoadLimitedBus(inner, LoadLimit(0.1), TIMING)
        await pause(5.0)
        Stream(bus).start()
        await pause(1.0)
        assert wire_time(frame for _, frame in inner.bulk) < 0.1 * 1.004 + FRAME_S

    run_virtual(scenario())


def test_a_turn_around_is_made_up_for() -> None:
    """A frame each time 2 ms late, as after a node's answer: the share is had all the same."""

    async def scenario() -> None:
        inner = ExactBus()
        bus = LoadLimitedBus(inner, LoadLimit(0.5), TIMING)
        for _ in range(100):
            for _ in range(8):
                bus.send(FRAME, bulk=True)
            await pause(8 * FRAME_S / 0.5)
        assert wire_time(frame for _, frame in inner.bulk) == pytest.approx(0.5 * now(), rel=0.02)

    run_virtual(scenario())


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.8])
def test_the_share_is_kept_on_a_loop_that_is_late(share: float) -> None:
    async def scenario() -> None:
        wire = Wire(TIMING)
        wire.controller("node")
        Stream(LoadLimitedBus(wire.controller("gateway"), LoadLimit(share), TIMING)).start()
        await pause(2.0)
        assert wire.busy_s() / now() == pytest.approx(share, rel=0.02)

    with asyncio.Runner(loop_factory=CoarseLoop) as runner:
        runner.run(scenario())


def test_time_that_a_loop_lost_altogether_is_not_made_up_for() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StoppedLoop)
        inner = MemoryBus()
        Stream(LoadLimitedBus(inner, LoadLimit(0.25), TIMING)).start()
        await pause(0.5)
        before = len(inner.sent)
        loop.stand_still(1.0)
        await pause(0.2)
        assert wire_time(inner.sent[before:]) < 0.25 * (0.2 + LAG_S + 0.002)

    with asyncio.Runner(loop_factory=StoppedLoop) as runner:
        runner.run(scenario())


# --- several streams ----------------------------------------------------------------------------------


def test_streams_take_turns_and_share_the_share() -> None:
    async def scenario() -> None:
        inner = ExactBus()
        bus = LoadLimitedBus(inner, LoadLimit(0.3), TIMING)
        for can_id in (0x615, 0x616, 0x617):
            Stream(bus, can_id).start()
        await pause(1.0)
        ids = [frame.can_id for _, frame in inner.bulk][3:]
        assert all(len(set(ids[n : n + 3])) == 3 for n in range(len(ids) - 2))
        assert wire_time(frame for _, frame in inner.bulk) == pytest.approx(0.3, rel=0.01)

    run_virtual(scenario())


def test_a_small_request_waits_for_one_frame_of_a_stream() -> None:
    async def scenario() -> None:
        inner, answered = ExactBus(), list[float]()
        bus = LoadLimitedBus(inner, LoadLimit(0.4), TIMING)
        Stream(bus).start()
        request = CanFrame(0x616, b"\x02\x3e\x80")
        for _ in range(50):
            await pause(0.0123)
            since = now()
            bus.send(request, lambda at, since=since: answered.append(at - since), bulk=True)  # type: ignore[misc]
        await pause(0.1)
        assert len(answered) == 50
        assert max(answered) < 2 * FRAME_S / 0.4 + FRAME_S

    run_virtual(scenario())


Sending = tuple[float, int, int]
"""Seconds after the one before, which identifier, how many bytes."""
SENDINGS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.0, 0.0001, 0.001, 0.02, 0.5]), st.integers(0, 4), st.integers(1, 8)), max_size=60
)


@settings(max_examples=60, deadline=None)
@given(SENDINGS, st.sampled_from([0.02, 0.1, 0.4, 0.8, 1.0]), st.sampled_from([None, 0.002, 0.0005]))
def test_whatever_is_sent(sendings: list[Sending], share: float, foreign: float | None) -> None:
    """Order, turns, two unconfirmed at most, every confirmation, and the share over any time."""

    async def scenario() -> None:
        inner = ExactBus()
        bus = LoadLimitedBus(inner, LoadLimit(share, yields=foreign is not None), TIMING)
        others = Cycle(foreign or 1.0, lambda _at: inner.arrive(COMMAND))
        others.start()
        given_at: list[tuple[float, CanFrame]] = []
        confirmed: list[int] = []
        refused = 0
        for number, (after, which, size) in enumerate(sendings):
            await pause(after)
            frame = CanFrame(0x610 + which, bytes([number]) + bytes(size - 1))
            try:
                bus.send(frame, lambda _at, number=number: confirmed.append(number), bulk=True)  # type: ignore[misc]
                given_at.append((now(), frame))
            except TransmitQueueFull:
                refused += 1
        await pause(1.5)
        others.stop()
        left = inner.bulk
        assert sorted(frame.data[0] for _, frame in left) == sorted(frame.data[0] for _, frame in given_at)
        assert sorted(confirmed) == sorted(frame.data[0] for _, frame in given_at)
        for which in range(5):
            assert [f for _, f in left if f.can_id == 0x610 + which] == [
                f for _, f in given_at if f.can_id == 0x610 + which
            ]
        assert inner.most_unconfirmed <= 2
        require_share(left, share)
        require_turns(given_at, left)

    run_virtual(scenario())


def require_share(left: list[tuple[float, CanFrame]], share: float) -> None:
    """From any frame to any later one the stream took its share of the time at most, and of what it may make up."""
    for first in range(len(left)):
        taken = 0.0
        for at, frame in left[first:]:
            assert taken <= share * (at - left[first][0] + LAG_S) + 1e-9
            taken += frame_duration_s(frame, TIMING)


def require_turns(given_at: list[tuple[float, CanFrame]], left: list[tuple[float, CanFrame]]) -> None:
    """Between two frames of one identifier that both waited, none of another one's leaves twice."""
    offered = {frame.data[0]: at for at, frame in given_at}
    ids = [frame.can_id for _, frame in left]
    for can_id in set(ids):
        places = [place for place, one in enumerate(ids) if one == can_id]
        for before, after in pairwise(places):
            if offered[left[after][1].data[0]] < left[before][0]:  # it waited the whole time
                between = sorted(ids[before + 1 : after])
                assert all(len(list(group)) <= 1 for _, group in groupby(between))


# --- giving way ---------------------------------------------------------------------------------------


def played(share: float, others: float, seconds: float = 2.0, *, ours: bool = False) -> float:
    """What a yielding stream takes while somebody, or our own commands, take the share `others`."""

    async def scenario() -> float:
        inner = ExactBus()
        bus = LoadLimitedBus(inner, LoadLimit(share, yields=True), TIMING)
        frame_s = frame_duration_s(COMMAND, TIMING)
        foreign = Cycle(frame_s / others, lambda _at: bus.send(COMMAND) if ours else inner.arrive(COMMAND))
        foreign.start()
        Stream(bus).start()
        await pause(1.0)
        before = len(inner.bulk)
        await pause(seconds)
        foreign.stop()
        return wire_time(frame for _, frame in inner.bulk[before:]) / seconds

    return run_virtual(scenario())


@pytest.mark.parametrize("ours", [False, True])
def test_a_yielding_stream_takes_what_others_leave(ours: bool) -> None:
    assert played(0.8, 0.3, ours=ours) == pytest.approx(0.5, abs=0.005)
    assert played(0.8, 0.6, ours=ours) == pytest.approx(0.2, abs=0.005)


@pytest.mark.parametrize("others", [0.78, 0.9, 1.5])
def test_it_never_starves(others: float) -> None:
    assert played(0.8, others) == pytest.approx(YIELD_FLOOR, abs=0.002)


def test_a_stream_that_does_not_yield_hears_nothing_of_others() -> None:
    async def scenario() -> None:
        inner = ExactBus()
        bus = LoadLimitedBus(inner, LoadLimit(0.4), TIMING)
        assert inner.listeners == 1
        bus.close()
        assert inner.listeners == 0

    run_virtual(scenario())


def test_it_is_back_soon_after_others_fell_silent() -> None:
    async def scenario() -> None:
        inner = ExactBus()
        bus = LoadLimitedBus(inner, LoadLimit(0.8, yields=True), TIMING)
        Stream(bus).start()
        flood = Cycle(frame_duration_s(COMMAND, TIMING), lambda _at: inner.arrive(COMMAND))
        flood.start()
        await pause(10.0)
        flood.stop()
        await pause(0.3)
        before = len(inner.bulk)
        await pause(1.0)
        assert wire_time(frame for _, frame in inner.bulk[before:]) == pytest.approx(0.8, rel=0.01)

    run_virtual(scenario())


def test_a_frame_that_cannot_be_is_heard_as_nothing() -> None:
    async def scenario() -> None:
        inner = ExactBus()
        bus = LoadLimitedBus(inner, LoadLimit(0.8, yields=True), TIMING)
        inner.arrive(CanFrame(0x123, bytes(9)))
        inner.arrive(CanFrame(0x123, bytes(64), fd=True, brs=True))  # of others, at a data bit rate that we do not know
        bus.send(FRAME, bulk=True)
        await pause(0.1)
        assert [frame for _, frame in inner.bulk] == [FRAME]

    run_virtual(scenario())


# --- what goes wrong ----------------------------------------------------------------------------------


def test_frames_that_cannot_be_sent_are_refused_at_once() -> None:
    async def scenario() -> None:
        bus = LoadLimitedBus(ExactBus(), LoadLimit(0.1), TIMING)
        with pytest.raises(UsageError, match="classic"):
            bus.send(CanFrame(0x615, bytes(64), fd=True), bulk=True)
        with pytest.raises(UsageError, match="cannot be sent"):
            bus.send(CanFrame(0x615, bytes(9)), bulk=True)
        assert not bus.fd

    run_virtual(scenario())


def test_only_so_many_frames_wait_for_each_identifier() -> None:
    async def scenario() -> None:
        inner = ExactBus()
        bus = LoadLimitedBus(inner, LoadLimit(0.1), TIMING)
        for _ in range(17):
            bus.send(FRAME, bulk=True)
        with pytest.raises(TransmitQueueFull):
            bus.send(FRAME, bulk=True)
        bus.send(CanFrame(0x616, b""), bulk=True)
        await pause(1.0)
        assert len(inner.bulk) == 18

    run_virtual(scenario())


def test_a_bus_without_room_is_offered_the_frame_again() -> None:
    async def scenario() -> None:
        inner = ExactBus()
        bus = LoadLimitedBus(inner, LoadLimit(0.4), TIMING)
        frames = [CanFrame(0x615 + n % 2, bytes([n])) for n in range(6)]
        bus.send(frames[0], bulk=True)
        inner.failure = TransmitQueueFull("full")
        for frame in frames[1:]:
            bus.send(frame, bulk=True)
        await pause(0.05)
        assert len(inner.bulk) == 1
        inner.failure = None
        await pause(0.05)
        assert [frame for _, frame in inner.bulk] == frames

    run_virtual(scenario())


def test_a_frame_that_is_due_meets_the_bus_as_it_is() -> None:
    async def scenario() -> None:
        inner = ExactBus()
        bus = LoadLimitedBus(inner, LoadLimit(0.4), TIMING)
        inner.failure = BusOff("off")
        with pytest.raises(BusOff):
            bus.send(FRAME, bulk=True)
        inner.failure = None
        bus.send(FRAME, bulk=True)
        assert inner.bulk == [(0.0, FRAME)]

    run_virtual(scenario())


@pytest.mark.parametrize("told", [True, False])
def test_a_bus_that_ends_is_told_once_and_what_waited_is_gone(told: bool) -> None:
    """Whether the bus tells its watchers, or only refuses the next frame."""

    async def scenario() -> None:
        inner, errors = ExactBus(), list[BusError]()
        bus = LoadLimitedBus(inner, LoadLimit(0.1), TIMING)
        cancel = bus.watch(errors.append)
        for _ in range(5):
            bus.send(FRAME, bulk=True)
        inner.failure = AdapterLost("pulled")
        if told:
            inner.tell(inner.failure)
        await pause(1.0)
        assert [error.name for error in errors] == ["ADAPTER_LOST"]
        assert len(inner.bulk) == 1
        inner.failure = None
        bus.send(FRAME, bulk=True)
        await pause(1.0)
        assert len(inner.bulk) == 2
        cancel()
        cancel()
        inner.tell(AdapterLost("again"))
        assert len(errors) == 1

    run_virtual(scenario())


def test_a_watcher_that_sends_again_finds_nothing_of_before() -> None:
    async def scenario() -> None:
        inner = ExactBus()
        bus = LoadLimitedBus(inner, LoadLimit(0.1), TIMING)
        inner.mute = True
        for _ in range(5):
            bus.send(FRAME, bulk=True)
        again = CanFrame(0x616, b"\x01")
        bus.watch(lambda _error: bus.send(again, bulk=True))
        inner.tell(BusOff("off"))
        await pause(1.0)
        assert [frame for _, frame in inner.bulk] == [FRAME, again]

    run_virtual(scenario())


def test_a_warning_changes_nothing() -> None:
    async def scenario() -> None:
        inner, errors = ExactBus(), list[BusError]()
        bus = LoadLimitedBus(inner, LoadLimit(0.1), TIMING)
        bus.watch(errors.append)
        for _ in range(5):
            bus.send(FRAME, bulk=True)
        inner.tell(ErrorPassive("passive"))
        await pause(1.0)
        assert [error.name for error in errors] == ["ERROR_PASSIVE"]
        assert len(inner.bulk) == 5

    run_virtual(scenario())


def test_frames_that_nobody_confirms_hold_up_the_others_for_a_second() -> None:
    async def scenario() -> None:
        inner = ExactBus()
        bus = LoadLimitedBus(inner, LoadLimit(0.5), TIMING)
        inner.mute = True
        for _ in range(4):
            bus.send(FRAME, bulk=True)
        await pause(0.9)
        assert len(inner.bulk) == 2
        inner.mute = False
        await pause(0.2)
        bus.send(FRAME, bulk=True)
        await pause(0.1)
        assert len(inner.bulk) == 5

    run_virtual(scenario())


def test_the_rest_of_the_port_is_the_bus_s() -> None:
    async def scenario() -> None:
        inner, heard = MemoryBus(), list[CanFrame]()
        bus = LoadLimitedBus(inner, LoadLimit(0.5), TIMING)
        cancel = bus.subscribe((0x0A2,), lambda frame, _at: heard.append(frame))
        bus.adopt(0x615)
        inner.deliver(CanFrame(0x0A2, b"\x01"))
        cancel()
        inner.deliver(CanFrame(0x0A2, b"\x02"))
        assert heard == [CanFrame(0x0A2, b"\x01")]
        assert inner.adopted == [0x615]
        for _ in range(4):
            bus.send(FRAME, bulk=True)
        bus.close()
        await pause(1.0)
        assert len(inner.sent) == 1
        assert inner.listeners == 0

    run_virtual(scenario())


def test_what_is_withdrawn_never_leaves_and_other_streams_go_on() -> None:
    async def scenario() -> None:
        inner, sent = ExactBus(), list[float]()
        bus = LoadLimitedBus(inner, LoadLimit(0.05), TIMING)
        frames = [CanFrame(0x615, bytes((number, *bytes(7)))) for number in range(4)]
        for frame in frames:
            bus.send(frame, sent.append, bulk=True)
        bus.send(CanFrame(0x616, bytes(8)), sent.append, bulk=True)
        withdrawn = bus.withdraw(0x615)
        assert withdrawn == frames[1:]
        assert bus.withdraw(0x615) == []
        await pause(1.0)
        assert [frame for _, frame in inner.bulk] == [frames[0], CanFrame(0x616, bytes(8))]
        assert len(sent) == 2
        bus.send(frames[3], sent.append, bulk=True)
        await pause(0.1)
        assert len(sent) == 3

    run_virtual(scenario())
