"""The emulated serial adapter itself, byte by byte: a test adapter that forgives everything would prove nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from ess_can.bus.clock import pause, until
from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.can.timing import BitTiming
from ess_can.sim.controller import Controller
from ess_can.sim.wire import Wire
from tests.support.lawicel import Lawicel


class Host:
    """Who has the adapter's terminal open, and another node on its bus."""

    def __init__(self) -> None:
        self.wire = Wire(BitTiming(500_000))
        self.other: Controller = self.wire.controller("other")
        self.heard: list[CanFrame] = []
        self.other.subscribe(None, lambda frame, _at: self.heard.append(frame))
        self.adapter = Lawicel(lambda bitrate: self.wire.controller("adapter", depth=16, bitrate=bitrate))
        self.port = os.open(self.adapter.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    async def says(self, text: str, answer: str) -> None:
        """Send, and compare what comes back."""
        os.write(self.port, text.encode())
        await self.hears(answer)

    async def hears(self, expected: str) -> None:
        got = ""

        def all_there() -> bool:
            nonlocal got
            with suppress(BlockingIOError):
                got += os.read(self.port, 4096).decode()
            return len(got) >= len(expected)

        assert await until(all_there, 5.0), got
        assert got == expected


def with_host(test: Callable[[Host], Awaitable[None]]) -> Host:
    async def run() -> Host:
        host = Host()
        try:
            await test(host)
        finally:
            host.adapter.pull()
            os.close(host.port)
        return host

    return asyncio.run(run())


def test_who_it_is() -> None:
    async def test(host: Host) -> None:
        await host.says("V\r", "V1013\r")
        await host.says("N\r", "NE55A\r")
        await host.says("\r\r", "\r\r")

    assert with_host(test).adapter.nonsense == []


def test_the_channel_opens_at_a_bit_rate_and_frames_go_both_ways() -> None:
    async def test(host: Host) -> None:
        await host.says("S6\rO\r", "\r\r")
        await host.says("t0A23010203\rT18DAF1100\rr1235\rR000000018\r", "z\rZ\rz\rZ\r")
        assert await until(lambda: len(host.heard) == 4, 5.0)
        for frame in host.heard:
            host.other.send(frame)
        await host.hears("t0A23010203\rT18DAF1100\rr1235\rR000000018\r")
        await host.says("F\rC\r", "F00\r\r")

    host = with_host(test)
    assert sorted(host.heard) == sorted(
        [
            CanFrame(0x0A2, b"\x01\x02\x03"),
            CanFrame(0x18DA_F110 | EXTENDED_FLAG, b""),
            CanFrame(0x123, bytes(5), remote=True),
            CanFrame(1 | EXTENDED_FLAG, bytes(8), remote=True),
        ]
    )
    assert (host.adapter.nonsense, host.adapter.sent, host.adapter.received) == ([], 4, 4)


@pytest.mark.parametrize(
    "command",
    [
        *("x", "S9", "S", "S66", "s0000", "OO", "Z2", "F", "C", "L1", "hello there", "O"),
        *("t0A20", "t0A2301020", "t8000", "T20000000000", "t0a23010203", "é"),
    ],
)
def test_nonsense_on_a_closed_channel(command: str) -> None:
    async def test(host: Host) -> None:
        os.write(host.port, command.encode() + b"\r")
        await host.hears("\a")

    assert len(with_host(test).adapter.nonsense) == 1


@pytest.mark.parametrize(
    "command",
    [
        *("O", "L", "S6", "Z1", "Z0", "t", "t0A2", "t0A29", "t0A29000000000000000000", "t8000", "t0A2301020"),
        *("t0A230102030", "t0a0aa", "T18DAF11", "T200000000", "r123", "r1239", "r123500", "tXYZ0", "t0A21G0", "V1"),
    ],
)
def test_nonsense_on_an_open_channel_is_not_sent(command: str) -> None:
    async def test(host: Host) -> None:
        await host.says("S6\rO\r", "\r\r")
        await host.says(f"{command}\r", "\a")
        await host.says("t0010\r", "z\r")
        assert await until(lambda: bool(host.heard), 5.0)

    host = with_host(test)
    assert host.heard == [CanFrame(1, b"")]
    assert host.adapter.nonsense == [command]


def test_a_line_without_end_is_nonsense_too() -> None:
    async def test(host: Host) -> None:
        await host.says("V" * 100, "\a")

    with_host(test)


def test_listening_only() -> None:
    async def test(host: Host) -> None:
        await host.says("S6\rL\rt0010\r", "\r\r\a")
        host.wire.controller("third")
        host.other.send(CanFrame(0x123, b"\x0f"))
        await host.hears("t12310F\r")

    assert with_host(test).heard == []


def test_time_stamps_are_milliseconds_of_a_minute() -> None:
    async def test(host: Host) -> None:
        await host.says("Z1\rS6\rO\r", "\r\r\r")
        host.other.send(CanFrame(0x123, b""))
        got = bytearray()

        def whole() -> bool:
            with suppress(BlockingIOError):
                got.extend(os.read(host.port, 100))
            return got.endswith(b"\r")

        assert await until(whole, 5.0)
        assert got.startswith(b"t1230")
        assert len(got) == len(b"t1230FFFF\r")
        assert int(got[5:9], 16) < 60_000

    with_host(test)


def test_at_another_bit_rate_it_hears_nothing() -> None:
    async def test(host: Host) -> None:
        await host.says("S4\rO\r", "\r\r")
        host.other.send(CanFrame(0x123, b""))
        await pause(0.05)
        assert host.wire.error_frames > 0

    assert with_host(test).adapter.received == 0


def test_a_host_that_is_faster_than_the_bus_is_held_back_and_nothing_is_lost() -> None:
    async def test(host: Host) -> None:
        await host.says("S6\rO\r", "\r\r")
        frames = b"".join(b"t1231%02X\r" % (number % 256) for number in range(200))
        os.write(host.port, frames)
        await pause(0.005)
        assert len(host.heard) < 200
        assert await until(lambda: len(host.heard) == 200, 5.0)
        await host.hears("z\r" * 200)

    assert [frame.data[0] for frame in with_host(test).heard] == list(range(200))


def test_a_host_that_does_not_read_loses_frames_and_is_told() -> None:
    async def test(host: Host) -> None:
        await host.says("S8\rO\r", "\r\r")
        for _ in range(400):
            for _ in range(10):
                host.adapter._received(CanFrame(0x123, bytes(8)), 0.0)
        assert host.adapter.lost > 0
        assert host.adapter.received > 0

        def drained() -> bool:
            try:
                return not os.read(host.port, 1 << 16)
            except BlockingIOError:
                return True

        await pause(0.02)
        assert await until(lambda: drained() and not host.adapter._to_host, 5.0)
        await host.says("F\rF\r", "F08\rF00\r")

    with_host(test)


def test_once_pulled_the_terminal_is_gone() -> None:
    async def test(host: Host) -> None:
        await host.says("S6\rO\r", "\r\r")
        host.adapter.pull()
        host.adapter.pull()
        with pytest.raises(OSError, match="Input/output error"):
            os.write(host.port, b"V\r")
        host.other.send(CanFrame(0x123, b""))
        await pause(0.02)
        assert host.wire.error_frames > 0  # nobody acknowledges any more

    with_host(test)
