"""Contactors, latches and the PCS's lock, by the circuit's truth: invariants 3, 10 to 13 and 15."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from ess_can.campaign.monitors.invariants import Invariant, Ledger
from ess_can.campaign.monitors.memory import MemoryMonitor
from ess_can.campaign.monitors.wire_view import WireView
from ess_can.can.frame import CanFrame
from ess_can.identity import NodeAddress, NodeType, Version
from ess_can.signals.messages import (
    BmsHvStatus,
    EmsPcsCommand,
    EmsUpgradeNotice,
    ImageState,
    NodeInfo,
    PcsCommandCode,
    PcsState,
    PcsStatus,
    UpgradePhase,
)
from ess_can.sim.electrical import Contactor, RackCircuit
from ess_can.sim.hv_control import RackControl
from ess_can.sim.pcs import PcsEvent
from ess_can.sim.plant import Part, Plant

HEARTBEAT_S = 0.5
FRESH_S = 1.6
"""How old a status may be that closing goes by."""
_ABSENT_S = 3.0
"""How long a node may be off while contactors close: it may restart."""
_STEP_S = 0.010
_PRECHARGED = 0.93
"""Of the string's voltage: what a BMU asks for is 0.95 when it orders main+ to close, which takes a moment."""
_APART_V = 5.0
_AT_WORK = (UpgradePhase.PROGRAMMING, UpgradePhase.ACTIVATING)


