"""A plant of a few lines that speaks the real messages, and does what a test tells it, right or wrong."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ess_can.bus.clock import Cycle
from ess_can.bus.station import Received, StationLink
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.signals.dbc import StationCodec
from ess_can.signals.messages import (
    BmsAlarms,
    BmsCellSummary,
    BmsHvNotice,
    BmsHvStatus,
    BmsState,
    ContactorState,
    EmsHvStatusPoll,
    EmsPcsCommand,
    EmsUpgradeNotice,
    HvNoticeCondition,
    ImageState,
    NodeInfo,
    PcsCommandCode,
    PcsState,
    PcsStatus,
    RackState,
    UpgradePhase,
)
from tests.support.memory_bus import MemoryBus

OPEN, CLOSED = ContactorState.OPEN, ContactorState.CLOSED
CODEC = StationCodec.load()
CYCLE_S = 0.05
OLD, NEW = Version(1, 0, 0), Version(1, 1, 0)
BMU1 = NodeAddress(NodeType.BMU, 1)
BMU2 = NodeAddress(NodeType.BMU, 2)

PCS_RUNNING = PcsStatus(
    state=PcsState.RUNNING,
    contactors=CLOSED,
    lock_acknowledged=False,
    remote_control=False,
    grid_service_active=False,
    emergency_stop=False,
    heartbeat_lost=False,
    fault_code=0,
    dc_current_a=100.0,
)
PCS_OFF = replace(
    PCS_RUNNING,
    state=PcsState.STANDBY,
    contactors=OPEN,
    lock_acknowledged=True,
    remote_control=True,
    dc_current_a=0.0,
)
RACK_CLOSED = BmsHvStatus(
    main_plus=CLOSED,
    main_minus=CLOSED,
    precharge=OPEN,
    hvil_closed=True,
    weld_plus=False,
    weld_minus=False,
    hv_off=False,
    emergency_stop=False,
    link_voltage_v=790.0,
    current_a=50.0,
)
RACK_OFF = replace(RACK_CLOSED, main_plus=OPEN, main_minus=OPEN, hv_off=True, link_voltage_v=5.0, current_a=0.0)
STATE = BmsState(RackState.CLOSED, 55.0, 790.0, 24.0)
CELLS = BmsCellSummary(3.28, 3.30, 20.0, 25.0)


def node_info(image_state: ImageState = ImageState.CONFIRMED, version: Version = OLD) -> NodeInfo:
    return NodeInfo(
        NodeType.BMU, 0, 3, image_state, CODEC.fingerprint, 0x11, version.major, version.minor, version.revision
    )


@dataclass
class ScriptedPlant:
    """Obeys every order at once, unless it is in `ignores`.  What is in `silent` is not sent.

    `pcs`, `racks` and the rest may be set at any time.  `orders` are the orders heard, without repetition; `notices`
    the phases announced, `targets` the indices of the nodes named in each.
    """

    bus: MemoryBus
    pcs: PcsStatus = PCS_RUNNING
    racks: dict[int, BmsHvStatus] = field(default_factory=lambda: {1: RACK_CLOSED, 2: RACK_CLOSED})
    states: dict[int, BmsState] = field(default_factory=lambda: {1: STATE, 2: STATE})
    cells: dict[int, BmsCellSummary] = field(default_factory=lambda: {1: CELLS, 2: CELLS})
    alarms: dict[int, BmsAlarms] = field(default_factory=lambda: {1: BmsAlarms(), 2: BmsAlarms()})
    nodes: dict[NodeAddress, NodeInfo] = field(default_factory=lambda: {BMU1: node_info(), BMU2: node_info()})
    ignores: set[PcsCommandCode] = field(default_factory=set)
    silent: set[object] = field(default_factory=set)
    condition: HvNoticeCondition = HvNoticeCondition.DISCONNECTED
    orders: list[PcsCommandCode] = field(default_factory=list)
    notices: list[UpgradePhase] = field(default_factory=list)
    polls: list[int] = field(default_factory=list)
    targets: dict[UpgradePhase, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.link = StationLink(self.bus, CODEC)
        self.link.subscribe(EmsPcsCommand, self._on_command)
        self.link.subscribe(EmsUpgradeNotice, self._on_notice)
        self.link.subscribe(EmsHvStatusPoll, self._on_poll)
        self._cycle = Cycle(CYCLE_S, lambda _: self.speak())

    def start(self) -> None:
        self._cycle.start()

    def stop(self) -> None:
        self._cycle.stop()

    def speak(self) -> None:
        """Everything once."""
        if "pcs" not in self.silent:
            self.link.send(self.pcs)
        for rack, status in self.racks.items():
            if rack in self.silent:
                continue
            self.link.send(status, rack)
            if ("telemetry", rack) not in self.silent:
                self.link.send(self.states[rack], rack)
                self.link.send(self.cells[rack], rack)
                self.link.send(self.alarms[rack], rack)
        for address, info in self.nodes.items():
            if address not in self.silent:
                self.link.send_node_info(info, address)

    def set_racks(self, status: BmsHvStatus) -> None:
        self.racks = dict.fromkeys(self.racks, status)

    def _on_notice(self, received: Received[EmsUpgradeNotice]) -> None:
        phase = received.message.phase
        self.targets.setdefault(phase, []).append(received.message.target_index)
        if not self.notices or self.notices[-1] is not phase:
            self.notices.append(phase)

    def _on_poll(self, received: Received[EmsHvStatusPoll]) -> None:
        self.polls.append(received.message.token)
        for rack in self.racks:
            if rack not in self.silent and ("notice", rack) not in self.silent:
                self.link.send(BmsHvNotice(received.message.token, self.condition, 1.0), rack)

    def _on_command(self, received: Received[EmsPcsCommand]) -> None:
        order = received.message.command
        if self.orders and self.orders[-1] is order:
            return
        self.orders.append(order)
        if order not in self.ignores:
            self._obey(order)

    def _obey(self, order: PcsCommandCode) -> None:
        pcs = self.pcs = replace(self.pcs, remote_control=order is not PcsCommandCode.RELEASE)
        if order is PcsCommandCode.ZERO_POWER:
            self.pcs = replace(pcs, state=PcsState.STANDBY, dc_current_a=0.0)
            self.racks = {rack: replace(status, current_a=0.0) for rack, status in self.racks.items()}
        elif order is PcsCommandCode.OPEN:
            self.pcs = replace(pcs, contactors=OPEN)
            self.set_racks(RACK_OFF)
        elif order is PcsCommandCode.LOCK:
            self.pcs = replace(pcs, lock_acknowledged=True)
        elif order is PcsCommandCode.UNLOCK:
            self.pcs = replace(pcs, lock_acknowledged=False)
        elif order is PcsCommandCode.CLOSE:
            self.pcs = replace(pcs, contactors=CLOSED)
            self.set_racks(replace(RACK_CLOSED, current_a=0.0))
