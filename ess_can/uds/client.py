"""The client's session core (ISO 14229-1, timing of ISO 14229-2): one outstanding request to one node.  Sans-IO.

An answer counts only if it fits the outstanding request: service, sub-function, and what the service echoes (data or
routine identifier, block counter; 22 asks for one identifier at a time).  Anything else, above all a late answer to an
earlier request, is counted and ignored (U14).  Negative answers carry no echo; they fit by service.

The echo cannot tell the answers to a request and to its repetition apart.  Where the earlier one would mislead, which
is a challenge (27 11) that the repetition voids, the answer is waited for longer than P2 (`Exchange.late_s`), and a key
that is refused after all costs one more challenge (`ess_can.gateway.authentication`).  Elsewhere the earlier answer
says the same as the later one, because requests are served in their order and the repetition changes nothing:
10 enters the same session again, before anything that follows; 22 reads again; 31 announces, verifies, activates,
confirms or gives up the same once more, and a node that is still at it says so (21); 34 has one answer for a node; 36
echoes its counter; 37 is answered alike.  11 is never repeated, its answer decides nothing (the boot counter does), and
3E asks for no answer.  What is late by more than an operation is caught by the node: it verifies, or refuses, by its
own state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from udsoncan.Request import Request
from udsoncan.Response import Response

from ess_can.errors import AccessDenied, UdsError, UdsNegativeResponse, UdsProtocolError, UdsTimeout, UsageError
from ess_can.uds.exchange import SessionTimes
from ess_can.uds.messages import parse_positive_response
from ess_can.uds.rules import NEGATIVE_RESPONSE, Session, Sid
from ess_can.uds.target import Nrc

KEEP_ALIVE: Final = bytes((Sid.TESTER_PRESENT, 0x80))
"""TesterPresent with its positive answer suppressed."""

_ACCESS_REFUSALS = frozenset(
    {
        Nrc.SECURITY_ACCESS_DENIED,
        Nrc.INVALID_KEY,
        Nrc.EXCEEDED_NUMBER_OF_ATTEMPTS,
        Nrc.REQUIRED_TIME_DELAY_NOT_EXPIRED,
    }
)
# Bytes after the service identifier that a positive answer repeats.
_ECHO_LENGTH: Mapping[int, int] = {
    Sid.DIAGNOSTIC_SESSION_CONTROL: 1,
    Sid.ECU_RESET: 1,
    Sid.READ_DATA_BY_IDENTIFIER: 2,
    Sid.SECURITY_ACCESS: 1,
    Sid.ROUTINE_CONTROL: 3,
    Sid.TRANSFER_DATA: 1,
    Sid.TESTER_PRESENT: 1,
}


@dataclass(frozen=True, slots=True)
class ClientTiming:
    """Seconds.  `margin` is added to the server's P2 and P2* for the way there and back.

    The times that a server announces for a session (10) are adopted between the values here and `longest_p2_star`.
    A request pends for `pending_limit` in all and `pending_count` answers 78 at most (U1).
    """

    p2: float = 0.050
    p2_star: float = 5.0
    margin: float = 0.100
    longest_p2_star: float = 20.0
    pending_limit: float = 60.0
    pending_count: int = 100
    s3: float = 2.0


@dataclass(frozen=True, slots=True)
class Answered:
    """The positive answer to the outstanding request."""

    response: Response


@dataclass(frozen=True, slots=True)
class Pending:
    """The node answered 78 for the `count`-th time and goes on working."""

    count: int


class Again(Enum):
    """Whether sending a failed request again makes sense."""

    NO = "the node has judged it, or never finishes"
    LOST = "the request or its answer was lost: again, if doing it twice is harmless"
    BUSY = "the node asks to repeat it later (21)"


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended without a positive answer."""

    error: UdsError
    again: Again = Again.NO


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """`payload` is to be sent now so that the node keeps its session; no answer will come."""

    payload: bytes


Event = Answered | Pending | Failed | KeepAlive


@dataclass(slots=True)
class _Outstanding:
    payload: bytes
    began_at: float
    late_s: float
    deadline: float | None = None  # none before the request has left
    pending: int = 0


