"""Serial adapters that take nothing any more, on a pseudo terminal; and that what is written arrives whole."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import can
import pytest

from ess_can.bus.clock import pause, until
from ess_can.bus.driver import Heard
from ess_can.bus.python_can import MessageDriver, PythonCanBus
from ess_can.bus.serial_port import SerialOutlet, outlet_of
from ess_can.can.frame import CanFrame
from ess_can.errors import AdapterLost, BusError, TransmitQueueFull

A_FRAME = CanFrame(0x123, bytes(8))
OPTIONS: dict[str, dict[str, Any]] = {"slcan": {"sleep_after_open": 0}, "serial": {}, "seeedstudio": {}}


@contextmanager
def terminal() -> Iterator[tuple[int, str]]:
    """What the adapter reads from, and what the host opens."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    try:
        yield master, os.ttyname(slave)
    finally:
        os.close(slave)
        os.close(master)


@contextmanager
def no_longer_than(seconds: float) -> Iterator[None]:
    """Fail instead of blocking for ever."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError("the loop was blocked")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fill(path: str) -> None:
    """Let no byte more go into the terminal."""
    other = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        while True:
            os.write(other, b"\r")
    except BlockingIOError:
        pass
    finally:
        os.close(other)


@pytest.mark.parametrize("interface", OPTIONS)
def test_an_adapter_that_hangs_is_a_typed_error_and_the_loop_lives_on(interface: str) -> None:
    errors: list[BusError] = []
    beats: list[float] = []

    async def run(path: str) -> None:
        loop = asyncio.get_running_loop()
        opened = can.Bus(path, interface, **OPTIONS[interface])
        bus = PythonCanBus(MessageDriver(opened, interface), patience_s=0.2)
        bus.watch(errors.append)
        bus.start()
        fill(path)

        async def beat() -> None:
            while True:
                beats.append(loop.time())
                await pause(0.01)

        beating = asyncio.create_task(beat())
        sent: list[float] = []
        bus.send(A_FRAME)
        bus.send(A_FRAME, sent.append)
        assert await until(lambda: bool(errors), 30.0)
        beating.cancel()
        bus.close()
        assert not sent

    with terminal() as (_, path), no_longer_than(40.0):
        asyncio.run(run(path))
    assert [type(error) for error in errors] == [TransmitQueueFull]
    assert len(beats) > 2


class Port:
    """pyserial's port with an adapter behind it that takes `room` bytes, over a pipe."""

    def __init__(self, fileno: int) -> None:
        self.write_timeout: float | None = None
        self.out_waiting = 0
        self.discarded = 0
        self.write: Callable[[bytes], int] = lambda data: len(data)
        self.flush: Callable[[], None] = lambda: None
        self._fileno = fileno

    def fileno(self) -> int:
        return self._fileno

    def reset_output_buffer(self) -> None:
        self.discarded += 1


def test_there_is_no_room_while_some_frames_wait_in_the_port() -> None:
    reading, writing = os.pipe()
    port = Port(writing)
    outlet = SerialOutlet(port)
    port.write(b"t1238" + bytes(17))
    port.flush()
    port.out_waiting = 4 * 22
    assert outlet.has_room()
    port.out_waiting += 1
    assert not outlet.has_room()
    assert os.read(reading, 100) == b"t1238" + bytes(17)
    os.close(writing)
    os.close(reading)


def test_a_command_that_only_half_fits_goes_out_whole_before_the_next_one() -> None:
    with terminal() as (master, path):
        fill(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        port = Port(descriptor)
        outlet = SerialOutlet(port)
        commands = [b"t%03X8%016X\r" % (number, number) for number in range(4000)]
        got, waiting = bytearray(), list(commands)
        while waiting or not outlet.has_room():
            if waiting and outlet.has_room():
                assert port.write(waiting[0]) == len(waiting.pop(0))
            else:
                got += os.read(master, 333)
        os.close(descriptor)
        while not got.endswith(commands[-1]):
            got += os.read(master, 4096)
    assert bytes(got).lstrip(b"\r") == b"".join(commands)


def test_what_waits_for_an_adapter_that_hangs_is_forgotten_at_the_end() -> None:
    with terminal() as (_, path):
        fill(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        port = Port(descriptor)
        outlet = SerialOutlet(port)
        port.write(b"t1230\r")
        assert not outlet.has_room()
        outlet.discard()
        assert outlet.has_room()
        assert port.discarded == 1
        os.close(descriptor)


def test_an_adapter_that_is_pulled_while_a_frame_waits_is_lost() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    opened = can.Bus(os.ttyname(slave), "slcan", sleep_after_open=0)
    driver = MessageDriver(opened, "slcan")
    os.close(slave)
    os.close(master)
    with pytest.raises(AdapterLost):
        driver.write(A_FRAME, bulk=False)
    driver.close()


def test_slcan_is_read_without_waiting_and_half_a_line_is_kept() -> None:
    with terminal() as (master, path):
        opened = can.Bus(path, "slcan", sleep_after_open=0)
        driver = MessageDriver(opened, "slcan")
        heard: list[Heard] = []

        def read_some() -> None:
            """A terminal takes its time: some of what was written may still be on its way."""
            assert select.select([opened.fileno()], [], [], 10)[0]
            heard.extend(driver.read(10, 0))

        os.write(master, b"t12320")
        read_some()
        assert heard == []
        os.write(master, b"102\rt1230\r")
        while len(heard) < 2:
            read_some()
        driver.close()
        assert heard == [CanFrame(0x123, b"\x01\x02"), CanFrame(0x123, b"")]
        assert opened.serialPortOrig.timeout == 0  # type: ignore[attr-defined]


def test_only_ports_of_this_machine_are_taken_over() -> None:
    looped = can.Bus("loop://", "robotell")
    assert outlet_of(looped, "robotell") is None
    looped.shutdown()
    assert outlet_of(object(), "socketcan") is None
