"""What udsoncan makes of a message, and what we make of it, are the same."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from udsoncan.Request import Request
from udsoncan.Response import Response

from ess_can.uds.messages import make_response, parse_positive_response, parse_request
from ess_can.uds.rules import Sid

SETTINGS = settings(max_examples=300, deadline=None, derandomize=True)
PAYLOADS = st.binary(min_size=1, max_size=5) | st.builds(
    lambda sid, flag, rest: bytes((sid | flag,)) + rest,
    st.sampled_from(Sid),
    st.sampled_from((0, 0x40)),
    st.binary(max_size=5),
)


@SETTINGS
@given(PAYLOADS)
def test_requests_are_udsoncans(payload: bytes) -> None:
    assert vars(parse_request(payload)) == vars(Request.from_payload(payload))


@SETTINGS
@given(PAYLOADS.filter(lambda payload: payload[0] != 0x7F))
def test_positive_responses_are_udsoncans(payload: bytes) -> None:
    ours, theirs = parse_positive_response(payload), Response.from_payload(payload)
    assert (ours.valid, ours.invalid_reason, ours.service) == (theirs.valid, theirs.invalid_reason, theirs.service)
    if theirs.valid:
        assert vars(ours) == vars(theirs)


@SETTINGS
@given(st.sampled_from(Sid), st.integers(0, 255), st.binary(max_size=8))
def test_what_a_server_says_is_udsoncans(sid: Sid, code: int, data: bytes) -> None:
    service = Request.from_payload(bytes((sid,))).service
    ours, theirs = make_response(service, code, data), Response(service, code, data)
    assert vars(ours) == vars(theirs)
    assert ours.get_payload() == theirs.get_payload()
