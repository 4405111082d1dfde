"""Scripts for a simulated plant: an upgrade runs while a script acts on the plant, and an observer watches its safety.

`play` builds a plant with small images, runs an upgrade on it in virtual time, and gives an `Outcome`.  A script is a
coroutine function that is given the `Scene`; it waits for progress with `Scene.phase`, `Scene.step` or
`Scene.verified`, and then does something to the plant.  A script that does not come to its end fails the test, and so
does every breach that the observer saw.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise

from ess_can.bus.clock import Cycle, now, pause, until
from ess_can.can.frame import CanFrame
from ess_can.cli.embedded import simulated_setup
from ess_can.gateway.config import GatewayConfig
from ess_can.gateway.phases import NodeStep, Phase
from ess_can.gateway.progress import Event, NodeStepEntered, Noted, PhaseEntered
from ess_can.gateway.report import Report
from ess_can.gateway.run import upgrade_station
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.image.node_image import NodeImage
from ess_can.journal.journal import Journal
from ess_can.signals.dbc import StationCodec
from ess_can.signals.messages import EmsUpgradeNotice, ImageState, Message
from ess_can.sim.boot_records import ImageId
from ess_can.sim.bootloader import Check, decide
from ess_can.sim.controller import Controller
from ess_can.sim.electrical import LinkSpec
from ess_can.sim.flash import FlashError, FlashOperation
from ess_can.sim.loop import run_virtual
from ess_can.sim.node import SimulatedNode
from ess_can.sim.parts import STM32G474
from ess_can.sim.plant import BMU_HARDWARE_ID, COMM_GATEWAY_HARDWARE_ID, Plant, PlantSpec
from ess_can.sim.wire import WireFault
from ess_can.trust.keys import KeyRing
from ess_can.trust.verify import VerifiedUpgrade, open_upgrade_file, verify_node_image
from tests.firmware_images import FIRMWARE, RELEASE, small_image, small_upgrade

OLD = Version(1, 0, 0)
NEW = Version(1, 1, 0)
BMU1, BMU2 = NodeAddress(NodeType.BMU, 1), NodeAddress(NodeType.BMU, 2)
COMM_GATEWAY = NodeAddress(NodeType.COMM_GATEWAY)
QUICK_LINK = LinkSpec(capacitance_f=0.2e-3)
"""A link that is discharged in under a second: nothing in most scenarios depends on how long it takes."""
PART = replace(STM32G474, block_bytes=4096)
"""Small pages and small blocks: an image of a few KiB takes several of both."""
QUICK = PlantSpec(link=QUICK_LINK, flash=PART)
SETTLED_S = 1.2
REACTION_S = {NodeType.BMU: 0.0, NodeType.COMM_GATEWAY: 0.05}
"""How long flash work may still begin once high voltage is on: a BMU measures it, the comm gateway hears of it."""
HV_ON_V = 60.0
NODE_INFO_S = 0.5

_HARDWARE = {NodeType.BMU: BMU_HARDWARE_ID, NodeType.COMM_GATEWAY: COMM_GATEWAY_HARDWARE_ID}
_FIRMWARE_RING = KeyRing.of(FIRMWARE.public)
_RELEASE_RING = KeyRing.of(RELEASE.public)


@cache
def image(node_type: NodeType, version: Version, kib: int) -> bytes:
    """A small image, the same every time."""
    return small_image(
        payload=random.Random(f"{node_type.name} {version}").randbytes(kib * 1024),
        version=version,
        node_type=node_type,
        hardware_ids=(_HARDWARE[node_type],),
        security_counter=version.minor + 1,
        signer=FIRMWARE,
    )


@cache
def release(*node_types: NodeType, version: Version = NEW, kib: int = 20) -> VerifiedUpgrade:
    """A release of small images for these node types (BMUs if none is given)."""
    images = [image(node_type, version, kib) for node_type in node_types or (NodeType.BMU,)]
    return open_upgrade_file(small_upgrade(*images), _RELEASE_RING, firmware_keyring=_FIRMWARE_RING)


@cache
def station_codec() -> StationCodec:
    """The DBC, loaded once."""
    return StationCodec.load()


def verify(content: bytes) -> NodeImage:
    """What a node's ROM checks."""
    return verify_node_image(content, _FIRMWARE_RING).facts


