"""can-isotp, in both roles, against our endpoint: pumped by hand, without threads or sleeping.

can-isotp reads its own clock; it is given the test's, so that STmin costs no time.
"""

from __future__ import annotations

from collections import deque

import isotp
import isotp.tools
import pytest

from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.errors import NBufferOvflw, NTimeoutBs
from ess_can.isotp import Endpoint, Event, IsoTpAddress, IsoTpParams, MessageReceived, MessageSent, SendFailed
from tests.unit.isotp.line import payload_of

OURS = IsoTpAddress(0x6B5, 0x5AD)
LENGTHS = (1, 7, 8, 61, 62, 63, 200, 1500, 4095)


class Clock:
    """The test's time, in the shape of the `time` module that can-isotp's timers read."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter_ns(self) -> int:
        return round(self.now * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(isotp.tools, "time", clock)
    return clock


class Pair:
    """Our endpoint and can-isotp's on one line; every frame takes 100 us."""

    def __init__(self, clock: Clock, params: IsoTpParams, theirs: dict[str, object], *, extended: bool = False) -> None:
        self.clock = clock
        flag = EXTENDED_FLAG if extended else 0
        self.address = IsoTpAddress(flag | OURS.tx_id, flag | OURS.rx_id)
        self.ours = Endpoint(self.address, params)
        self.events: list[Event] = []
        self.errors: list[Exception] = []
        self.to_them: deque[isotp.CanMessage] = deque()
        self.to_us: deque[CanFrame] = deque()
        self.gaps: list[float] = []
        self._last = 0.0
        mode = isotp.AddressingMode.Normal_29bits if extended else isotp.AddressingMode.Normal_11bits
        self.theirs = isotp.TransportLayerLogic(
            rxfn=lambda timeout: self.to_them.popleft() if self.to_them else None,
            txfn=self._from_them,
            address=isotp.Address(mode, txid=OURS.rx_id, rxid=OURS.tx_id),
            error_handler=self.errors.append,
            params={"blocking_send": False, **theirs},
        )

    def _from_them(self, message: isotp.CanMessage) -> None:
        flag = EXTENDED_FLAG if message.is_extended_id else 0
        frame = CanFrame(flag | message.arbitration_id, bytes(message.data), message.is_fd, message.bitrate_switch)
        self.to_us.append(frame)

    def received(self) -> bytes:
        return bytes(self.theirs.recv() or b"")

    def run(self) -> None:
        idle = 0
        while idle < 3000:
            self.clock.now += 100e-6
            now = self.clock.now
            self.theirs.process()
            moved = bool(self.to_us)
            while self.to_us:
                self.events += self.ours.receive(self.to_us.popleft(), now)
            self.events += self.ours.tick(now)
            frame = self.ours.next_frame(now)
            if frame is not None:
                moved = True
                self.gaps.append(now - self._last)
                self._last = now
                self.events += self.ours.frame_sent(frame, now)
                message = isotp.CanMessage(
                    arbitration_id=frame.can_id & ~EXTENDED_FLAG,
                    data=frame.data,
                    extended_id=frame.extended,
                    is_fd=frame.fd,
                    bitrate_switch=frame.brs,
                )
                self.to_them.append(message)
            idle = 0 if moved else idle + 1


def params_of(tx_dl: int, padding: int | None, block_size: int = 0, st_min: int = 0) -> IsoTpParams:
    return IsoTpParams(tx_dl=tx_dl, fd=tx_dl > 8, padding=padding, block_size=block_size, st_min=st_min)


def theirs_of(tx_dl: int, padding: int | None, block_size: int = 0, st_min: int = 0) -> dict[str, object]:
    return {
        "tx_data_length": tx_dl,
        "can_fd": tx_dl > 8,
        "tx_padding": padding,
        "blocksize": block_size,
        "stmin": st_min,
    }


@pytest.mark.parametrize("tx_dl", [8, 12, 64])
@pytest.mark.parametrize("padding", [None, 0xCC])
@pytest.mark.parametrize("block_size", [0, 1, 8])
def test_we_send_to_can_isotp(clock: Clock, tx_dl: int, padding: int | None, block_size: int) -> None:
    pair = Pair(clock, params_of(tx_dl, padding), theirs_of(tx_dl, padding, block_size))
    for length in LENGTHS:
        pair.ours.send(payload_of(length), clock.now)
        pair.run()
        assert pair.received() == payload_of(length)
    assert pair.events == [MessageSent()] * len(LENGTHS)
    assert pair.errors == []
    assert pair.ours.counters.ignored == 0


