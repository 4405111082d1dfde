from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import can
import pytest
from hypothesis import given, settings

from ess_can.bus import python_can
from ess_can.bus.driver import Echo, ErrorReport, ErrorState, IdFilter, OwnFrame
from ess_can.bus.message import to_message
from ess_can.bus.python_can import (
    QUIRKS,
    MessageDriver,
    PythonCanBus,
    confirms_frames,
    filters_of,
    from_message,
    open_bus,
)
from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.can.timing import BitTiming
from ess_can.errors import AdapterLost, BusError, BusOff, InterfaceDown, InterfaceUnavailable
from tests.support.frames import frames
from tests.unit.bus.bench import FakeDriver

A_FRAME = CanFrame(0x123, b"\x01\x02")


# --- conversion -------------------------------------------------------------------------------------------------


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
        ("socketcan", "no-such-can", "CAN"),
        ("socketcand", "x", "--bus-kwargs"),
        ("no-such-interface", "x", "that python-can knows: "),
        ("udp_multicast", "not an address", "multicast address"),
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
    assert any(word in caught.value.remedy for word in ("-i socketcan", "-i udp_multicast", "--bus-kwargs"))


@pytest.fixture
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home."""
    for name in ("CAN_INTERFACE", "CAN_CHANNEL", "CAN_BITRATE", "CAN_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("no_configuration")
@pytest.mark.parametrize("channel", [None, "can0"])
def test_without_an_interface_that_is_what_is_said(channel: str | None) -> None:
    with pytest.raises(InterfaceUnavailable, match="no interface was named") as caught:
        open_bus(None, channel)
    assert "None" not in caught.value.why
    assert "-i socketcan -c can0" in caught.value.remedy


@pytest.mark.parametrize("content", ["nonsense", "[default]\nx = %(y)s\n", "[default\n"])
def test_a_broken_configuration_file_is_named(no_configuration: Path, content: str) -> None:
    (no_configuration / "can.conf").write_text(content)
    with pytest.raises(InterfaceUnavailable) as caught:
        open_bus("udp_multicast", GROUP)
    assert str(no_configuration / "can.conf") in caught.value.remedy
    assert "multicast" not in caught.value.remedy


@pytest.mark.usefixtures("no_configuration")
@pytest.mark.parametrize("content", ["{nonsense", "[1]"])
def test_a_broken_configuration_variable_is_named(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAN_CONFIG", content)
    with pytest.raises(InterfaceUnavailable) as caught:
        open_bus("udp_multicast", GROUP)
    assert "CAN_CONFIG" in caught.value.remedy
    assert "multicast" not in caught.value.remedy


@pytest.mark.parametrize("interface", [None, "nonsense", *sorted(can.VALID_INTERFACES)])
def test_opening_fails_in_one_way_and_prints_nothing(
    interface: str | None, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    with suppress(InterfaceUnavailable, InterfaceDown):
        open_bus(interface, "239.74.163.9" if interface == "udp_multicast" else "can0").close()
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_own_frames_are_asked_for_where_they_come_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[dict[str, object]] = []

    def refuse_first(*_: object, **options: object) -> can.BusABC:
        attempts.append(options)
        if "receive_own_messages" in options and len(attempts) == 1:
            raise can.CanInitializationError("an old driver")
        return FakeDriver()

    monkeypatch.setattr(can, "Bus", refuse_first)
    open_bus("pcan", "PCAN_USBBUS1")
    open_bus("pcan", "PCAN_USBBUS1", bus_kwargs={"receive_own_messages": False})
    open_bus("slcan", "/dev/x")
    assert attempts == [{"receive_own_messages": True}, {}, {"receive_own_messages": False}, {}]


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


@pytest.mark.parametrize(
    ("options", "environment", "timing"),
    [
        ({"bitrate": 250_000}, None, BitTiming(250_000, 250_000)),
        ({"bitrate": 250_000, "data_bitrate": 1_000_000, "fd": True}, "125000", BitTiming(250_000, 1_000_000)),
        ({}, "125000", BitTiming(125_000, 125_000)),
        ({}, None, BitTiming(500_000, 500_000)),
        ({}, "0", BitTiming(500_000, 500_000)),
        (
            {"timing": can.BitTiming.from_sample_point(8_000_000, 100_000, 80)},
            "125000",
            BitTiming(100_000, 100_000),
        ),
        (
            {"timing": can.BitTimingFd.from_sample_point(80_000_000, 500_000, 80, 2_000_000, 80)},
            None,
            BitTiming(500_000, 2_000_000),
        ),
    ],
)
def test_the_wire_is_as_fast_as_was_said_or_configured(
    options: dict[str, Any], environment: str | None, timing: BitTiming, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(can, "Bus", lambda *_, **__: FakeDriver())
    if environment is not None:
        monkeypatch.setenv("CAN_BITRATE", environment)
    assert open_bus("slcan", "/dev/x", **options)._driver.timing == timing


def test_what_has_no_wire_sets_no_pace() -> None:
    for name, paced in (("slcan", True), ("pcan", True), ("virtual", False), ("udp_multicast", False)):
        driver = MessageDriver(FakeDriver(), name, timing=BitTiming(500_000))
        assert (driver.timing is not None) is paced


def test_python_cans_environment_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAN_INTERFACE", "virtual")
    monkeypatch.setenv("CAN_CHANNEL", "from-environment")
    bus = open_bus()
    assert bus.backend == "virtual"
    bus.close()
    bus.close()


# --- the driver over messages -----------------------------------------------------------------------------------


def test_filters_given_at_opening_are_understood_as_python_can_does() -> None:
    fake = FakeDriver()
    assert filters_of(fake) == ()
    fake.set_filters(
        [
            {"can_id": 0x100, "can_mask": 0x700},
            {"can_id": 5, "can_mask": 0x1FFF_FFFF, "extended": True},
            {"can_id": 6, "can_mask": 0x7FF, "extended": False},
            {"can_id": 0x2000_0007, "can_mask": 0x7FF},  # as python-can's --filter 7~7FF gives it
        ]
    )
    by_mask, extended, base, inverted = filters_of(fake)
    assert by_mask.admits(0x1FF)
    assert by_mask.admits(EXTENDED_FLAG | 0x1FF)
    assert not by_mask.admits(0x200)
    assert extended.admits(EXTENDED_FLAG | 5)
    assert not extended.admits(5)
    assert base.admits(6)
    assert not base.admits(EXTENDED_FLAG | 6)
    assert inverted == IdFilter(7, 0x7FF, inverted=True)
    assert inverted.admits(8)
    assert not inverted.admits(7)


def test_filters_do_not_hide_own_frames_where_these_come_back() -> None:
    for name, kept in (("gs_usb", None), ("slcan", [{"can_id": 1, "can_mask": 0x7FF}])):
        fake = FakeDriver()
        fake.set_filters([{"can_id": 1, "can_mask": 0x7FF}])
        driver = MessageDriver(fake, name)
        assert list(driver.user_filters) == [IdFilter(1, 0x7FF)]
        assert fake.filters == kept


def test_what_is_read_is_told_apart() -> None:
    fake = FakeDriver()
    own = to_message(A_FRAME)
    own.is_rx = False
    bus_off = can.Message(is_error_frame=True, arbitration_id=0x40, is_extended_id=False)
    fake.incoming = [to_message(A_FRAME), own, bus_off, can.CanOperationError("garbage"), own]
    heard = MessageDriver(fake, "gs_usb").read(10, 0)
    assert heard[:3] == [A_FRAME, OwnFrame(A_FRAME), ErrorReport(ErrorState.BUS_OFF)]
    assert type(heard[3]) is BusError
    assert len(heard) == 4  # the rest at the next call
    assert MessageDriver(fake, "gs_usb").read(10, 0) == [OwnFrame(A_FRAME)]
    fake.incoming = [bus_off]
    assert MessageDriver(fake, "pcan").read(10, 0) == []  # its error frames are coded otherwise


@pytest.mark.parametrize(
    ("failure", "meaning"),
    [
        (can.CanOperationError("Failed to transmit: No such device", errno.ENODEV), AdapterLost),
        (OSError("device reports readiness to read but returned no data"), AdapterLost),
        (can.CanOperationError("Failed to transmit: Network is down", errno.ENETDOWN), InterfaceDown),
        (can.CanOperationError("Bus error: the CAN controller is in bus-off state"), BusOff),
        (RuntimeError("Controller is in BUSOFF state"), BusOff),
        (can.CanOperationError("Failed to transmit: Invalid argument", errno.EINVAL), BusError),
        (RuntimeError("x"), BusError),
    ],
)
def test_a_failure_has_a_meaning(failure: Exception, meaning: type[BusError]) -> None:
    fake = FakeDriver()
    fake.always = failure
    fake.incoming = [failure]
    driver = MessageDriver(fake, "fake")
    with pytest.raises(BusError) as caught:
        driver.write(A_FRAME, bulk=False)
    assert type(caught.value) is meaning
    assert str(failure) in caught.value.why
    (heard,) = driver.read(1, 0)
    assert type(heard) is meaning


def test_the_controllers_state_where_an_adapter_tells_it() -> None:
    fake = FakeDriver()
    driver = MessageDriver(fake, "ixxat")
    assert driver.polls_state
    assert driver.state() == ErrorReport(ErrorState.ACTIVE)
    fake.state_now = can.BusState.ERROR
    assert driver.state() == ErrorReport(ErrorState.BUS_OFF)
    fake.state_now = can.CanOperationError("not now")
    assert driver.state() is None


def test_only_backends_that_python_can_has_are_in_the_table() -> None:
    homes = {module.split(".")[2] for module, _ in can.interfaces.BACKENDS.values()}
    assert set(QUIRKS) <= homes
    assert all(QUIRKS[name].echo is Echo.LEARNED for name in QUIRKS if QUIRKS[name].asks)


def test_which_interfaces_confirm_frames() -> None:
    assert [name for name in ("slcan", "serial", "robotell", "canalystii") if confirms_frames(name)] == []
    assert all(confirms_frames(name) for name in ("socketcan", "gs_usb", "pcan", "neovi", "udp_multicast", "nonsense"))


def socketcan_like() -> type[FakeDriver]:
    """A class that python-can's socketcan backend could be, over a socket that is none of CAN."""

    class SocketcanLike(FakeDriver):
        channel = "vcan0"

        def __init__(self) -> None:
            super().__init__()
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

        def shutdown(self) -> None:
            self.socket.close()
            super().shutdown()

    SocketcanLike.__module__ = "can.interfaces.socketcan.socketcan"
    return SocketcanLike


