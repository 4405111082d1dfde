"""The kernel's ISO-TP without a kernel: a socket that behaves as net/can/isotp.c does."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from ess_can.bus import kernel_channel, kernel_isotp, kernel_socket
from ess_can.bus.clock import pause, until
from ess_can.bus.isotp_channel import MAX_WAITING, IsoTpChannel
from ess_can.bus.kernel_isotp import IsoTpChoice, KernelIsoTp, KernelIsoTpChannel, UserIsoTp, choose_isotp
from ess_can.bus.kernel_socket import KernelSocket, open_kernel_socket, pdu_limit, why_no_kernel_isotp
from ess_can.can.frame import EXTENDED_FLAG
from ess_can.errors import (
    AdapterLost,
    BusError,
    EssCanError,
    InterfaceDown,
    InterfaceUnavailable,
    IsoTpError,
    IsoTpTooSlow,
    NBufferOvflw,
    NInvalidFs,
    NTimeoutA,
    NTimeoutBs,
    NTimeoutCr,
    NWrongSn,
    TransmitQueueFull,
    UsageError,
)
from ess_can.isotp import IsoTpAddress, IsoTpParams
from tests.support.memory_bus import MemoryBus

ADDRESS = IsoTpAddress(0x710, 0x718)
ECOMM = 70
LIMIT_S = 10.0


class FakeSocket:
    """A CAN_ISOTP socket: busy from a message until `done`.

    `honest` ones are writable only while idle, as since Linux 6.3; the others always.
    """

    def __init__(self, *, honest: bool = True) -> None:
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._near.setblocking(False)
        self._far.setblocking(False)
        self._honest = honest
        self._inbox: deque[bytes] = deque()
        self.sent: list[bytes] = []
        self.refusals: deque[int] = deque()
        self.busy = False
        self.error = 0
        self.closed = False

    def fileno(self) -> int:
        return self._near.fileno()

    def send(self, data: bytes, /) -> int:
        if self.busy:
            raise BlockingIOError(errno.EAGAIN, "busy")
        if not data:
            raise OSError(errno.EINVAL, "empty")
        if self.error:
            raise self._take()
        if self.refusals:
            number = self.refusals.popleft()
            raise OSError(number, os.strerror(number))
        self.sent.append(data)
        self.busy = True
        if self._honest:
            with suppress(BlockingIOError):
                while True:
                    self._near.send(bytes(65536))
        return len(data)

    def recv(self, size: int, /) -> bytes:
        if self.error:
            raise self._take()
        if self._inbox:
            return self._inbox.popleft()[:size]
        with suppress(BlockingIOError):
            self._near.recv(4096)
        raise BlockingIOError(errno.EAGAIN, "nothing")

    def getsockopt(self, level: int, option: int, /) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        number, self.error = self.error, 0
        return number

    def close(self) -> None:
        assert not self.busy, "closing would block"
        self.closed = True
        self._near.close()
        self._far.close()

    def _take(self) -> OSError:
        number, self.error = self.error, 0
        return OSError(number, os.strerror(number))

    # --- what the bus does ---

    def deliver(self, payload: bytes) -> None:
        self._inbox.append(payload)
        self._far.send(b"!")

    def report(self, number: int) -> None:
        """An error, which wakes readers and writers."""
        self.error = number
        self._far.send(b"!")

    def done(self, number: int = 0) -> None:
        """The message that was under way has ended."""
        self.busy = False
        with suppress(BlockingIOError):
            while True:
                self._far.recv(1 << 20)
        if number:
            self.report(number)


@dataclass
class Rig:
    kernel: FakeSocket
    channel: KernelIsoTpChannel
    messages: list[bytes] = field(default_factory=list)
    errors: list[IsoTpError] = field(default_factory=list)

    async def taken(self, count: int = 1) -> None:
        assert await until(lambda: len(self.kernel.sent) >= count, LIMIT_S)


def run(scenario: Callable[[Rig], Awaitable[None]], params: IsoTpParams | None = None, *, honest: bool = True) -> None:
    async def inside() -> None:
        kernel = FakeSocket(honest=honest)
        messages: list[bytes] = []
        errors: list[IsoTpError] = []
        channel = KernelIsoTpChannel(
            "can0",
            ADDRESS,
            params or IsoTpParams(),
            on_message=lambda payload, _: messages.append(payload),
            on_error=errors.append,
            open_socket=lambda *_: kernel,
        )
        await scenario(Rig(kernel, channel, messages, errors))
        if kernel.busy:
            kernel.done()
        channel.close()
        assert await until(lambda: kernel.closed, LIMIT_S)

    asyncio.run(inside())


@pytest.mark.parametrize("honest", [True, False], ids=["6.3", "before"])
def test_send_returns_when_the_kernel_is_done(honest: bool) -> None:
    async def scenario(rig: Rig) -> None:
        first = asyncio.ensure_future(rig.channel.send(b"one"))
        second = asyncio.ensure_future(rig.channel.send(b"two"))
        await rig.taken()
        await pause(0.02)
        assert (first.done(), rig.kernel.sent) == (False, [b"one"])
        rig.kernel.done()
        await first
        await rig.taken(2)
        assert rig.kernel.sent == [b"one", b"two"]
        assert not second.done()
        rig.kernel.done()
        await second
        assert rig.errors == []

    run(scenario, honest=honest)


@pytest.mark.parametrize(
    ("number", "size", "expected"),
    [
        (ECOMM, 100, NTimeoutBs),
        (ECOMM, 7, NTimeoutA),
        (errno.EMSGSIZE, 100, NBufferOvflw),
        (errno.EBADMSG, 100, NInvalidFs),
        (errno.EPROTO, 100, IsoTpError),
        (errno.ENETDOWN, 100, InterfaceDown),
        (errno.ENODEV, 100, AdapterLost),
    ],
)
@pytest.mark.parametrize("waits", [True, False], ids=["send", "send_nowait"])
def test_what_ends_a_message_on_its_way_out(number: int, size: int, expected: type[EssCanError], waits: bool) -> None:
    async def scenario(rig: Rig) -> None:
        if waits:
            sending = asyncio.ensure_future(rig.channel.send(bytes(size)))
            await rig.taken()
            rig.kernel.done(number)
            with pytest.raises(expected) as caught:
                await sending
            assert type(caught.value) is expected
            assert rig.errors == []
            return
        rig.channel.send_nowait(bytes(size))
        rig.kernel.done(number)
        assert await until(lambda: bool(rig.errors), LIMIT_S)
        kind = NTimeoutA if issubclass(expected, BusError) else expected
        assert [type(error) for error in rig.errors] == [kind]

    run(scenario)


@pytest.mark.parametrize(("number", "expected"), [(errno.ETIMEDOUT, NTimeoutCr), (errno.EILSEQ, NWrongSn)])
def test_an_error_of_reception_is_not_the_transmission_s(number: int, expected: type[IsoTpError]) -> None:
    async def scenario(rig: Rig) -> None:
        sending = asyncio.ensure_future(rig.channel.send(bytes(100)))
        await rig.taken()
        rig.kernel.report(number)
        assert await until(lambda: bool(rig.errors), LIMIT_S)
        assert [type(error) for error in rig.errors] == [expected]
        assert not sending.done()
        rig.kernel.done()
        await sending
        rig.kernel.error = number  # found when the next message is offered
        rig.channel.send_nowait(b"next")
        assert len(rig.errors) == 2
        assert rig.kernel.sent[-1] == b"next"

    run(scenario)


def test_messages_come_in_and_too_long_ones_do_not() -> None:
    async def scenario(rig: Rig) -> None:
        rig.kernel.deliver(b"1")
        rig.kernel.deliver(bytes(9))
        rig.kernel.deliver(b"2")
        assert await until(lambda: len(rig.messages) == 2, LIMIT_S)
        assert rig.messages == [b"1", b"2"]
        assert [type(error) for error in rig.errors] == [NBufferOvflw]

    run(scenario, IsoTpParams(max_payload=8))


def test_an_interface_that_went_down_serves_again_once_it_is_up() -> None:
    async def scenario(rig: Rig) -> None:
        sending = asyncio.ensure_future(rig.channel.send(bytes(100)))
        await rig.taken()
        rig.kernel.report(errno.ENETDOWN)
        with pytest.raises(InterfaceDown):
            await sending
        after = asyncio.ensure_future(rig.channel.send(b"after"))
        await pause(0.02)
        assert rig.kernel.sent == [bytes(100)]  # the kernel still has the first one
        rig.kernel.done(ECOMM)
        await rig.taken(2)
        rig.kernel.done()
        await after  # the late time-out was the first one's
        assert rig.errors == []
        rig.kernel.refusals.append(errno.ENETDOWN)
        with pytest.raises(InterfaceDown):
            await rig.channel.send(b"1")

    run(scenario)


def test_nothing_is_sent_once_the_interface_is_gone() -> None:
    async def scenario(rig: Rig) -> None:
        rig.kernel.report(errno.ENODEV)
        await pause(0.02)
        with pytest.raises(AdapterLost):
            await rig.channel.send(b"1")
        assert rig.kernel.sent == []

    run(scenario)


def test_a_full_queue_is_waited_for() -> None:
    async def scenario(rig: Rig) -> None:
        rig.kernel.refusals.extend([errno.ENOBUFS] * 3)
        sending = asyncio.ensure_future(rig.channel.send(b"1"))
        await rig.taken()
        rig.kernel.done()
        await sending

    run(scenario)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOBUFS, NTimeoutA), (errno.EPERM, BusError), (errno.ENXIO, AdapterLost)],
)
def test_a_message_that_the_kernel_does_not_take(number: int, expected: type[EssCanError]) -> None:
    async def scenario(rig: Rig) -> None:
        rig.kernel.refusals.extend([number] * 10_000)
        with pytest.raises(expected) as caught:
            await rig.channel.send(b"1")
        assert type(caught.value) is expected
        rig.kernel.refusals.clear()
        rig.channel.send_nowait(b"2")
        assert rig.kernel.sent == [b"2"]

    run(scenario, IsoTpParams(n_as_s=0.02))


def test_a_message_has_a_deadline_even_if_the_kernel_has_none() -> None:
    async def scenario(rig: Rig) -> None:
        sending = asyncio.ensure_future(rig.channel.send(bytes(100)))
        behind = asyncio.ensure_future(rig.channel.send(b"behind"))
        with pytest.raises(IsoTpTooSlow):
            await sending
        with pytest.raises(IsoTpTooSlow):
            await behind
        assert rig.kernel.sent == [bytes(100)]

    run(scenario, IsoTpParams(rate_grace_s=0.02, min_rate=1e6))


def test_a_cancelled_message_makes_way() -> None:
    async def scenario(rig: Rig) -> None:
        sending = asyncio.ensure_future(rig.channel.send(bytes(100)))
        waiting = asyncio.ensure_future(rig.channel.send(b"never"))
        await rig.taken()
        sending.cancel()
        waiting.cancel()
        await asyncio.wait([sending, waiting])
        after = asyncio.ensure_future(rig.channel.send(b"after"))
        await pause(0.02)
        assert not after.done()
        rig.kernel.done(errno.EMSGSIZE)  # of the message that nobody waits for
        await rig.taken(2)
        rig.kernel.done()
        await after
        assert rig.kernel.sent == [bytes(100), b"after"]
        assert rig.errors == []

    run(scenario)


def test_closing_waits_for_the_kernel_without_blocking() -> None:
    async def scenario(rig: Rig) -> None:
        sending = asyncio.ensure_future(rig.channel.send(bytes(100)))
        await rig.taken()
        rig.channel.close()
        with pytest.raises(IsoTpError, match="closed while sending"):
            await sending
        await pause(0.02)
        assert not rig.kernel.closed
        with pytest.raises(UsageError):
            await rig.channel.send(b"1")

    run(scenario)


@pytest.mark.parametrize("honest", [True, False], ids=["6.3", "before"])
def test_the_end_of_a_closed_channel_can_be_waited_for(honest: bool) -> None:
    async def scenario(rig: Rig) -> None:
        sending = asyncio.ensure_future(rig.channel.send(bytes(100)))
        await rig.taken()
        rig.channel.close()
        ending = asyncio.ensure_future(rig.channel.wait_closed())
        await asyncio.wait([sending])
        assert isinstance(sending.exception(), IsoTpError)
        await pause(0.02)
        assert not ending.done()
        rig.kernel.done(ECOMM)
        await ending
        assert rig.kernel.closed

    run(scenario, honest=honest)


def test_a_channel_that_is_idle_is_closed_at_once() -> None:
    async def scenario(rig: Rig) -> None:
        rig.channel.close()
        assert rig.kernel.closed
        await rig.channel.wait_closed()

    run(scenario)


def test_the_end_of_a_closed_channel_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_channel, "_CLOSING_S", 0.02)

    async def scenario(rig: Rig) -> None:
        rig.channel.send_nowait(bytes(100))
        rig.channel.close()
        await rig.channel.wait_closed()
        assert not rig.kernel.closed

    run(scenario)


def test_a_server_that_answers_a_failure_is_not_taken_for_the_failed_one() -> None:
    async def scenario(rig: Rig) -> None:
        answered: list[IsoTpError] = []

        def answer(error: IsoTpError) -> None:
            answered.append(error)
            if len(answered) == 1:
                rig.channel.send_nowait(b"sorry")

        rig.channel._on_error = answer
        rig.channel.send_nowait(bytes(100))
        rig.kernel.done(errno.EMSGSIZE)
        await rig.taken(2)
        rig.kernel.done(ECOMM)
        assert await until(lambda: len(answered) == 2, LIMIT_S)
        assert [type(error) for error in answered] == [NBufferOvflw, NTimeoutA]

    run(scenario)


def test_impossible_messages_and_a_full_channel() -> None:
    async def scenario(rig: Rig) -> None:
        for payload in (b"", bytes(rig.channel.max_payload + 1)):
            with pytest.raises(UsageError):
                await rig.channel.send(payload)
        for _ in range(MAX_WAITING + 1):
            rig.channel.send_nowait(b"1")
        with pytest.raises(TransmitQueueFull):
            rig.channel.send_nowait(b"1")

    run(scenario)


def test_the_limit_is_what_the_kernel_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_socket, "_PDU_LIMIT_FILE", tmp_path / "max_pdu_size")
    assert pdu_limit() == 4095
    (tmp_path / "max_pdu_size").write_text("8300\n", encoding="ascii")
    assert pdu_limit() == 8300
    (tmp_path / "max_pdu_size").write_text("?", encoding="ascii")
    assert pdu_limit() == 4095


# --- opening --------------------------------------------------------------------------------------


class Recorder:
    """A socket that notes how it is set up."""

    def __init__(self, error: int = 0, bind_error: int = 0) -> None:
        self.options: dict[int, bytes] = {}
        self.bound: tuple[str, int, int] | None = None
        self.blocking = True
        self.closed = False
        self._error = error
        self._bind_error = bind_error

    def setblocking(self, flag: bool) -> None:
        self.blocking = flag

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        assert level == 106
        self.options[option] = value

    def bind(self, where: tuple[str, int, int]) -> None:
        if self._bind_error:
            raise OSError(self._bind_error, os.strerror(self._bind_error))
        self.bound = where

    def getsockopt(self, level: int, option: int) -> int:
        return self._error

    def close(self) -> None:
        self.closed = True


def opened(recorder: Recorder, address: IsoTpAddress, params: IsoTpParams) -> KernelSocket:
    return open_kernel_socket("can0", address, params, lambda *_: cast(socket.socket, recorder))


def test_the_socket_gets_our_parameters() -> None:
    recorder = Recorder()
    opened(recorder, ADDRESS, IsoTpParams(block_size=8, st_min=0xF3))
    assert (recorder.blocking, recorder.bound) == (False, ("can0", 0x718, 0x710))
    assert struct.unpack("=IIBBBB", recorder.options[1]) == (0x4, 1, 0, 0xCC, 0, 0)
    assert recorder.options[2] == bytes((8, 0xF3, 0))
    assert recorder.options[5] == bytes((16, 8, 0))

    recorder = Recorder()
    extended = IsoTpAddress(0x18DA10F1 | EXTENDED_FLAG, 0x18DAF110 | EXTENDED_FLAG)
    opened(recorder, extended, IsoTpParams(tx_dl=64, fd=True, brs=True, padding=None))
    assert recorder.bound == ("can0", 0x98DAF110, 0x98DA10F1)
    assert struct.unpack("=IIBBBB", recorder.options[1]) == (0, 1, 0, 0, 0, 0)
    assert recorder.options[5] == bytes((72, 64, 1))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENODEV, "ip -brief link"), (errno.EINVAL, "CAN FD"), (errno.EPERM, "modprobe can-isotp")],
)
def test_an_interface_that_cannot_be_bound(number: int, remedy: str) -> None:
    recorder = Recorder(bind_error=number)
    with pytest.raises(InterfaceUnavailable, match="can0") as caught:
        opened(recorder, ADDRESS, IsoTpParams())
    assert remedy in caught.value.remedy
    assert recorder.closed


def test_an_interface_that_is_down() -> None:
    recorder = Recorder(error=errno.ENETDOWN)
    with pytest.raises(InterfaceDown):
        opened(recorder, ADDRESS, IsoTpParams())
    assert recorder.closed


@pytest.mark.parametrize("failure", [OSError(errno.EPROTONOSUPPORT, "no"), AttributeError("AF_CAN")])
def test_a_kernel_without_it(failure: Exception) -> None:
    def make(*_: int) -> socket.socket:
        raise failure

    with pytest.raises(InterfaceUnavailable) as caught:
        open_kernel_socket("can0", ADDRESS, IsoTpParams(), make)
    assert "--isotp user" in caught.value.remedy


# --- the choice -----------------------------------------------------------------------------------


class Uname:
    def __init__(self, release: str) -> None:
        self.release = release


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Linux 6.1 with CAN_ISOTP and one interface, can0."""

    def index(name: str) -> int:
        if name != "can0":
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return 1

    monkeypatch.setattr(socket, "CAN_ISOTP", 6, raising=False)
    monkeypatch.setattr(socket, "if_nametoindex", index)
    monkeypatch.setattr(kernel_socket, "_try_socket", lambda: None)
    monkeypatch.setattr(os, "uname", lambda: Uname("6.1.0-56-amd64"))


