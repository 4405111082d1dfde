"""A whole simulated plant: racks with their BMUs, a PCS and a comm gateway on one station bus; or only a part of it.

It runs on the loop it is started on.  On the virtual loop, with the same seed, it does the same thing every time, bit
for bit: `Plant.trace` holds the hash of everything that was on the wire.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from ess_can.bus.clock import Cycle
from ess_can.bus.station import StationLink
from ess_can.can.timing import BitTiming
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.isotp import IsoTpParams
from ess_can.signals.dbc import StationCodec
from ess_can.sim.bmu import BmuApplication
from ess_can.sim.boot_records import NodeRecords, RecordLatchStore
from ess_can.sim.bootloader import Verify
from ess_can.sim.comm_gateway import CommGatewayApplication
from ess_can.sim.controller import Controller, QueueOrder
from ess_can.sim.electrical import Contactor, ContactorSpec, LinkSpec, RackCircuit, StationCircuit
from ess_can.sim.flash import Flash
from ess_can.sim.flash_cells import FlashCells
from ess_can.sim.fram import Fram
from ess_can.sim.hv_control import HvSpec, RackControl
from ess_can.sim.mirror import PcsMirror, RacksMirror
from ess_can.sim.node import Application, Behaviour, Board, SimulatedNode
from ess_can.sim.parts import STM32H743, FlashPart
from ess_can.sim.pcs import Pcs, PcsSpec
from ess_can.sim.pcs_memory import RecordedPcsMemory
from ess_can.sim.pcs_node import PcsNode
from ess_can.sim.power_cut import PowerCut
from ess_can.sim.rack import RackHardware
from ess_can.sim.state_files import MappedMemory, NodeStorage, StateFiles
from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
from ess_can.sim.trace import TraceHash
from ess_can.sim.wire import Wire
from ess_can.uds.access import CmacAccess

BMU_HARDWARE_ID = 0x11
COMM_GATEWAY_HARDWARE_ID = 0x21
_STEP_S = 0.010
_NODE_QUEUE_DEPTH = 32


class Part(Enum):
    """What of the plant can be simulated by itself: the racks' BMUs and the comm gateway, or the PCS."""

    BMS = "bms"
    PCS = "pcs"


@dataclass(frozen=True, slots=True)
class PlantSpec:
    """What to build.  All nodes have the same part, `flash`.  `behaviours` makes firmware versions bad, for scenarios.

    `running` says whether a plant without a past is found connected.  `speed` divides the times to erase and program
    flash and to boot, and nothing else.  Of the plant only `parts` are here; the others are simulated elsewhere.
    `pcs_keeps_lock` gives the PCS a memory of its own; it has one anyway where the plant has a state.
    """

    racks: int = 2
    soc_percent: tuple[float, ...] = (55.0, 55.2, 54.9, 55.1, 55.3, 54.8, 55.0, 55.2)
    running: bool = True
    bit_timing: BitTiming = field(default_factory=lambda: BitTiming(500_000))
    pcs: PcsSpec = field(default_factory=PcsSpec)
    hv: HvSpec = field(default_factory=HvSpec)
    link: LinkSpec = field(default_factory=LinkSpec)
    isotp: IsoTpParams = field(default_factory=IsoTpParams)
    behaviours: Mapping[Version, Behaviour] = field(default_factory=dict)
    seed: int = 1
    flash: FlashPart = STM32H743
    speed: float = 1.0
    parts: frozenset[Part] = frozenset(Part)
    pcs_keeps_lock: bool = False

    @property
    def addresses(self) -> tuple[NodeAddress, ...]:
        """The nodes that are simulated here."""
        if Part.BMS not in self.parts:
            return ()
        bmus = tuple(NodeAddress(NodeType.BMU, number) for number in range(1, self.racks + 1))
        return (*bmus, NodeAddress(NodeType.COMM_GATEWAY))


