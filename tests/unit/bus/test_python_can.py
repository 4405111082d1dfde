from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import can
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ess_can.bus import python_can
from ess_can.bus.port import Bus
from ess_can.bus.python_can import PythonCanBus, from_message, open_bus, to_message
from ess_can.can.frame import EXTENDED_FLAG, FD_LENGTHS, CanFrame
from ess_can.errors import AdapterLost, BusError, BusOff, InterfaceUnavailable, TransmitQueueFull, UsageError
from ess_can.sim.loop import VirtualTimeLoop

A_FRAME = CanFrame(0x123, b"\x01\x02")


# --- conversion -------------------------------------------------------------------------------------------------

identifiers = st.one_of(st.integers(0, 0x7FF), st.integers(0, 0x1FFF_FFFF).map(lambda i: i | EXTENDED_FLAG))
frames = st.one_of(
    st.builds(lambda can_id, data: CanFrame(can_id, data), identifiers, st.binary(max_size=8)),
    st.builds(lambda can_id, length: CanFrame(can_id, bytes(length), remote=True), identifiers, st.integers(0, 8)),
    st.builds(
        lambda can_id, data, brs: CanFrame(can_id, data, fd=True, brs=brs),
        identifiers,
        st.sampled_from(FD_LENGTHS).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
        st.booleans(),
    ),
)


@settings(max_examples=150, deadline=None)
@given(frames)
def test_a_frame_survives_the_way_through_python_cans_message(frame: CanFrame) -> None:
    message = to_message(frame)
    message._check()
    assert from_message(message) == frame


def test_a_message_has_data_of_its_own() -> None:
    message = to_message(A_FRAME)
    message.data.extend(bytes(6))  # as gs_usb pads it
    assert A_FRAME.data == b"\x01\x02"


def test_an_error_frame_is_no_frame() -> None:
    assert from_message(can.Message(is_error_frame=True)) is None


def test_importing_the_module_does_not_import_python_can() -> None:
    code = "import sys, ess_can.bus.python_can; sys.exit('can' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- opening ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interface", "channel", "hint"),
    [
        ("socketcan", "no-such-can", "ip -brief link"),
        ("slcan", "/dev/no-such-tty", "list_ports"),
        ("no-such-interface", "x", "that python-can knows: "),
        ("udp_multicast", "not an address", "detect_available_configs"),
    ],
)
def test_whatever_goes_wrong_on_opening_is_one_error_that_says_where_and_what_to_do(
    interface: str, channel: str, hint: str
) -> None:
    with pytest.raises(InterfaceUnavailable, match=f"cannot open interface {interface}, channel {channel}") as caught:
        open_bus(interface, channel)
    assert hint in caught.value.remedy
    assert caught.value.why


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol"),
        NameError("name 'canGetNumberOfChannels' is not defined"),
        can.CanInitializationError("no device"),
        can.CanInterfaceNotImplementedError("not on this system"),
        ImportError("no driver"),
        TypeError("unexpected keyword"),
    ],
)
def test_every_exception_that_backends_are_known_to_raise_is_mapped(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(can, "Bus", fail)
    with pytest.raises(InterfaceUnavailable, match="cannot open the configured interface") as caught:
        open_bus()
    assert str(failure) in caught.value.why
    assert "-i socketcan" in caught.value.remedy


def test_what_is_not_given_is_left_to_python_cans_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    given_options: list[dict[str, object]] = []

    def record(channel: object, interface: object, **options: object) -> can.BusABC:
        given_options.append({"channel": channel, "interface": interface, **options})
        return FakeDriver()

    monkeypatch.setattr(can, "Bus", record)
    open_bus()
    open_bus("x", 1, bitrate=250_000, fd=False, filters=[(0x7E0, 0x7FF)], bus_kwargs={"serial": 7})
    assert given_options == [
        {"channel": None, "interface": None},
        {
            "channel": 1,
            "interface": "x",
            "bitrate": 250_000,
            "fd": False,
            "can_filters": [{"can_id": 0x7E0, "can_mask": 0x7FF}],
            "serial": 7,
        },
    ]


def test_python_cans_environment_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAN_INTERFACE", "virtual")
    monkeypatch.setenv("CAN_CHANNEL", "from-environment")
    bus = open_bus()
    assert bus._backend == "virtual"
    bus.close()
    bus.close()


# --- a driver that fails as told, in virtual time ------------------------------------------------------------------


class FakeDriver(can.BusABC):
    """A python-can bus whose queue and failures a test controls."""

    def __init__(self, fileno: int = 5) -> None:
        super().__init__("fake")
        self.sent: list[can.Message] = []
        self.failures: list[Exception | None] = []  # of the next sends; None is success
        self.always: Exception | None = None
        self.incoming: list[can.Message | Exception] = []
        self.shutdowns = 0
        self._fileno = fileno

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        failure = self.failures.pop(0) if self.failures else self.always
        if failure is not None:
            raise failure
        self.sent.append(msg)

    def recv(self, timeout: float | None = None) -> can.Message | None:
        if not self.incoming:
            return None
        item = self.incoming.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    def fileno(self) -> int:
        return self._fileno

    def shutdown(self) -> None:
        self.shutdowns += 1
        super().shutdown()

    @property
    def ids(self) -> list[int]:
        return [message.arbitration_id for message in self.sent]


class DeviceLoop(VirtualTimeLoop):
    """Virtual time with one file descriptor, which the test makes readable."""

    reader: Callable[[], object] | None = None

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        self.reader = callback

    def remove_reader(self, fd: Any) -> bool:
        self.reader = None
        return True


class Bench:
    """A started bus on a fake driver, and all it reports."""

    def __init__(self, backend: str = "fake", *, depth: int = 4) -> None:
        self.driver = FakeDriver()
        self.bus = PythonCanBus(self.driver, backend=backend, depth=depth, patience_s=1.0)
        self.received: list[tuple[CanFrame, float]] = []
        self.errors: list[BusError] = []
        self.confirmed: list[tuple[int, float]] = []
        self.bus.subscribe(None, lambda frame, now: self.received.append((frame, now)))
        self.bus.watch(self.errors.append)
        self.bus.start()

    def send(self, can_id: int) -> None:
        self.bus.send(CanFrame(can_id, b""), lambda now: self.confirmed.append((can_id, now)))

    def arrive(self, *items: can.Message | Exception) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, DeviceLoop)
        self.driver.incoming.extend(items)
        while self.driver.incoming and loop.reader is not None:
            loop.reader()


