from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ess_can.bus import socketcan
from ess_can.bus.adapter import PythonCanBus
from ess_can.bus.driver import ErrorReport, ErrorState, Heard, HostFrame, IdFilter, OwnFrame
from ess_can.bus.socketcan import SocketCanDriver, check_link, error_report, pack_frame, unpack_frame
from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.errors import AdapterLost, BusError, InterfaceDown, InterfaceUnavailable, TransmitStalled
from tests.support.frames import frames
from tests.unit.bus.bench import DeviceLoop, on_device_loop, run_until

MSG_DONTROUTE, MSG_CONFIRM = 0x4, 0x800
A_FRAME = CanFrame(0x123, b"\x01\x02")

# As on little-endian hosts
GOLDEN = [
    (A_FRAME, "23010000 02 000000 0102000000000000"),
    (CanFrame(0x7FF, bytes(range(8))), "ff070000 08 000000 0001020304050607"),
    (CanFrame(EXTENDED_FLAG | 0x18DA_F110, b"\xaa"), "10f1da98 01 000000 aa00000000000000"),
    (CanFrame(0x321, bytes(5), remote=True), "21030040 05 000000 0000000000000000"),
    (CanFrame(0x123, bytes(range(12)), fd=True, brs=True), "23010000 0c 01 0000 000102030405060708090a0b" + "00" * 52),
    (CanFrame(0x124, b"\x07", fd=True), "24010000 01 00 0000 07" + "00" * 63),
]


@pytest.mark.parametrize(("frame", "golden"), GOLDEN)
def test_the_bytes_are_those_of_the_kernels_structures(frame: CanFrame, golden: str) -> None:
    raw = bytes.fromhex(golden)
    if sys.byteorder == "big":
        raw = raw[3::-1] + raw[4:]
    assert pack_frame(frame) == raw
    assert unpack_frame(raw) == frame


@settings(max_examples=150, deadline=None)
@given(frames)
def test_a_frame_survives_the_way_through_the_kernels_structure(frame: CanFrame) -> None:
    assert unpack_frame(pack_frame(frame)) == frame


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(min_size=16, max_size=16), st.binary(min_size=72, max_size=72), st.binary(max_size=80)))
def test_whatever_arrives_is_read_without_raising(raw: bytes) -> None:
    what = unpack_frame(raw)
    assert (what is None) == (len(raw) not in (16, 72))
    if isinstance(what, CanFrame):
        assert len(what.data) <= (64 if what.fd else 8)


@pytest.mark.parametrize(
    ("can_id", "data", "report"),
    [
        (0x040, "0000000000000000", ErrorReport(ErrorState.BUS_OFF)),
        (0x240, "000000000000f800", ErrorReport(ErrorState.BUS_OFF, tec=248, rec=0)),
        (0x100, "0000000000000000", ErrorReport(restarted=True)),
        (0x204, "0020000000008800", ErrorReport(ErrorState.PASSIVE, tec=136, rec=0)),
        (0x204, "0010000000000088", ErrorReport(ErrorState.PASSIVE, tec=0, rec=136)),
        (0x004, "0008000000006000", ErrorReport(ErrorState.WARNING, tec=96, rec=0)),
        (0x204, "0040000000000000", ErrorReport(ErrorState.ACTIVE, tec=0, rec=0)),
        (0x004, "0001000000000000", ErrorReport()),  # receive overflow of the controller
        (0x020, "0000000000000000", ErrorReport(not_acknowledged=True)),
        (0x001, "0000000000000000", ErrorReport(transmit_timeout=True)),
    ],
)
def test_error_frames_say_what_the_kernels_header_says(can_id: int, data: str, report: ErrorReport) -> None:
    assert error_report(can_id, bytes.fromhex(data)) == report
    assert unpack_frame(struct.pack("=IB3x8s", 0x2000_0000 | can_id, 8, bytes.fromhex(data))) == report


# --- a socket that does as told -------------------------------------------------------------------------------------

Message = tuple[bytes, int, list[tuple[int, int, bytes]]]  # bytes, flags, ancillary data