@pytest.mark.usefixtures("kernel")
def test_auto_takes_the_kernel_where_it_can() -> None:
    assert choose_isotp(IsoTpChoice.AUTO, "socketcan", "can0") == KernelIsoTp("can0")
    assert choose_isotp(IsoTpChoice.KERNEL, "socketcan", "can0") == KernelIsoTp("can0")
    assert choose_isotp(IsoTpChoice.USER, "socketcan", "can0") == UserIsoTp()


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize(
    ("interface", "channel", "remedy"),
    [
        ("socketcan", "can1", "ip -brief link"),
        ("socketcan", None, "-i socketcan"),
        ("slcan", "can0", "-i socketcan"),
        ("udp_multicast", "239.74.163.2", "-i socketcan"),
        (None, None, "-i socketcan"),
        ("pcan", 1, "-i socketcan"),
    ],
)
def test_auto_takes_ours_elsewhere_and_kernel_fails(
    interface: str | None, channel: str | int | None, remedy: str
) -> None:
    assert choose_isotp(IsoTpChoice.AUTO, interface, channel) == UserIsoTp()
    assert remedy in remedy_of(interface, channel)
    assert "modprobe" not in remedy_of(interface, channel)


def remedy_of(interface: str | None, channel: str | int | None) -> str:
    with pytest.raises(InterfaceUnavailable) as caught:
        choose_isotp(IsoTpChoice.KERNEL, interface, channel)
    assert caught.value.why
    return caught.value.remedy