def on_device_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        with asyncio.Runner(loop_factory=DeviceLoop) as runner:
            runner.run(test())

    run.__name__ = test.__name__
    return run


async def run_until(when: float) -> None:
    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    loop.call_at(when, woken.set_result, None)
    await woken


FULL = can.CanOperationError("Failed to transmit: No buffer space available", errno.ENOBUFS)


@on_device_loop
async def test_a_sent_frame_is_confirmed_once_the_driver_has_it_but_not_from_inside_send() -> None:
    bench = Bench()
    bench.send(1)
    assert bench.driver.ids == [1]
    assert bench.confirmed == []
    await run_until(0.1)
    assert bench.confirmed == [(1, 0.0)]


@pytest.mark.parametrize(
    "failure",
    [
        FULL,
        can.CanOperationError("Failed to transmit", errno.EAGAIN),
        can.CanOperationError("Transmit buffer full"),
        can.CanOperationError("The transmit queue is full"),
        OSError(errno.ENOBUFS, "No buffer space available"),
    ],
)
def test_a_full_driver_queue_delays_frames_and_loses_none(failure: Exception) -> None:
    @on_device_loop
    async def test() -> None:
        bench = Bench()
        bench.driver.failures = [None, failure, failure, failure, None, failure, None]
        for can_id in (1, 2, 3, 4):
            bench.send(can_id)
        assert bench.driver.ids == [1]
        await run_until(0.1)
        assert bench.driver.ids == [1, 2, 3, 4]
        assert [can_id for can_id, _ in bench.confirmed] == [1, 2, 3, 4]
        assert 0.0005 <= bench.confirmed[1][1] < bench.confirmed[2][1] < 0.02
        assert bench.errors == []

    test()


@on_device_loop
async def test_frames_beyond_the_depth_are_refused() -> None:
    bench = Bench(depth=2)
    bench.driver.always = FULL
    bench.send(1)
    bench.send(2)
    with pytest.raises(TransmitQueueFull):
        bench.send(3)
    bench.driver.always = None
    await run_until(0.1)
    assert bench.driver.ids == [1, 2]