def small_plant(spec: PlantSpec) -> Plant:
    """A plant whose nodes run small images of version 1.0.0."""
    images = {node_type: image(node_type, OLD, 4) for node_type in (NodeType.BMU, NodeType.COMM_GATEWAY)}
    return Plant(spec, station_codec(), images, verify)


def fill_inactive_banks(plant: Plant) -> None:
    """No sector of a slot that is to be programmed is blank: each has to be erased."""
    for node in plant.nodes.values():
        geometry = node.flash.geometry
        for sector in range(geometry.protected_sectors, geometry.sectors_per_bank):
            start = sector * geometry.sector_size
            if node.flash.is_blank(1, start, geometry.sector_size):
                node.flash.factory_program(1, start, bytes(geometry.unit_size))


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame on the wire, when it ended, and who sent it."""

    frame: CanFrame
    at: float
    sender: str


class Observer:
    """Watches the true state of the plant, whatever the nodes say of it, and notes every breach."""

    def __init__(self, plant: Plant) -> None:
        self.breaches: list[str] = []
        self.operations: list[tuple[NodeAddress, FlashOperation]] = []
        self.closings = 0
        self._plant = plant
        self._hv_on: list[tuple[float, float]] = []
        self._hv_on_since: float | None = None
        self._closed = [rack.conductance_s > 0 for rack in plant.circuit.racks]
        for address, node in plant.nodes.items():
            node.flash.on_start.append(self._flash_observer(address, node))
        self._cycle = Cycle(0.010, self._look)
        self._cycle.start()

    @property
    def hv_is_on(self) -> bool:
        """By the circuit itself: the link is charged, or a string is connected to it."""
        circuit = self._plant.circuit
        return circuit.link_voltage_v >= HV_ON_V or any(rack.conductance_s for rack in circuit.racks)

    def _flash_observer(self, address: NodeAddress, node: SimulatedNode) -> Callable[[FlashOperation], None]:
        def on_operation(operation: FlashOperation) -> None:
            self.operations.append((address, operation))
            if operation.bank == node.flash.running_bank:
                self._breach(f"{address}: {operation.action.name} in the running bank")
            if self.hv_is_on and not REACTION_S[address.node_type]:
                self._breach(f"{address}: {operation.action.name} begins under HV")

        return on_operation

    def _look(self, at: float) -> None:
        if self.hv_is_on:
            self._hv_on_since = at if self._hv_on_since is None else self._hv_on_since
        elif self._hv_on_since is not None:
            self._hv_on.append((self._hv_on_since, at))
            self._hv_on_since = None
        for number, (rack, was_closed) in enumerate(zip(self._plant.circuit.racks, self._closed, strict=True), start=1):
            closed = rack.conductance_s > 0
            self._closed[number - 1] = closed
            if closed and not was_closed:
                self.closings += 1
                node = self._plant.nodes[NodeAddress(NodeType.BMU, number)]
                if not node.running or node.memory.standing is not ImageState.CONFIRMED:
                    self._breach(f"rack {number} closed while its image is not confirmed")

    def _breach(self, text: str) -> None:
        self.breaches.append(f"{now():.3f} s: {text}")

    def finish(self) -> None:
        """What must hold at the end: nothing begun under high voltage, nothing arced or refused, no node dead."""
        self._cycle.stop()
        if self._hv_on_since is not None:
            self._hv_on.append((self._hv_on_since, now()))
        for address, node in self._plant.nodes.items():
            if node.running:
                node.memory.settle(now())
            if node.flash.counters.refused:
                self._breach(f"{address}: the flash refused {node.flash.counters.refused} operations")
            if node.running and node.memory.standing is ImageState.RECOVERY:
                self._breach(f"{address} is in recovery")
        for address, operation in self.operations:
            for since, until_s in self._hv_on:
                if since + REACTION_S[address.node_type] < operation.started < until_s:
                    self._breach(f"{address}: {operation.action.name} {operation.started - since:.2f} s under HV")
        for contactor in self._plant.circuit.contactors:
            if contactor.broken_a > contactor.spec.break_current_a:
                self._breach(f"a contactor opened at {contactor.broken_a:.0f} A")


class Scene:
    """A plant, the gateway on its bus, and what happened so far."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.gateway: Controller = plant.gateway_controller()
        self.observer = Observer(plant)
        self.events: list[Event] = []
        self.frames: list[Sent] = []
        self.upgrade: asyncio.Task[Report] | None = None
        self.report: Report | None = None
        self._heard: dict[int, list[float]] = {}
        self._notices: list[tuple[float, EmsUpgradeNotice]] = []
        plant.wire.on_frame.append(self._on_frame)

    def _on_frame(self, frame: CanFrame, at: float, sender: str) -> None:
        if sender == "EMS":
            self.frames.append(Sent(frame, at, sender))
            decoded = self.plant.codec.decode(frame.can_id, frame.data)
            if decoded is not None and isinstance(decoded.message, EmsUpgradeNotice):
                self._notices.append((at, decoded.message))
        else:
            self._heard.setdefault(frame.can_id, []).append(at)

    # --- waiting ------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool], within_s: float = 200.0) -> None:
        """Wait, and fail if it does not come."""
        assert await until(condition, within_s), "what the script waits for did not come"

    async def phase(self, phase: Phase) -> None:
        """Wait until the upgrade enters this phase."""
        await self.until(lambda: any(isinstance(e, PhaseEntered) and e.phase is phase for e in self.events))

    async def step(self, step: NodeStep, node: NodeAddress = BMU1) -> None:
        """Wait until work on this node enters this step."""
        await self.until(
            lambda: any(isinstance(e, NodeStepEntered) and (e.step, e.node) == (step, node) for e in self.events)
        )

    async def verified(self, offset: int = 6000, node: NodeAddress = BMU1) -> None:
        """Wait until this node has programmed that many bytes of its image."""
        await self.step(NodeStep.TRANSFER, node)
        simulated = self.plant.nodes[node]
        await self.until(lambda: simulated.running and simulated.memory.resume_state().verified_offset >= offset)

    # --- facts --------------------------------------------------------------------------------------

    def entered_at(self, phase: Phase) -> float:
        return next(e.at for e in self.events if isinstance(e, PhaseEntered) and e.phase is phase)

    def steps(self, step: NodeStep, node: NodeAddress = BMU1) -> list[NodeStepEntered]:
        return [e for e in self.events if isinstance(e, NodeStepEntered) and (e.step, e.node) == (step, node)]

    def all_steps(self, step: NodeStep) -> list[NodeStepEntered]:
        return [e for e in self.events if isinstance(e, NodeStepEntered) and e.step is step]

    def gaps(self, node: NodeAddress) -> list[tuple[float, float]]:
        """From when to when a node's Node_Info missed a cycle."""
        heard = self._heard[self.plant.codec.node_route(node).can_id]
        return [(a, b) for a, b in pairwise(heard) if b - a > 1.01 * NODE_INFO_S]

    @property
    def announced(self) -> list[tuple[float, float]]:
        """The times for which our notices announced silence."""
        return [(at, at + notice.silent_up_to_s) for at, notice in self._notices if notice.silent_up_to_s]

    @property
    def notes(self) -> str:
        return "\n".join(e.text for e in self.events if isinstance(e, Noted))

    def erased(self, node: NodeAddress = BMU1) -> int:
        return self.plant.nodes[node].flash.counters.sectors_erased

    def can_ids(self, message_type: type[Message]) -> frozenset[int]:
        return frozenset(route.can_id for route in self.plant.codec.routes(message_type))

    @property
    def all_open(self) -> bool:
        return not any(contactor.closed for contactor in self.plant.circuit.contactors)

    @property
    def all_connected(self) -> bool:
        circuit = self.plant.circuit
        return circuit.pcs_contactor.closed and all(r.main_plus.closed and r.main_minus.closed for r in circuit.racks)

    @property
    def diagnostic_requests(self) -> list[Sent]:
        """Every frame of ours on a diagnostic identifier."""
        ids = {self.plant.codec.diagnostic_ids(address)[0] for address in self.plant.nodes}
        return [sent for sent in self.frames if sent.frame.can_id in ids]

    # --- acting -------------------------------------------------------------------------------------

    def lose(self, message_type: type[Message]) -> None:
        """From now on nobody receives this message."""
        ids = self.can_ids(message_type)
        self.plant.wire.fault = lambda _index, frame: WireFault.LOSE if frame.can_id in ids else None

    def heal(self) -> None:
        """The wire is good again."""
        self.plant.wire.fault = None

    async def run_upgrade(
        self,
        upgrade: VerifiedUpgrade | None = None,
        *,
        config: GatewayConfig | None = None,
        dry_run: bool = False,
        journal: Journal | None = None,
    ) -> Report:
        """An upgrade by the gateway of this scene; for a second one, too."""
        return await upgrade_station(
            self.gateway,
            upgrade or release(),
            simulated_setup(self.plant, config),
            journal=Journal.in_memory() if journal is None else journal,
            on_progress=self.events.append,
            dry_run=dry_run,
        )


