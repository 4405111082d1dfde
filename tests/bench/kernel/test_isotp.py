"""The kernel's ISO-TP against our core, both ways round, on vcan0."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from ess_can.bus.clock import now, pause, until
from ess_can.bus.isotp_channel import IsoTpChannel
from ess_can.bus.kernel_isotp import IsoTpChoice, KernelIsoTp, KernelIsoTpChannel, UserIsoTp, choose_isotp
from ess_can.bus.python_can import PythonCanBus, open_bus
from ess_can.can.frame import EXTENDED_FLAG, CanFrame
from ess_can.errors import (
    InterfaceDown,
    InterfaceUnavailable,
    IsoTpError,
    NBufferOvflw,
    NTimeoutBs,
    NTimeoutCr,
    NWrongSn,
    UsageError,
)
from ess_can.isotp import IsoTpAddress, IsoTpParams
from tests.bench.kernel.links import VCAN, link

LIMIT_S = 60.0
NODES = 9
SIZES = (1, 7, 8, 62, 63, 4095)
STANDARD = IsoTpAddress(0x710, 0x718)
EXTENDED = IsoTpAddress(0x18DA10F1 | EXTENDED_FLAG, 0x18DAF110 | EXTENDED_FLAG)
CLASSIC = IsoTpParams()
FD = IsoTpParams(tx_dl=64, fd=True, brs=True)


def reverse(address: IsoTpAddress) -> IsoTpAddress:
    return IsoTpAddress(address.rx_id, address.tx_id)


@dataclass
class Pair:
    """The kernel at one end, our core at the other, and all frames that were on the bus."""

    kernel: KernelIsoTpChannel
    user: IsoTpChannel
    bus: PythonCanBus
    to_kernel: list[bytes]
    to_user: list[bytes]
    errors: list[IsoTpError]
    frames: list[tuple[float, CanFrame]]


@asynccontextmanager
async def pair(address: IsoTpAddress, ours: IsoTpParams, theirs: IsoTpParams | None = None) -> AsyncIterator[Pair]:
    """`ours` are the kernel's parameters, `theirs` our core's."""
    bus, watch = open_bus("socketcan", VCAN, fd=True), open_bus("socketcan", VCAN, fd=True)
    to_kernel: list[bytes] = []
    to_user: list[bytes] = []
    errors: list[IsoTpError] = []
    frames: list[tuple[float, CanFrame]] = []
    bus.start()
    watch.start()
    watch.subscribe(None, lambda frame, at: frames.append((at, frame)))
    kernel = KernelIsoTpChannel(
        VCAN, address, ours, on_message=lambda payload, _: to_kernel.append(payload), on_error=errors.append
    )
    user = IsoTpChannel(
        bus,
        reverse(address),
        theirs or ours,
        on_message=lambda payload, _: to_user.append(payload),
        on_error=errors.append,
    )
    await pause(0.01)  # the buses' filters are set when the loop comes round
    try:
        yield Pair(kernel, user, bus, to_kernel, to_user, errors, frames)
    finally:
        kernel.close()
        user.close()
        bus.close()
        watch.close()


async def both_ways(between: Pair, sizes: tuple[int, ...]) -> None:
    payloads = [random.Random(size).randbytes(size) for size in sizes]
    for payload in payloads:
        await between.kernel.send(payload)
        await between.user.send(payload)
    await until(lambda: len(between.to_user) == len(between.to_kernel) == len(payloads), LIMIT_S)
    assert between.errors == []
    assert between.to_user == payloads
    assert between.to_kernel == payloads


@pytest.mark.parametrize("address", [STANDARD, EXTENDED], ids=["11-bit", "29-bit"])
@pytest.mark.parametrize("params", [CLASSIC, FD], ids=["classic", "fd"])
def test_every_size_both_ways(address: IsoTpAddress, params: IsoTpParams) -> None:
    async def run() -> None:
        async with pair(address, params) as between:
            await both_ways(between, SIZES)
            assert between.kernel.max_payload >= 4095

    asyncio.run(run())


def test_a_message_that_is_too_long() -> None:
    """For the kernel to send it does not begin; to the kernel it ends with its overflow, beyond 66,000 bytes in 6.1."""

    async def run() -> None:
        async with pair(STANDARD, FD) as between:
            limit = between.kernel.max_payload
            await both_ways(between, (min(limit, FD.max_payload),))
            with pytest.raises(UsageError, match=str(limit)):
                await between.kernel.send(bytes(limit + 1))
            with pytest.raises(NBufferOvflw):
                await between.user.send(bytes(70_000))
            between.to_kernel.clear()
            between.to_user.clear()
            await both_ways(between, (100,))

    asyncio.run(run())


def test_several_channels_at_once() -> None:
    """As many as a station has nodes, each with a message of its own; they take turns."""
    paced = replace(CLASSIC, st_min=20)  # no more than an emulated processor reads in time

    async def run() -> None:
        addresses = [IsoTpAddress(0x710 + index, 0x720 + index) for index in range(NODES)]
        payloads = [random.Random(index).randbytes(400 + index) for index in range(NODES)]
        received: dict[int, list[bytes]] = {address.rx_id: [] for address in addresses}
        stream: list[int] = []
        errors: list[IsoTpError] = []
        bus, watch = open_bus("socketcan", VCAN), open_bus("socketcan", VCAN)
        bus.start()
        watch.start()
        watch.subscribe([address.tx_id for address in addresses], lambda frame, _: stream.append(frame.can_id))
        senders, receivers = [], []
        for address in addresses:

            def arrived(payload: bytes, _: float, into: list[bytes] = received[address.rx_id]) -> None:
                into.append(payload)

            senders.append(
                KernelIsoTpChannel(VCAN, address, CLASSIC, on_message=lambda *_: None, on_error=errors.append)
            )
            receivers.append(IsoTpChannel(bus, reverse(address), paced, on_message=arrived, on_error=errors.append))
        await pause(0.01)  # the buses' filters are set when the loop comes round
        await asyncio.gather(*(sender.send(payload) for sender, payload in zip(senders, payloads, strict=True)))
        assert await until(lambda: all(received.values()), LIMIT_S)
        assert list(received.values()) == [[payload] for payload in payloads]
        assert errors == []
        firsts = [stream.index(address.tx_id) for address in addresses]
        lasts = [len(stream) - 1 - stream[::-1].index(address.tx_id) for address in addresses]
        assert max(firsts) < min(lasts)
        for sender, receiver in zip(senders, receivers, strict=True):
            sender.close()
            receiver.close()
        bus.close()
        watch.close()

    asyncio.run(run())


def test_frames_are_those_of_our_core() -> None:
    """Whoever sends, the bytes on the wire are the same: header, padding, lengths, flags."""

    async def run() -> None:
        for params in (CLASSIC, replace(CLASSIC, padding=None), FD, replace(FD, padding=None, brs=False)):
            async with pair(STANDARD, params) as between:
                for size in (1, 7, 8, 20, 62, 63, 200):
                    between.frames.clear()
                    await between.kernel.send(bytes(size))
                    await between.user.send(bytes(size))
                    await until(lambda: len(between.to_kernel) == len(between.to_user), LIMIT_S)
                    tx = [frame for _, frame in between.frames if frame.can_id == STANDARD.tx_id]
                    rx = [frame for _, frame in between.frames if frame.can_id == STANDARD.rx_id]
                    for control in (False, True):
                        ours, theirs = (
                            [frame.data for frame in frames if (frame.data[0] >> 4 == 3) is control]
                            for frames in (tx, rx)
                        )
                        assert ours == theirs, (params, size)
                    assert {(f.fd, f.brs) for f in tx + rx} == {(params.fd, params.brs)}

    asyncio.run(run())


def test_block_size_and_separation_time_are_asked_for_and_honoured() -> None:
    async def run() -> None:
        asking = replace(CLASSIC, block_size=4, st_min=50)
        gaps_s = 10 * 0.050  # 14 consecutive frames in blocks of 4, 4, 4 and 2
        async with pair(STANDARD, asking) as between:
            for sender, received, can_id in (
                (between.kernel, between.to_user, STANDARD.tx_id),
                (between.user, between.to_kernel, STANDARD.rx_id),
            ):
                between.frames.clear()
                began = now()
                await sender.send(bytes(100))
                assert await until(lambda received=received: bool(received), LIMIT_S)  # type: ignore[misc]
                assert now() - began >= gaps_s
                kinds = [(frame.can_id == can_id, frame.data[0] >> 4) for _, frame in between.frames]
                assert kinds == [(True, 1), *([(False, 3)] + [(True, 2)] * 4) * 3, (False, 3), (True, 2), (True, 2)]
                assert {f.data[:3] for _, f in between.frames if f.can_id != can_id} == {bytes((0x30, 4, 50))}

    asyncio.run(run())


def test_a_receiver_that_never_answers_is_a_time_out_and_never_success() -> None:
    async def run() -> None:
        errors: list[IsoTpError] = []
        channel = KernelIsoTpChannel(VCAN, STANDARD, CLASSIC, on_message=lambda *_: None, on_error=errors.append)
        with pytest.raises(NTimeoutBs, match="ECOMM"):
            await channel.send(bytes(100))
        await channel.send(b"alive")  # the channel goes on: a single frame needs no flow control
        channel.send_nowait(bytes(100))
        assert await until(lambda: bool(errors), LIMIT_S)
        assert [type(error) for error in errors] == [NTimeoutBs]
        channel.close()

    asyncio.run(run())


def test_what_goes_wrong_while_receiving_is_reported() -> None:
    async def run() -> None:
        async with pair(STANDARD, CLASSIC) as between:
            first = CanFrame(STANDARD.rx_id, bytes.fromhex("1014000102030405"))
            between.bus.send(first)
            between.bus.send(CanFrame(STANDARD.rx_id, bytes.fromhex("2200000000000000")))  # not 21
            assert await until(lambda: len(between.errors) == 1, LIMIT_S)
            between.bus.send(first)  # and nothing more
            assert await until(lambda: len(between.errors) == 2, LIMIT_S)
            assert [type(error) for error in between.errors] == [NWrongSn, NTimeoutCr]
            between.errors.clear()
            await both_ways(between, (100,))

    asyncio.run(run())


def test_close_while_the_kernel_sends_does_not_block() -> None:
    async def run() -> None:
        async with pair(STANDARD, CLASSIC, replace(CLASSIC, st_min=20)) as between:
            sending = asyncio.ensure_future(between.kernel.send(bytes(700)))
            assert await until(lambda: len(between.frames) > 5, LIMIT_S)
            began = now()
            between.kernel.close()
            assert now() - began < 0.5  # the rest takes 2 s
            with pytest.raises(IsoTpError, match="closed while sending"):
                await sending
            assert await until(lambda: bool(between.to_user), LIMIT_S)  # what the kernel has goes out

    asyncio.run(run())


def test_an_interface_that_is_down_or_not_there() -> None:
    async def run() -> None:
        def opened(name: str, params: IsoTpParams = CLASSIC) -> KernelIsoTpChannel:
            return KernelIsoTpChannel(name, STANDARD, params, on_message=lambda *_: None, on_error=lambda _: None)

        channel = opened(VCAN)
        with pytest.raises(UsageError):
            await channel.send(bytes(channel.max_payload + 1))
        sending = asyncio.ensure_future(channel.send(bytes(100)))
        await asyncio.wait([sending], timeout=0.1)
        link(VCAN, "down")
        with pytest.raises(InterfaceDown):
            await sending
        with pytest.raises(InterfaceDown):
            await channel.send(b"1")
        with pytest.raises(InterfaceDown):
            opened(VCAN)
        link(VCAN, "up")
        assert await until(channel._idle, LIMIT_S)
        await channel.send(b"2")
        channel.close()
        with pytest.raises(InterfaceUnavailable, match="vcan9"):
            opened("vcan9")
        with pytest.raises(InterfaceUnavailable) as caught:
            opened("can0", FD)  # a classic controller
        assert "CAN FD" in caught.value.remedy

    asyncio.run(run())


def test_the_choice() -> None:
    assert choose_isotp(IsoTpChoice.AUTO, "socketcan", VCAN) == KernelIsoTp(VCAN)
    assert choose_isotp(IsoTpChoice.KERNEL, "socketcan", "can0") == KernelIsoTp("can0")
    assert choose_isotp(IsoTpChoice.USER, "socketcan", VCAN) == UserIsoTp()
    assert choose_isotp(IsoTpChoice.AUTO, "socketcan", "vcan9") == UserIsoTp()
