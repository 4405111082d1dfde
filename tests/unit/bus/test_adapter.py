from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from typing import Any

import can
import pytest

from ess_can.bus.adapter import PythonCanBus
from ess_can.bus.clock import pause
from ess_can.bus.driver import ErrorReport, ErrorState
from ess_can.bus.message import to_message
from ess_can.bus.port import Bus
from ess_can.bus.python_can import MessageDriver
from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.errors import (
    AdapterLost,
    BusError,
    BusOff,
    ErrorPassive,
    InterfaceDown,
    TransmitQueueFull,
    UsageError,
)
from tests.unit.bus.bench import Bench, DeviceLoop, FakeDriver, on_device_loop, run_until

A_FRAME = CanFrame(0x123, b"\x01\x02")

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


def error_frame(kind: int, data: bytes = bytes(8)) -> can.Message:
    return can.Message(is_error_frame=True, arbitration_id=kind, is_extended_id=False, data=data, dlc=8)


BUS_OFF, RESTARTED = error_frame(0x40), error_frame(0x100)


@on_device_loop
async def test_bus_off_is_reported_once_and_refuses_frames_until_the_restart() -> None:
    bench = Bench("gs_usb")
    bench.send(1)
    bench.arrive(BUS_OFF, BUS_OFF)
    assert [type(error) for error in bench.errors] == [BusOff]
    with pytest.raises(BusOff):
        bench.send(2)
    bench.arrive(RESTARTED)
    assert bench.bus.restarts == 1
    bench.send(3)
    bench.arrive(BUS_OFF)
    assert [type(error) for error in bench.errors] == [BusOff, BusOff]
    bench.arrive(to_message(A_FRAME))  # an adapter that restarts without a word
    bench.send(4)
    assert bench.driver.ids == [1, 3, 4]
    assert bench.confirmed == []
    elsewhere = Bench("pcan")
    elsewhere.arrive(BUS_OFF)
    assert elsewhere.errors == []


@on_device_loop
async def test_bus_off_that_a_driver_raises_is_the_same() -> None:
    bench = Bench()
    bench.driver.failures = [can.CanOperationError("the CAN controller is in bus-off state")]
    with pytest.raises(BusOff):
        bench.send(1)
    with pytest.raises(BusOff):
        bench.send(2)
    assert [type(error) for error in bench.errors] == [BusOff]


@on_device_loop
async def test_error_passive_is_a_warning_once_each_time() -> None:
    passive = error_frame(0x204, bytes((0, 0x20, 0, 0, 0, 0, 136, 7)))
    active = error_frame(0x204, bytes((0, 0x40, 0, 0, 0, 0, 120, 0)))
    warning = error_frame(0x204, bytes((0, 0x08, 0, 0, 0, 0, 96, 0)))
    bench = Bench("gs_usb")
    bench.arrive(warning, passive, passive)
    assert [type(error) for error in bench.errors] == [ErrorPassive]
    assert bench.errors[0].why == "TEC 136, REC 7"
    assert not bench.errors[0].ends_use
    bench.send(1)
    bench.arrive(active)
    assert bench.bus.last_report == ErrorReport(ErrorState.ACTIVE, tec=120, rec=0)
    bench.arrive(passive)
    assert len(bench.errors) == 2


@on_device_loop
async def test_an_adapter_that_can_be_asked_is_asked_for_bus_off() -> None:
    bench = Bench("ixxat")
    await run_until(1)
    assert bench.errors == []
    bench.driver.state = can.BusState.ERROR
    await run_until(2)
    assert [type(error) for error in bench.errors] == [BusOff]
    bench.driver.state = can.BusState.ACTIVE
    await run_until(3)
    bench.send(1)
    bench.bus.close()
    bench.driver.state = can.BusState.ERROR
    await run_until(4)
    assert len(bench.errors) == 1


DOWN = can.CanOperationError("Failed to transmit: Network is down", errno.ENETDOWN)


@on_device_loop
async def test_an_interface_that_goes_down_is_told_once_and_may_come_back() -> None:
    bench = Bench()
    bench.driver.failures = [FULL]
    bench.send(1)
    bench.arrive(DOWN)
    assert [type(error) for error in bench.errors] == [InterfaceDown]
    bench.driver.always = DOWN
    for _ in range(2):
        with pytest.raises(InterfaceDown):
            bench.send(2)
    assert len(bench.errors) == 1
    bench.driver.always = None
    await run_until(1)
    bench.send(3)
    assert bench.driver.ids == [3]
    bench.arrive(to_message(A_FRAME), DOWN)
    assert len(bench.errors) == 2


@on_device_loop
async def test_frames_that_were_lost_unread_do_not_stall_what_waits_for_them() -> None:
    bench = Bench("gs_usb")
    bench.send(1)
    bench.bus._take([ErrorReport(overrun=7)])
    assert [can_id for can_id, _ in bench.confirmed] == [1]
    assert bench.bus.overruns == 7
    await run_until(3)
    assert bench.errors == []


