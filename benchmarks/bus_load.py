"""The cap on the bus load: what was asked, and what the stream then takes of a simulated wire with exact frame times.

A client sends blocks of 4095 bytes to nodes that answer each at once, as fast as its cap lets it; all that is measured
is how long frames occupied the wire.  Virtual time: the figures are the same on every machine.  Run it as
`python -m benchmarks.bus_load` from the project's folder.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ess_can.bus.clock import pause
from ess_can.bus.isotp_channel import IsoTpChannel
from ess_can.bus.limited_bus import LoadLimitedBus
from ess_can.bus.load_limit import LoadLimit
from ess_can.bus.port import Bus
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming, frame_duration_s
from ess_can.errors import IsoTpError
from ess_can.isotp import IsoTpAddress, IsoTpParams
from ess_can.sim.controller import Controller
from ess_can.sim.loop import run_virtual
from ess_can.sim.wire import Wire

BUSES = (BitTiming(125_000), BitTiming(500_000), BitTiming(1_000_000), BitTiming(500_000, 2_000_000))
CAPS = (0.10, 0.25, 0.50, 0.80)
TOLERANCE = 0.02
YIELDING = 0.80
OTHERS = (0.0, 0.3, 0.6)
"""What others take of a bus, one after the other, while a stream keeps all traffic within `YIELDING`."""
BLOCK = 4095
_REQUEST, _RESPONSE = 0x610, 0x510
FOREIGN = 0x0A0
_SETTLING_S = 0.5
_IDLE_S = 0.010


@dataclass(frozen=True, slots=True)
class Load:
    """Shares of the wire's time: what was asked, and what our stream, others, and all frames together took."""

    asked: float
    stream: float
    others: float
    total: float

    @property
    def error(self) -> float:
        """How far the stream is from what was asked, as a part of that."""
        return abs(self.stream - self.asked) / self.asked

    @property
    def total_error(self) -> float:
        """How far all frames together are from what was asked, as a part of that."""
        return abs(self.total - self.asked) / self.asked


class ForeignTraffic:
    """A node that occupies a share of the wire with frames of 8 bytes, evenly spaced."""

    def __init__(self, controller: Controller, timing: BitTiming, can_id: int = FOREIGN) -> None:
        self.share = 0.0
        self._controller = controller
        self._frame = CanFrame(can_id, bytes(range(8)))
        self._frame_s = frame_duration_s(self._frame, timing)

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            if self.share:
                self._controller.send(self._frame)
            await pause(self._frame_s / self.share if self.share else _IDLE_S)


def isotp_for(timing: BitTiming) -> IsoTpParams:
    """CAN FD with 64 bytes and bit-rate switch where the bus has it."""
    return IsoTpParams() if timing.data_bitrate is None else IsoTpParams(tx_dl=64, fd=True, brs=True)


def _fail(error: IsoTpError) -> None:
    raise error


class Stream:
    """A client on `bus` that sends one block after the other to a node of its own, which answers each."""

    def __init__(self, wire: Wire, bus: Bus, number: int, params: IsoTpParams) -> None:
        self.request_id, response_id = _REQUEST + number, _RESPONSE + number
        self.blocks = 0
        self._block = random.Random(number).randbytes(BLOCK)  # noqa: S311 - the same every time
        self._answered = asyncio.Event()
        self._client = IsoTpChannel(
            bus,
            IsoTpAddress(self.request_id, response_id),
            params,
            on_message=lambda _payload, _at: self._answered.set(),
            on_error=_fail,
        )
        self._node = IsoTpChannel(
            wire.controller(f"node {number}"),
            IsoTpAddress(response_id, self.request_id),
            params,
            on_message=self._take,
            on_error=_fail,
        )

    def _take(self, payload: bytes, _at: float) -> None:
        if payload != self._block:
            raise RuntimeError("a block came otherwise than it was sent")
        self.blocks += 1
        self._node.send_nowait(b"\x76\x01")

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            self._answered.clear()
            await self._client.send(self._block)
            await self._answered.wait()


def measure(
    asked: float,
    timing: BitTiming,
    *,
    yields: bool = False,
    others: Sequence[float] = (0.0,),
    streams: int = 1,
    seconds: float = 3.0,
) -> tuple[Load, ...]:
    """What `streams` streams under a cap of `asked` take, for each share that others take, one after the other.

    Each is measured over `seconds` of virtual time, half a second after the others began.  Raises IsoTpError if a
    transfer breaks.
    """

    async def run() -> tuple[Load, ...]:
        wire = Wire(timing)
        bus = LoadLimitedBus(wire.controller("gateway"), LoadLimit(asked, yields), timing)
        foreign = ForeignTraffic(wire.controller("others"), timing)
        senders = [Stream(wire, bus, number, isotp_for(timing)) for number in range(streams)]
        tasks = [asyncio.ensure_future(work) for work in (*(sender.run() for sender in senders), foreign.run())]
        figures = []
        for share in others:
            foreign.share = share
            await pause(_SETTLING_S)
            ours = [sender.request_id for sender in senders]
            before = wire.busy_s(ours), wire.busy_s([FOREIGN]), wire.busy_s()
            await pause(seconds)
            after = wire.busy_s(ours), wire.busy_s([FOREIGN]), wire.busy_s()
            taken = [(then - since) / seconds for since, then in zip(before, after, strict=True)]
            figures.append(Load(asked, *taken))
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()
        return tuple(figures)

    return run_virtual(run())


def name_of(timing: BitTiming) -> str:
    """Such as ``500k`` or ``FD 500k/2M``."""

    def rate(value: int) -> str:
        return f"{value // 1_000_000}M" if value % 1_000_000 == 0 else f"{value // 1000}k"

    return (
        rate(timing.bitrate)
        if timing.data_bitrate is None
        else f"FD {rate(timing.bitrate)}/{rate(timing.data_bitrate)}"
    )


def main() -> None:
    """Print the tables."""
    sys.stdout.write(f"{'bus':<12}{'asked':>8}{'measured':>10}{'off by':>8}\n")
    for timing in BUSES:
        for cap in CAPS:
            (figure,) = measure(cap, timing)
            line = f"{name_of(timing):<12}{cap:>8.1%}{figure.stream:>10.2%}{figure.error:>8.2%}\n"
            sys.stdout.write(line)
    sys.stdout.write(f"\nyielding, all traffic within 80 %\n{'bus':<12}{'others':>8}{'stream':>10}{'total':>8}\n")
    for timing in BUSES:
        for figure in measure(YIELDING, timing, yields=True, others=(*OTHERS, 0.9, 0.0)):
            line = f"{name_of(timing):<12}{figure.others:>8.1%}{figure.stream:>10.2%}{figure.total:>8.2%}\n"
            sys.stdout.write(line)


if __name__ == "__main__":
    main()