class FakeSocket:
    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []  # with the priority at that time
        self.failures: list[OSError | None] = []
        self.filter_failure: OSError | None = None
        self.incoming: list[Message | OSError] = []
        self.options: dict[tuple[int, int], int | bytes] = {}
        self.settings = 0
        self.blocking = True
        self.closed = False

    def setblocking(self, flag: bool, /) -> None:
        self.blocking = flag

    def setsockopt(self, level: int, name: int, value: int | bytes, /) -> None:
        if (level, name) == (101, 1) and self.filter_failure is not None:
            raise self.filter_failure
        self.options[level, name] = value
        self.settings += 1

    def send(self, data: bytes, /) -> int:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        priority = self.options[socket.SOL_SOCKET, 12]
        assert isinstance(priority, int)
        self.sent.append((priority, data))
        return len(data)

    def recvmsg(self, bufsize: int, ancbufsize: int, /) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        assert bufsize >= 72
        assert ancbufsize >= 24
        if not self.incoming:
            raise BlockingIOError(errno.EAGAIN, "nothing")
        item = self.incoming.pop(0)
        if isinstance(item, OSError):
            raise item
        return item[0], item[2], item[1], ("vcan0",)

    def fileno(self) -> int:
        return 5

    def close(self) -> None:
        self.closed = True

    @property
    def filters(self) -> list[tuple[int, int]] | None:
        raw = self.options.get((101, 1))
        if not isinstance(raw, bytes):
            return None
        return [(can_id, mask) for can_id, mask in struct.iter_unpack("=II", raw)]


def raw(frame: CanFrame, flags: int = 0) -> Message:
    return pack_frame(frame), flags, []


def driver_on(fake: FakeSocket, user_filters: tuple[IdFilter, ...] = ()) -> SocketCanDriver:
    return SocketCanDriver(fake, "can7", fake.close, fd=True, user_filters=user_filters)


def read_all(*items: Message | OSError) -> list[Heard]:
    fake = FakeSocket()
    driver = driver_on(fake)
    fake.incoming.extend(items)
    return driver.read(64, 0)


def test_the_socket_is_asked_for_own_frames_and_errors_and_never_blocks() -> None:
    fake = FakeSocket()
    driver_on(fake)
    assert not fake.blocking
    assert fake.options[101, 4] == 1  # CAN_RAW_RECV_OWN_MSGS
    wanted = fake.options[101, 2]  # CAN_RAW_ERR_FILTER
    assert isinstance(wanted, int)
    assert wanted & 0x040  # bus-off
    assert not wanted & 0x088  # no flood of bus errors and protocol violations


def test_own_frames_are_those_that_are_confirmed_and_frames_of_other_programs_here_are_received() -> None:
    elsewhere, here, own = (CanFrame(can_id, b"") for can_id in (1, 2, 3))
    heard = read_all(raw(elsewhere), raw(here, MSG_DONTROUTE), raw(own, MSG_DONTROUTE | MSG_CONFIRM))
    assert heard == [elsewhere, HostFrame(here), OwnFrame(own)]


def test_reading_ends_at_the_limit_and_where_nothing_is_left() -> None:
    fake = FakeSocket()
    driver = driver_on(fake)
    fake.incoming = [raw(A_FRAME)] * 5
    assert len(driver.read(3, 0)) == 3
    assert len(driver.read(3, 0)) == 2
    assert driver.read(3, 0) == []


def test_what_is_no_frame_is_an_error_of_its_own() -> None:
    short, frame = read_all((b"abc", 0, []), raw(A_FRAME))
    assert type(short) is BusError
    assert frame == A_FRAME