@on_device_loop
async def test_filters_of_the_user_hold_for_every_subscription() -> None:
    driver = FakeDriver()
    driver.set_filters([{"can_id": 0x100, "can_mask": 0x700}])
    bench = Bench(driver=driver)
    seen: list[CanFrame] = []
    bench.bus.subscribe([0x200, 0x123], lambda frame, _: seen.append(frame))
    bench.arrive(to_message(CanFrame(0x200, b"")), to_message(A_FRAME))
    assert seen == [A_FRAME]
    assert [frame for frame, _ in bench.received] == [A_FRAME]


@on_device_loop
async def test_endless_identifiers_do_not_fill_the_memory() -> None:
    bench = Bench()
    bench.arrive(*(to_message(CanFrame(EXTENDED_FLAG | can_id, b"")) for can_id in range(5000)))
    assert len(bench.received) == 5000
    assert len(bench.bus._routes) < 5000


@on_device_loop
async def test_a_descriptor_that_is_ready_for_ever_and_gives_nothing_is_left_alone_for_a_while() -> None:
    bench = Bench()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, DeviceLoop)
    wake_ups = 0
    while loop.reader is not None:
        loop.reader()
        wake_ups += 1
        assert wake_ups < 1000
    await run_until(0.011)
    assert loop.reader is not None
    loop.reader()
    assert loop.reader is None
    await run_until(0.022)
    bench.arrive(to_message(A_FRAME), to_message(A_FRAME))
    assert len(bench.received) == 2
    assert loop.reader is not None
    bench.bus.close()


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
    bus = PythonCanBus(MessageDriver(FakeDriver(), "fake"))
    with pytest.raises(UsageError, match="not started"):
        bus.send(A_FRAME)
    bus.close()


# --- a reader thread, ordinary loop -------------------------------------------------------------------------------


class ThreadDriver(FakeDriver):
    """A driver without file descriptor, as most outside Linux."""

    def fileno(self) -> int:
        raise NotImplementedError


def test_a_failure_in_the_reader_thread_is_reported_on_the_loop() -> None:
    async def main() -> BusError:
        driver = ThreadDriver()
        driver.incoming.append(OSError(errno.ENODEV, "gone"))
        bus = PythonCanBus(MessageDriver(driver, "fake"))
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
    bus = PythonCanBus(MessageDriver(driver, "fake"))

    async def main() -> None:
        bus.start()

    asyncio.run(main())
    driver.incoming.append(item)
    assert bus._reader._thread is not None
    bus._reader._thread.join(10)
    assert not bus._reader._thread.is_alive()
    bus.close()


def test_a_loop_that_cannot_watch_file_descriptors_gets_a_reader_thread() -> None:
    class ProactorLike(asyncio.SelectorEventLoop):
        def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
            raise NotImplementedError

    async def main() -> None:
        bus = PythonCanBus(MessageDriver(FakeDriver(), "fake"))
        bus.start()
        assert bus._reader._thread is not None
        bus.close()

    with asyncio.Runner(loop_factory=ProactorLike) as runner:
        with pytest.raises(NotImplementedError):
            runner.get_loop().add_reader(0, os.getpid)
        runner.run(main())


def test_a_reader_thread_hands_over_many_at_a_time_and_in_order() -> None:
    count = 3000

    async def main() -> tuple[list[int], int]:
        driver = ThreadDriver()
        driver.incoming.extend(to_message(CanFrame(EXTENDED_FLAG | can_id, b"")) for can_id in range(count))
        bus = PythonCanBus(MessageDriver(driver, "fake"))
        seen: list[int] = []
        done = asyncio.get_running_loop().create_future()

        def receive(frame: CanFrame, _: float) -> None:
            seen.append(frame.can_id & 0x1FFF_FFFF)
            if len(seen) == count:
                done.set_result(None)

        bus.subscribe(None, receive)
        calls = 0
        take_over = bus._reader._take_over

        def counted() -> None:
            nonlocal calls
            calls += 1
            take_over()

        bus._reader._take_over = counted  # type: ignore[method-assign]
        bus.start()
        async with asyncio.timeout(30):
            await done
        bus.close()
        return seen, calls

    seen, calls = asyncio.run(main())
    assert seen == list(range(count))
    assert calls < count


def test_a_reader_thread_whose_driver_does_not_wait_does_not_spin() -> None:
    class Ended(ThreadDriver):
        calls = 0

        def recv(self, timeout: float | None = None) -> can.Message | None:
            self.calls += 1
            return None

    async def main() -> int:
        driver = Ended()
        bus = PythonCanBus(MessageDriver(driver, "fake"))
        bus.start()
        await pause(0.3)
        bus.close()
        return driver.calls

    assert asyncio.run(main()) < 100 + 300
