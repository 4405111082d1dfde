"""The part of the DC circuit that another process simulates, as its own frames show it.

Until it is first heard it is as it was built, and nothing flows.  Once heard, silence means that its controls have lost
power: their contactors have dropped out.
"""

from __future__ import annotations

from ess_can.bus.station import Received, StationLink
from ess_can.signals.messages import BmsHvStatus, BmsState, ContactorState, PcsStatus
from ess_can.sim.electrical import Contactor, StationCircuit

SILENT_S = 0.5
"""Ten cycles of the status frames: not a loss of single frames any more."""
_LINK_TOLERANCE_V = 2.0
"""How far the copy of the link voltage may be from the one that the racks measure."""


class PcsMirror:
    """The PCS's contactor, and the current of its bridge.  `heard` says whether it was ever heard."""

    def __init__(self, circuit: StationCircuit, link: StationLink) -> None:
        self.heard = False
        self._circuit = circuit
        self._heard_at: float | None = None
        link.subscribe(PcsStatus, self._on_status)

    def step(self, now: float) -> None:
        """Notice silence."""
        if self._heard_at is not None and now - self._heard_at > SILENT_S:
            self._heard_at = None
            self._circuit.bridge_request_a = 0.0
            self._circuit.place(self._circuit.pcs_contactor, False)

    def _on_status(self, received: Received[PcsStatus]) -> None:
        self.heard = True
        self._heard_at = received.at
        self._circuit.step(received.at)
        if received.message.dc_current_a is not None:
            self._circuit.bridge_request_a = received.message.dc_current_a
        _follow(self._circuit, self._circuit.pcs_contactor, received.message.contactors)


class RacksMirror:
    """The racks' contactors and states of charge.  `heard` says whether any rack was ever heard.

    The link's voltage follows from these; where the copy is far off, what the racks measure counts.
    """

    def __init__(self, circuit: StationCircuit, link: StationLink) -> None:
        self.heard = False
        self._circuit = circuit
        self._heard_at: dict[int, float] = {}
        link.subscribe(BmsHvStatus, self._on_status)
        link.subscribe(BmsState, self._on_state)

    def step(self, now: float) -> None:
        """Notice silence."""
        for number in [number for number, at in self._heard_at.items() if now - at > SILENT_S]:
            del self._heard_at[number]
            for contactor in self._circuit.racks[number - 1].contactors:
                self._circuit.place(contactor, False)

    def _on_status(self, received: Received[BmsHvStatus]) -> None:
        if not self._known(received.index):
            return
        self.heard = True
        self._heard_at[received.index] = received.at
        circuit, status = self._circuit, received.message
        circuit.step(received.at)
        feedbacks = (status.main_plus, status.main_minus, status.precharge)
        for contactor, feedback in zip(circuit.racks[received.index - 1].contactors, feedbacks, strict=True):
            _follow(circuit, contactor, feedback)
        link_v = status.link_voltage_v
        if link_v is not None and abs(circuit.link_voltage_v - link_v) > _LINK_TOLERANCE_V:
            circuit.link_voltage_v = link_v

    def _on_state(self, received: Received[BmsState]) -> None:
        if self._known(received.index) and received.message.soc_percent is not None:
            self._circuit.racks[received.index - 1].set_soc(received.message.soc_percent)

    def _known(self, number: int) -> bool:
        return number <= len(self._circuit.racks)


def _follow(circuit: StationCircuit, contactor: Contactor, feedback: ContactorState) -> None:
    """Moving or unknown: it stays where it was seen last."""
    if feedback in (ContactorState.OPEN, ContactorState.CLOSED):
        circuit.place(contactor, feedback is ContactorState.CLOSED)
