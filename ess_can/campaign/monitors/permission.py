"""High voltage is proved off before anything is written, by the gateway and by each node: invariants 1, 2 and 14."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ess_can.campaign.monitors.evidence import WireEvidence
from ess_can.campaign.monitors.invariants import Invariant, Ledger
from ess_can.campaign.monitors.memory import MemoryMonitor
from ess_can.campaign.monitors.truth import HvTruth
from ess_can.campaign.monitors.wire_view import WireView
from ess_can.identity import NodeAddress, NodeType
from ess_can.sim.boot_records import BootRecord
from ess_can.sim.flash import FlashOperation
from ess_can.sim.wire import Wire

UNDER_WAY_S = 0.100
"""What was under way when the proof ended is over after this time; only what a controller has already, and a jammed bus
keeps back, nobody can recall."""
PROVED_S = 1.0
"""How long a proof takes at most whose every part is on the wire: a monitor that came only now has not seen it yet."""
_REACTION_S = {NodeType.BMU: 0.0, NodeType.COMM_GATEWAY: 0.05}
"""How long work may still begin once high voltage is on: a BMU measures it, a comm gateway hears of it."""


class PermissionMonitor:
    """Compares each writing frame of a gateway with the evidence on the wire, each deed of a node with the truth."""

    def __init__(
        self,
        wire: Wire,
        view: WireView,
        evidence: WireEvidence,
        truth: HvTruth,
        memories: Iterable[MemoryMonitor],
        ledger: Ledger,
        gateways: frozenset[str],
    ) -> None:
        self._wire = wire
        self._began_at = wire.loop.time()
        self._evidence = evidence
        self._truth = truth
        self._ledger = ledger
        self._gateways = gateways
        view.on_writing.append(self._on_writing)
        for memory in memories:
            memory.node.flash.on_start.append(self._operation_observer(memory))
            memory.on_selection.append(self._selection_observer(memory))

    def _on_writing(self, node: NodeAddress, at: float, sender: str) -> None:
        evidence = self._evidence
        if sender not in self._gateways or evidence.standing(at):
            return
        lost_at = evidence.lost_at
        if lost_at is None or at - lost_at <= UNDER_WAY_S:
            return
        if lost_at < 0 and at - self._began_at <= PROVED_S:
            return  # whoever is at work already has proved it before we came
        if self._wire.offered_at <= lost_at + UNDER_WAY_S:
            self._ledger.note(at, f"the bus kept a frame to {node} back for {at - self._wire.offered_at:.3f} s")
            return
        why = "never proved" if lost_at < 0 else f"not proved for {at - lost_at:.3f} s"
        self._ledger.broken(at, Invariant.PERMIT, f"a writing request to {node}: HV off {why}: {evidence.why}")
        if evidence.silent:
            self._ledger.broken(
                at, Invariant.SILENCE, f"a writing request to {node} on missing evidence: {evidence.why}"
            )

    def _operation_observer(self, memory: MemoryMonitor) -> Callable[[FlashOperation], None]:
        def on_start(operation: FlashOperation) -> None:
            self._judge(memory, operation.started, operation.action.name)

        return on_start

    def _selection_observer(self, memory: MemoryMonitor) -> Callable[[float, BootRecord, BootRecord], None]:
        def on_selection(at: float, before: BootRecord, after: BootRecord) -> None:
            given = after.trial != before.trial or after.tries_left > before.tries_left
            activated = after.trial is not None and given
            if activated or after.confirmed != before.confirmed:
                self._judge(memory, at, "activation" if activated else "confirmation")

        return on_selection

    def _judge(self, memory: MemoryMonitor, at: float, deed: str) -> None:
        reaction_s = _REACTION_S[memory.node.address.node_type]
        on_for_s = self._truth.on_for_s(at)
        if on_for_s > reaction_s:
            text = f"{memory.name}: {deed} while high voltage has been on for {on_for_s:.3f} s"
            self._ledger.broken(at, Invariant.NODE_GATE, text)
        pcs = self._evidence.pcs
        said_until = pcs.valid_until() if pcs.good_at is not None else self._evidence.pcs_bad_at
        if said_until < 0 and at - self._began_at <= PROVED_S:
            return
        if at > said_until + reaction_s:
            text = f"{memory.name}: {deed} while the PCS is not heard to be open and locked"
            self._ledger.broken(at, Invariant.NODE_GATE, text)
            if pcs.mute or pcs.good_at is not None:
                self._ledger.broken(at, Invariant.SILENCE, f"{memory.name}: {deed} on missing evidence of the PCS")
