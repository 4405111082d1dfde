"""How an upgrade found high voltage, by the circuit itself: what its end is measured by."""

from __future__ import annotations

from math import inf

from ess_can.campaign.monitors.wire_view import WireView
from ess_can.signals.messages import EmsPcsCommand, PcsCommandCode
from ess_can.sim.electrical import Contactor
from ess_can.sim.plant import Part, Plant

_FRESH_S = 0.5


class FoundMonitor:
    """How the plant stood when the first attempt of an upgrade began.

    An attempt that goes on with an unfinished upgrade, or supersedes it, inherits that while the plant is locked, and
    was not handed back.  Without the lock a plant that is connected is to stay so; who opened one that is open nobody
    can say, and it may stay open.  What another master opened while no gateway commanded is to stay open.
    """

    def __init__(self, plant: Plant, view: WireView, gateways: frozenset[str]) -> None:
        self._connected: bool | None = None
        self._inherits = False
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
    def connected(self) -> bool | None:
        """What this attempt has to leave it as; None if nobody can say."""
        if self._inherits and not self._locked:
            return True if self.is_connected else None
        return self._connected

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
        self._inherits = self.commanded

    @property
    def _locked(self) -> bool:
        return Part.PCS not in self._plant.spec.parts or self._plant.pcs.locked

    def _on_command(self, command: EmsPcsCommand, at: float, sender: str, _counter: int) -> None:
        if sender not in self._gateways:
            self._other_at = at
            return
        if not self.commanded:  # what changes between the check and the first order nobody can be asked for
            self._connected = self._at_start if self._at_start is self._now else None
            self.commanded = True
        self._connected, self._inherits = self.connected, False
        self._order = command.command
        self._ordered_at = at

    def _on_contactor(self, contactor: Contactor, at: float, _carried_a: float) -> None:
        if contactor.closed or at - self._ordered_at <= _FRESH_S or at - self._other_at > _FRESH_S:
            return
        if contactor is self._plant.circuit.pcs_contactor:
            self._connected = False
