"""Who talks to the plant, and how much: invariants 18, 19 and 24."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf

from ess_can.campaign.monitors.invariants import Invariant, Ledger
from ess_can.campaign.monitors.wire_view import Answer, Request, WireView
from ess_can.identity import NodeAddress
from ess_can.signals.messages import EmsPcsCommand
from ess_can.sim.flash import FlashOperation
from ess_can.sim.flash_cells import FlashAction
from ess_can.sim.node import SimulatedNode
from ess_can.uds.exchange import MAX_BLOCK_DATA
from ess_can.uds.rules import NEGATIVE_RESPONSE, RESPONSE_FLAG, Sid
from ess_can.uds.target import Nrc, Rid

S3_S = 5.0
NOTICED_S = 0.5
"""In how much time a gateway notices another that commands its plant."""
_LONGEST_REQUEST = MAX_BLOCK_DATA + 2
"""Bytes of the longest TransferData: what a request takes of anybody's memory."""
_FRAMES_PER_BYTE = 1 / 4
"""A frame of ISO-TP carries six or seven bytes; some are sent twice."""
_FRAMES_MORE = 400
_BUSY_TIMES = 20
"""How often an announcement is repeated that a node which is still at work asks to repeat."""
_LAST_COUNTER = 255


def is_deed(request: Request) -> bool:
    """Whether a request changes its node."""
    return request.writes or request.service == Sid.ECU_RESET or request.routine == Rid.REVERT_IMAGE


@dataclass(slots=True)
class _Work:
    """What one run of a gateway did to one node."""

    frames: int = 0
    announced: int = 0
    busy: int = 0
    downloads: int = 0
    erased: Counter[int] = field(default_factory=Counter)