def test_frames_that_the_kernel_had_to_drop_are_counted_once() -> None:
    def with_count(count: int) -> Message:
        return pack_frame(A_FRAME), 0, [(socket.SOL_SOCKET, 40, struct.pack("=I", count)), (1, 35, bytes(16))]

    heard = read_all(with_count(2), with_count(2), with_count(5))
    assert heard == [ErrorReport(overrun=2), A_FRAME, A_FRAME, ErrorReport(overrun=3), A_FRAME]


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (errno.ENETDOWN, InterfaceDown),
        (errno.ENODEV, AdapterLost),
        (errno.ENXIO, AdapterLost),
        (errno.EBADF, AdapterLost),
        (errno.EINVAL, BusError),
    ],
)
def test_the_systems_errors_have_a_meaning(number: int, meaning: type[BusError]) -> None:
    fake = FakeSocket()
    driver = driver_on(fake)
    fake.failures = [OSError(number, "x")]
    with pytest.raises(BusError) as caught:
        driver.write(A_FRAME, bulk=False)
    assert type(caught.value) is meaning
    (heard,) = read_all(OSError(number, "x"))
    assert type(heard) is meaning
    if meaning is InterfaceDown:
        assert "ip link set can7 up" in caught.value.remedy


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EAGAIN])
def test_a_full_queue_is_back_pressure(number: int) -> None:
    fake = FakeSocket()
    driver = driver_on(fake)
    fake.failures = [OSError(number, "x")]
    assert not driver.write(A_FRAME, bulk=False)
    assert driver.write(A_FRAME, bulk=False)


def test_bulk_frames_go_to_the_last_band_and_the_priority_is_set_only_when_it_changes() -> None:
    fake = FakeSocket()
    driver = driver_on(fake)
    before = fake.settings
    for bulk in (True, True, False, False, True):
        driver.write(A_FRAME, bulk=bulk)
    assert [priority for priority, _ in fake.sent] == [2, 2, 6, 6, 2]
    assert fake.settings - before == 3
    assert driver.reorders


def test_filters_are_packed_as_the_kernel_takes_them() -> None:
    fake = FakeSocket()
    driver = driver_on(fake)
    driver.set_filters([IdFilter(0x123, 0x9FFF_FFFF), IdFilter(7, 0x7FF, inverted=True)])
    assert fake.filters == [(0x123, 0x9FFF_FFFF), (0x2000_0007, 0x7FF)]
    driver.set_filters([])
    assert fake.filters == []
    for all_of_them in (None, [IdFilter(i, 0x7FF) for i in range(513)]):
        driver.set_filters(all_of_them)
        assert fake.filters == [(0, 0)]


# --- the whole bus over it ------------------------------------------------------------------------------------------

EXACT = 0x9FFF_FFFF


def bus_on(fake: FakeSocket, *user_filters: IdFilter) -> PythonCanBus:
    return PythonCanBus(driver_on(fake, user_filters))


def arrive(fake: FakeSocket, *items: Message | OSError) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, DeviceLoop)
    fake.incoming.extend(items)
    while fake.incoming and loop.reader is not None:
        loop.reader()


def nothing(_frame: CanFrame, _now: float) -> None:
    pass


@on_device_loop
async def test_a_frame_is_confirmed_when_the_kernel_gives_it_back_and_others_alike_are_received() -> None:
    fake, confirmed, received = FakeSocket(), list[float](), list[CanFrame]()
    bus = bus_on(fake)
    bus.subscribe(None, lambda frame, _: received.append(frame))
    bus.start()
    bus.send(A_FRAME, confirmed.append)
    await run_until(0.25)
    assert confirmed == []
    arrive(fake, raw(A_FRAME, MSG_DONTROUTE), raw(A_FRAME, MSG_DONTROUTE | MSG_CONFIRM))
    assert confirmed == [0.25]
    assert received == [A_FRAME]
    bus.close()
    assert fake.closed


@on_device_loop
async def test_adopted_frames_of_this_host_go_to_who_wants_everything_and_a_second_tester_is_still_seen() -> None:
    fake, everything, guarded = FakeSocket(), list[CanFrame](), list[CanFrame]()
    bus = bus_on(fake)
    bus.subscribe([A_FRAME.can_id], lambda frame, _: guarded.append(frame))
    bus.subscribe(None, lambda frame, _: everything.append(frame))
    bus.start()
    arrive(fake, raw(A_FRAME, MSG_DONTROUTE))
    assert guarded == everything == [A_FRAME]  # another program here, that is none of ours
    bus.adopt(A_FRAME.can_id)
    other = CanFrame(A_FRAME.can_id + 1, b"")
    arrive(fake, raw(A_FRAME, MSG_DONTROUTE), raw(other, MSG_DONTROUTE))
    assert guarded == [A_FRAME]
    assert everything == [A_FRAME, A_FRAME, other]
    arrive(fake, raw(A_FRAME))
    assert guarded == [A_FRAME, A_FRAME]
    bus.close()


