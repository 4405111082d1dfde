"""Waiting: of the gateway, and of safety frames behind a transfer: invariants 23 and 25."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from ess_can.bus.port import BULK_IN_FLIGHT
from ess_can.campaign.monitors.invariants import Invariant, Ledger
from ess_can.campaign.monitors.wire_view import Request, WireView
from ess_can.can.frame import CanFrame
from ess_can.gateway.config import TimeLimits
from ess_can.identity import NodeAddress
from ess_can.signals.messages import BmsHvStatus, EmsPcsCommand, EmsUpgradeNotice, PcsStatus, UpgradePhase
from ess_can.sim.controller import Controller
from ess_can.sim.plant import Part, Plant
from ess_can.uds.rules import Sid

LONGEST_WAIT_S = 90.0
"""Longer than the longest single wait of a gateway (a trial that ends by itself, 75 s)."""
_ENDED_S = 5.0
"""How long a wait may take to be given up once its deadline is over: what is asked meanwhile is answered, or not."""
_LOOK_S = 0.5
COMMANDING_S = 0.5
_ROUNDING_S = 0.002
_QUEUED = 128
"""Frames of a stream that may still leave a computer whose program does nothing any more."""


def deadlines(times: TimeLimits) -> Mapping[UpgradePhase, float]:
    """How long a gateway may do nothing that is seen on the wire, by the phase that it announced last, in seconds."""
    return {
        # The lock is ordered, and then the link is discharged and the proof waited for.
        UpgradePhase.PREPARING: times.contactor_opening_s + times.discharge_s + times.prove_off_s + _ENDED_S,
        # A permit that is lost; beside it what is asked of a node is repeated before its session ends.
        UpgradePhase.PROGRAMMING: times.permit_regain_s + _ENDED_S,
        # A node that goes back by itself.
        UpgradePhase.ACTIVATING: times.revert_s + _ENDED_S,
        UpgradePhase.RECONNECTING: times.listen_s + times.reconnect_s + times.contactor_opening_s + _ENDED_S,
    }


class TimesMonitor:
    """Looks after every step of the physics, and at every frame of a transfer."""

    def __init__(
        self, plant: Plant, view: WireView, ledger: Ledger, gateways: frozenset[str], times: TimeLimits
    ) -> None:
        self._plant = plant
        self._deadlines = deadlines(times)
        self._ledger = ledger
        self._gateways = gateways
        self._progress_at = plant.wire.loop.time()
        self._works: Callable[[], bool] | None = None
        self._looked_at = -inf
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

    def gateway_started(self, works: Callable[[], bool] | None) -> None:
        """A gateway's process begins; `works` says whether it lives, and is let do anything; None if nobody knows."""
        self._works = works
        self._phase = None
        self._progress_at = self._plant.wire.loop.time()

    def _on_step(self, now: float) -> None:
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        commands = now - self._commanded_at <= COMMANDING_S
        works = self._works is not None and self._works()
        if not (commands or works):
            self._progress_at = now
        limit_s = LONGEST_WAIT_S if self._phase is None else self._deadlines.get(self._phase, LONGEST_WAIT_S)
        if now - self._progress_at > limit_s:
            phase = "" if self._phase is None else f" in {self._phase.name}"
            does = "holds the plant" if commands else "runs"
            text = f"a gateway {does} and has done nothing for {limit_s:g} s{phase}"
            self._ledger.broken(now, Invariant.DEADLINES, text)
            self._progress_at = now