class HighVoltageMonitor:
    """Watches the whole plant.  `closings` counts how often a rack was connected to the link."""

    def __init__(self, plant: Plant, view: WireView, memories: Sequence[MemoryMonitor], ledger: Ledger) -> None:
        self.closings = 0
        self._plant = plant
        self._ledger = ledger
        self._memories = memories
        self._clock = plant.wire.loop.time
        self._began_at = self._clock()
        self._close_to_judge = False  # ordered before anybody can have been heard here
        self._order: PcsCommandCode | None = None
        self._closed_by_order_at = -inf
        self._announced = False
        self._heard_at: dict[str, float] = {}
        self._infos: dict[NodeAddress, NodeInfo] = {}
        self._off_since: dict[NodeAddress, float] = {}
        self._latches = [rack.latches for rack in plant.racks]
        self._cleared = [False] * len(plant.racks)
        self._has_pcs = Part.PCS in plant.spec.parts
        self._locked = self._has_pcs and plant.pcs.locked
        self._restarted = False  # and what it remembers was not seen yet
        self._lock_lost_by_restart = False
        self._emergency = self._has_pcs and plant.pcs.state is PcsState.EMERGENCY_STOP
        view.on_command.append(self._on_command)
        view.on_notice.append(self._on_notice)
        self._listen(view)
        plant.on_step.append(self._on_step)
        plant.circuit.on_contactor.append(self._on_contactor)
        plant.circuit.on_break.append(self._on_break)
        for number, control in enumerate(plant.racks):
            control.on_clear.append(self._clear_observer(number))
        if self._has_pcs:
            plant.pcs.on_event.append(self._on_pcs_event)

    def _broken(self, invariant: Invariant, text: str) -> None:
        self._ledger.broken(self._clock(), invariant, text)

    # --- what is heard ----------------------------------------------------------------------------

    def _listen(self, view: WireView) -> None:
        codec = self._plant.codec
        names = {codec.route(PcsStatus).can_id: "PCS_Status"} if self._has_pcs else {}
        names |= {codec.route(BmsHvStatus, rack.index).can_id: f"rack {rack.index}" for rack in self._plant.racks}
        for can_id, name in names.items():
            view.delivered.setdefault(can_id, []).append(self._heard_observer(name))
        for address in self._plant.nodes:
            view.delivered.setdefault(codec.node_route(address).can_id, []).append(self._info_observer(address))
        view.delivered.setdefault(codec.route(EmsPcsCommand).can_id, []).append(self._on_order_delivered)

    def _heard_observer(self, name: str) -> Callable[[CanFrame, float, str], None]:
        def on_frame(_frame: CanFrame, at: float, _sender: str) -> None:
            self._heard_at[name] = at

        self._heard_at[name] = -inf
        return on_frame

    def _info_observer(self, address: NodeAddress) -> Callable[[CanFrame, float, str], None]:
        def on_frame(frame: CanFrame, at: float, _sender: str) -> None:
            decoded = self._plant.codec.decode(frame.can_id, frame.data)
            if decoded is not None and isinstance(decoded.message, NodeInfo):
                self._heard_at[str(address)] = at
                self._infos[address] = decoded.message

        self._heard_at[str(address)] = -inf
        return on_frame

    def _on_order_delivered(self, frame: CanFrame, at: float, _sender: str) -> None:
        decoded = self._plant.codec.decode(frame.can_id, frame.data)
        message = None if decoded is None else decoded.message
        if isinstance(message, EmsPcsCommand) and message.command is PcsCommandCode.CLOSE:
            self._closed_by_order_at = at

    # --- orders: 3, 10 and 15 -----------------------------------------------------------------------

    def _on_command(self, command: EmsPcsCommand, at: float, _sender: str, _counter: int) -> None:
        before, self._order = self._order, command.command
        if self._order is before:
            if self._close_to_judge and at - self._began_at > FRESH_S:
                self._close_to_judge = False
                self._judge_close_order(at)
            return
        if self._order is PcsCommandCode.OPEN:
            limit_a = min(contactor.spec.break_current_a for contactor in self._plant.circuit.contactors)
            flowing_a = max(abs(rack.current_a) for rack in self._plant.circuit.racks)
            flowing_a = max(flowing_a, abs(self._plant.circuit.bridge_current_a))
            if flowing_a > limit_a:
                self._broken(Invariant.BREAK_CURRENT, f"ordered open at {flowing_a:.0f} A")
        elif self._order is PcsCommandCode.CLOSE:
            self._close_to_judge = at - self._began_at <= FRESH_S
            self._judge_close_order(at)
        elif self._order is PcsCommandCode.UNLOCK and self._unfinished:
            self._broken(Invariant.LOCK, f"ordered to unlock: {self._unfinished}")

    def _judge_close_order(self, at: float) -> None:
        stale = [name for name, heard_at in self._heard_at.items() if at - max(heard_at, self._began_at) > FRESH_S]
        if stale:
            self._broken(Invariant.COMPLETE_SET, f"ordered to close without a fresh word of {', '.join(stale)}")
        unconfirmed = [str(a) for a, info in self._infos.items() if info.image_state is not ImageState.CONFIRMED]
        if unconfirmed:
            self._broken(Invariant.COMPLETE_SET, f"ordered to close while {', '.join(unconfirmed)} is not confirmed")
        versions = {info.version for address, info in self._infos.items() if address.node_type is NodeType.BMU}
        if len(versions) > 1:
            self._broken(Invariant.COMPLETE_SET, f"ordered to close with racks on {_listed(versions)}")

    def _on_notice(self, notice: EmsUpgradeNotice, _at: float, _sender: str) -> None:
        self._announced = notice.phase in _AT_WORK

    # --- contactors: 3, 10, 11, 12 and 13 -------------------------------------------------------------

    def _on_contactor(self, contactor: Contactor, at: float, _carried_a: float) -> None:
        if not contactor.closed:
            return
        rack, number, name = self._rack_of(contactor)
        driven_at = at - contactor.spec.close_time_s
        if driven_at - max(self._closed_by_order_at, self._began_at) > HEARTBEAT_S + _STEP_S:
            self._broken(Invariant.HEARTBEAT, f"{name} closes without an order to close that is fresh")
        if self._unfinished:
            self._broken(Invariant.LOCK, f"{name} closes: {self._unfinished}")
        if rack is None:
            return
        if number <= len(self._plant.racks) and self._plant.racks[number - 1].latches:
            self._broken(Invariant.LATCHES, f"{name} closes on a latched fault")
        if rack.main_plus.closed and rack.main_minus.closed and contactor is not rack.precharge:
            self._judge_closing(rack, number)

    def _on_break(self, contactor: Contactor, _at: float, carried_a: float) -> None:
        _, number, name = self._rack_of(contactor)
        if abs(carried_a) <= contactor.spec.break_current_a:
            return
        if self._is_emergency(number):
            self._ledger.note(self._clock(), f"{name} opened at {carried_a:.0f} A in an emergency")
        else:
            self._broken(Invariant.BREAK_CURRENT, f"{name} opened at {carried_a:.0f} A")

    def _is_emergency(self, number: int) -> bool:
        tripped = (PcsState.EMERGENCY_STOP, PcsState.FAULT)
        if self._has_pcs and self._plant.pcs.state in tripped:
            return True
        racks = self._plant.racks
        return 0 < number <= len(racks) and bool(racks[number - 1].latches)

    def _judge_closing(self, rack: RackCircuit, number: int) -> None:
        self.closings += 1
        link_v, string_v = self._plant.circuit.link_voltage_v, rack.ocv_v
        if link_v < _PRECHARGED * string_v and abs(link_v - string_v) > _APART_V:
            text = f"rack {number} at {string_v:.0f} V closes on a link at {link_v:.0f} V"
            self._broken(Invariant.PRECHARGE, text)
        for address, node in self._plant.nodes.items():
            off_since = self._off_since.get(address)
            if node.running and node.memory.standing is not ImageState.CONFIRMED:
                standing = node.memory.standing.name
                self._broken(Invariant.COMPLETE_SET, f"rack {number} closes while {address} is {standing}")
            elif off_since is not None and self._clock() - off_since > _ABSENT_S:
                self._broken(Invariant.COMPLETE_SET, f"rack {number} closes while {address} is off")

    def _rack_of(self, contactor: Contactor) -> tuple[RackCircuit | None, int, str]:
        for number, rack in enumerate(self._plant.circuit.racks, start=1):
            if contactor in rack.contactors:
                return rack, number, f"a contactor of rack {number}"
        return None, 0, "the PCS's contactor"

    # --- latches: 12 ----------------------------------------------------------------------------------

    def _clear_observer(self, number: int) -> Callable[[str], None]:
        def on_clear(by: str) -> None:
            if by.strip() and self._latches[number]:  # else it clears nothing, and what comes later is not cleared
                self._cleared[number] = True

        return on_clear

    def _judge_latches(self, number: int, control: RackControl) -> None:
        before, now = self._latches[number], control.latches
        if before is now:
            return
        gone = before - now
        if gone and not self._cleared[number]:
            names = ", ".join(sorted(latch.name for latch in gone))
            self._broken(Invariant.LATCHES, f"rack {number + 1} forgot {names} and nobody cleared it")
        self._cleared[number] = False
        self._latches[number] = now

    # --- every step: 12 and 15 --------------------------------------------------------------------------

    def _on_step(self, now: float) -> None:
        for number, control in enumerate(self._plant.racks):
            if control.latches is not self._latches[number] and self._has_power(control):
                self._judge_latches(number, control)
        off = self._off_since
        for address, node in self._plant.nodes.items():
            if node.running:
                if address in off:
                    del off[address]
            elif address not in off:
                off[address] = now
        if self._has_pcs and (self._restarted or self._plant.pcs.locked is not self._locked):
            self._judge_lock()

    def _has_power(self, control: RackControl) -> bool:
        """Whether its BMU has: a latch whose very writing cut its power off was never there."""
        node = self._plant.nodes.get(NodeAddress(NodeType.BMU, control.index))
        return node is None or node.flash.power.powered

    def _judge_lock(self) -> None:
        pcs = self._plant.pcs
        was_locked, self._locked = self._locked, pcs.locked
        if self._restarted:  # whether it remembers its lock is how it is built
            self._lock_lost_by_restart |= was_locked and not pcs.keeps_lock
            self._restarted = False
        if self._locked:
            self._lock_lost_by_restart = False
        elif was_locked and not self._lock_lost_by_restart and self._unfinished:
            self._broken(Invariant.LOCK, f"the PCS is not locked any more: {self._unfinished}")

    def _on_pcs_event(self, event: PcsEvent) -> None:
        state = self._plant.pcs.state
        if event is PcsEvent.RESTART:
            self._restarted = True
        elif event in (PcsEvent.START, PcsEvent.CLOSE) and self._unfinished:
            self._broken(Invariant.LOCK, f"the PCS goes to {state.name}: {self._unfinished}")
        if self._emergency and event not in (PcsEvent.CLEARED, PcsEvent.RESTART, PcsEvent.EMERGENCY):
            self._broken(Invariant.LATCHES, f"the PCS leaves its emergency stop by itself: {event.value}")
        if event is PcsEvent.EMERGENCY:
            self._emergency = True
        elif event is PcsEvent.CLEARED:
            self._emergency = False

    def change_begins(self, deed: str) -> None:
        """A node's memory is changed now."""
        if self._restarted:
            self._judge_lock()
        if self._has_pcs and not self._plant.pcs.locked and not self._lock_lost_by_restart:
            self._broken(Invariant.LOCK, f"{deed} while the PCS is not locked")

    @property
    def _unfinished(self) -> str:
        """Why the PCS must stay locked; empty if nothing says so."""
        if self._announced:
            return "an upgrade is announced"
        for memory in self._memories:
            if memory.trial:
                return f"{memory.name} has an image on trial"
        return ""


def _listed(versions: set[Version]) -> str:
    return " and ".join(str(version) for version in sorted(versions))
