"""The server's session core (ISO 14229-1, timing of ISO 14229-2): one tester, one node.  Sans-IO.

The host gives it every request that arrived whole (`receive`) and wakes it at `next_deadline` (`tick`); both give back
the messages to send, in order.  What the node does is behind `ProgrammingTarget`.  Which requests are in order is said
by the tables of `ess_can.uds.rules` and `ess_can.uds.transfer`.

Requests are taken as from one tester: a second one on the same identifiers meets NRC 21 or a wrong sequence.

Order of checks, after ISO 14229-1's general server response behaviour: service known (11), no operation running (21),
service in this session (7F), minimum length (13), sub-function (12, 7E), routine known (31) and in this session (7F),
security (33), length (13), sequence (24, 73), range (31, 71), high voltage off (22), and last the node's own verdict.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType

from udsoncan.common.MemoryLocation import MemoryLocation
from udsoncan.Request import Request

from ess_can.uds.access import AccessGuard
from ess_can.uds.answers import encode, negative, u32
from ess_can.uds.messages import parse_request
from ess_can.uds.rules import (
    ADDRESS_AND_LENGTH_FORMAT,
    DATA_FORMAT_PLAIN,
    HARD_RESET,
    KEY_LENGTH,
    LEAVE_SESSION,
    MAX_IDENTIFIERS_PER_READ,
    NEGATIVE_RESPONSE,
    REQUEST_SEED,
    RESPONSE_FLAG,
    ROUTINES,
    SEND_KEY,
    SERVICE_SESSIONS,
    SESSION_ENTRY,
    START_ROUTINE,
    ServerTiming,
    Session,
    Sid,
)
from ess_can.uds.target import Nrc, Operation, ProgrammingTarget, Rid
from ess_can.uds.transfer import NOT_TAKEN, DataTransfer, Step, TransferState


@dataclass(frozen=True, slots=True)
class _Work:
    """An operation of the node, and what its end means: the positive answer's data, or the refusal."""

    operation: Operation
    conclude: Callable[[Nrc | None, float], bytes | Nrc]


@dataclass(slots=True)
class _Running:
    work: _Work
    request: Request
    pending_at: float
    pending_sent: bool = False


_Outcome = bytes | Nrc | _Work


