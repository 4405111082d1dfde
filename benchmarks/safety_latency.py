"""W7: how long safety frames take from being handed to their controller to their end on the wire, in simulated time.

The same plant, all racks on the bus, first while nothing is transferred and then while a transfer saturates the bus.
Two frames are watched: every rack's BMS_HvStatus, which meets the stream in arbitration, and our own EMS_PcsCommand,
which leaves by the controller that the stream leaves by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from benchmarks.station import BusKind, Station, all_racks, bmu_image, open_station
from benchmarks.wire_efficiency import transfer
from benchmarks.wire_peers import Peer, client_on
from ess_can.bus.clock import now, pause
from ess_can.bus.port import Sent
from ess_can.can.frame import CanFrame
from ess_can.can.timing import frame_duration_s
from ess_can.signals.messages import BmsHvStatus, EmsPcsCommand
from ess_can.sim.controller import Controller
from ess_can.sim.loop import VirtualTimeLoop, run_virtual

ARBITRATION_BOUND, QUEUE_BOUND = 1.0, 2.0
"""Frame times that a transfer may add to the worst delay: of a rack's frame, and of our own."""


@dataclass(frozen=True, slots=True)
class Delays:
    """Delays in seconds, of every frame of a kind: while the bus was idle, and while it was saturated."""

    frame: str
    idle_s: tuple[float, ...]
    saturated_s: tuple[float, ...]

    @property
    def added_s(self) -> float:
        """What the transfer adds to the worst."""
        return max(self.saturated_s) - max(self.idle_s)


@dataclass(frozen=True, slots=True)
class Latency:
    """Both frames' delays on one bus; `frame_s` is the time of the longest frame of the stream."""

    who: str
    bus: str
    frame_s: float
    hv_status: Delays
    pcs_command: Delays

    @property
    def arbitration_frames(self) -> float:
        """Frame times that the transfer adds to the worst delay of a BMS_HvStatus."""
        return self.hv_status.added_s / self.frame_s

    @property
    def queue_frames(self) -> float:
        """Frame times that the transfer adds to the worst delay of an EMS_PcsCommand."""
        return self.pcs_command.added_s / self.frame_s


class _Probe:
    """Notes when watched frames are handed over and when they end on the wire."""

    def __init__(self) -> None:
        self.delays: dict[int, list[float]] = {}
        self.longest_s = 0.0
        self.stream: int | None = None
        self._handed: dict[int, list[float]] = {}

    @contextmanager
    def handing_over(self) -> Iterator[None]:
        """Sit where firmware and gateway hand their frames to their controllers."""
        send = Controller.send

        def probed(controller: Controller, frame: CanFrame, on_sent: Sent | None = None, *, bulk: bool = False) -> None:
            send(controller, frame, on_sent, bulk=bulk)
            if frame.can_id in self.delays:
                self._handed.setdefault(frame.can_id, []).append(now())

        with patch.object(Controller, "send", probed):
            yield

    def watch(self, station: Station) -> None:
        """Watch this station's wire from now on."""
        codec, wire = station.plant.codec, station.plant.wire
        for message in (BmsHvStatus, EmsPcsCommand):
            self.delays |= {route.can_id: [] for route in codec.routes(message)}
        self.stream = station.ids[0]

        def on_frame(frame: CanFrame, at: float, _sender: str) -> None:
            if frame.can_id == self.stream:
                self.longest_s = max(self.longest_s, frame_duration_s(frame, wire.timing))
            elif self._handed.get(frame.can_id):
                self.delays[frame.can_id].append(at - self._handed[frame.can_id].pop(0))

        wire.on_frame.append(on_frame)

    def take(self, station: Station) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The delays since the last time, of BMS_HvStatus and EMS_PcsCommand."""
        found = tuple(
            tuple(delay for route in station.plant.codec.routes(message) for delay in self.delays[route.can_id])
            for message in (BmsHvStatus, EmsPcsCommand)
        )
        for delays in self.delays.values():
            delays.clear()
        return found[0], found[1]


def _latency(
    who: str,
    station: Station,
    probe: _Probe,
    idle: tuple[tuple[float, ...], tuple[float, ...]],
    saturated: tuple[tuple[float, ...], tuple[float, ...]],
) -> Latency:
    return Latency(
        who,
        station.kind.name,
        probe.longest_s,
        Delays("BMS_HvStatus", idle[0], saturated[0]),
        Delays("EMS_PcsCommand", idle[1], saturated[1]),
    )


def measure(kind: BusKind, kib: int, idle_s: float = 10.0) -> Latency:
    """Watch for `idle_s` seconds without a transfer, then while an image of `kib` KiB is transferred by our gateway."""

    async def run() -> Latency:
        probe = _Probe()
        async with open_station(kind, all_racks(), kib) as station:
            probe.watch(station)
            with probe.handing_over():
                await pause(idle_s)
                idle = probe.take(station)
                await transfer(station, bmu_image(kib))
                return _latency("ess-can", station, probe, idle, probe.take(station))

    return run_virtual(run())


def measure_peer(peer: Peer, kind: BusKind, kib: int, idle_s: float = 10.0) -> Latency:
    """The same while the peers transfer it, through the controller that the EMS_PcsCommand leaves by.

    can-isotp hands over a whole message without waiting for confirmations, into a queue that keeps its order.
    """
    probe = _Probe()
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        stack = AsyncExitStack()
        station = runner.run(stack.enter_async_context(open_station(kind, all_racks(), kib, depth=100_000)))
        probe.watch(station)
        with probe.handing_over():
            runner.run(pause(idle_s))
            idle = probe.take(station)
            client_on(station, station.gateway, runner, peer, bmu_image(kib))
            saturated = probe.take(station)
        runner.run(stack.aclose())
    return _latency(peer.name, station, probe, idle, saturated)
