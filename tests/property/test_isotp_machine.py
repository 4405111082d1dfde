"""Two endpoints over a line that loses, doubles and swaps frames: nothing is ever delivered that was not sent.

Any number of losses and duplicates; swaps of neighbours, as CAN with retransmission can show.  ISO-TP's sequence number
has four bits: whoever loses exactly sixteen frames in a row and finds the missing bytes in another message defeats it,
which is why images are hashed.  Messages here are shorter than that.
"""

from __future__ import annotations

from collections import deque

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ess_can.can.frame import CanFrame
from ess_can.isotp import (
    Endpoint,
    Event,
    IsoTpParams,
    MessageReceived,
    MessageSent,
    MessageStarted,
    ReceiveFailed,
    SendFailed,
)
from tests.unit.isotp.line import NODE, TESTER

PARAMS = st.builds(
    IsoTpParams,
    tx_dl=st.sampled_from((8, 12, 64)),
    fd=st.just(True),
    padding=st.sampled_from((None, 0x00, 0xCC)),
    block_size=st.sampled_from((0, 1, 2, 5)),
    st_min=st.sampled_from((0, 1, 0xF3)),
    max_payload=st.just(400),
)
SIDES = st.sampled_from((0, 1))


class IsoTpMachine(RuleBasedStateMachine):
    @initialize(first=PARAMS, second=PARAMS)
    def connect(self, first: IsoTpParams, second: IsoTpParams) -> None:
        self.now = 0.0
        self.serial = 0
        self.ends = (Endpoint(TESTER, first), Endpoint(NODE, second))
        self.lines: tuple[deque[CanFrame], deque[CanFrame]] = (deque(), deque())
        self.sent: tuple[set[bytes], set[bytes]] = (set(), set())
        self.last: list[bytes] = [b"", b""]
        self.received: tuple[list[bytes], list[bytes]] = ([], [])
        self.open = [0, 0]

    def take(self, side: int, events: tuple[Event, ...]) -> None:
        """What an endpoint reports is consistent: each message started or sent ends once."""
        for event in events:
            match event:
                case MessageReceived(payload):
                    assert payload in self.sent[1 - side], "delivered what was never sent"
                    self.received[side].append(payload)
                case MessageSent() | SendFailed():
                    self.open[side] -= 1
                case MessageStarted(length):
                    assert length <= 400
                case ReceiveFailed(error):
                    assert error.why

    def message(self, side: int, length: int) -> bytes:
        self.serial += 1
        header = bytes((side, self.serial & 0xFF, self.serial >> 8 & 0xFF))
        return (header + bytes((self.serial * 31 + i * 7) & 0xFF for i in range(length)))[: max(3, length)]

    @rule(side=SIDES, length=st.integers(3, 100))
    def send(self, side: int, length: int) -> None:
        if not self.ends[side].sending:
            payload = self.message(side, length)
            self.sent[side].add(payload)
            self.last[side] = payload
            self.ends[side].send(payload, self.now)
            self.open[side] += 1

    @rule(side=SIDES)
    def abort(self, side: int) -> None:
        if self.ends[side].sending:
            self.ends[side].abort_send(self.now)
            self.open[side] -= 1

    @rule(side=SIDES, count=st.integers(1, 8))
    def put_on_the_line(self, side: int, count: int) -> None:
        for _ in range(count):
            frame = self.ends[side].next_frame(self.now)
            if frame is None:
                return
            self.lines[side].append(frame)
            self.take(side, self.ends[side].frame_sent(frame, self.now))

    @rule(side=SIDES)
    def swallow(self, side: int) -> None:
        """The bus takes a frame and never confirms it."""
        self.ends[side].next_frame(self.now)

    @rule(side=SIDES)
    def refuse(self, side: int) -> None:
        frame = self.ends[side].next_frame(self.now)
        if frame is not None:
            self.ends[side].frame_refused(frame)

    @rule(side=SIDES, count=st.integers(1, 8))
    def deliver(self, side: int, count: int) -> None:
        for _ in range(min(count, len(self.lines[side]))):
            self.take(1 - side, self.ends[1 - side].receive(self.lines[side].popleft(), self.now))

    @precondition(lambda self: any(self.lines))
    @rule(side=SIDES)
    def lose(self, side: int) -> None:
        if self.lines[side]:
            self.lines[side].popleft()

    @precondition(lambda self: any(self.lines))
    @rule(side=SIDES)
    def double(self, side: int) -> None:
        if self.lines[side]:
            self.lines[side].appendleft(self.lines[side][0])

    @precondition(lambda self: any(len(line) > 1 for line in self.lines))
    @rule(side=SIDES)
    def swap(self, side: int) -> None:
        line = self.lines[side]
        if len(line) > 1:
            line[0], line[1] = line[1], line[0]

    @rule(seconds=st.sampled_from((0.0001, 0.001, 0.3, 1.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for side in (0, 1):
            self.take(side, self.ends[side].tick(self.now))

    @invariant()
    def every_transmission_ends_exactly_once(self) -> None:
        assert [int(end.sending) for end in self.ends] == self.open

    @invariant()
    def whoever_waits_has_a_deadline(self) -> None:
        for end in self.ends:
            if end.sending or end.receiving:
                # a frame that may go out at once needs none; the machine may not have fetched it yet
                assert end.next_deadline is not None

    def teardown(self) -> None:
        """Once the faults stop, everything comes to rest, and then both directions work."""
        if not hasattr(self, "ends"):
            return
        self.settle()
        assert not any(end.sending or end.receiving for end in self.ends)
        for side in (0, 1):
            self.send(side, 100)
        wanted = tuple(self.last)
        self.settle()
        assert self.received[1][-1:] == [wanted[0]]
        assert self.received[0][-1:] == [wanted[1]]

    def settle(self) -> None:
        for _ in range(3000):
            for side in (0, 1):
                self.put_on_the_line(side, 8)
            if any(self.lines):
                for side in (0, 1):
                    self.deliver(side, 8)
            else:
                deadlines = [end.next_deadline for end in self.ends if end.next_deadline is not None]
                if not deadlines:
                    return
                self.wait(max(0.0, min(deadlines) - self.now) + 1e-9)
        raise AssertionError("no rest")


TestIsoTpMachine = IsoTpMachine.TestCase
TestIsoTpMachine.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
