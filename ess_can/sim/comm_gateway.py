"""The comm gateway's application: it has no high voltage of its own, and proves it off by listening to the station."""

from __future__ import annotations

from ess_can.bus.station import Received, Rejected, StationLink
from ess_can.signals.messages import BmsHvStatus, PcsStatus
from ess_can.sim.hv_evidence import EvidenceSpec, PcsEvidence
from ess_can.sim.node import Behaviour


class CommGatewayApplication:
    """Listens to every rack and the PCS.  It lets itself be programmed only while all of them say that HV is off."""

    def __init__(self, racks: int, spec: EvidenceSpec | None = None) -> None:
        self._racks = range(1, racks + 1)
        self._spec = spec or EvidenceSpec()
        self._forget()

    def _forget(self) -> None:
        self._pcs = PcsEvidence(self._spec)
        self._hv_off_at: dict[int, float] = {}

    def start(self, link: StationLink, behaviour: Behaviour, now: float) -> None:
        """See `ess_can.sim.node.Application`."""
        link.subscribe(PcsStatus, self._on_pcs_status, self._on_rejected)
        link.subscribe(BmsHvStatus, self._on_rack_status, self._on_rejected)

    def stop(self, now: float) -> None:
        """See `Application`."""
        self._forget()

    def hang(self) -> None:
        """Nothing here acts by itself."""

    def hold(self, held: bool) -> None:
        """Nothing here closes contactors."""

    def programming_allowed(self, now: float) -> bool:
        """See `Application`."""
        fresh = all(
            now - self._hv_off_at.get(rack, float("-inf")) <= self._spec.pcs_status_age_s for rack in self._racks
        )
        return fresh and self._pcs.held_open(now)

    def reset_allowed(self, now: float) -> bool:
        """The comm gateway switches nothing: its restart is always harmless."""
        return True

    def _on_pcs_status(self, received: Received[PcsStatus]) -> None:
        self._pcs.receive(received.message, received.at)

    def _on_rack_status(self, received: Received[BmsHvStatus]) -> None:
        if received.message.hv_off:
            self._hv_off_at[received.index] = received.at
        else:
            self._hv_off_at.pop(received.index, None)

    def _on_rejected(self, rejected: Rejected) -> None:
        if rejected.message_type is PcsStatus:
            self._pcs.reject()
        else:
            self._hv_off_at.pop(rejected.index, None)