@on_device_loop
async def test_the_kernel_filters_exactly_what_is_subscribed_and_our_own() -> None:
    fake = FakeSocket()
    bus = bus_on(fake)
    cancel = bus.subscribe([0x300, EXTENDED_FLAG | 5], nothing)
    bus.start()
    assert fake.filters == [(0x300, EXACT), (EXTENDED_FLAG | 5, EXACT)]
    before = fake.settings
    bus.subscribe([0x100], nothing)
    bus.subscribe([0x101], nothing)
    assert fake.settings == before  # lazily
    await run_until(0.1)
    assert fake.settings == before + 1
    assert fake.filters == [(0x100, EXACT), (0x101, EXACT), (0x300, EXACT), (EXTENDED_FLAG | 5, EXACT)]
    cancel()
    bus.subscribe([0x102], nothing)
    bus.send(CanFrame(0x50, b""))  # before the answer can come, the filter stands
    assert fake.filters == [(0x50, EXACT), (0x100, EXACT), (0x101, EXACT), (0x102, EXACT)]
    bus.subscribe([0x103], nothing)
    bus.send(CanFrame(0x50, b""))
    assert (0x103, EXACT) in fake.filters
    cancel_all = bus.subscribe(None, nothing)
    await run_until(0.2)
    assert fake.filters == [(0, 0)]
    cancel_all()
    bus.close()
    await run_until(0.3)
    assert fake.filters == [(0, 0)]  # a closed bus touches nothing


@on_device_loop
async def test_filters_of_the_user_narrow_what_is_subscribed() -> None:
    fake, received = FakeSocket(), list[CanFrame]()
    bus = bus_on(fake, IdFilter(0x100, 0x700))
    bus.subscribe([0x123, 0x223], nothing)
    bus.start()
    assert fake.filters == [(0x123, EXACT)]
    bus.send(CanFrame(0x50, b""))
    bus.subscribe(None, lambda frame, _: received.append(frame))
    await run_until(0.1)
    assert fake.filters == [(0x100, 0x700), (0x50, EXACT)]
    arrive(fake, raw(CanFrame(0x50, b"")), raw(A_FRAME))  # somebody else uses our identifier
    assert received == [A_FRAME]


@on_device_loop
async def test_down_and_up_again_on_the_same_socket() -> None:
    fake, errors, confirmed = FakeSocket(), list[BusError](), list[float]()
    bus = bus_on(fake)
    bus.watch(errors.append)
    bus.start()
    bus.send(A_FRAME, confirmed.append)
    arrive(fake, OSError(errno.ENETDOWN, "Network is down"))
    fake.failures = [OSError(errno.ENETDOWN, "Network is down")]
    with pytest.raises(InterfaceDown):
        bus.send(A_FRAME, confirmed.append)
    assert [type(error) for error in errors] == [InterfaceDown]
    bus.send(A_FRAME, confirmed.append)
    arrive(fake, raw(A_FRAME, MSG_CONFIRM))
    assert len(confirmed) == 1
    arrive(fake, OSError(errno.ENODEV, "No such device"))
    assert [type(error) for error in errors] == [InterfaceDown, AdapterLost]
    with pytest.raises(AdapterLost):
        bus.send(A_FRAME)


@on_device_loop
async def test_frames_from_before_do_not_hide_that_the_interface_is_down_but_later_ones_show_it_is_up() -> None:
    fake, errors = FakeSocket(), list[BusError]()
    bus = bus_on(fake)
    bus.watch(errors.append)
    bus.start()
    down = OSError(errno.ENETDOWN, "Network is down")
    arrive(fake, down, raw(A_FRAME), down)
    assert len(errors) == 1
    await run_until(1)
    arrive(fake, raw(A_FRAME), down)
    assert len(errors) == 2


