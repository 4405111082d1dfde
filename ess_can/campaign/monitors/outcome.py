"""What the end of an upgrade must mean: invariants 20 and 21."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from ess_can.campaign.monitors.found import FoundMonitor
from ess_can.campaign.monitors.invariants import Invariant, Ledger
from ess_can.campaign.monitors.memory import MemoryMonitor
from ess_can.campaign.monitors.records import RecordsMonitor
from ess_can.campaign.monitors.wire_view import Answer, WireView
from ess_can.can.frame import CanFrame
from ess_can.errors import EssCanError, HeldOpenByChoice
from ess_can.gateway.config import Afterwards
from ess_can.gateway.phases import FINAL, Phase
from ess_can.gateway.plant_view import Connection
from ess_can.gateway.report import NodeRecord, Report
from ess_can.identity import NodeAddress, Version
from ess_can.signals.e2e import check
from ess_can.signals.messages import BmsHvStatus, ImageState
from ess_can.sim.boot_records import BootRecord
from ess_can.sim.bootloader import decide
from ess_can.sim.pcs import PcsEvent
from ess_can.sim.plant import Part, Plant
from ess_can.uds.rules import RESPONSE_FLAG, Sid
from ess_can.uds.target import BootState, Did, Rid

HEARD_S = 0.5
_NO_ERROR = frozenset({Phase.DONE, Phase.NOTHING_TO_DO, Phase.CHECKED})
_INTERNAL = 1


_UNTOLD_S = 0.060
"""A cycle of PCS_Status, and the time of the frame."""


class OutcomeMonitor:
    """Compares what an upgrade says of itself with what was on the wire, and with the plant."""

    def __init__(
        self,
        plant: Plant,
        view: WireView,
        memories: Sequence[MemoryMonitor],
        records: RecordsMonitor,
        found: FoundMonitor,
        ledger: Ledger,
    ) -> None:
        self._plant = plant
        self._found = found
        self._memories = {memory.node.address: memory for memory in memories}
        self._records = records
        self._ledger = ledger
        self._verified: dict[NodeAddress, float] = {}
        self._proved: dict[NodeAddress, float] = {}
        self._confirmed: dict[NodeAddress, float] = {}
        self._said_at: dict[tuple[NodeAddress, Version, int], float] = {}
        self._valid_at: dict[int, float] = dict.fromkeys((rack.index for rack in plant.racks), -inf)
        self._judged: Report | None = None
        view.on_answer.append(self._on_answer)
        for memory in memories:
            memory.on_selection.append(self._selection_observer(memory.node.address))
        for rack in self._valid_at:
            self._listen(view, rack)
        self._pcs_restarted_at = -inf
        if Part.PCS in plant.spec.parts:
            plant.pcs.on_event.append(self._on_pcs_event)

    def _broken(self, invariant: Invariant, text: str) -> None:
        self._ledger.broken(self._plant.wire.loop.time(), invariant, text)

    # --- what was seen --------------------------------------------------------------------------------

    def _listen(self, view: WireView, rack: int) -> None:
        route = self._plant.codec.route(BmsHvStatus, rack)

        def on_frame(frame: CanFrame, at: float, _sender: str) -> None:
            if check(frame.data, route.e2e_data_id or 0):
                self._valid_at[rack] = at

        view.delivered.setdefault(route.can_id, []).append(on_frame)

    def _on_pcs_event(self, event: PcsEvent) -> None:
        if event is PcsEvent.RESTART:
            self._pcs_restarted_at = self._plant.wire.loop.time()

    def _selection_observer(self, address: NodeAddress) -> Callable[[float, BootRecord, BootRecord], None]:
        def on_selection(at: float, before: BootRecord, after: BootRecord) -> None:
            if (after.confirmed, after.active_bank) != (before.confirmed, before.active_bank):
                self._confirmed[address] = at
                self._proved[address] = self._verified.pop(address, inf)  # each confirmation takes one of its own

        return on_selection

    def _on_answer(self, answer: Answer) -> None:
        data = answer.data
        if data[:4] == bytes((Sid.ROUTINE_CONTROL | RESPONSE_FLAG, 1)) + Rid.VERIFY_MEMORY.to_bytes(2, "big"):
            self._verified[answer.node] = answer.at
        elif data[0] == Sid.READ_DATA_BY_IDENTIFIER | RESPONSE_FLAG:
            at = data.find(Did.BOOT_STATE.to_bytes(2, "big"))
            if at > 0:
                try:
                    state = BootState.unpack(data[at + 2 : at + 16])
                except ValueError:
                    return
                self._said_at[answer.node, state.version, state.standing] = answer.at

    # --- the end of an upgrade --------------------------------------------------------------------------

    def ended(self, report: Report, afterwards: Afterwards) -> None:
        """An upgrade has ended just now, at a site that is to be left so.  The same report is judged once."""
        if report is self._judged:
            return
        self._judged = report
        if report.result is Phase.DONE or isinstance(report.error, HeldOpenByChoice):
            self._judge_success(report, afterwards)
        self._judge_failure(report)
        if self._records.attached:
            self._judge_record(report)

    def _judge_success(self, report: Report, afterwards: Afterwards) -> None:
        for record in report.nodes:
            self._judge_node(record)
        now = self._plant.wire.loop.time()
        silent = [str(rack) for rack, at in self._valid_at.items() if now - at > HEARD_S]
        if silent:
            self._broken(Invariant.SUCCESS, f"success without valid high-voltage status of rack {', '.join(silent)}")
        if isinstance(report.error, HeldOpenByChoice):
            if report.exit_code != HeldOpenByChoice.exit_code or not self._is_held:
                self._broken(Invariant.SUCCESS, "said to be held open by choice, and it is not open and locked")
            if afterwards is not Afterwards.HOLD_OPEN:
                self._broken(Invariant.SUCCESS, f"held open by choice, and it was to be left {afterwards.value}")
            return
        recorded = 0 if report.journal_error is None else report.journal_error.exit_code
        if report.exit_code != recorded:  # done, and the exit code says that the record of it is not complete
            self._broken(Invariant.SUCCESS, f"success with exit code {report.exit_code}")
        is_connected = self._found.is_connected
        if (report.hv_after is Connection.CONNECTED) != is_connected:
            self._broken(Invariant.SUCCESS, f"high voltage is said to be {report.hv_after.value}, and is not")
        if not self._found.commanded:  # nothing had to be done
            return
        if afterwards is Afterwards.HOLD_OPEN:
            self._broken(Invariant.SUCCESS, "success, and the plant was to be held open")
            return
        wanted = True if afterwards is Afterwards.CONNECT else self._found.connected
        if wanted is not None and wanted is not is_connected:
            how = "not connected again" if wanted else "connected, and was found open"
            self._broken(Invariant.SUCCESS, f"success, but high voltage is {how}")

    def _judge_node(self, record: NodeRecord) -> None:
        memory, name = self._memories.get(record.address), str(record.address)
        if memory is None:
            return
        node = memory.node
        if not node.running:  # somebody restarts it just now: what it will boot counts
            decision = decide(node.records.boot.load(), memory.facts)
            runs = None if decision.facts is None else decision.facts.version
            confirmed = decision.standing is ImageState.CONFIRMED
        else:
            runs = node.memory.version
            confirmed = node.memory.standing is ImageState.CONFIRMED
        if runs != record.to_version or not confirmed:
            self._broken(Invariant.SUCCESS, f"success, but {name} runs {runs}, confirmed: {confirmed}")
        if record.from_version == record.to_version:
            return
        verified_at = self._proved.get(record.address, inf)
        confirmed_at = self._confirmed.get(record.address, inf)
        said_at = self._said_at.get((record.address, record.to_version, ImageState.CONFIRMED), -inf)
        if not verified_at <= confirmed_at < inf:
            self._broken(Invariant.SUCCESS, f"success, but {name} did not read its image back before it was confirmed")
        if said_at < confirmed_at:
            self._broken(Invariant.SUCCESS, f"success, but {name} was not asked for its version after the confirmation")

    @property
    def _is_held(self) -> bool:
        # A PCS that lost its lock in restarting could not say so yet.
        untold = self._plant.wire.loop.time() - self._pcs_restarted_at <= _UNTOLD_S
        locked = Part.PCS not in self._plant.spec.parts or self._plant.pcs.locked or untold
        return locked and not any(contactor.closed for contactor in self._plant.circuit.contactors)

    def _judge_failure(self, report: Report) -> None:
        error = report.error
        if report.result not in FINAL:
            self._broken(Invariant.TYPED_FAILURE, f"it ended in {report.result.name}, which is no end")
        if (error is None) != (report.result in _NO_ERROR):
            self._broken(Invariant.TYPED_FAILURE, f"{report.result.name} with the error {error}")
        if error is not None and (type(error) is EssCanError or error.exit_code <= _INTERNAL):
            self._broken(Invariant.TYPED_FAILURE, f"an error without a type of its own: {error}")
        if report.proved_safe and not self._is_safe:
            self._broken(Invariant.TYPED_FAILURE, "said to be proved open and locked, and it is not")

    @property
    def _is_safe(self) -> bool:
        tripped = Part.PCS in self._plant.spec.parts and self._plant.pcs.state.name in ("FAULT", "EMERGENCY_STOP")
        no_contactor = not any(contactor.closed for contactor in self._plant.circuit.contactors)
        return self._is_held or (tripped and no_contactor)

    def _judge_record(self, report: Report) -> None:
        if self._records.failed or not self._records.begun:
            return
        name = "" if report.error is None else report.error.name
        if report.resumable:
            result, entry = report.result.value, self._records.stopped
            said = "" if entry is None else entry.text
        else:
            result, entry = report.result.name.lower(), self._records.ended
            said = "" if entry is None else entry.facts
        if entry is None:
            self._broken(Invariant.TYPED_FAILURE, "the upgrade ended, and the journal does not say how")
        elif name not in said or result not in said:
            self._broken(Invariant.TYPED_FAILURE, f"the journal's last word is not {result} {name}".strip())
