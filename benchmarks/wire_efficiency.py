"""W1, W2, W3: how close the transfer of an image comes to the physical limit, in simulated time with exact frames.

Wire efficiency = (exact wire time of the fewest full frames that can carry the image's bytes as ISO-TP consecutive
frames) / (time from RequestDownload to the positive answer to RequestTransferExit, less the wire time of whatever else
was on the bus).  1.00 is the physical limit.
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar

from benchmarks.station import BMU1, CLASSIC, FD, BusKind, Station, all_racks, bmu_image, codec, open_station
from ess_can.bus.clock import now
from ess_can.bus.isotp_channel import IsoTpChannel
from ess_can.bus.kernel_isotp import OnError, OnMessage
from ess_can.bus.port import Bus, Receive, Sent
from ess_can.can.frame import CanFrame
from ess_can.can.timing import frame_duration_s
from ess_can.errors import BusError
from ess_can.image.content import as_content
from ess_can.isotp import IsoTpAddress, IsoTpParams
from ess_can.signals.dbc import StationCodec
from ess_can.sim.loop import run_virtual
from ess_can.uds.exchange import MAX_BLOCK_DATA

CLASSIC_BOUND, FD_BOUND, LOADED_BOUND = 0.98, 0.97, 0.97
PUBLISHED = 0.58
"""can-isotp, 500 kbit/s, Vector interface: 700 kB in 40 s, as published by a user (pylessard/python-can-isotp#48)."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """One image's way to one BMU.  Times are seconds; `racks` had their telemetry on the bus (0: a BMU alone)."""

    who: str
    bus: str
    racks: int
    image_bytes: int
    ideal_s: float
    elapsed_s: float
    other_traffic_s: float

    @property
    def efficiency(self) -> float:
        """1.00 is the physical limit."""
        return self.ideal_s / (self.elapsed_s - self.other_traffic_s)

    @property
    def bytes_per_s(self) -> float:
        """Of the image, by elapsed time."""
        return self.image_bytes / self.elapsed_s


@dataclass(frozen=True, slots=True)
class How:
    """What to do otherwise than usual: each of these takes one mechanism away.

    `block` is the bytes of an image in one TransferData at most; `frames_per_flow_control` the node's block size (0:
    one flow control a block); `in_flight` how many of the client's frames the bus has at a time; `confirmed_after_s`
    how late it says that a frame was sent; `dbc` another DBC.  `turn_around_s` is what passes before a node's answer
    leaves, and before the client acts on an answer or a flow control; without it both are done in no time.
    """

    block: int = MAX_BLOCK_DATA
    frames_per_flow_control: int = 0
    in_flight: int = 2
    confirmed_after_s: float = 0.0
    dbc: StationCodec | None = None
    turn_around_s: float = 0.0


_AS_USUAL = How()


def measure(kind: BusKind, racks: int, kib: int, how: How = _AS_USUAL) -> Transfer:
    """Transfer an image of `kib` KiB to one BMU by our gateway's own client."""

    async def run() -> Transfer:
        isotp = replace(kind.isotp, block_size=how.frames_per_flow_control)
        transport = _Transport(how.in_flight, how.confirmed_after_s, how.turn_around_s)
        station_like = open_station(
            kind, racks, kib, dbc=how.dbc, isotp=isotp, transport=transport, answer_s=how.turn_around_s
        )
        async with station_like as station:
            return await transfer(station, bmu_image(kib), how)

    return run_virtual(run())


async def transfer(station: Station, image: bytes, how: How = _AS_USUAL) -> Transfer:
    """Erase, transfer, verify; only the transfer is timed."""
    client = station.master.client(BMU1)
    async with AsyncExitStack() as under:
        permit = await station.permit()
        if permit is not None:
            await under.enter_async_context(permit)
        await client.enter_extended()
        await client.check_preconditions()
        await client.enter_programming()
        await client.authenticate(station.master.access)
        await client.announce(len(image), hashlib.sha256(image).digest())
        began_at, other_s = now(), station.other_traffic_s()
        await client.download(0, as_content(image), block=how.block)
        elapsed_s, other_s = now() - began_at, station.other_traffic_s() - other_s
        await client.verify(zlib.crc32(image))
    return result("ess-can", station, image, elapsed_s, other_s)


@dataclass(frozen=True, slots=True)
class _Transport:
    """Our own ISO-TP, with so many frames in flight, over a bus that confirms late and is heard late."""

    in_flight: int
    confirmed_after_s: float
    heard_after_s: float
    stops_at_once: ClassVar[bool] = True

    def open(
        self, bus: Bus, address: IsoTpAddress, params: IsoTpParams, *, on_message: OnMessage, on_error: OnError
    ) -> IsoTpChannel:
        """See `IsoTpTransport`."""
        if self.confirmed_after_s or self.heard_after_s:
            bus = _LateBus(bus, self.confirmed_after_s, self.heard_after_s)
        return IsoTpChannel(
            bus, address, params, on_message=on_message, on_error=on_error, max_in_flight=self.in_flight
        )


@dataclass(frozen=True, slots=True)
class _LateBus:
    """A bus that says later than it knows that a frame was sent, as an adapter behind USB does, or that one came."""

    bus: Bus
    sent_by_s: float
    heard_by_s: float

    @property
    def fd(self) -> bool:
        """See `Bus`."""
        return self.bus.fd

    def send(self, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
        """See `Bus`."""
        loop = asyncio.get_running_loop()

        def confirm(_at: float) -> None:
            if on_sent is not None:
                loop.call_later(self.sent_by_s, lambda: on_sent(loop.time()))

        self.bus.send(frame, confirm, bulk=bulk)

    def subscribe(self, can_ids: Iterable[int] | None, receive: Receive) -> Callable[[], None]:
        """See `Bus`."""
        loop = asyncio.get_running_loop()

        def hear(frame: CanFrame, _at: float) -> None:
            loop.call_later(self.heard_by_s, lambda: receive(frame, loop.time()))

        return self.bus.subscribe(can_ids, hear if self.heard_by_s else receive)

    def withdraw(self, can_id: int) -> list[CanFrame]:
        """See `Bus`."""
        return self.bus.withdraw(can_id)

    def adopt(self, can_id: int) -> None:
        """See `Bus`."""
        self.bus.adopt(can_id)

    def watch(self, on_error: Callable[[BusError], None]) -> Callable[[], None]:
        """See `Bus`."""
        return self.bus.watch(on_error)

    def restart(self) -> bool:
        """See `Bus`."""
        return self.bus.restart()


def result(who: str, station: Station, image: bytes, elapsed_s: float, other_s: float) -> Transfer:
    """The figures of a transfer on a station.  The limit is that of the identifiers that are in our DBC."""
    ideal_s = exact_wire_time_s(image, codec().diagnostic_ids(BMU1)[0], station.kind)
    return Transfer(who, station.kind.name, station.racks, len(image), ideal_s, elapsed_s, max(0.0, other_s))


@cache
def exact_wire_time_s(image: bytes, can_id: int, kind: BusKind) -> float:
    """Exact wire time of the fewest full frames that carry `image` as consecutive frames, in seconds."""
    size = 63 if kind.fd else 7
    total_s = 0.0
    for number, start in enumerate(range(0, len(image), size), start=1):
        data = bytes((0x20 | number & 0xF,)) + image[start : start + size].ljust(size, b"\0")
        total_s += frame_duration_s(CanFrame(can_id, data, fd=kind.fd, brs=kind.fd), kind.timing)
    return total_s


def bound(kind: BusKind, racks: int) -> float:
    """The efficiency to reach."""
    if racks > 1:
        return LOADED_BOUND
    return FD_BOUND if kind.fd else CLASSIC_BOUND


def cases() -> list[tuple[BusKind, int]]:
    """Every bus: a BMU alone, one rack (the least that the rules let a BMU be programmed on), all racks."""
    return [(kind, racks) for racks in (0, 1, all_racks()) for kind in (*CLASSIC, *FD)]