Script = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended."""

    report: Report
    scene: Scene
    trace_hash: str
    versions: Mapping[NodeAddress, Version] = field(default_factory=dict)

    @property
    def error(self) -> str:
        """The error's stable name, or nothing."""
        return "" if self.report.error is None else self.report.error.name

    @property
    def why(self) -> str:
        return "" if self.report.error is None else self.report.error.why

    def require(self, result: Phase, error: str = "", exit_code: int = 0) -> None:
        """Compare result, error and exit code."""
        assert (self.report.result, self.error, self.report.exit_code) == (result, error, exit_code), self.report.error

    def require_confirmed(self, version: Version, node_type: NodeType = NodeType.BMU) -> None:
        """Every node of the type runs this version, confirmed, and would boot it again."""
        for address, node in self.scene.plant.nodes.items():
            if address.node_type is node_type:
                assert self.versions.get(address) == version, address
                boots = decide(node.records.boot.load(), node_check(node))
                assert (boots.standing, boots.facts and boots.facts.version) == (ImageState.CONFIRMED, version), address


def node_check(node: SimulatedNode) -> Check:
    """What the node's bootloader finds in a bank, worked out here from its flash."""

    def check(bank: int, wanted: ImageId) -> NodeImage | None:
        content = node.flash.read(bank, node.flash.geometry.slot_offset, wanted.size)
        if isinstance(content, FlashError) or ImageId.of(content) != wanted:
            return None
        return verify(content)

    return check


