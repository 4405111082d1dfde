"""The record of one upgrade."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from ess_can.errors import EssCanError
from ess_can.gateway.estimate import Estimate
from ess_can.gateway.phases import FINAL, TRANSITIONS, Phase
from ess_can.gateway.plant_view import Connection
from ess_can.identity import NodeAddress, Version


@dataclass(frozen=True, slots=True)
class PhaseRecord:
    """One phase with its start and end in seconds since the upgrade began."""

    phase: Phase
    start_s: float
    end_s: float


@dataclass(slots=True)
class NodeRecord:
    """What happened to one node.

    `runs` is what the node said that it runs at the end (without a build number); None if it was silent.
    `bytes_sent` is what the node accepted in all attempts, `transfers` when each of them began and ended, in loop time.
    `wire_efficiency` is that of the last attempt that completed, as `TransferMeter` defines it; None if none completed
    or the bit timing is unknown.
    """

    address: NodeAddress
    from_version: Version
    to_version: Version
    image_bytes: int
    runs: Version | None = None
    bytes_sent: int = 0
    transfers: list[tuple[float, float]] = field(default_factory=list)
    wire_efficiency: float | None = None

    @property
    def transfer_s(self) -> float:
        """The time of all attempts."""
        return sum(ended_at - began_at for began_at, ended_at in self.transfers)


@dataclass(slots=True)
class Report:
    """The whole upgrade.  All times are seconds since it began, on the loop that ran it.

    `proved_safe` says of a plant that is held open whether it was proved open and locked.  `expected` is what the check
    let expect of an upgrade in which nothing goes wrong; None without a known bit timing, or with nothing to do.
    `losses` is what was told before of what is not available meanwhile.
    `upgrade_id` names it in the journal; empty if nothing was begun there.  `journal_error` is why not all is on
    record.  `cause` is what ended the work; `error` also says what came of it.  `resumable` says that something is left
    to do, which another attempt goes on with.
    """

    phases: list[PhaseRecord] = field(default_factory=list)
    nodes: list[NodeRecord] = field(default_factory=list)
    result: Phase = Phase.STATUS_CHECK
    error: EssCanError | None = None
    hv_before: Connection = Connection.UNKNOWN
    hv_after: Connection = Connection.UNKNOWN
    proved_safe: bool = False
    hv_off_s: float = 0.0
    bus_time_s: float = 0.0
    dry_run: bool = False
    expected: Estimate | None = None
    losses: list[str] = field(default_factory=list)
    upgrade_id: str = ""
    journal_error: EssCanError | None = None
    cause: EssCanError | None = None
    resumable: bool = False

    @property
    def expected_duration_s(self) -> float | None:
        """What `bus_time_s` is expected to become: the check, which is over then, and the upgrade."""
        return None if self.expected is None else self.phases[0].end_s + self.expected.duration_s

    @property
    def transfer_s(self) -> float:
        """For how long at least one node was sent its image."""
        total, counted_to = 0.0, -inf
        for began_at, ended_at in sorted(span for node in self.nodes for span in node.transfers):
            total += max(0.0, ended_at - max(began_at, counted_to))
            counted_to = max(counted_to, ended_at)
        return total

    @property
    def exit_code(self) -> int:
        """Exit code of the command line: 0, or the error's, or the journal's if that alone failed."""
        error = self.error or self.journal_error
        return 0 if error is None else error.exit_code


class PhaseLog:
    """Walks the transition table and times each phase."""

    def __init__(self, report: Report, began_at: float) -> None:
        self._report = report
        self._began_at = began_at
        self._entered_at = began_at
        self.phase = Phase.STATUS_CHECK

    def enter(self, phase: Phase, now: float) -> None:
        """Leave the current phase for `phase`.  Raises ValueError for a transition that the table does not have."""
        if phase not in TRANSITIONS[self.phase]:
            raise ValueError(f"no transition from {self.phase.name} to {phase.name}")
        start, end = self._entered_at - self._began_at, now - self._began_at
        self._report.phases.append(PhaseRecord(self.phase, start, end))
        self.phase = phase
        self._entered_at = now
        if phase in FINAL:
            self._report.result = phase
            self._report.bus_time_s = end