@pytest.mark.parametrize(("kind", "why"), [(0x020, "acknowledges"), (0x001, "hangs")])
def test_a_stall_says_what_the_kernel_reported(kind: int, why: str) -> None:
    @on_device_loop
    async def test() -> None:
        fake, errors = FakeSocket(), list[BusError]()
        bus = bus_on(fake)
        bus.watch(errors.append)
        bus.start()
        bus.send(A_FRAME)
        arrive(fake, (struct.pack("=IB3x8s", 0x2000_0000 | kind, 8, b""), 0, []))
        await run_until(1.1)
        assert [type(error) for error in errors] == [TransmitStalled]
        assert why in errors[0].why

    test()


# --- the link ---------------------------------------------------------------------------------------------------------


def link(monkeypatch: pytest.MonkeyPatch, *, up: bool, mtu: int) -> None:
    def ioctl(_: object, request: int, argument: bytes) -> bytes:
        name = argument[:16]
        assert name.rstrip(b"\0") == b"vcan0"
        return struct.pack("16sh22x", name, 0x80 | up) if request == 0x8913 else struct.pack("16si20x", name, mtu)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)


def check(*, fd: bool, channel: str = "vcan0") -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        check_link(sock, channel, fd=fd)


def test_a_link_that_is_down_or_too_small_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    link(monkeypatch, up=True, mtu=72)
    check(fd=True)
    link(monkeypatch, up=True, mtu=16)
    check(fd=False)
    with pytest.raises(InterfaceUnavailable, match="FD") as small:
        check(fd=True)
    assert "mtu 72" in small.value.remedy
    link(monkeypatch, up=False, mtu=16)
    with pytest.raises(InterfaceDown) as down:
        check(fd=False)
    assert "ip link set vcan0 up" in down.value.remedy
    with pytest.raises(InterfaceUnavailable, match="no channel"):
        check(fd=False, channel="")


def test_the_kernels_own_answer_is_understood() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        check_link(sock, "lo", fd=True)  # up, and its MTU is larger


def test_no_constant_differs_from_pythons_own_where_that_has_it() -> None:
    for name in ("CAN_RAW_FILTER", "CAN_RAW_RECV_OWN_MSGS", "SO_PRIORITY", "MSG_CONFIRM"):
        assert getattr(socketcan, f"_{name}") == getattr(socket, name)
    assert socketcan._SOL_CAN_RAW == socket.SOL_CAN_RAW


@on_device_loop
async def test_an_interface_that_goes_while_filters_are_set_is_lost() -> None:
    fake, errors = FakeSocket(), list[BusError]()
    bus = bus_on(fake)
    bus.watch(errors.append)
    bus.start()
    fake.filter_failure = OSError(errno.ENODEV, "No such device")
    with pytest.raises(AdapterLost, match="can7 is gone"):
        bus.send(A_FRAME)
    assert fake.sent == []
    assert [type(error) for error in errors] == [AdapterLost]
    bus.close()


@on_device_loop
async def test_an_interface_that_is_gone_before_the_start_is_lost() -> None:
    fake, errors = FakeSocket(), list[BusError]()
    fake.filter_failure = OSError(errno.ENODEV, "No such device")
    bus = bus_on(fake)
    bus.watch(errors.append)
    bus.start()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, DeviceLoop)
    assert loop.reader is None
    with pytest.raises(AdapterLost):
        bus.send(A_FRAME)
    assert [type(error) for error in errors] == [AdapterLost]


@on_device_loop
async def test_an_interface_that_goes_while_a_subscription_ends_is_lost() -> None:
    fake, errors = FakeSocket(), list[BusError]()
    bus = bus_on(fake)
    bus.watch(errors.append)
    cancel = bus.subscribe([1], nothing)
    bus.start()
    fake.filter_failure = OSError(errno.ENODEV, "No such device")
    cancel()
    await run_until(0.1)
    assert [type(error) for error in errors] == [AdapterLost]
