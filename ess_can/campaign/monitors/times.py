"""Waiting: of the gateway, and of safety frames behind a transfer: invariants 23 and 25."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ess_can.bus.port import BULK_IN_FLIGHT
from ess_can.campaign.monitors.invariants import Invariant, Ledger
from ess_can.campaign.monitors.wire_view import Request, WireView
from ess_can.can.frame import CanFrame
from ess_can.identity import NodeAddress
from ess_can.signals.messages import BmsHvStatus, EmsPcsCommand, EmsUpgradeNotice, PcsStatus, UpgradePhase
from ess_can.sim.controller import Controller
from ess_can.sim.plant import Part, Plant
from ess_can.uds.rules import Sid

LONGEST_WAIT_S = 90.0
"""Longer than the longest single wait of a gateway (a trial that ends by itself, 75 s)."""
COMMANDING_S = 0.5
_ROUNDING_S = 0.002
_QUEUED = 128
"""Frames of a stream that may still leave a computer whose program does nothing any more."""


class TimesMonitor:
    """Looks after every step of the physics, and at every frame of a transfer."""

    def __init__(self, plant: Plant, view: WireView, ledger: Ledger, gateways: frozenset[str]) -> None:
        self._plant = plant
        self._ledger = ledger
        self._gateways = gateways
        self._progress_at = plant.wire.loop.time()
        self._commanded_at = -inf
        self._order: object = None
        self._phase: UpgradePhase | None = None
        self._streamed = 0
        self._streamed_late = 0  # while an order was overdue
        self._streamed_before = 0
        codec = plant.codec
        self._cycle_s: dict[int, float] = {}
        self._controllers: list[Controller] = []
        if Part.PCS in plant.spec.parts:
            self._watch(view, codec.route(PcsStatus).can_id, codec.route(PcsStatus).cycle_s, plant.pcs_node.controller)
        for address, node in plant.nodes.items():
            if any(rack.index == address.index for rack in plant.racks) and address.node_type.name == "BMU":
                route = codec.route(BmsHvStatus, address.index)
                self._watch(view, route.can_id, route.cycle_s, node.controller)
        self._command_id = codec.route(EmsPcsCommand).can_id
        self._command_s = codec.route(EmsPcsCommand).cycle_s or 0.05
        self._waits_since: dict[int, float] = {}
        view.on_writing.append(self._on_writing)
        view.on_request.append(self._on_request)
        view.on_command.append(self._on_command)
        view.on_notice.append(self._on_notice)
        plant.on_step.append(self._on_step)

    def _watch(self, view: WireView, can_id: int, cycle_s: float | None, controller: Controller) -> None:
        self._cycle_s[can_id] = cycle_s or 0.05
        self._controllers.append(controller)
        view.sent.setdefault(can_id, []).append(self._sent_observer(can_id))

    # --- 25: safety frames --------------------------------------------------------------------------

    def _sent_observer(self, can_id: int) -> Callable[[CanFrame, float, str], None]:
        def on_frame(_frame: CanFrame, _at: float, _sender: str) -> None:
            if self._waits_since:
                self._waits_since.pop(can_id, None)

        return on_frame

    def _on_writing(self, _node: NodeAddress, at: float, sender: str) -> None:
        if sender not in self._gateways:
            return
        self._streamed += 1
        self._streamed_late += at > self._commanded_at + 2 * self._command_s + _ROUNDING_S
        self._progress_at = at
        for controller in self._controllers:
            if controller.waiting:
                self._look_at(controller, at)

    def _look_at(self, controller: Controller, at: float) -> None:
        """A frame of a transfer went before what waits here."""
        for _, transmission in controller.waiting:
            can_id = transmission.frame.can_id
            cycle_s = self._cycle_s.get(can_id)
            if cycle_s is None:
                continue
            # What waited before it, and was lost in bus-off, is not what waits now.
            waited_s = at - max(self._waits_since.setdefault(can_id, at), transmission.offered_at)
            if waited_s > cycle_s:
                text = f"{controller.name}: {can_id:#x} has waited for {waited_s:.3f} s while a transfer goes on"
                self._ledger.broken(at, Invariant.SAFETY_FRAMES, text)

    # --- 23: progress, and our own order --------------------------------------------------------------

    def _on_request(self, request: Request) -> None:
        if request.sender in self._gateways and request.service != Sid.TESTER_PRESENT:
            self._progress_at = request.at

    def _on_command(self, command: EmsPcsCommand, at: float, sender: str, _counter: int) -> None:
        if sender not in self._gateways:
            return
        gap_s = at - self._commanded_at
        streamed = self._streamed - self._streamed_before
        # A transfer that had ended by then, as with bus-off, or that found no room either, is not what made it late.
        if self._streamed_late > BULK_IN_FLIGHT and gap_s < inf and streamed > _QUEUED:
            text = f"EMS_PcsCommand is {gap_s - self._command_s:.3f} s late while {streamed} frames of a transfer went"
            self._ledger.broken(at, Invariant.SAFETY_FRAMES, text)
        if gap_s > COMMANDING_S or command.command is not self._order:
            self._progress_at = at
        self._order = command.command
        self._commanded_at = at
        self._streamed_before = self._streamed
        self._streamed_late = 0

    def _on_notice(self, notice: EmsUpgradeNotice, at: float, sender: str) -> None:
        if sender in self._gateways and notice.phase is not self._phase:
            self._phase = notice.phase
            self._progress_at = at

    def _on_step(self, now: float) -> None:
        if now - self._progress_at > LONGEST_WAIT_S:
            if now - self._commanded_at <= COMMANDING_S:
                text = f"a gateway holds the plant and has done nothing for {LONGEST_WAIT_S:g} s"
                self._ledger.broken(now, Invariant.DEADLINES, text)
            self._progress_at = now
