"""How an upgrade found high voltage, by the circuit itself: what its end is measured by."""

from __future__ import annotations

from math import inf

from ess_can.campaign.monitors.wire_view import WireView
from ess_can.signals.messages import EmsPcsCommand, PcsCommandCode
from ess_can.sim.electrical import Contactor
from ess_can.sim.plant import Part, Plant

_FRESH_S = 0.5


class FoundMonitor:
    """`connected` is how the plant stood when the first attempt of an upgrade began; None if nobody can say.

    An attempt that goes on with an unfinished upgrade, or supersedes it, inherits that, unless the plant was nobody's
    since: handed back, or its lock gone.  What another master opened while no gateway commanded is to stay open.
    """

    def __init__(self, plant: Plant, view: WireView, gateways: frozenset[str]) -> None:
        self.connected: bool | None = None
        self.commanded = False
        """Whether this attempt, or one that it goes on with, has ordered anything."""
        self._plant = plant
        self._gateways = gateways
        self._at_start = self._now
        self._order: PcsCommandCode | None = None
        self._ordered_at = -inf
        self._other_at = -inf
        view.on_command.append(self._on_command)
        plant.circuit.on_contactor.append(self._on_contactor)

    @property
    def is_connected(self) -> bool:
        """Now, every contactor of it."""
        return self._now is True

    @property
    def _now(self) -> bool | None:
        """None if it is partly connected."""
        circuit = self._plant.circuit
        closed = {circuit.pcs_contactor.closed}
        for rack in circuit.racks:
            closed |= {rack.main_plus.closed, rack.main_minus.closed}
        return closed.pop() if len(closed) == 1 else None

    def attempt_begins(self, *, unfinished: bool) -> None:
        """A gateway starts; `unfinished` says whether an upgrade stands unfinished in its journal."""
        self._at_start = self._now
        if not unfinished or self._order is PcsCommandCode.RELEASE:
            self.commanded = False
        elif self.commanded and self._lock_is_gone:
            self.connected = None

    @property
    def _lock_is_gone(self) -> bool:
        locked = Part.PCS not in self._plant.spec.parts or self._plant.pcs.locked
        return self._order is PcsCommandCode.LOCK and not locked

    def _on_command(self, command: EmsPcsCommand, at: float, sender: str, _counter: int) -> None:
        if sender not in self._gateways:
            self._other_at = at
            return
        if not self.commanded:  # what changes between the check and the first order nobody can be asked for
            self.connected = self._at_start if self._at_start is self._now else None
            self.commanded = True
        self._order = command.command
        self._ordered_at = at

    def _on_contactor(self, contactor: Contactor, at: float, _carried_a: float) -> None:
        if contactor.closed or at - self._ordered_at <= _FRESH_S or at - self._other_at > _FRESH_S:
            return
        if contactor is self._plant.circuit.pcs_contactor:
            self.connected = False