@pytest.mark.parametrize("tx_dl", [8, 12, 64])
@pytest.mark.parametrize("padding", [None, 0xCC])
@pytest.mark.parametrize("block_size", [0, 1, 8])
def test_can_isotp_sends_to_us(clock: Clock, tx_dl: int, padding: int | None, block_size: int) -> None:
    pair = Pair(clock, params_of(tx_dl, padding, block_size), theirs_of(tx_dl, padding))
    for length in LENGTHS:
        pair.theirs.send(payload_of(length))
        pair.run()
    received = [event.payload for event in pair.events if isinstance(event, MessageReceived)]
    assert received == [payload_of(length) for length in LENGTHS]
    assert pair.errors == []
    assert pair.ours.counters.ignored == 0


@pytest.mark.parametrize(("st_min", "gap"), [(5, 0.005), (0xF5, 0.0005)])
def test_we_keep_the_st_min_of_can_isotp(clock: Clock, st_min: int, gap: float) -> None:
    pair = Pair(clock, params_of(8, None), theirs_of(8, None, 0, st_min))
    pair.ours.send(payload_of(100), clock.now)
    pair.run()
    assert pair.received() == payload_of(100)
    assert all(gap - 1e-9 <= seen <= gap + 150e-6 for seen in pair.gaps[2:]), "the line moves in steps of 100 us"


@pytest.mark.parametrize("st_min", [5, 0xF5])
def test_can_isotp_keeps_our_st_min(clock: Clock, st_min: int) -> None:
    pair = Pair(clock, params_of(8, None, 4, st_min), theirs_of(8, None))
    pair.theirs.send(payload_of(100))
    pair.run()
    assert pair.events[-1] == MessageReceived(payload_of(100))


def test_32_bit_lengths_both_ways(clock: Clock) -> None:
    params = IsoTpParams(max_payload=10_000)
    pair = Pair(clock, params, {**theirs_of(8, 0xCC), "max_frame_size": 10_000})
    pair.ours.send(payload_of(5000), clock.now)
    pair.run()
    assert pair.received() == payload_of(5000)
    pair.theirs.send(payload_of(6000))
    pair.run()
    assert pair.events[-1] == MessageReceived(payload_of(6000))


def test_29_bit_identifiers_both_ways(clock: Clock) -> None:
    pair = Pair(clock, params_of(8, 0xCC), theirs_of(8, 0xCC), extended=True)
    pair.ours.send(payload_of(100), clock.now)
    pair.run()
    assert pair.received() == payload_of(100)
    pair.theirs.send(payload_of(100))
    pair.run()
    assert pair.events[-1] == MessageReceived(payload_of(100))


def test_can_isotp_refuses_what_is_too_long_for_it(clock: Clock) -> None:
    pair = Pair(clock, params_of(8, 0xCC), {**theirs_of(8, 0xCC), "max_frame_size": 100})
    pair.ours.send(payload_of(101), clock.now)
    pair.run()
    (failed,) = pair.events
    assert isinstance(failed, SendFailed)
    assert isinstance(failed.error, NBufferOvflw)


def test_we_refuse_what_is_too_long_for_us(clock: Clock) -> None:
    pair = Pair(clock, IsoTpParams(max_payload=100), theirs_of(8, 0xCC))
    pair.theirs.send(payload_of(101))
    pair.run()
    assert [type(error) for error in pair.errors] == [isotp.OverflowError]
    assert pair.events == []


def test_can_isotp_finds_our_silence(clock: Clock) -> None:
    pair = Pair(clock, params_of(8, 0xCC), {**theirs_of(8, 0xCC), "rx_consecutive_frame_timeout": 100})
    pair.ours.send(payload_of(100), clock.now)
    frame = pair.ours.next_frame(clock.now)
    assert frame is not None
    pair.to_them.append(isotp.CanMessage(arbitration_id=OURS.tx_id, data=frame.data))
    pair.ours.frame_sent(frame, clock.now)
    pair.ours.abort_send(clock.now)
    pair.run()
    assert [type(error) for error in pair.errors] == [isotp.ConsecutiveFrameTimeoutError]


def test_we_find_its_silence(clock: Clock) -> None:
    pair = Pair(clock, IsoTpParams(n_bs_s=0.1), {**theirs_of(8, 0xCC), "listen_mode": True})
    pair.ours.send(payload_of(100), clock.now)
    pair.run()
    (failed,) = pair.events
    assert isinstance(failed, SendFailed)
    assert isinstance(failed.error, NTimeoutBs)
