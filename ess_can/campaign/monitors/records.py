"""The journal against the wire: invariants 16, 21 and 22, and of 24 how much it grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ess_can.campaign.monitors.invariants import Invariant, Ledger
from ess_can.campaign.monitors.wire_view import Request, WireView
from ess_can.errors import EssCanError
from ess_can.journal.entries import CHAIN_START, Deed, Entry, Kind
from ess_can.journal.journal import Journal
from ess_can.signals.messages import EmsPcsCommand, PcsCommandCode
from ess_can.uds.rules import Sid
from ess_can.uds.target import Rid

STOPPED = "stopped: "
"""How the note begins that says how an attempt ended that is to be gone on with."""
UNDER_WAY_S = 0.250
"""How long after a deed's result its frames may still be on the wire: it was cancelled, or the queue was full."""

ORDERS: Mapping[PcsCommandCode, frozenset[Deed]] = MappingProxyType(
    {
        PcsCommandCode.ZERO_POWER: frozenset({Deed.RAMP_DOWN, Deed.HOLD_OPEN}),
        PcsCommandCode.OPEN: frozenset({Deed.OPEN_CONTACTORS, Deed.HOLD_OPEN}),
        PcsCommandCode.LOCK: frozenset({Deed.LOCK, Deed.HOLD_OPEN}),
        PcsCommandCode.UNLOCK: frozenset({Deed.UNLOCK, Deed.HAND_BACK}),
        PcsCommandCode.CLOSE: frozenset({Deed.CLOSE}),
        PcsCommandCode.RELEASE: frozenset({Deed.HAND_BACK}),
    }
)
"""Which deed an order belongs to."""
_TO_CLOSE = (PcsCommandCode.UNLOCK, PcsCommandCode.CLOSE)
SERVICES: Mapping[int, frozenset[Deed]] = MappingProxyType(
    {
        Sid.REQUEST_DOWNLOAD: frozenset({Deed.TRANSFER}),
        Sid.TRANSFER_DATA: frozenset({Deed.TRANSFER}),
        Sid.REQUEST_TRANSFER_EXIT: frozenset({Deed.TRANSFER}),
        Sid.ECU_RESET: frozenset({Deed.RESTART, Deed.REVERT}),
    }
)
ROUTINES: Mapping[int, frozenset[Deed]] = MappingProxyType(
    {
        Rid.ERASE_MEMORY: frozenset({Deed.ANNOUNCE}),
        Rid.VERIFY_MEMORY: frozenset({Deed.VERIFY}),
        Rid.ACTIVATE_ON_TRIAL: frozenset({Deed.ACTIVATE}),
        Rid.CONFIRM_IMAGE: frozenset({Deed.CONFIRM}),
        Rid.REVERT_IMAGE: frozenset({Deed.REVERT}),
    }
)
_FORWARD = frozenset({Deed.ANNOUNCE, Deed.TRANSFER, Deed.VERIFY, Deed.ACTIVATE, Deed.CONFIRM})
"""What is never done without a journal; all else may be needed to leave the plant safe."""
_LAST_COUNTER = 255
_ENTRIES = 100
"""Of a run of a gateway: phases, evidence, what is ordered of PCS and racks, warnings of the bus."""
_ENTRIES_PER_ATTEMPT = 24
"""Of one attempt at one node: an intent and a result of each of its steps, evidence, notes."""
_ENTRY_BYTES = 512
"""On average: an entry is a sentence, the last one the report."""


def most_entries(nodes: int, attempts: int) -> int:
    """How many entries one run of a gateway may add to its journal."""
    return _ENTRIES + _ENTRIES_PER_ATTEMPT * nodes * attempts