class Plant:
    """The plant.  Create and `start` it while its loop runs.

    `images` are the confirmed MCUboot images that the nodes come with, by node type; `verify` is the signature check in
    the nodes' ROM.  `state` is where its memories live: RAM unless given; raises FileUnreadable if it cannot be used.
    `racks`, `hardware` and `nodes` are what is simulated here.  Whoever watches is in `on_step`, called with the time
    after every step of the physics, and in the like lists of wire, circuit, PCS, racks and nodes.
    """

    def __init__(
        self,
        spec: PlantSpec,
        codec: StationCodec,
        images: Mapping[NodeType, bytes],
        verify: Verify,
        state: StateFiles | None = None,
    ) -> None:
        self.spec = spec
        self.codec = codec
        self.verify = verify
        self.on_step: list[Callable[[float], None]] = []
        self.trace = TraceHash()
        self.wire = Wire(spec.bit_timing, on_frame=self.trace.record)
        self._storages: dict[NodeAddress, NodeStorage] = {}
        self._pcs_record: MappedMemory | None = None
        if state is not None:
            self._storages = {address: state.node(str(address), spec.flash.geometry) for address in spec.addresses}
            self._pcs_record = state.record("pcs") if Part.PCS in spec.parts else None
        memories = [storage.memory for storage in self._storages.values()]
        memories += [self._pcs_record] if self._pcs_record is not None else []
        self.restarted = not all(memory.fresh for memory in memories)
        # After a restart chance must not repeat itself: challenges would be those that were seen before.
        seed = f"{spec.seed} {state.starts}" if state is not None and self.restarted else spec.seed
        self._entropy = random.Random(seed)  # noqa: S311 - a simulation has to be repeatable
        now = self.wire.loop.time()
        circuits = [
            RackCircuit(soc_percent=spec.soc_percent[number % len(spec.soc_percent)], closed=self._found(Part.BMS))
            for number in range(spec.racks)
        ]
        pcs_contactor = Contactor(ContactorSpec(), closed=self._found(Part.PCS))
        self.circuit = StationCircuit(circuits, now, spec.link, pcs_contactor)
        self.hardware = [RackHardware(self.circuit, circuit) for circuit in circuits]
        self._pcs_node = self._make_pcs(now) if Part.PCS in spec.parts else None
        self.racks: list[RackControl] = []
        self.nodes: dict[NodeAddress, SimulatedNode] = {}
        for address in spec.addresses:
            self._make_node(address, images, verify, now)
        for memory in memories:
            memory.seal()
        self._elsewhere: StationLink | None = None
        self._mirror: PcsMirror | RacksMirror | None = None
        if spec.parts != frozenset(Part):
            self._elsewhere = StationLink(self._controller("elsewhere"), codec)
            bms_here = Part.BMS in spec.parts
            self._mirror = (PcsMirror if bms_here else RacksMirror)(self.circuit, self._elsewhere)
        self._physics = Cycle(_STEP_S, self._step)

    def _found(self, part: Part) -> bool:
        """Whether a part's contactors are closed at first."""
        return self.spec.running and not (self.restarted and part in self.spec.parts)

    def _controller(self, name: str) -> Controller:
        return self.wire.controller(name, depth=_NODE_QUEUE_DEPTH, order=QueueOrder.PRIORITY)

    def _make_pcs(self, now: float) -> PcsNode:
        record = self._pcs_record
        memory: RecordedPcsMemory | None = None
        if record is not None:
            memory = RecordedPcsMemory(Fram(self._entropy, cells=record.content))
        elif self.spec.pcs_keeps_lock:
            memory = RecordedPcsMemory(Fram(self._entropy))
        return PcsNode(Pcs(self.circuit, now, self.spec.pcs, memory), self._controller("PCS"), self.codec)

    def _make_node(self, address: NodeAddress, images: Mapping[NodeType, bytes], verify: Verify, now: float) -> None:
        storage = self._storages.get(address)
        cells = FlashCells.in_ram(self.spec.flash.geometry) if storage is None else storage.flash
        power = PowerCut()
        fram = Fram(self._entropy, power, cells=None if storage is None else storage.fram)
        application: Application
        if address.node_type is NodeType.BMU:
            latches = RecordLatchStore(NodeRecords(fram))
            hardware = self.hardware[address.index - 1]
            control = RackControl(hardware, latches, now, index=address.index, spec=self.spec.hv)
            self.racks.append(control)
            board = self._board(BMU_HARDWARE_ID, f"BMU-{address.index:06d}")
            application = BmuApplication(control, address.index)
        else:
            board = self._board(COMM_GATEWAY_HARDWARE_ID, "CGW-000001")
            application = CommGatewayApplication(self.spec.racks)
        node = SimulatedNode(
            address,
            board,
            self._controller(str(address)),
            self.codec,
            application,
            verify,
            self._entropy,
            self.spec.behaviours,
            fram,
            Flash(self._entropy, power, timing=board.part.timing, cells=cells),
        )
        if storage is None or storage.fresh:
            node.install(images[address.node_type])
        self.nodes[address] = node

    def _board(self, hardware_id: int, serial: str) -> Board:
        part = self.spec.flash.divided_by(self.spec.speed)
        board = Board(hardware_id, serial, CmacAccess(TEST_ONLY_ACCESS_SECRET), isotp=self.spec.isotp, part=part)
        return replace(board, boot_s=board.boot_s / self.spec.speed)

    def start(self) -> None:
        """Apply power: to a plant that is found running, its nodes up since long, or to one that lost it."""
        self._physics.start()
        if self._pcs_node is not None:
            if self.restarted:
                self._pcs_node.restart(self.wire.loop.time())
            self._pcs_node.power_on()
        for node in self.nodes.values():
            node.power_on(boot_s=None if self.restarted else 0.0)

    def stop(self) -> None:
        """Take the whole plant's power away."""
        now = self.wire.loop.time()
        for node in self.nodes.values():
            node.power_off(now)
        if self._pcs_node is not None:
            self._pcs_node.power_off()
        if self._elsewhere is not None:
            self._elsewhere.close()
        self._physics.stop()

    def _step(self, now: float) -> None:
        self.circuit.step(now)
        if self._mirror is not None:
            self._mirror.step(now)
        if self._pcs_node is not None:
            self.pcs.batteries_heard = self._mirror is None or self._mirror.heard
            self.pcs.step(now)
        for rack in self.racks:
            rack.step(now)
        for tell in self.on_step:
            tell(now)

    @property
    def pcs_node(self) -> PcsNode:
        """The PCS on the bus.  Raises RuntimeError if it is simulated elsewhere."""
        if self._pcs_node is None:
            raise RuntimeError("the PCS is simulated elsewhere")
        return self._pcs_node

    @property
    def pcs(self) -> Pcs:
        """The PCS.  Raises RuntimeError if it is simulated elsewhere."""
        return self.pcs_node.pcs

    def gateway_controller(self, depth: int = 10) -> Controller:
        """A controller for an EMS gateway on the station bus, with a Linux-like transmit queue."""
        return self.wire.controller("EMS", depth=depth)

    @property
    def addresses(self) -> tuple[NodeAddress, ...]:
        """Every node that can be upgraded."""
        return tuple(self.nodes)

    def versions(self) -> dict[NodeAddress, Version]:
        """What each running node runs."""
        return {address: node.memory.version for address, node in self.nodes.items() if node.running}