def play(
    script: Script | None = None,
    *,
    spec: PlantSpec | None = None,
    upgrade: VerifiedUpgrade | None = None,
    config: Callable[[Plant], GatewayConfig] | None = None,
    prepare: Callable[[Plant], None] | None = None,
    after: Script | None = None,
    dry_run: bool = False,
    safe: bool = True,
) -> Outcome:
    """Run an upgrade, and the script beside it; `after` runs when the upgrade has ended.

    `safe` says that no breach may have been seen; a scenario that makes the plant itself break a rule sets it False.
    """

    async def run() -> Outcome:
        plant = small_plant(spec or QUICK)
        if prepare is not None:
            prepare(plant)
        plant.start()
        scene = Scene(plant)
        await pause(SETTLED_S)
        task = asyncio.ensure_future(
            scene.run_upgrade(upgrade, config=None if config is None else config(plant), dry_run=dry_run)
        )
        scene.upgrade = task
        scripted = None if script is None else asyncio.ensure_future(script(scene))
        report = scene.report = await task
        if scripted is not None:
            async with asyncio.timeout(60.0):
                await scripted
        if after is not None:
            await after(scene)
        await pause(0.2)
        scene.observer.finish()
        versions = plant.versions()
        outcome = Outcome(report, scene, plant.trace.hexdigest(), versions)
        plant.stop()
        if safe:
            assert not scene.observer.breaches, "; ".join(scene.observer.breaches)
        return outcome

    return run_virtual(run())


def changes_plant(scene: Scene, frames: Iterable[Sent] | None = None) -> list[CanFrame]:
    """Every frame of ours that is neither a ReadDataByIdentifier request nor a flow control."""
    requests = {scene.plant.codec.diagnostic_ids(address)[0] for address in scene.plant.nodes}
    return [sent.frame for sent in (scene.frames if frames is None else frames) if not _reads(sent.frame, requests)]


def _reads(frame: CanFrame, requests: set[int]) -> bool:
    if frame.can_id not in requests:
        return False
    kind = frame.data[0] >> 4
    service = frame.data[2] if frame.data[0] == 0 else frame.data[1]
    return kind == 3 or (kind == 0 and service == 0x22)
