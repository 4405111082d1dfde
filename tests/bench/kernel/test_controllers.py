"""The adapter on real SJA1000 drivers: back-pressure of a queue of ten frames, link state, and bus-off.

Bus-off cannot be had from the emulated controller.  QEMU's SJA1000 (hw/net/can/can_sja1000.c) has no error counters:
registers 10 to 15, RXERR and TXERR among them, drop what is written and read as zero.  No frame ever fails on its bus,
which does not even need a second node to acknowledge.  Error and bus status bits are never set and error interrupts
never raised, so the driver never leaves ERROR-ACTIVE, and ``ip link set can0 type can restart`` is refused.
`test_the_emulated_controller_cannot_go_bus_off` shows that this still holds.  How bus-off is reported is tested with
the error frame that the kernel sends for it, put on vcan0 by `cansend`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from ess_can.bus.clock import pause, until
from ess_can.bus.python_can import open_bus
from ess_can.can.frame import CanFrame
from ess_can.errors import BusError, BusOff, InterfaceDown, TransmitStalled
from tests.bench.kernel.links import CONTROLLERS, VCAN, details, link

LIMIT_S = 60.0
FIRST, SECOND = CONTROLLERS
QUEUE = 10
BURST = 16
OURS, THEIRS = 0x321, 0x7F0
INTERRUPT_ENABLE, TX_ERROR_COUNTER = 4, 15  # registers of an SJA1000 in PeliCAN mode
_FRAME = struct.pack("=IB3x8s", THEIRS, 8, bytes(8))  # struct can_frame


class Neighbour:
    """Another program on this host that fills the transmit queue, in the bands of both our priorities."""

    def __init__(self, channel: str) -> None:
        self._sockets = []
        for priority in (2, 6):
            opened = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)
            opened.bind((channel,))
            opened.setblocking(False)
            self._sockets.append(opened)
        self.refused = 0

    def fill(self) -> None:
        """Send until the queue has no room."""
        for opened in self._sockets:
            for _ in range(50 * QUEUE):
                try:
                    opened.send(_FRAME)
                except OSError as failure:
                    if failure.errno != errno.ENOBUFS:
                        raise
                    self.refused += 1
                    break

    def send_one(self) -> None:
        self._sockets[0].send(_FRAME)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for opened in self._sockets:
            opened.close()


@contextmanager
def registers(channel: str) -> Iterator[int]:
    """A file descriptor on the controller's registers."""
    opened = os.open(Path("/sys/class/net", channel, "device").resolve() / "resource1", os.O_RDWR)
    try:
        yield opened
    finally:
        os.close(opened)


@contextmanager
def held_up(channel: str, other: str) -> Iterator[None]:
    """The controller tells the driver nothing: after one frame everything stays in the queue.

    The emulated one looks at its interrupt enable register when something happens: a frame from `other`.
    """
    with registers(channel) as opened, Neighbour(other) as peer:
        enabled = os.pread(opened, 1, INTERRUPT_ENABLE)
        os.pwrite(opened, b"\0", INTERRUPT_ENABLE)
        try:
            yield
        finally:
            os.pwrite(opened, enabled, INTERRUPT_ENABLE)
            peer.send_one()


def test_a_queue_of_ten_frames_loses_none_of_ours(figures: list[str]) -> None:
    assert f"qlen {QUEUE}\n" in details(FIRST)

    async def run() -> None:
        # Heard on the sending side, after the controller has sent it: QEMU's bus takes no time, so at the other end
        # bursts overrun the 64-byte FIFO.
        sender, receiver = open_bus("socketcan", FIRST), open_bus("socketcan", FIRST)
        sender.start()
        receiver.start()
        heard: list[CanFrame] = []
        errors: list[BusError] = []
        receiver.subscribe((OURS,), lambda frame, _: heard.append(frame))
        sender.watch(errors.append)
        await pause(0.1)
        frames = [CanFrame(OURS, number.to_bytes(8, "big")) for number in range(5 * BURST)]
        with Neighbour(FIRST) as neighbour:
            for start in range(0, len(frames), BURST):
                with held_up(FIRST, SECOND):
                    neighbour.fill()
                    for frame in frames[start : start + BURST]:
                        sender.send(frame)
                    await pause(0.1)
                    assert len(heard) == start
                end = start + BURST
                assert await until(lambda end=end: len(heard) >= end, LIMIT_S)  # type: ignore[misc]
            assert neighbour.refused >= 10, "the queue never was full"
            figures.append(
                f"{len(frames)} frames in bursts of {BURST} through a full queue of {QUEUE}: none lost, "
                f"ENOBUFS seen {neighbour.refused} times by a neighbour"
            )
        assert heard == frames
        assert errors == []
        sender.close()
        receiver.close()

    asyncio.run(run())


def test_a_controller_that_confirms_nothing_is_a_typed_error() -> None:
    async def run() -> None:
        bus = open_bus("socketcan", FIRST)
        bus.start()
        errors: list[BusError] = []
        bus.watch(errors.append)
        await pause(0.1)
        with held_up(FIRST, SECOND):
            bus.send(CanFrame(OURS, b"1"))
            bus.send(CanFrame(OURS, b"2"))
            assert await until(lambda: bool(errors), LIMIT_S)
        assert type(errors[0]) is TransmitStalled
        bus.close()

    asyncio.run(run())


def test_a_bus_that_goes_down_is_reported() -> None:
    async def run() -> None:
        bus = open_bus("socketcan", FIRST)
        bus.start()
        errors: list[BusError] = []
        bus.watch(errors.append)
        bus.subscribe(None, lambda *_: None)
        await pause(0.1)
        link(FIRST, "down")
        assert await until(lambda: bool(errors), LIMIT_S)
        assert [type(error) for error in errors] == [InterfaceDown]
        with pytest.raises(BusError):
            bus.send(CanFrame(OURS, b"1"))
        bus.close()
        with pytest.raises(InterfaceDown):
            open_bus("socketcan", FIRST)

    asyncio.run(run())


def test_bus_off_as_the_kernel_reports_it() -> None:
    async def run() -> None:
        bus = open_bus("socketcan", VCAN)
        bus.start()
        errors: list[BusError] = []
        bus.watch(errors.append)
        await pause(0.1)
        sender = await asyncio.create_subprocess_exec("cansend", VCAN, "20000040#0000000000000000")
        assert await sender.wait() == 0
        assert await until(lambda: bool(errors), LIMIT_S)
        assert type(errors[0]) is BusOff
        bus.close()

    asyncio.run(run())


def test_the_emulated_controller_cannot_go_bus_off() -> None:
    link(FIRST, "down")  # in reset mode the counters of a real one can be written
    with registers(FIRST) as opened:
        os.pwrite(opened, b"\xff", TX_ERROR_COUNTER)
        assert os.pread(opened, 1, TX_ERROR_COUNTER) == b"\0"
    link(FIRST, "up")
    assert "state ERROR-ACTIVE" in details(FIRST)
    refused = subprocess.run(
        ["ip", "link", "set", FIRST, "type", "can", "restart"], capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode != 0
