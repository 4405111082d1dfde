"""Errors of adapters, of a channel, and of a simulation itself: a double stands in for the lowest layer only."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ess_can.bus.adapter import PythonCanBus
from ess_can.bus.clock import now, pause
from ess_can.bus.isotp_channel import IsoTpChannel
from ess_can.bus.python_can import open_bus
from ess_can.bus.socketcan import SocketCanDriver
from ess_can.campaign.faults import parse_fault
from ess_can.campaign.plants import SMALLEST
from ess_can.can.frame import CanFrame
from ess_can.can.timing import BitTiming
from ess_can.cli.embedded import open_sample_upgrade, upgrade_simulated_plant
from ess_can.errors import (
    BusError,
    InterfaceDown,
    InterfaceUnavailable,
    InvariantViolated,
    IsoTpError,
    SimulationDeadlock,
    TransmitQueueFull,
    TransmitStalled,
    UsageError,
)
from ess_can.gateway.progress import ignore
from ess_can.isotp import IsoTpAddress, IsoTpParams
from ess_can.resources import sample_path
from ess_can.sim.loop import run_virtual
from ess_can.sim.parts import STM32H743
from ess_can.sim.plant import Plant
from ess_can.sim.wire import Wire
from tests.campaign.reached import Reached
from tests.unit.bus.bench import DeviceLoop

_FRAME = CanFrame(0x100, b"\1")


class _Socket:
    """A kernel's CAN socket: it takes what is sent and never gives it back, or refuses it with error `number`."""

    def __init__(self, number: int = 0) -> None:
        self._number = number

    def setblocking(self, flag: bool, /) -> None:
        pass

    def setsockopt(self, level: int, name: int, value: int | bytes, /) -> None:
        pass

    def send(self, data: bytes, /) -> int:
        if self._number:
            raise OSError(self._number, "refused")
        return len(data)

    def recvmsg(self, bufsize: int, ancbufsize: int, /) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
        raise BlockingIOError(errno.EAGAIN, "nothing")

    def fileno(self) -> int:
        return 5


def _driver(number: int = 0) -> SocketCanDriver:
    return SocketCanDriver(_Socket(number), "can0", lambda: None, fd=False, user_filters=())


def _refused(number: int) -> Callable[[Path], object]:
    """The kernel refuses a frame with this error."""

    def reach(_directory: Path) -> object:
        return _driver(number).write(_FRAME, bulk=False)

    return reach


def _no_such_interface(_directory: Path) -> object:
    return open_bus("no-such-interface", "can0")


def _stalled(_directory: Path) -> object:
    """The adapter hangs: its driver takes a frame, and never says that it was sent."""

    async def send() -> None:
        told: list[BusError] = []
        bus = PythonCanBus(_driver())
        bus.watch(told.append)
        bus.start()
        bus.send(_FRAME)
        await pause(2.0)
        (error,) = told
        raise error

    with asyncio.Runner(loop_factory=DeviceLoop) as runner:
        return runner.run(send())


def _unacknowledged(_directory: Path) -> object:
    """Nobody else is on the bus: nothing is acknowledged, and what is to be sent piles up."""

    async def send() -> None:
        controller = Wire(BitTiming(500_000)).controller("alone", depth=3)
        for _ in range(4):
            controller.send(_FRAME)

    return run_virtual(send())


def _channel_closed(_directory: Path) -> object:
    """Whoever asks a node is told when the connection is closed under it."""

    async def send() -> None:
        wire = Wire(BitTiming(500_000))
        wire.controller("node")
        address = IsoTpAddress(0x615, 0x515)
        told: list[IsoTpError] = []
        channel = IsoTpChannel(
            wire.controller("tester"), address, IsoTpParams(), on_message=lambda _data, _at: None, on_error=told.append
        )
        sending = asyncio.ensure_future(channel.send(bytes(100)))
        await pause(0.01)
        channel.close()
        await sending

    return run_virtual(send())


def _nobody_wakes_anybody(_directory: Path) -> object:
    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    return run_virtual(wait())


def _somebody_closes_a_rack(_directory: Path) -> object:
    """By hand, with nobody commanding: no upgrade does that, and the monitors see it."""

    def prepare(plant: Plant) -> None:
        def close() -> None:
            plant.circuit.step(now())
            for contactor in plant.circuit.racks[0].contactors[1:]:
                contactor.drive(True, now())

        plant.wire.loop.call_later(1.0, close)

    spec = replace(SMALLEST.plant, running=False, flash=STM32H743)
    release = open_sample_upgrade(sample_path("bmu-1.1.0.essup"))
    return upgrade_simulated_plant(release, spec, ignore, dry_run=True, prepare=prepare)


REACHED = (
    Reached(InterfaceUnavailable, _no_such_interface),
    Reached(InterfaceDown, _refused(errno.ENETDOWN)),
    Reached(BusError, _refused(errno.EINVAL)),
    Reached(TransmitStalled, _stalled),
    Reached(TransmitQueueFull, _unacknowledged),
    Reached(IsoTpError, _channel_closed),
    Reached(SimulationDeadlock, _nobody_wakes_anybody),
    Reached(InvariantViolated, _somebody_closes_a_rack),
    Reached(UsageError, lambda _directory: parse_fault("gateway:sleepy@5")),
)
