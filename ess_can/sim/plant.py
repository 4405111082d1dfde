"""A whole simulated plant: racks with their BMUs, a PCS and a comm gateway on one station bus.

It runs on the loop it is started on.  On the virtual loop, with the same seed, it does the same thing every time, bit
for bit: `Plant.trace` holds the hash of everything that was on the wire.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from ess_can.bus.clock import Cycle
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
from ess_can.sim.fram import Fram
from ess_can.sim.hv_control import HvSpec, RackControl
from ess_can.sim.node import Application, Behaviour, Board, SimulatedNode
from ess_can.sim.pcs import Pcs, PcsSpec
from ess_can.sim.pcs_node import PcsNode
from ess_can.sim.rack import RackHardware
from ess_can.sim.test_secrets import TEST_ONLY_ACCESS_SECRET
from ess_can.sim.trace import TraceHash
from ess_can.sim.wire import Wire
from ess_can.uds.access import CmacAccess

BMU_HARDWARE_ID = 0x11
COMM_GATEWAY_HARDWARE_ID = 0x21
_STEP_S = 0.010
_NODE_QUEUE_DEPTH = 32


@dataclass(frozen=True, slots=True)
class PlantSpec:
    """What to build.  `behaviours` makes firmware versions bad, for scenarios."""

    racks: int = 2
    soc_percent: tuple[float, ...] = (55.0, 55.2, 54.9, 55.1)
    running: bool = True
    bit_timing: BitTiming = field(default_factory=lambda: BitTiming(500_000))
    pcs: PcsSpec = field(default_factory=PcsSpec)
    hv: HvSpec = field(default_factory=HvSpec)
    link: LinkSpec = field(default_factory=LinkSpec)
    isotp: IsoTpParams = field(default_factory=IsoTpParams)
    behaviours: Mapping[Version, Behaviour] = field(default_factory=dict)
    seed: int = 1


class Plant:
    """The plant.  Create and `start` it while its loop runs.

    `images` are the confirmed MCUboot images that the nodes come with, by node type; `verify` is the signature check in
    the nodes' ROM.
    """

    def __init__(self, spec: PlantSpec, codec: StationCodec, images: Mapping[NodeType, bytes], verify: Verify) -> None:
        self.spec = spec
        self.codec = codec
        self.trace = TraceHash()
        self.wire = Wire(spec.bit_timing, on_frame=self.trace.record)
        self._entropy = random.Random(spec.seed)  # noqa: S311 - a simulation has to be repeatable
        now = self.wire.loop.time()
        circuits = [
            RackCircuit(soc_percent=spec.soc_percent[number % len(spec.soc_percent)], closed=spec.running)
            for number in range(spec.racks)
        ]
        self.circuit = StationCircuit(circuits, now, spec.link, Contactor(ContactorSpec(), closed=spec.running))
        self.hardware = [RackHardware(self.circuit, circuit) for circuit in circuits]
        self.pcs = Pcs(self.circuit, now, spec.pcs)
        self.pcs_node = PcsNode(self.pcs, self._controller("PCS"), codec)
        self.racks: list[RackControl] = []
        self.nodes: dict[NodeAddress, SimulatedNode] = {}
        for number, hardware in enumerate(self.hardware, start=1):
            address = NodeAddress(NodeType.BMU, number)
            fram = Fram(self._entropy)
            control = RackControl(hardware, RecordLatchStore(NodeRecords(fram)), now, index=number, spec=spec.hv)
            self.racks.append(control)
            board = self._board(BMU_HARDWARE_ID, f"BMU-{number:06d}")
            self._add(address, board, BmuApplication(control, number), images, verify, fram)
        gateway_board = self._board(COMM_GATEWAY_HARDWARE_ID, "CGW-000001")
        self._add(
            NodeAddress(NodeType.COMM_GATEWAY), gateway_board, CommGatewayApplication(spec.racks), images, verify, None
        )
        self._physics = Cycle(_STEP_S, self._step)

    def _controller(self, name: str) -> Controller:
        return self.wire.controller(name, depth=_NODE_QUEUE_DEPTH, order=QueueOrder.PRIORITY)

    def _board(self, hardware_id: int, serial: str) -> Board:
        return Board(hardware_id, serial, CmacAccess(TEST_ONLY_ACCESS_SECRET), isotp=self.spec.isotp)

    def _add(
        self,
        address: NodeAddress,
        board: Board,
        application: Application,
        images: Mapping[NodeType, bytes],
        verify: Verify,
        fram: Fram | None,
    ) -> None:
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
        )
        node.install(images[address.node_type])
        self.nodes[address] = node

    def start(self) -> None:
        """Apply power: a plant that is found running, its nodes up since long."""
        self._physics.start()
        self.pcs_node.power_on()
        for node in self.nodes.values():
            node.power_on(boot_s=0.0)

    def stop(self) -> None:
        """Take the whole plant's power away."""
        now = self.wire.loop.time()
        for node in self.nodes.values():
            node.power_off(now)
        self.pcs_node.power_off()
        self._physics.stop()

    def _step(self, now: float) -> None:
        self.circuit.step(now)
        self.pcs.step(now)
        for rack in self.racks:
            rack.step(now)

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
