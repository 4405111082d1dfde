"""High voltage by the circuit itself, whatever anybody measures or says."""

from __future__ import annotations

from collections import deque

from ess_can.sim.electrical import Contactor
from ess_can.sim.plant import Plant

HV_ON_V = 60.0
_REMEMBERED = 8


class HvTruth:
    """High voltage is on while the link is charged or a string is connected to it.

    Looked at after every step of the physics and every movement of a contactor.
    """

    def __init__(self, plant: Plant, now: float) -> None:
        self._circuit = plant.circuit
        self.on_since: float | None = now if self.is_on else None
        self._spans: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        plant.on_step.append(self._look)
        plant.circuit.on_contactor.append(self._on_contactor)

    @property
    def is_on(self) -> bool:
        """Now."""
        circuit = self._circuit
        return circuit.link_voltage_v >= HV_ON_V or any(rack.conductance_s for rack in circuit.racks)

    def _look(self, now: float) -> None:
        if self.is_on:
            if self.on_since is None:
                self.on_since = now
        elif self.on_since is not None:
            self._spans.append((self.on_since, now))
            self.on_since = None

    def _on_contactor(self, _contactor: Contactor, at: float, _carried_a: float) -> None:
        self._look(at)

    def on_for_s(self, at: float) -> float:
        """For how long it had been on at `at`, which may be a little past; 0 if it was off."""
        if self.on_since is not None and self.on_since <= at:
            return at - self.on_since
        return max((at - since for since, until in self._spans if since <= at < until), default=0.0)
