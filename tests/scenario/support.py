"""Scripts for a simulated plant: an upgrade runs while a script acts on the plant, and monitors watch its safety.

`play` builds a plant with small images, runs an upgrade on it in virtual time, and gives an `Outcome`.  A script is a
coroutine function that is given the `Scene`; it waits for progress with `Scene.phase`, `Scene.step` or
`Scene.verified`, and then does something to the plant.  A script that does not come to its end fails the test, and so
does every invariant that was violated.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise

from ess_can.bus.clock import pause, until
from ess_can.campaign.monitors import Invariant, Monitors
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
from ess_can.sim.flash import FlashError
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
NODE_INFO_S = 0.5
NONE: frozenset[Invariant] = frozenset()

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


class Scene:
    """A plant, the gateway on its bus, and what happened so far."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.gateway: Controller = plant.gateway_controller()
        self.monitors = Monitors(plant)
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

    def last_at(self, can_id: int) -> float:
        """When a frame with this identifier from others was last on the wire."""
        return self._heard[can_id][-1]

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
        """An upgrade by the gateway of this scene; for a second one, too: it knows nothing of the first."""
        journal = Journal.in_memory() if journal is None else journal
        setup = simulated_setup(self.plant, config)
        self.monitors.attach_journal(journal, another=True)
        report = await upgrade_station(
            self.gateway,
            upgrade or release(),
            setup,
            journal=journal,
            on_progress=self.events.append,
            dry_run=dry_run,
        )
        self.monitors.ended(report, setup.config.afterwards)
        return report


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
    breaks: frozenset[Invariant] = NONE,
) -> Outcome:
    """Run an upgrade, and the script beside it; `after` runs when the upgrade has ended.

    `breaks` names the invariants that the scenario itself makes the plant break: these must be seen, and no other.
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
        scene.monitors.finish()
        versions = plant.versions()
        outcome = Outcome(report, scene, plant.trace.hexdigest(), versions)
        plant.stop()
        require_only(scene.monitors, breaks)
        return outcome

    return run_virtual(run())


def require_only(monitors: Monitors, breaks: frozenset[Invariant] = NONE) -> None:
    """These invariants were violated, and no other."""
    assert monitors.broken == breaks, "\n".join(map(str, monitors.violations)) or "nothing was violated"


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
