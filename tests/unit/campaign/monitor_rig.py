"""A plant, monitors, and a gateway by hand: honest as long as the script is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from ess_can.bus.clock import Cycle, pause, until
from ess_can.bus.isotp_channel import IsoTpChannel
from ess_can.bus.station import StationLink
from ess_can.campaign.monitors import Invariant, Monitors
from ess_can.can.frame import CanFrame
from ess_can.identity import NodeAddress
from ess_can.isotp import IsoTpAddress, IsoTpParams
from ess_can.signals.messages import (
    EmsHvStatusPoll,
    EmsPcsCommand,
    EmsUpgradeNotice,
    PcsCommandCode,
    UpgradePhase,
)
from ess_can.sim.boot_records import ImageId
from ess_can.sim.controller import Controller
from ess_can.sim.loop import run_virtual
from ess_can.sim.node import SimulatedNode
from ess_can.sim.plant import Plant, PlantSpec
from tests.scenario.support import BMU1, NEW, QUICK, image, small_plant

ONE_RACK = replace(QUICK, racks=1)
READ = "22fd01"
_SESSION = 0x1234


class Rig:
    """`bus` is the gateway's; `order` goes out every 50 ms from `command` on, polls every 100 ms from `isolate` on."""

    def __init__(self, plant: Plant, name: str = "EMS") -> None:
        self.plant = plant
        self.monitors = Monitors(plant)
        self.bus: Controller = plant.wire.controller(name)
        self.link = StationLink(self.bus, plant.codec)
        self.order = PcsCommandCode.ZERO_POWER
        self._orders = Cycle(0.05, self._send_order)
        self._polls = Cycle(0.1, self._send_poll)
        self._tokens = 0
        self._clients = {node: Client(self.bus, plant, node) for node in plant.nodes}

    @property
    def node(self) -> SimulatedNode:
        return self.plant.nodes[BMU1]

    @property
    def now(self) -> float:
        return self.plant.wire.loop.time()

    @property
    def broken(self) -> frozenset[Invariant]:
        return self.monitors.broken

    def _send_order(self, _at: float) -> None:
        self.link.send(EmsPcsCommand(self.order, upgrade_active=True))

    def _send_poll(self, _at: float) -> None:
        self._tokens += 1
        self.link.send(EmsHvStatusPoll(self._tokens))

    def notice(self, phase: UpgradePhase) -> None:
        self.link.send(EmsUpgradeNotice(phase, BMU1.node_type, 1, 0.0, _SESSION))

    async def ask(self, request: str, node: NodeAddress = BMU1) -> str:
        """A request, and its final answer."""
        return await self._clients[node].ask(request)

    async def read_all(self) -> None:
        for node in self.plant.nodes:
            await self.ask(READ, node)

    def command(self, order: PcsCommandCode) -> None:
        """At once, and then every cycle."""
        self.order = order
        self._orders.start()

    def fall_silent(self) -> None:
        self._orders.stop()

    def die(self) -> None:
        self._orders.stop()
        self._polls.stop()
        self.bus.detach()

    def stop_polling(self) -> None:
        self._polls.stop()

    async def isolate(self) -> None:
        """By the rules: read, power to zero, open, lock, wait for the discharge, poll for the proof."""
        await self.read_all()
        self.command(PcsCommandCode.ZERO_POWER)
        await pause(1.0)
        self.command(PcsCommandCode.OPEN)
        assert await until(lambda: not any(c.closed for c in self.plant.circuit.contactors), 2.0)
        self.command(PcsCommandCode.LOCK)
        assert await until(lambda: not self.monitors.hv_is_on, 10.0)
        self._polls.start()
        await pause(1.5)

    async def fall_silent_while_closing(self, after_s: float) -> None:
        """By the rules as far as the order to close; so long after it no order comes any more, for three seconds."""
        await self.isolate()
        self.command(PcsCommandCode.UNLOCK)
        await pause(0.3)
        self.command(PcsCommandCode.CLOSE)
        await pause(after_s)
        self.fall_silent()
        await pause(3.0)

    async def close(self) -> None:
        """By the rules, if the plant can be closed."""
        self.command(PcsCommandCode.UNLOCK)
        await pause(0.3)
        self.command(PcsCommandCode.CLOSE)
        await pause(2.0)

    def write_request(self, node: NodeAddress = BMU1) -> None:
        """RequestTransferExit, whatever the node makes of it: one frame."""
        self.raw("0137", node)

    def raw(self, data: str, node: NodeAddress = BMU1, bus: Controller | None = None) -> None:
        """One frame on the node's request identifier."""
        request_id, _ = self.plant.codec.diagnostic_ids(node)
        (bus or self.bus).send(CanFrame(request_id, bytes.fromhex(data).ljust(8, b"\xcc")))

    def hold_new_image(self) -> ImageId:
        """The inactive bank of BMU 1 holds a good image, as if it had been programmed long ago."""
        content = image(BMU1.node_type, NEW, 4)
        flash = self.node.flash
        cells, geometry = flash.cells.banks[1], flash.geometry
        start, unit = geometry.slot_offset, geometry.unit_size
        padded = content + b"\xff" * (-len(content) % unit)
        cells.content[start : start + len(padded)] = padded
        cells.states[start // unit : (start + len(padded)) // unit] = b"\x01" * (len(padded) // unit)
        cells.end()
        return ImageId.of(content)

    def read_back(self, held: ImageId) -> None:
        self.node.flash.read(1, self.node.flash.geometry.slot_offset, held.size)

    def activate(self, held: ImageId, tries: int = 1) -> None:
        """As the node's software does it."""
        self.read_back(held)
        self.node.bootloader.activate_on_trial(held, tries)


class Client:
    """A UDS client of one node."""

    def __init__(self, bus: Controller, plant: Plant, node: NodeAddress) -> None:
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._channel = IsoTpChannel(
            bus,
            IsoTpAddress(*plant.codec.diagnostic_ids(node)),
            IsoTpParams(),
            on_message=lambda payload, _: self._answers.put_nowait(payload),
            on_error=lambda _: None,
        )

    async def ask(self, request: str) -> str:
        await self._channel.send(bytes.fromhex(request))
        async with asyncio.timeout(30.0):
            while True:
                answer = await self._answers.get()
                if answer[:1] != b"\x7f" or answer[2] != 0x78:
                    return answer.hex()


Script = Callable[[Rig], Awaitable[None]]


def watch(script: Script, *, spec: PlantSpec = ONE_RACK, finish: bool = True) -> Monitors:
    """Run a script on a plant that has settled; gives what the monitors saw."""

    async def run() -> Monitors:
        plant = small_plant(spec)
        plant.start()
        rig = Rig(plant)
        await pause(1.2)
        await script(rig)
        if finish:
            rig.monitors.finish()
        plant.stop()
        return rig.monitors

    return run_virtual(run())


def seen(script: Script, *, spec: PlantSpec = ONE_RACK, finish: bool = True) -> set[Invariant]:
    """The invariants that a script violates."""
    return set(watch(script, spec=spec, finish=finish).broken)