@pytest.mark.usefixtures("kernel")
def test_a_kernel_without_the_module_is_told_how_to_load_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))

    monkeypatch.setattr(kernel_socket, "_try_socket", fail)
    assert "modprobe can-isotp" in remedy_of("socketcan", "can0")


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("release", ["5.15.0-91-generic", "4.19.0", "strange"])
def test_a_kernel_that_may_fill_the_queue_is_not_used(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: Uname(release))
    assert release in why_no_kernel_isotp("socketcan", "can0")
    assert "5.18" in remedy_of("socketcan", "can0")


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("release", ["5.18.0", "6.12+", "10.0-rc1"])
def test_newer_kernels_are(release: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: Uname(release))
    assert why_no_kernel_isotp("socketcan", "can0") == ""


def test_before_the_kernel_speaks_its_frames_are_known_as_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = MemoryBus()
    adopted_first: list[list[int]] = []
    monkeypatch.setattr(kernel_isotp, "KernelIsoTpChannel", lambda *_, **__: adopted_first.append(list(bus.adopted)))
    KernelIsoTp("can0").open(bus, ADDRESS, IsoTpParams(), on_message=lambda *_: None, on_error=lambda _: None)
    assert adopted_first == [[ADDRESS.tx_id]]


def test_ours_is_opened_on_the_bus() -> None:
    async def inside() -> None:
        bus = MemoryBus()
        ours = UserIsoTp().open(bus, ADDRESS, IsoTpParams(), on_message=lambda *_: None, on_error=lambda _: None)
        assert isinstance(ours, IsoTpChannel)
        assert bus.listeners
        ours.close()

    asyncio.run(inside())