class UdsClientSession:
    """See the module.

    `request` gives the bytes to send; `sent` says that they have left, which starts P2; `receive` and `tick` (due at
    `next_deadline`) give at most one event.  Nothing raises on what the node sends.  `stale` counts answers that did
    not fit, `malformed` those that were no UDS answers at all.
    """

    def __init__(self, timing: ClientTiming | None = None) -> None:
        self._timing = timing or ClientTiming()
        self._p2 = self._timing.p2
        self._p2_star = self._timing.p2_star
        self._outstanding: _Outstanding | None = None
        self._keep_alive_at: float | None = None
        self.stale = 0
        self.malformed = 0

    @property
    def next_deadline(self) -> float | None:
        """When `tick` is to be called, in loop seconds; None if nothing is due."""
        return self._keep_alive_at if self._outstanding is None else self._outstanding.deadline

    def request(self, request: Request | bytes, now: float, late_s: float = 0.0) -> bytes:
        """Begin a request that expects an answer; gives its bytes.  Raises UsageError while another is outstanding.

        The answer may be late by `late_s` seconds beyond P2.
        """
        if self._outstanding is not None:
            raise UsageError("a UDS client has one request at a time", remedy="Wait for the answer, or abandon it.")
        payload = request if isinstance(request, bytes) else request.get_payload()
        self._outstanding = _Outstanding(payload, began_at=now, late_s=late_s)
        return payload

    def sent(self, now: float) -> None:
        """The request has left: P2 runs from here, unless an answer is here already."""
        outstanding = self._outstanding
        if outstanding is not None and outstanding.deadline is None:
            outstanding.began_at = now
            outstanding.deadline = now + self._p2 + self._timing.margin + outstanding.late_s

    def abandon(self, now: float) -> None:
        """Nobody waits for the answer any more; if it comes, it will not fit the next request."""
        if self._outstanding is not None:
            self._outstanding = None
            self._activity(now)

    def adopt(self, session: Session, times: SessionTimes, now: float) -> None:
        """The node entered a session: use its times, and keep every session alive but the default one."""
        longest = self._timing.longest_p2_star
        self._p2 = max(self._timing.p2, min(times.p2, longest))
        self._p2_star = max(self._timing.p2_star, min(times.p2_star, longest))
        self._keep_alive_at = None if session is Session.DEFAULT else now + self._timing.s3

    def end_session(self) -> None:
        """The node has left its session, or is to: no keep-alive, and the ordinary times."""
        self._keep_alive_at = None
        self._p2, self._p2_star = self._timing.p2, self._timing.p2_star

    def receive(self, payload: bytes, now: float) -> Event | None:
        """Judge a message from the node; None if it is not for the outstanding request."""
        outstanding = self._outstanding
        if not payload:
            self.malformed += 1
            return None
        if outstanding is None:
            self.stale += 1
            return None
        sid = outstanding.payload[0]
        if payload[0] == NEGATIVE_RESPONSE:
            return self._receive_negative(outstanding, payload, now)
        if payload[0] != sid | 0x40:
            self.stale += 1
            return None
        response = parse_positive_response(payload)
        length = _ECHO_LENGTH.get(sid, 0)
        if not response.valid or len(payload) < 1 + length:
            self.malformed += 1
            return self._fail(UdsProtocolError(f"the node's answer to {sid:02X} is too short", why=payload.hex()), now)
        if payload[1 : 1 + length] != outstanding.payload[1 : 1 + length]:
            self.stale += 1
            return None
        self._outstanding = None
        self._activity(now)
        return Answered(response)

    def tick(self, now: float) -> Event | None:
        """What is due: the end of waiting, or a keep-alive."""
        outstanding = self._outstanding
        if outstanding is not None:
            if outstanding.deadline is None or now < outstanding.deadline:
                return None
            limit = "P2*" if outstanding.pending else "P2"
            waited = f"{limit} is over after {now - outstanding.began_at:.3f} s and {outstanding.pending} times 78"
            capped = now >= outstanding.began_at + self._timing.pending_limit
            error = UdsTimeout(f"no answer to {outstanding.payload[0]:02X}", why=waited)
            return self._fail(error, now, Again.NO if capped else Again.LOST)
        if self._keep_alive_at is not None and now >= self._keep_alive_at:
            self._activity(now)
            return KeepAlive(KEEP_ALIVE)
        return None

    def _receive_negative(self, outstanding: _Outstanding, payload: bytes, now: float) -> Event | None:
        sid = outstanding.payload[0]
        if len(payload) != 3:
            self.malformed += 1
            return None
        if payload[1] != sid:
            self.stale += 1
            return None
        nrc = payload[2]
        if nrc != Nrc.RESPONSE_PENDING:
            return self._fail(refusal(sid, nrc), now, Again.BUSY if nrc == Nrc.BUSY_REPEAT_REQUEST else Again.NO)
        outstanding.pending += 1
        limit = outstanding.began_at + self._timing.pending_limit
        if outstanding.pending > self._timing.pending_count or now >= limit:
            waited = f"{outstanding.pending} times 78 in {now - outstanding.began_at:.3f} s"
            return self._fail(UdsTimeout(f"the node never finished {sid:02X}", why=waited), now)
        outstanding.deadline = min(now + self._p2_star + self._timing.margin, limit)
        return Pending(outstanding.pending)

    def _fail(self, error: UdsError, now: float, again: Again = Again.NO) -> Failed:
        self._outstanding = None
        self._activity(now)
        return Failed(error, again)

    def _activity(self, now: float) -> None:
        if self._keep_alive_at is not None:
            self._keep_alive_at = now + self._timing.s3


def refusal(service: int, nrc: int) -> UdsError:
    """The error for a negative response: AccessDenied for 33, 35, 36 and 37, else UdsNegativeResponse."""
    name = Response.Code.get_name(nrc)
    if nrc in _ACCESS_REFUSALS:
        return AccessDenied(f"the node refuses access for service {service:02X}", why=f"NRC {nrc:02X} {name}", nrc=nrc)
    return UdsNegativeResponse(
        f"the node refuses service {service:02X}", why=f"NRC {nrc:02X} {name}", service=service, nrc=nrc
    )
