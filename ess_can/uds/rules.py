"""The server's rules, as tables: which service and which routine in which session, and what each routine demands.

Service and session numbers are ISO 14229-1's.  Only tables live here; `ess_can.uds.server` enforces them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from ess_can.uds.target import Rid
from ess_can.uds.transfer import Step


class Session(IntEnum):
    """Diagnostic sessions (service 10)."""

    DEFAULT = 1
    PROGRAMMING = 2
    EXTENDED = 3


class Sid(IntEnum):
    """The services that our nodes serve."""

    DIAGNOSTIC_SESSION_CONTROL = 0x10
    ECU_RESET = 0x11
    READ_DATA_BY_IDENTIFIER = 0x22
    SECURITY_ACCESS = 0x27
    ROUTINE_CONTROL = 0x31
    REQUEST_DOWNLOAD = 0x34
    TRANSFER_DATA = 0x36
    REQUEST_TRANSFER_EXIT = 0x37
    TESTER_PRESENT = 0x3E


LEAVE_SESSION = (bytes((0x10, 0x01)), bytes((0x10, 0x81)))
"""Requests for the default session, with an answer and without: served at any time, they stop what is under way."""


NEGATIVE_RESPONSE = 0x7F
HARD_RESET = 0x01
START_ROUTINE = 0x01
REQUEST_SEED = 0x11
"""The level of service 27 that unlocks programming; sendKey is the next number."""
SEND_KEY = REQUEST_SEED + 1
KEY_LENGTH = 16
RESPONSE_FLAG = 0x40
"""Bit 6 of a service identifier marks a response."""
ADDRESS_AND_LENGTH_FORMAT = 0x44
"""Service 34: four bytes of address, four bytes of size."""
DATA_FORMAT_PLAIN = 0x00
"""Service 34: neither compressed nor encrypted."""
MAX_IDENTIFIERS_PER_READ = 16

_ALL = frozenset(Session)
_NOT_DEFAULT = frozenset({Session.EXTENDED, Session.PROGRAMMING})
_PROGRAMMING = frozenset({Session.PROGRAMMING})

SERVICE_SESSIONS: Mapping[Sid, frozenset[Session]] = MappingProxyType(
    {
        Sid.DIAGNOSTIC_SESSION_CONTROL: _ALL,
        Sid.ECU_RESET: _ALL,
        Sid.READ_DATA_BY_IDENTIFIER: _ALL,
        Sid.TESTER_PRESENT: _ALL,
        Sid.SECURITY_ACCESS: _NOT_DEFAULT,
        Sid.ROUTINE_CONTROL: _NOT_DEFAULT,
        Sid.REQUEST_DOWNLOAD: _PROGRAMMING,
        Sid.TRANSFER_DATA: _PROGRAMMING,
        Sid.REQUEST_TRANSFER_EXIT: _PROGRAMMING,
    }
)
"""Elsewhere a service is answered with 7F (serviceNotSupportedInActiveSession)."""

SESSION_ENTRY: Mapping[Session, frozenset[Session]] = MappingProxyType(
    {Session.DEFAULT: _ALL, Session.EXTENDED: _ALL, Session.PROGRAMMING: _NOT_DEFAULT}
)
"""From which sessions a session may be entered; elsewhere 7E.

Asking for the programming session inside it starts it anew (locked, no download), so that a request whose answer was
lost may be repeated.
"""


@dataclass(frozen=True, slots=True)
class RoutineRule:
    """What a routine demands: its sessions, its place in the order of steps (if it has one), the bytes of its option
    record, an unlocked server, high voltage off.
    """

    sessions: frozenset[Session]
    step: Step | None = None
    option_length: int = 0
    unlocked: bool = True
    high_voltage_off: bool = True


ROUTINES: Mapping[Rid, RoutineRule] = MappingProxyType(
    {
        Rid.CHECK_PROGRAMMING_PRECONDITIONS: RoutineRule(frozenset({Session.EXTENDED}), unlocked=False),
        Rid.ERASE_MEMORY: RoutineRule(_PROGRAMMING, Step.ERASE, option_length=36),
        Rid.VERIFY_MEMORY: RoutineRule(
            _PROGRAMMING, Step.VERIFY, option_length=4, high_voltage_off=False
        ),  # it only reads
        Rid.ACTIVATE_ON_TRIAL: RoutineRule(_PROGRAMMING, Step.ACTIVATE),
        Rid.CONFIRM_IMAGE: RoutineRule(_NOT_DEFAULT),
        # Back to the image that ran before is the safe direction: high voltage must not stand in its way.
        Rid.REVERT_IMAGE: RoutineRule(_NOT_DEFAULT, high_voltage_off=False),
    }
)


@dataclass(frozen=True, slots=True)
class ServerTiming:
    """Seconds.  The first 78 leaves after `first_pending`, further ones every `next_pending`, inside P2 and P2*."""

    p2: float = 0.050
    p2_star: float = 5.0
    first_pending: float = 0.040
    next_pending: float = 4.5
    s3: float = 5.0
