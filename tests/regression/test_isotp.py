"""What went wrong in an ISO-TP stack (github.com/pylessard/python-can-isotp), and must not here."""

from __future__ import annotations

import pytest

from ess_can.errors import NTimeoutCr
from ess_can.isotp import Endpoint, IsoTpParams, MessageReceived
from tests.unit.isotp.line import NODE, Line, cf, drain, error_of, ff, payload_of

LENGTH = 100


def waiting(frames: int, block_size: int) -> Endpoint:
    """An endpoint that has received a first frame and `frames` consecutive ones, and has answered each block."""
    endpoint = Endpoint(NODE, IsoTpParams(block_size=block_size))
    endpoint.receive(ff(LENGTH), 0.0)
    drain(endpoint, 0.0)
    for number in range(1, frames + 1):
        endpoint.receive(cf(number), 0.0)
        drain(endpoint, 0.0)
    return endpoint


def require_timeout(endpoint: Endpoint) -> None:
    """It gives up by its own deadline, without another frame, and takes the next message."""
    assert endpoint.next_deadline == pytest.approx(1.0)
    assert endpoint.tick(0.999) == ()
    assert isinstance(error_of(endpoint.tick(1.0)), NTimeoutCr)
    assert not endpoint.receiving
    assert endpoint.next_deadline is None
    message = payload_of(13)
    endpoint.receive(ff(13, message[:6]), 2.0)
    drain(endpoint, 2.0)
    assert endpoint.receive(cf(1, message[6:]), 2.0) == (MessageReceived(message),)


@pytest.mark.parametrize("block_size", [0, 1, 8])
def test_python_can_isotp_41_no_time_out_for_the_first_consecutive_frame(block_size: int) -> None:
    """The time-out for consecutive frames was looked at only when a frame came: without a first one, never.

    Ours is a deadline of its own from the flow control on.
    """
    require_timeout(waiting(0, block_size))


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("block_size", [1, 2, 4])
def test_python_can_isotp_63_no_time_out_after_a_later_flow_control(block_size: int, blocks: int) -> None:
    """The same after each flow control that a block's end had asked for.  Ours runs from every one of them."""
    require_timeout(waiting(block_size * blocks, block_size))


@pytest.mark.parametrize("heard", range(4))
def test_python_can_isotp_41_63_a_sender_that_stops_is_reported_on_both_sides(heard: int) -> None:
    """Over a whole line: whatever consecutive frame is the first not to come, nobody waits for ever."""
    line = Line(IsoTpParams(block_size=1))
    passed = 0

    def only_some(frame: object) -> list[object]:
        nonlocal passed
        if getattr(frame, "data", b"")[0] >> 4 != 2:
            return [frame]
        passed += 1
        return [frame] if passed <= heard else []

    line.spoil = only_some  # type: ignore[assignment]
    line.tester.send(payload_of(LENGTH), line.now)
    line.run()
    assert line.errors(1) == [NTimeoutCr]
    assert not line.received(1)
    assert len(line.errors(0)) == 1