class RecordsMonitor:
    """Watches the journals of a station's gateway, one after the other.  `attached` says whether there is one, `begun`
    whether an upgrade was begun or resumed in it, `ended` is the last upgrade's last entry, and `stopped` the note that
    stands in its place if it is to be gone on with.  One run may add `most_entries`."""

    def __init__(
        self,
        view: WireView,
        ledger: Ledger,
        gateways: frozenset[str],
        clock: Callable[[], float],
        most_entries: int,
    ) -> None:
        self.attached = False
        self.ended: Entry | None = None
        self.stopped: Entry | None = None
        self.failed = False
        self.begun = False
        self._ledger = ledger
        self._gateways = gateways
        self._clock = clock
        self._journal: Journal | None = None
        self._intents: dict[int, tuple[Entry, float]] = {}
        self._over: list[tuple[Entry, float]] = []
        self._head = CHAIN_START
        self._length = 0
        self._most_entries = most_entries
        self._added = self._added_bytes = 0
        self._order: PcsCommandCode | None = None
        self._counter: int | None = None
        view.on_command.append(self._on_command)
        view.on_request.append(self._on_request)

    def attach(self, journal: Journal, *, another: bool) -> None:
        """Listen to a journal from now on: the first, `another` one, or what the next process finds of the last."""
        self.attached = True
        self.failed = False
        self.ended = self.stopped = None
        self.begun = False
        self._journal = journal
        now = self._clock()
        # What the process before had handed to its controller may still leave.
        self._over += [(intent, now) for intent, _ in self._intents.values()]
        self._intents.clear()
        self._order = None
        try:
            with journal.reader() as reader:
                head, length = bytes.fromhex(reader.head()), reader.verify()
        except EssCanError as error:
            self.attached = False
            self._journal = None
            self._broken(Invariant.AUDIT_CHAIN, f"the journal is not what was written: {error}")
            return
        if length < self._length and not another:
            self._broken(Invariant.AUDIT_CHAIN, f"{self._length - length} entries of the journal are gone")
        self._head, self._length = head, length
        journal.on_entry.append(self._on_entry)
        journal.on_failure.append(self._on_failure)

    def _broken(self, invariant: Invariant, text: str) -> None:
        self._ledger.broken(self._clock(), invariant, text)

    # --- entries ------------------------------------------------------------------------------------

    def _on_entry(self, entry: Entry) -> None:
        if entry.seq != self._length + 1:
            self._broken(Invariant.AUDIT_CHAIN, f"entry {entry.seq} follows entry {self._length}")
        elif entry.chained(self._head) != entry.digest:
            self._broken(Invariant.AUDIT_CHAIN, f"entry {entry.seq} is not chained to the one before")
        self._head, self._length = entry.digest, entry.seq
        self._count(entry)
        now = self._clock()
        match entry.kind:
            case Kind.BEGAN | Kind.RESUMED:
                self.begun = True
                self.ended = self.stopped = None
            case Kind.INTENT:
                self._intents[entry.seq] = entry, now
            case Kind.RESULT:
                intent = None if entry.answers is None else self._intents.pop(entry.answers, None)
                if intent is not None:
                    self._over = [(over, at) for over, at in self._over if now - at <= UNDER_WAY_S]
                    self._over.append((intent[0], now))
            case Kind.ENDED:
                self.ended = entry
                if self._intents:
                    deeds = ", ".join(str(intent.deed) for intent, _ in self._intents.values())
                    self._broken(Invariant.RECORDED, f"the upgrade ended and these have no result: {deeds}")
            case Kind.NOTE if entry.text.startswith(STOPPED):
                self.stopped = entry
            case _:
                pass

    def _count(self, entry: Entry) -> None:
        if entry.kind in (Kind.BEGAN, Kind.RESUMED):
            self._added = self._added_bytes = 0
        self._added += 1
        self._added_bytes += len(entry.text) + len(entry.facts)
        if self._added > self._most_entries:
            self._broken(Invariant.BOUNDED, f"one run added {self._added} entries to the journal")
        if self._added_bytes > self._most_entries * _ENTRY_BYTES:
            self._broken(Invariant.BOUNDED, f"one run added {self._added_bytes} bytes to the journal")

    def _on_failure(self) -> None:
        self.failed = True
        self._ledger.note(self._clock(), "the journal is not written any more")

    # --- the wire -----------------------------------------------------------------------------------

    def _on_command(self, command: EmsPcsCommand, at: float, sender: str, counter: int) -> None:
        if sender not in self._gateways or not self.attached:
            return
        new_run = counter == 0 and self._counter not in (0, _LAST_COUNTER)
        self._counter = counter
        if command.command is self._order and not new_run:
            return
        deeds = ORDERS.get(command.command, frozenset())
        if command.command is PcsCommandCode.ZERO_POWER and self._order in _TO_CLOSE:
            deeds |= ORDERS[self._order]  # what was to close is withdrawn, which is how its own deed ends
        self._order = command.command
        self._require(deeds, "", f"the order {command.command.name}", at)

    def _on_request(self, request: Request) -> None:
        if request.sender not in self._gateways or not self.attached:
            return
        deeds = SERVICES.get(request.service) or ROUTINES.get(request.routine)
        if deeds is not None:
            self._require(deeds, str(request.node), f"{request.head[:4].hex()} to {request.node}", request.at)

    def _require(self, deeds: frozenset[Deed], node: str, what: str, at: float) -> None:
        if self.failed and not deeds <= _FORWARD:
            return
        under_way = [entry for entry, _ in self._intents.values()]
        under_way += [entry for entry, over_at in self._over if at - over_at <= UNDER_WAY_S]
        if not any(entry.deed in deeds and entry.node == node for entry in under_way):
            self._broken(Invariant.RECORDED, f"{what} is on the wire, and the journal has no intent of it")

    # --- the end ------------------------------------------------------------------------------------

    def finish(self) -> None:
        """The whole chain, as anybody would verify it."""
        if self._journal is None or self.failed:
            return
        try:
            with self._journal.reader() as reader:
                length = reader.verify(self._head.hex())
        except EssCanError as error:
            self._broken(Invariant.AUDIT_CHAIN, str(error))
            return
        if length != self._length:
            self._broken(Invariant.AUDIT_CHAIN, f"the journal has {length} entries, {self._length} were written")