class SessionMonitor:
    """A run of a gateway begins with the first order whose E2E counter does not go on from the last one.

    `run_began_at` is when that was; `reads` is when each node last answered a ReadDataByIdentifier.  `attempts` is how
    often a gateway programs a node before it gives up; what does not verify may be sent twice each time.
    """

    def __init__(
        self,
        view: WireView,
        nodes: Mapping[NodeAddress, SimulatedNode],
        ledger: Ledger,
        gateways: frozenset[str],
        attempts: int,
        began_at: float,
    ) -> None:
        self._began_at = began_at
        self.run_began_at = -inf
        self.reads: dict[NodeAddress, float] = {}
        self._nodes = nodes
        self._ledger = ledger
        self._gateways = gateways
        self._times = 2 * attempts
        self._counters: dict[str, int] = {}
        self._deed_at = -inf
        self._before_run = -inf
        self._heard_at: dict[str, float] = {}
        self._rival_since: dict[str, float] = {}
        self._owner: dict[NodeAddress, tuple[str, float]] = {}
        self._work: dict[NodeAddress, _Work] = {address: _Work() for address in nodes}
        view.on_command.append(self._on_command)
        view.on_request.append(self._on_request)
        view.on_answer.append(self._on_answer)
        view.on_writing.append(self._on_writing)
        for address, node in nodes.items():
            node.flash.on_start.append(self._flash_observer(address))

    # --- 18: read first -----------------------------------------------------------------------------

    def _on_command(self, _command: EmsPcsCommand, at: float, sender: str, counter: int) -> None:
        self._rival(sender, at)
        if sender not in self._gateways:
            return
        before = self._counters.get(sender)
        self._counters[sender] = counter
        if before is None and counter:  # it was at work before we came, and what it has read then nobody can say
            self.reads = dict.fromkeys(self._nodes, at)
        if counter == 0 and before not in (0, _LAST_COUNTER):
            self._begin_run(at)
            self._judge_rivals(at, sender)
        self._deed_at = at

    def _begin_run(self, at: float) -> None:
        self.run_began_at = at
        self._before_run = self._deed_at
        self._work = {address: _Work() for address in self._nodes}
        if not any(read_at > self._before_run for read_at in self.reads.values()):
            self._ledger.broken(at, Invariant.READ_FIRST, "a gateway commands the plant and has read no node before")

    def _on_request(self, request: Request) -> None:
        if request.sender not in self._gateways or not is_deed(request):
            return
        known = request.sender in self._counters or request.at - self._began_at > NOTICED_S
        if known and self.reads.get(request.node, -inf) <= self._before_run:
            text = f"{request.head.hex()} to {request.node}, which was not read since the gateway started"
            self._ledger.broken(request.at, Invariant.READ_FIRST, text)
        self._judge_rivals(request.at, request.sender)
        self._deed_at = request.at
        if request.size > _LONGEST_REQUEST:
            self._ledger.broken(request.at, Invariant.BOUNDED, f"{request.node}: a request of {request.size} bytes")
        work = self._work[request.node]
        work.announced += request.routine == Rid.ERASE_MEMORY
        work.downloads += request.service == Sid.REQUEST_DOWNLOAD
        for what, count in (("announced", work.announced), ("download begun", work.downloads)):
            if count > self._times:
                self._ledger.broken(request.at, Invariant.BOUNDED, f"{request.node}: {what} {count} times in one run")

    # --- 19: one writer -------------------------------------------------------------------------------

    def _rival(self, sender: str, at: float) -> None:
        """Somebody else commands the plant."""
        heard_at = self._heard_at.get(sender, -inf)
        if at - heard_at > NOTICED_S:
            self._rival_since[sender] = at
        self._heard_at[sender] = at

    def _judge_rivals(self, at: float, sender: str) -> None:
        """Somebody else commands, and has done so for long enough to be noticed: our deeds are over."""
        for rival, since in self._rival_since.items():
            if rival != sender and at - self._heard_at[rival] <= NOTICED_S < at - since:
                self._ledger.broken(at, Invariant.ONE_WRITER, f"{sender} acts on a plant that {rival} commands")

    def _on_answer(self, answer: Answer) -> None:
        request = answer.request
        if request is not None and answer.data == bytes((NEGATIVE_RESPONSE, request.service, Nrc.BUSY_REPEAT_REQUEST)):
            self._asked_again(request)
        if request is None or answer.data[0] != request.service | RESPONSE_FLAG:
            return
        if request.service == Sid.READ_DATA_BY_IDENTIFIER:
            self.reads[answer.node] = answer.at
        elif request.writes:
            owner = self._owner.get(answer.node)
            self._owner[answer.node] = request.sender, answer.at
            if owner is not None and owner[0] != request.sender and answer.at - owner[1] < S3_S:
                text = f"{answer.node} obeys {request.sender} while {owner[0]} writes to it"
                self._ledger.broken(answer.at, Invariant.ONE_WRITER, text)

    # --- 24: bounded ----------------------------------------------------------------------------------

    def _asked_again(self, request: Request) -> None:
        """The node was busy and has done nothing: what is repeated then is counted apart."""
        work = self._work[request.node]
        if request.sender not in self._gateways or request.routine != Rid.ERASE_MEMORY:
            return
        work.announced -= 1
        work.busy += 1
        if work.busy > _BUSY_TIMES * self._times:
            text = f"{request.node}: asked {work.busy} times to repeat an announcement, and it was"
            self._ledger.broken(request.at, Invariant.BOUNDED, text)

    def _on_writing(self, node: NodeAddress, at: float, sender: str) -> None:
        if sender not in self._gateways:
            return
        work = self._work[node]
        work.frames += 1
        if work.frames & 0x3FF == 0 and work.frames > self._most_frames(node):
            self._ledger.broken(at, Invariant.BOUNDED, f"{node}: {work.frames} writing frames in one run")

    def _most_frames(self, node: NodeAddress) -> float:
        record = self._nodes[node].records.resume.load()
        size = 0 if record is None else record.image.size
        return self._times * (size * _FRAMES_PER_BYTE + _FRAMES_MORE)

    def _flash_observer(self, address: NodeAddress) -> Callable[[FlashOperation], None]:
        def on_start(operation: FlashOperation) -> None:
            if operation.action is not FlashAction.ERASE:
                return
            erased = self._work[address].erased
            erased[operation.offset] += 1
            if erased[operation.offset] > self._times:
                text = f"{address}: the sector at {operation.offset:#x} was erased {erased[operation.offset]} times"
                self._ledger.broken(operation.started, Invariant.BOUNDED, text)

        return on_start
