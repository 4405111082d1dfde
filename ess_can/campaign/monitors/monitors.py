"""All monitors of one plant."""

from __future__ import annotations

from collections.abc import Callable

from ess_can.campaign.monitors.evidence import WireEvidence
from ess_can.campaign.monitors.found import FoundMonitor
from ess_can.campaign.monitors.high_voltage import HighVoltageMonitor
from ess_can.campaign.monitors.invariants import Invariant, Ledger, Violation
from ess_can.campaign.monitors.memory import MemoryMonitor, Verified
from ess_can.campaign.monitors.outcome import OutcomeMonitor
from ess_can.campaign.monitors.permission import PermissionMonitor
from ess_can.campaign.monitors.records import RecordsMonitor, most_entries
from ess_can.campaign.monitors.sessions import SessionMonitor
from ess_can.campaign.monitors.times import TimesMonitor
from ess_can.campaign.monitors.truth import HvTruth
from ess_can.campaign.monitors.wire_view import WireView
from ess_can.gateway.config import Afterwards, TimeLimits
from ess_can.gateway.report import Report
from ess_can.identity import NodeAddress
from ess_can.journal.journal import Journal
from ess_can.sim.flash import FlashOperation
from ess_can.sim.plant import Plant

GATEWAYS = frozenset({"EMS"})

_TIMES = TimeLimits()


class Monitors:
    """Watches a plant from now on.  `gateways` is what gateways' controllers are called on its wire.

    `times` are their deadlines, and how often one of them may program a node.

    `operations` are the flash operations that began, with their nodes; `notes` what excused something.
    """

    def __init__(self, plant: Plant, *, gateways: frozenset[str] = GATEWAYS, times: TimeLimits = _TIMES) -> None:
        self.plant = plant
        attempts = times.program_attempts
        self.operations: list[tuple[NodeAddress, FlashOperation]] = []
        self._ledger = Ledger()
        clock = plant.wire.loop.time
        self._truth = HvTruth(plant, clock())
        view = WireView(plant.wire, plant.codec, plant.addresses)
        racks = tuple(rack.index for rack in plant.racks)
        evidence = self._evidence = WireEvidence(view, plant.codec, racks)
        verified = Verified(plant.verify)
        self._memories = [MemoryMonitor(node, verified, self._ledger, clock) for node in plant.nodes.values()]
        PermissionMonitor(plant.wire, view, evidence, self._truth, self._memories, self._ledger, gateways)
        self._high_voltage = HighVoltageMonitor(plant, view, self._memories, self._ledger)
        SessionMonitor(view, plant.nodes, self._ledger, gateways, attempts, clock())
        self._times = TimesMonitor(plant, view, self._ledger, gateways, times)
        self._records = RecordsMonitor(view, self._ledger, gateways, clock, most_entries(len(plant.nodes), attempts))
        self._found = FoundMonitor(plant, view, gateways)
        self._outcome = OutcomeMonitor(plant, view, self._memories, self._records, self._found, self._ledger)
        for address, node in plant.nodes.items():
            node.flash.on_start.append(self._operation_observer(address))

    def _operation_observer(self, address: NodeAddress) -> Callable[[FlashOperation], None]:
        def on_start(operation: FlashOperation) -> None:
            self.operations.append((address, operation))
            self._high_voltage.change_begins(f"{address}: {operation.action.name}")

        return on_start

    @property
    def violations(self) -> list[Violation]:
        """What was seen so far, in order."""
        return self._ledger.violations

    @property
    def broken(self) -> frozenset[Invariant]:
        """The invariants that were violated so far."""
        return frozenset(violation.invariant for violation in self.violations)

    @property
    def notes(self) -> list[str]:
        """Facts that excused what would else have been violations."""
        return self._ledger.notes

    @property
    def hv_is_on(self) -> bool:
        """By the circuit itself: the link is charged, or a string is connected to it."""
        return self._truth.is_on

    @property
    def closings(self) -> int:
        """How often a rack was connected to the link."""
        return self._high_voltage.closings

    @property
    def trace_hash(self) -> str:
        """The hash of everything that was on the wire: the same for every run of a seed."""
        return self.plant.trace.hexdigest()

    def attach_journal(
        self, journal: Journal, *, another: bool = False, works: Callable[[], bool] | None = None
    ) -> None:
        """Compare with this journal from now on; again with what the next process finds of it, or with `another`.

        Call it as that process starts: it has heard nobody yet.  `works` says whether it lives, and is let do anything.
        """
        self._records.attach(journal, another=another)
        self._evidence.gateway_started(self.plant.wire.loop.time())
        self._times.gateway_started(works)
        self._found.attempt_begins(unfinished=journal.unfinished() is not None)

    def ended(self, report: Report, afterwards: Afterwards = Afterwards.AS_FOUND) -> None:
        """An upgrade has ended just now: what it says of itself must be true, and the plant be left as the site has it
        (`afterwards`)."""
        self._outcome.ended(report, afterwards)

    def finish(self) -> None:
        """What must hold at the end."""
        self._records.finish()
        for memory in self._memories:
            memory.finish(self.plant.wire.loop.time())