@on_device_loop
async def test_a_queue_that_stays_full_is_reported_and_its_stale_frames_are_dropped() -> None:
    bench = Bench()
    bench.driver.always = FULL
    bench.send(1)
    bench.send(2)
    await run_until(0.99)
    assert bench.errors == []
    await run_until(1.1)
    assert [type(error) for error in bench.errors] == [TransmitQueueFull]
    assert "acknowledges" in bench.errors[0].why
    bench.driver.always = None
    bench.send(3)
    await run_until(2)
    assert bench.driver.ids == [3]
    assert [can_id for can_id, _ in bench.confirmed] == [3]


@on_device_loop
async def test_progress_restarts_the_patience() -> None:
    bench = Bench()
    bench.driver.always = FULL
    bench.send(1)
    bench.send(2)
    await run_until(0.9)
    bench.driver.failures = [None]
    await run_until(1.5)
    assert bench.driver.ids == [1]
    assert bench.errors == []
    await run_until(2)
    assert len(bench.errors) == 1


@pytest.mark.parametrize(
    "failure",
    [
        can.CanOperationError("Failed to transmit: No such device", errno.ENODEV),
        can.CanOperationError("Failed to transmit: Network is down", errno.ENETDOWN),
        OSError(errno.ENODEV, "No such device"),
        OSError("device reports readiness to read but returned no data"),
    ],
)
def test_a_vanished_adapter_is_reported_once_and_ends_the_bus(failure: Exception) -> None:
    @on_device_loop
    async def while_sending() -> None:
        bench = Bench()
        bench.driver.always = failure
        with pytest.raises(AdapterLost):
            bench.send(1)
        with pytest.raises(AdapterLost):
            bench.send(2)
        assert [type(error) for error in bench.errors] == [AdapterLost]

    @on_device_loop
    async def while_waiting() -> None:
        bench = Bench()
        bench.driver.failures = [FULL]
        bench.driver.always = failure
        bench.send(1)
        bench.send(2)
        await run_until(1)
        assert [type(error) for error in bench.errors] == [AdapterLost]
        assert bench.confirmed == []

    @on_device_loop
    async def while_receiving() -> None:
        bench = Bench()
        bench.arrive(failure, to_message(A_FRAME))
        assert [type(error) for error in bench.errors] == [AdapterLost]
        assert bench.received == []
        with pytest.raises(AdapterLost):
            bench.send(1)

    while_sending()
    while_waiting()
    while_receiving()


@on_device_loop
async def test_a_frame_that_the_driver_rejects_is_an_error_of_that_frame_only() -> None:
    bench = Bench()
    invalid = can.CanOperationError("Failed to transmit: Invalid argument", errno.EINVAL)
    bench.driver.failures = [invalid]
    with pytest.raises(BusError, match="did not take"):
        bench.send(1)
    bench.driver.failures = [FULL, invalid]
    bench.send(2)
    bench.send(3)
    await run_until(1)
    assert bench.driver.ids == [3]
    assert [type(error) for error in bench.errors] == [BusError]


@on_device_loop
async def test_received_frames_carry_the_loops_time_and_go_to_whom_they_concern() -> None:
    bench = Bench()
    seen: list[CanFrame] = []
    cancel = bench.bus.subscribe([0x123], lambda frame, _: seen.append(frame))
    other = CanFrame(EXTENDED_FLAG | 0x123, b"")
    await run_until(0.25)
    bench.arrive(to_message(A_FRAME), to_message(other))
    cancel()
    cancel()
    bench.arrive(to_message(A_FRAME))
    assert seen == [A_FRAME]
    assert bench.received == [(A_FRAME, 0.25), (other, 0.25), (A_FRAME, 0.25)]


@on_device_loop
async def test_own_frames_are_dropped() -> None:
    bench = Bench()
    echo = to_message(A_FRAME)
    echo.is_rx = False
    bench.arrive(echo)
    assert bench.received == []


@on_device_loop
async def test_udp_multicasts_unmarked_echoes_are_dropped_each_once() -> None:
    bench = Bench("udp_multicast")
    for can_id in (1, 2, 3, 3):
        bench.send(can_id)
    # the echo of 1 was lost; somebody else sends 3 as well
    bench.arrive(*(to_message(CanFrame(can_id, b"")) for can_id in (2, 4, 3, 3, 3, 1)))
    assert [frame.can_id for frame, _ in bench.received] == [4, 3, 1]