def test_socketcan_is_driven_through_its_socket_and_closed_if_the_link_is_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[FakeDriver] = []

    def make(*_: object, **__: object) -> can.BusABC:
        opened.append(socketcan_like()())
        return opened[-1]

    def is_down(*_: object, **__: object) -> None:
        raise InterfaceDown("vcan0 is down")

    monkeypatch.setattr(can, "Bus", make)
    monkeypatch.setattr(python_can, "check_link", is_down)
    with pytest.raises(InterfaceDown):
        open_bus("socketcan", "vcan0")
    assert opened[0].shutdowns == 1

    monkeypatch.setattr(python_can, "check_link", lambda *_, **__: None)
    monkeypatch.setattr(python_can, "SocketCanDriver", RecordedDriver)
    bus = open_bus("socketcan", "vcan0", fd=True)
    assert bus.backend == "recorded"
    assert bus.fd
    bus.close()
    assert opened[1].shutdowns == 1


class RecordedDriver(MessageDriver):
    """Stands for the driver over a CAN socket."""

    def __init__(
        self,
        sock: socket.socket,
        channel: str,
        release: Callable[[], None],
        *,
        fd: bool,
        user_filters: Sequence[IdFilter],
    ) -> None:
        super().__init__(FakeDriver(), "recorded", fd=fd)
        assert (sock.family, channel, user_filters) == (socket.AF_UNIX, "vcan0", ())
        self._release = release

    def close(self) -> None:
        self._release()


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
    assert left._reader._thread is not None
    assert not left._reader._thread.is_alive()


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
    assert left._reader._thread is None


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


def test_every_receiver_on_the_virtual_interface_has_data_of_its_own() -> None:
    first, second = (can.Bus(interface="virtual", channel="copies") for _ in range(2))
    driver = MessageDriver(can.Bus(interface="virtual", channel="copies"), "virtual")
    sent = [CanFrame(0x123, b"\x01\x02"), CanFrame(EXTENDED_FLAG | 7, bytes(64), fd=True, brs=True), CanFrame(1, b"")]
    for frame in sent:
        assert driver.write(frame, bulk=True)
    mine, others = [first.recv(0) for _ in sent], [second.recv(0) for _ in sent]
    for one, other, frame in zip(mine, others, sent, strict=True):
        assert one is not None
        assert other is not None
        assert type(one) is type(other) is can.Message
        one.data.extend(b"\xff")
        assert from_message(other) == frame
    for bus in (first, second):
        bus.shutdown()
    driver.close()