class UdsServerSession:
    """See the module.  Nothing here raises on what a tester sends.

    `ignored` counts messages that are no requests.  When `reset_pending` is set the host sends the answer, waits until
    it has left, and calls `perform_reset`; until then every request is ignored.
    """

    def __init__(self, target: ProgrammingTarget, guard: AccessGuard, timing: ServerTiming | None = None) -> None:
        self._target = target
        self._guard = guard
        self._timing = timing or ServerTiming()
        self._transfer = DataTransfer()
        self._session = Session.DEFAULT
        self._preconditions_checked = False
        self._running: _Running | None = None
        self._s3_at = 0.0
        self.reset_pending = False
        self.ignored = 0
        self._services: Mapping[int, Callable[[Request, float], _Outcome]] = MappingProxyType(
            {
                Sid.DIAGNOSTIC_SESSION_CONTROL: self._diagnostic_session_control,
                Sid.ECU_RESET: self._ecu_reset,
                Sid.READ_DATA_BY_IDENTIFIER: self._read_data_by_identifier,
                Sid.SECURITY_ACCESS: self._security_access,
                Sid.ROUTINE_CONTROL: self._routine_control,
                Sid.REQUEST_DOWNLOAD: self._request_download,
                Sid.TRANSFER_DATA: self._transfer_data,
                Sid.REQUEST_TRANSFER_EXIT: self._request_transfer_exit,
                Sid.TESTER_PRESENT: self._tester_present,
            }
        )

    # --- what the host calls --------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """The active diagnostic session."""
        return self._session

    @property
    def unlocked(self) -> bool:
        """Whether security access is granted."""
        return self._guard.unlocked

    @property
    def transfer_state(self) -> TransferState:
        """Where programming stands in this session."""
        return self._transfer.state

    @property
    def next_deadline(self) -> float | None:
        """When `tick` is to be called next, in loop seconds; None if nothing is due."""
        if self._running is not None:
            return min(self._running.work.operation.done_at, self._running.pending_at)
        return self._s3_at if self._session is not Session.DEFAULT and self._s3_at < inf else None

    def reception(self, now: float, *, under_way: bool) -> None:
        """A segmented request begins, or was lost before its end: S3 does not run meanwhile (ISO 14229-2)."""
        if self._running is None:
            self.tick(now)  # it may have run out before
        self._s3_at = inf if under_way else now + self._timing.s3

    def receive(self, payload: bytes, now: float) -> list[bytes]:
        """Serve one request; gives the messages to send."""
        messages = self.tick(now)
        if not payload or payload[0] & RESPONSE_FLAG or self.reset_pending:
            self.ignored += 1
            self._s3_at = min(self._s3_at, now + self._timing.s3)  # what was being received is no request
            return messages
        self._s3_at = now + self._timing.s3
        answer = self._serve(payload, now)
        return messages if answer is None else [*messages, answer]

    def tick(self, now: float) -> list[bytes]:
        """Do what is due: an operation's end, a 78, the end of the session; gives the messages to send."""
        running = self._running
        if running is None:
            if self._session is not Session.DEFAULT and now >= self._s3_at:
                self._enter(Session.DEFAULT, now)  # S3 ran out (U4)
            return []
        if now >= running.work.operation.done_at:
            self._running = None
            self._s3_at = now + self._timing.s3  # S3 does not run during an operation (F18)
            outcome = running.work.conclude(running.work.operation.finish(now), now)
            answer = encode(running.request, outcome, pending_sent=running.pending_sent)
            return [] if answer is None else [answer]
        if now >= running.pending_at:
            running.pending_at = now + self._timing.next_pending
            running.pending_sent = True
            return [negative(running.request, Nrc.RESPONSE_PENDING)]
        return []

    def perform_reset(self, now: float) -> None:
        """After the answer to 11 has left: forget everything volatile and restart the node."""
        if self.reset_pending:
            self.restart(now)
            self._target.reset(now)

    def restart(self, now: float) -> None:
        """The node restarts, for whatever reason: default session, locked, an armed access delay runs anew."""
        self._running = None
        self.reset_pending = False
        self._enter(Session.DEFAULT, now)
        self._guard.restart(now)

    # --- dispatch -------------------------------------------------------------------------------

    def _serve(self, payload: bytes, now: float) -> bytes | None:
        request = parse_request(payload)
        service = self._services.get(payload[0])
        if request.service is None or service is None:
            # udsoncan cannot encode the answer for a service that it does not know.
            return bytes((NEGATIVE_RESPONSE, payload[0], Nrc.SERVICE_NOT_SUPPORTED))
        sid = Sid(payload[0])
        if self._running is not None and sid is not Sid.TESTER_PRESENT and payload not in LEAVE_SESSION:
            return negative(request, Nrc.BUSY_REPEAT_REQUEST)
        if self._session not in SERVICE_SESSIONS[sid]:
            return negative(request, Nrc.SERVICE_NOT_SUPPORTED_IN_ACTIVE_SESSION)
        if request.service.use_subfunction() and request.subfunction is None:
            return negative(request, Nrc.INCORRECT_MESSAGE_LENGTH)
        outcome = service(request, now)
        if not isinstance(outcome, _Work):
            return encode(request, outcome)
        if now >= outcome.operation.done_at:
            return encode(request, outcome.conclude(outcome.operation.finish(now), now))
        self._running = _Running(outcome, request, pending_at=now + self._timing.first_pending)
        return None

    def _enter(self, session: Session, now: float) -> None:
        """Every entry locks the server and gives up the download, which can be resumed, and what is under way."""
        self._running = None
        if self._transfer.state is TransferState.RECEIVING:
            self._target.abort_download(now)
        self._transfer = DataTransfer()
        self._guard.lock()
        self._preconditions_checked = False
        self._session = session

    # --- services, each giving the data of the positive answer, a refusal, or work --------------

    def _diagnostic_session_control(self, request: Request, now: float) -> _Outcome:
        try:
            session = Session(request.subfunction or 0)
        except ValueError:
            return Nrc.SUB_FUNCTION_NOT_SUPPORTED
        if self._session not in SESSION_ENTRY[session]:
            return Nrc.SUB_FUNCTION_NOT_SUPPORTED_IN_ACTIVE_SESSION
        if request.data:
            return Nrc.INCORRECT_MESSAGE_LENGTH
        if session is Session.PROGRAMMING:
            checked = self._preconditions_checked or self._session is Session.PROGRAMMING
            if not checked or not self._target.programming_allowed(now):
                return Nrc.CONDITIONS_NOT_CORRECT
        self._enter(session, now)
        # P2 in units of 1 ms, P2* in units of 10 ms
        return struct.pack(">BHH", session, round(self._timing.p2 * 1000), round(self._timing.p2_star * 100))

    def _ecu_reset(self, request: Request, now: float) -> _Outcome:
        if request.subfunction != HARD_RESET:
            return Nrc.SUB_FUNCTION_NOT_SUPPORTED
        if request.data:
            return Nrc.INCORRECT_MESSAGE_LENGTH
        if not self._target.reset_allowed(now):
            return Nrc.CONDITIONS_NOT_CORRECT
        self.reset_pending = True
        return bytes((HARD_RESET,))

    def _read_data_by_identifier(self, request: Request, now: float) -> _Outcome:
        data = request.data or b""
        if not data or len(data) % 2 or len(data) > 2 * MAX_IDENTIFIERS_PER_READ:
            return Nrc.INCORRECT_MESSAGE_LENGTH
        record = b""
        for (did,) in struct.iter_unpack(">H", data):
            value = self._target.read_identifier(did, now)
            if value is not None:  # of several identifiers the unknown ones are left out
                record += struct.pack(">H", did) + value
        return record or Nrc.REQUEST_OUT_OF_RANGE

    def _security_access(self, request: Request, now: float) -> _Outcome:
        data = request.data or b""
        if request.subfunction == REQUEST_SEED:
            if data:
                return Nrc.INCORRECT_MESSAGE_LENGTH
            seed = self._guard.request_seed(now)
            return seed if isinstance(seed, Nrc) else bytes((REQUEST_SEED,)) + seed
        if request.subfunction == SEND_KEY:
            if len(data) != KEY_LENGTH:
                return Nrc.INCORRECT_MESSAGE_LENGTH
            return self._guard.send_key(data, now) or bytes((SEND_KEY,))
        return Nrc.SUB_FUNCTION_NOT_SUPPORTED

    def _tester_present(self, request: Request, _now: float) -> _Outcome:
        refusal = Nrc.SUB_FUNCTION_NOT_SUPPORTED if request.subfunction else Nrc.INCORRECT_MESSAGE_LENGTH
        return refusal if request.subfunction or request.data else bytes(1)

    # --- routines -------------------------------------------------------------------------------

    def _routine_control(self, request: Request, now: float) -> _Outcome:
        data = request.data or b""
        if len(data) < 2:
            return Nrc.INCORRECT_MESSAGE_LENGTH
        if request.subfunction != START_ROUTINE:
            return Nrc.SUB_FUNCTION_NOT_SUPPORTED
        try:
            rid = Rid(int.from_bytes(data[:2], "big"))
        except ValueError:
            return Nrc.REQUEST_OUT_OF_RANGE
        rule, option = ROUTINES[rid], data[2:]
        if self._session not in rule.sessions:
            return Nrc.SERVICE_NOT_SUPPORTED_IN_ACTIVE_SESSION
        if rule.unlocked and not self._guard.unlocked:
            return Nrc.SECURITY_ACCESS_DENIED
        if len(option) != rule.option_length:
            return Nrc.INCORRECT_MESSAGE_LENGTH
        if rule.step is not None and (refusal := self._transfer.refusal(rule.step)) is not None:
            return refusal
        if rule.high_voltage_off and not self._target.programming_allowed(now):
            return Nrc.CONDITIONS_NOT_CORRECT
        return self._start_routine(rid, option, now)

    def _start_routine(self, rid: Rid, option: bytes, now: float) -> _Outcome:
        echo = bytes((START_ROUTINE,)) + rid.to_bytes(2, "big")
        match rid:
            case Rid.CHECK_PROGRAMMING_PRECONDITIONS:
                self._preconditions_checked = True
                return echo
            case Rid.ERASE_MEMORY:
                size = int.from_bytes(option[:4], "big")
                return self._work(Step.ERASE, self._target.erase(size, option[4:], now), lambda: echo, now)
            case Rid.VERIFY_MEMORY:
                operation = self._target.verify(int.from_bytes(option, "big"), now)
                return self._work(Step.VERIFY, operation, lambda: echo + u32(self._target.read_back_crc32()), now)
            case Rid.ACTIVATE_ON_TRIAL:
                return self._target.activate_on_trial(now) or echo
            case Rid.CONFIRM_IMAGE:
                return self._target.confirm(now) or echo
            case Rid.REVERT_IMAGE:
                return self._target.revert(now) or echo

    # --- download -------------------------------------------------------------------------------

    def _request_download(self, request: Request, now: float) -> _Outcome:
        data = request.data or b""
        if not self._guard.unlocked:
            return Nrc.SECURITY_ACCESS_DENIED
        if len(data) < 2:
            return Nrc.INCORRECT_MESSAGE_LENGTH
        if data[0] != DATA_FORMAT_PLAIN or data[1] != ADDRESS_AND_LENGTH_FORMAT:
            return Nrc.REQUEST_OUT_OF_RANGE
        if len(data) != 10:
            return Nrc.INCORRECT_MESSAGE_LENGTH
        location = MemoryLocation.from_bytes(data[2:6], data[6:10])
        address, size = location.address, location.memorysize
        if not self._transfer.is_repeated_download(address, size):
            if (refusal := self._transfer.refusal(Step.DOWNLOAD)) is not None:
                return refusal
            if size == 0:
                return Nrc.REQUEST_OUT_OF_RANGE
            if not self._target.programming_allowed(now):
                return Nrc.CONDITIONS_NOT_CORRECT
            max_data = self._target.begin_download(address, size, now)
            if isinstance(max_data, Nrc):
                return max_data
            self._transfer.begin(address, size, max_data)
        # lengthFormatIdentifier, then maxNumberOfBlockLength, which counts service identifier and block counter
        return struct.pack(">BI", 0x40, self._transfer.max_data + 2)

    def _transfer_data(self, request: Request, now: float) -> _Outcome:
        data = request.data or b""
        if not self._guard.unlocked:
            return Nrc.SECURITY_ACCESS_DENIED
        if not data:
            return Nrc.INCORRECT_MESSAGE_LENGTH
        if (refusal := self._transfer.refusal(Step.BLOCK)) is not None:
            return refusal
        counter, block = data[0], data[1:]
        echo = bytes((counter,))
        if self._transfer.is_repeated_block(counter):
            return echo  # its answer was lost: answered again, not written again (U2)
        if (refusal := self._transfer.block_refusal(counter, len(block))) is not None:
            if refusal is Nrc.TRANSFER_DATA_SUSPENDED:
                self._suspend(Step.BLOCK, now)
            return refusal
        if not self._target.programming_allowed(now):
            return Nrc.CONDITIONS_NOT_CORRECT
        operation = self._target.write(block, now)
        if operation in NOT_TAKEN:
            return operation

        def accepted() -> bytes:
            self._transfer.accept_block(len(block))
            return echo

        return self._work(Step.BLOCK, operation, accepted, now)

    def _request_transfer_exit(self, request: Request, now: float) -> _Outcome:
        if not self._guard.unlocked:
            return Nrc.SECURITY_ACCESS_DENIED
        if request.data:
            return Nrc.INCORRECT_MESSAGE_LENGTH
        if (refusal := self._transfer.refusal(Step.EXIT)) is not None:
            return refusal
        if self._transfer.state is TransferState.EXITED:
            return b""
        if not self._transfer.complete:
            return Nrc.REQUEST_SEQUENCE_ERROR
        if not self._target.programming_allowed(now):
            return Nrc.CONDITIONS_NOT_CORRECT
        operation = self._target.end_download(now)
        if operation in NOT_TAKEN:
            return operation
        return self._work(Step.EXIT, operation, bytes, now)

    # --- the node's work ------------------------------------------------------------------------

    def _work(self, step: Step, operation: Operation | Nrc, done: Callable[[], bytes], now: float) -> _Outcome:
        """What the node makes of a step, with the step's effect on the order of steps."""

        def conclude(refusal: Nrc | None, at: float) -> bytes | Nrc:
            if refusal is not None:
                self._suspend(step, at)
                return refusal
            self._transfer.succeed(step)
            return done()

        return conclude(operation, now) if isinstance(operation, Nrc) else _Work(operation, conclude)

    def _suspend(self, step: Step, now: float) -> None:
        if self._transfer.state is TransferState.RECEIVING:
            self._target.abort_download(now)
        self._transfer.fail(step)