@on_device_loop
async def test_a_burst_is_read_in_slices() -> None:
    bench = Bench()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, DeviceLoop)
    assert loop.reader is not None
    bench.driver.incoming.extend(to_message(A_FRAME) for _ in range(100))
    loop.reader()
    assert len(bench.received) == 64
    loop.reader()
    assert len(bench.received) == 100


@on_device_loop
async def test_unreadable_input_is_counted_and_ends_the_bus_only_if_nothing_else_comes() -> None:
    bench = Bench()
    garbage = can.CanOperationError("could not unpack received message")
    bench.arrive(*[garbage] * 99, to_message(A_FRAME), *[garbage] * 99)
    assert bench.bus.unreadable == 198
    assert bench.errors == []
    bench.arrive(garbage)
    assert [type(error) for error in bench.errors] == [AdapterLost]


@on_device_loop
async def test_the_kernels_bus_off_report_reaches_the_watchers() -> None:
    bus_off = can.Message(is_error_frame=True, arbitration_id=0x40, is_extended_id=False)
    warning = can.Message(is_error_frame=True, arbitration_id=0x04, is_extended_id=False)
    bench = Bench("socketcan")
    bench.arrive(warning, bus_off)
    assert [type(error) for error in bench.errors] == [BusOff]
    bench.send(1)  # the kernel may restart the controller
    elsewhere = Bench("pcan")
    elsewhere.arrive(bus_off)
    assert elsewhere.errors == []


@on_device_loop
async def test_a_cancelled_watcher_hears_nothing() -> None:
    bench = Bench()
    cancel = bench.bus.watch(lambda _: pytest.fail("cancelled"))
    cancel()
    cancel()
    bench.arrive(OSError(errno.ENODEV, "gone"))
    assert len(bench.errors) == 1


@on_device_loop
async def test_a_closed_bus_releases_the_adapter_once_and_drops_what_waits() -> None:
    bench = Bench()
    bench.driver.always = FULL
    bench.send(1)
    bench.bus.close()
    bench.bus.close()
    bench.driver.always = None
    await run_until(5)
    assert bench.driver.shutdowns == 1
    assert bench.driver.ids == []
    assert bench.errors == []
    with pytest.raises(AdapterLost, match="closed"):
        bench.send(2)


@on_device_loop
async def test_closing_while_a_burst_is_read_stops_the_reading() -> None:
    bench = Bench()
    bench.bus.subscribe(None, lambda *_: bench.bus.close())
    bench.arrive(to_message(A_FRAME), to_message(A_FRAME))
    assert len(bench.received) == 1


@on_device_loop
async def test_an_fd_frame_is_refused_on_a_classic_bus() -> None:
    bench = Bench()
    port: Bus = bench.bus
    assert not port.fd
    with pytest.raises(UsageError, match="classic"):
        port.send(CanFrame(1, bytes(12), fd=True))


def test_sending_before_start_is_a_usage_error() -> None:
    bus = PythonCanBus(FakeDriver(), backend="fake")
    with pytest.raises(UsageError, match="not started"):
        bus.send(A_FRAME)
    bus.close()


# --- real interfaces, ordinary loop -------------------------------------------------------------------------------


async def first_frame(bus: PythonCanBus) -> asyncio.Future[CanFrame]:
    arrived: asyncio.Future[CanFrame] = asyncio.get_running_loop().create_future()
    bus.subscribe(None, lambda frame, _: None if arrived.done() else arrived.set_result(frame))
    bus.start()
    bus.start()
    return arrived


def exchange(left: PythonCanBus, right: PythonCanBus, there: CanFrame, back: CanFrame) -> None:
    async def main() -> None:
        try:
            at_left, at_right = await first_frame(left), await first_frame(right)
            async with asyncio.timeout(10):
                left.send(there)
                assert await at_right == there
                right.send(back)
                assert await at_left == back  # and not its own frame
        finally:
            left.close()
            right.close()

    asyncio.run(main())


