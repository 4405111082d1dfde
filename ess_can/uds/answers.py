"""How a server's answers are encoded."""

from __future__ import annotations

from udsoncan.Request import Request
from udsoncan.Response import Response

from ess_can.uds.messages import make_response
from ess_can.uds.target import Nrc


def negative(request: Request, nrc: Nrc) -> bytes:
    """A negative response."""
    return make_response(request.service, nrc).get_payload()


def encode(request: Request, outcome: bytes | Nrc, *, pending_sent: bool = False) -> bytes | None:
    """The answer's bytes, or None for a positive one that is suppressed; after a 78 none is suppressed."""
    if isinstance(outcome, Nrc):
        return negative(request, outcome)
    if request.suppress_positive_response and not pending_sent:
        return None
    return make_response(request.service, Response.Code.PositiveResponse, outcome).get_payload()


def u32(value: int) -> bytes:
    """Four bytes, big-endian."""
    return value.to_bytes(4, "big")