def test_two_buses_of_one_process_over_the_virtual_interface_with_a_reader_thread_each() -> None:
    left, right = (open_bus("virtual", "test-python-can") for _ in range(2))
    exchange(left, right, A_FRAME, CanFrame(EXTENDED_FLAG | 5, b"\x09"))
    assert left._thread is not None
    assert not left._thread.is_alive()


def test_echoes_of_the_virtual_interface_are_recognised() -> None:
    left, right = (open_bus("virtual", "echo", bus_kwargs={"receive_own_messages": True}) for _ in range(2))
    exchange(left, right, A_FRAME, CanFrame(2, b""))


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


GROUP = "239.74.163.2"


def test_two_buses_over_udp_multicast_on_file_descriptors() -> None:
    port = free_port()
    left, right = (open_bus("udp_multicast", GROUP, fd=True, bus_kwargs={"port": port}) for _ in range(2))
    assert left.fd
    exchange(left, right, A_FRAME, CanFrame(7, bytes(64), fd=True, brs=True))
    assert left._thread is None


ANSWERING = """
import asyncio, sys
from ess_can.bus.python_can import open_bus
from ess_can.can.frame import CanFrame

async def main():
    bus = open_bus("udp_multicast", sys.argv[1], bus_kwargs={"port": int(sys.argv[2])})
    done = asyncio.get_running_loop().create_future()
    bus.subscribe([0x123], lambda frame, now: bus.send(CanFrame(0x321, frame.data[::-1]), done.set_result))
    bus.start()
    print("ready", flush=True)
    await asyncio.wait_for(done, 10)
    bus.close()

asyncio.run(main())
"""


def test_two_processes_over_udp_multicast() -> None:
    port = free_port()
    bus = open_bus("udp_multicast", GROUP, bus_kwargs={"port": port})

    async def main(other: subprocess.Popen[str]) -> CanFrame:
        arrived = await first_frame(bus)
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        async with asyncio.timeout(10):
            bus.send(A_FRAME)
            return await arrived

    try:
        with subprocess.Popen(
            [sys.executable, "-c", ANSWERING, GROUP, str(port)], stdout=subprocess.PIPE, text=True
        ) as other:
            assert asyncio.run(main(other)) == CanFrame(0x321, b"\x02\x01")
            assert other.wait(10) == 0
    finally:
        bus.close()


class ThreadDriver(FakeDriver):
    """A driver without file descriptor, as most outside Linux."""

    def fileno(self) -> int:
        raise NotImplementedError


def test_a_failure_in_the_reader_thread_is_reported_on_the_loop() -> None:
    async def main() -> BusError:
        driver = ThreadDriver()
        driver.incoming.append(OSError(errno.ENODEV, "gone"))
        bus = PythonCanBus(driver, backend="fake")
        lost: asyncio.Future[BusError] = asyncio.get_running_loop().create_future()
        bus.watch(lost.set_result)
        bus.start()
        async with asyncio.timeout(10):
            error = await lost
        bus.close()
        return error

    assert isinstance(asyncio.run(main()), AdapterLost)


@pytest.mark.parametrize("item", [to_message(A_FRAME), can.CanOperationError("garbage")])
def test_the_reader_thread_ends_when_its_loop_is_gone(item: can.Message | Exception) -> None:
    driver = ThreadDriver()
    bus = PythonCanBus(driver, backend="fake")

    async def main() -> None:
        bus.start()

    asyncio.run(main())
    driver.incoming.append(item)
    assert bus._thread is not None
    bus._thread.join(10)
    assert not bus._thread.is_alive()
    bus.close()


def test_a_loop_that_cannot_watch_file_descriptors_gets_a_reader_thread() -> None:
    class ProactorLike(asyncio.SelectorEventLoop):
        def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
            raise NotImplementedError

    async def main() -> None:
        bus = PythonCanBus(FakeDriver(), backend="fake")
        bus.start()
        assert bus._thread is not None
        bus.close()

    with asyncio.Runner(loop_factory=ProactorLike) as runner:
        with pytest.raises(NotImplementedError):
            runner.get_loop().add_reader(0, os.getpid)
        runner.run(main())


def test_error_numbers_that_are_no_numbers_are_no_back_pressure() -> None:
    failure = RuntimeError("x")
    assert not python_can._is_back_pressure(failure)
    assert not python_can._is_gone(failure)
